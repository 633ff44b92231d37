#!/bin/sh
# Prints compose.yaml with its service `client` replaced by client1 … clientN, whose host names, and so whose ids, are the
# same. N is a whole number from 0 up.
#
#     sh compose/generate.sh 3 | docker compose -f - up --build
#     sh compose/generate.sh 3 > clients.yaml && docker compose -f clients.yaml up --build
#
# `docker compose -p echo down` takes either form of the system down.
#
# It is the text of compose.yaml itself, so the two cannot drift apart. Paths come out absolute, so it works from any
# directory and from a file anywhere, for this checkout.
set -eu

case ${1-} in
    '' | *[!0-9]*) n= ;;
    *) n=$1 ;;
esac
if [ $# -ne 1 ] || [ -z "$n" ]; then
    echo "usage: $0 N    (N clients, a whole number from 0 up)" >&2
    exit 2
fi

cd "$(dirname "$0")"
root=$(cd .. && pwd) awk -v n="$n" '
    # A YAML string, in which compose does not take a $ for a variable.
    function quoted(s) { gsub(/[\\"]/, "\\\\&", s); gsub(/\$/, "$$", s); return "\"" s "\"" }

    # Only the first builds the image that all share: several builds under one tag can collide.
    function print_clients(i) {
        for (i = 1; i <= n; i++) printf "  client%d:\n    hostname: client%d\n%s%s", i, i, i == 1 ? build : "", rest
    }

    # The header is about compose.yaml.
    !begun && /^#/ { next }
    { begun = 1 }

    match($0, /: \.\.(\/|$)/) { $0 = substr($0, 1, RSTART + 1) quoted(ENVIRON["root"] substr($0, RSTART + 4)) }

    # The block of the client ends where a line is indented no deeper than its own name.
    in_client && /^ ? ?[^ ]/ { in_client = 0; print_clients() }
    $0 == "  client:" { in_client = 1; next }
    in_client && /^    [^ ]/ { in_build = ($0 == "    build:") }
    in_client && in_build { build = build $0 "\n"; next }
    in_client { rest = rest $0 "\n"; next }
    { print }
' compose.yaml
