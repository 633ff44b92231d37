#!/bin/sh
# Is the running server an echo server? Sends it one message that was never sent before, from a container on its own network,
# so that the host needs no netcat and the server publishes no port, and compares the whole of what comes back: one byte more
# or fewer is a failure. Standard output is the verdict, one line; exit 0 or 1. Done within about ten seconds.
set -u
cd "$(dirname "$0")/.." || exit
image=echo-netcat

verdict() {
    echo "action: test_echo_server | result: $1"
    [ "$1" = success ]
    exit
}

docker image inspect "$image" >/dev/null 2>&1 || docker build -t "$image" - <Dockerfile.nc >&2 || verdict fail

# `cmp` and not `$(…)`, which would drop newlines at the end. -N: after the message nc closes its side, so the server ends too.
# shellcheck disable=SC2016
docker run --rm --network echo "$image" sh -c '
    printf "%s\n" "$1" >/tmp/message
    timeout 8 nc -N -w 3 server 12345 </tmp/message | cmp - /tmp/message >&2
' sh "netcat-check $(od -A n -N 16 -t x1 /dev/urandom | tr -d ' \n')" && verdict success
verdict fail
