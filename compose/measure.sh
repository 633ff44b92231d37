#!/bin/sh
# N clients measure the server: one verdict, one exit code, a page. Starts the server if it does not run, then N clients with
# settings/client.toml, waits for all of them, and merges their reports. What stands behind N goes to `echo-client merge`:
#
#     sh compose/measure.sh 5 --fail-if "p99 > 5ms, outage > 1s"
#
# Standard output is the merged report; report.html, in the directory that it is called from, is the page. Files of `--save` and
# `--baseline` are in this directory or below. The exit code is that of a client over all of them: a client without a report,
# because it was killed, is exit code 1.
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
here=$(pwd)

# The merge runs in a container, which sees no other directory.
seen() {
    case $1 in
        .. | ../* | */.. | */../*) ;;
        "$here"/*) return ;;
        /*) ;;
        *) return ;;
    esac
    echo "$0: $1 is not below the directory that this is called from" >&2
    exit 2
}
last=
for flag do
    case $last in --save | --baseline) seen "$flag" ;; esac
    case $flag in --save=* | --baseline=*) seen "${flag#*=}" ;; esac
    last=$flag
done

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

# What the merge saves belongs to the caller, who is root in the containers of a rootless Docker.
case $(docker info --format '{{.SecurityOptions}}') in
    *name=rootless*) user=0:0 ;;
    *) user=$(id -u):$(id -g) ;;
esac

# The client's image merges, so that the host needs nothing.
docker run --rm --interactive --network none --read-only --user "$user" \
    --mount "type=bind,source=$here,target=$here" --workdir "$here" \
    echo-client merge - --expect "$n" --save report.html "$@" <"$logs"
