#!/bin/sh
# N clients measure the server: one verdict, one exit code, a page. Starts the server if it does not run, then N clients with
# settings/client.toml, waits for all of them, and merges their reports. What stands behind N goes to `echo-client merge`:
#
#     sh compose/measure.sh 5 --fail-if "p99 > 5ms, outage > 1s"
#
# Standard output is the merged report; report.html, in the directory that it is called from, is the page. The exit code is that
# of a client over all of them: a client without a report, because it was killed, is exit code 1.
set -u

case ${1-} in
    '' | *[!0-9]*) n=0 ;;
    *) n=$1 ;;
esac
if [ "$n" -eq 0 ]; then
    echo "usage: $0 N [FLAG…]    (N clients, a whole number from 1 up; flags of echo-client merge)" >&2
    exit 2
fi
shift
page=$(pwd)/report.html
cd "$(dirname "$0")/.." || exit
compose="docker compose -f compose/compose.yaml"
logs=$(mktemp) || exit
trap 'rm -f "$logs"' EXIT

# In containers of their own, as the logs of old ones hold old reports. `up` goes with --detach, because without it the first
# client that ends can end it; `wait` waits for all, and its exit code is that of one of them.
$compose rm --stop --force client >&2 || exit
ECHO_REPORT=json $compose up --detach --scale client="$n" >&2 || exit
$compose wait client >&2
$compose logs --no-color --no-log-prefix client >"$logs" || exit

# The client's image merges, so that the host needs nothing.
merge() { docker run --rm --interactive --network none echo-client merge - --expect "$n" "$@" <"$logs"; }

# The page has a shape of its own, in place of the one that the flags may name.
html() {
    before=
    for flag do
        shift
        case $before$flag in
            --report) before='its value: ' ;;
            --report=* | 'its value: '*) before= ;;
            *) set -- "$@" "$flag" ;;
        esac
    done
    merge --report html "$@"
}

html "$@" >"$page" 2>/dev/null
merge "$@"
