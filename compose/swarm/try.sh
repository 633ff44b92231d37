#!/bin/sh
# The whole exercise in one command: a swarm of three nodes on this machine, three servers behind two balancers, six clients that
# verify every echo. Meanwhile the servers are rolled, scaled out and scaled in. At the end it prints one verdict over all clients, and
# the books of all servers that ever ran. Then it takes everything down.
#
#     sh compose/swarm/try.sh              # through the balancers
#     sh compose/swarm/try.sh direct       # without them: the clients take the servers' addresses by turns
set -eu
cd "$(dirname "$0")/../.."

# The clients send until they are told to stop.
export DURATION=0s
case ${1-} in
    '') export SERVER=haproxy:12345 BALANCERS=2 ;;
    direct) export SERVER=server:12345 BALANCERS=0 ;;
    *)
        echo "usage: try.sh [direct]" >&2
        exit 2
        ;;
esac

say() { echo "try: $*"; }
fail() {
    echo "try: $*" >&2
    exit 1
}
nodes() { docker compose -f compose/swarm/nodes.yaml "$@"; }

# quietly COMMAND…: what the command says is seen only if it fails.
quietly() {
    output=$("$@" 2>&1) || fail "$* failed: $output"
}

# have IMAGE ARGUMENT…: builds the image if it is missing, and otherwise says how old it is.
have() {
    image=$1
    shift
    if created=$(docker image inspect --format '{{.Created}}' "$image" 2>/dev/null); then
        say "the image $image is of $created"
    else
        say "building $image, which takes a while"
        quietly docker build --quiet --tag "$image" "$@"
    fi
}

manager() { docker exec echo-nodes-node-1 docker "$@"; }

# wait_until WHAT COMMAND…: asks again and again, for three minutes at most.
wait_until() {
    what=$1
    shift
    deadline=$(($(date +%s) + 180))
    until "$@"; do
        if [ "$(date +%s)" -ge $deadline ]; then
            manager service ps --no-trunc echo_server echo_haproxy echo_client >&2 || true
            fail "not so within three minutes: $what"
        fi
        sleep 0.2
    done
    say "$what"
}

# runs SERVICE N [OF]: so many replicas run, and are healthy, of so many that are wanted.
runs() { [ "$(manager service ls --filter name="echo_$1" --format '{{.Replicas}}')" = "$2/${3-$2}" ]; }
# not_started SERVICE: how many of its containers did not start because their engine could not give them their settings. That is rare:
# https://github.com/moby/moby/issues/48783.
not_started() {
    errors=$(manager service ps --no-trunc --format '{{.Error}}' "echo_$1") || return 1
    echo "$errors" | grep -c 'unable to remount' || true
}
# Swarm does not start a client again, so one that did not start is made up for by one more.
six_clients() {
    failed=$(not_started client) || return 1
    wanted=$((6 + failed))
    if [ "$wanted" != "${ordered-}" ]; then
        [ "$wanted" = 6 ] || say "an engine could not start a client; one more makes up for it"
        quietly manager service scale --detach "echo_client=$wanted"
        ordered=$wanted
    fi
    runs client 6 "$wanted"
}
roll() { quietly manager service update --detach --force echo_server; }
# `service update` returns before it is done. Swarm takes it back if a server does not start.
rolled() {
    case $(manager service inspect --format '{{with .UpdateStatus}}{{.State}}{{end}}' echo_server) in
        completed) return 0 ;;
        rollback_completed)
            failed=$(not_started server) || return 1
            [ "$failed" != 0 ] || fail "a new server failed, and Swarm has taken the roll back"
            say "an engine could not start a server; once more"
            roll
            ;;
    esac
    return 1
}
logs() { docker exec echo-nodes-node-1 sh -c 'cat /logs/*'; }
# said TEXT: how many lines of the logs have it.
said() { logs | grep -c "$1"; }
six_reports() { [ "$(said '"schema":"echo-client/1"')" = 6 ]; }
all_stopped() { [ "$(said '"msg":"stopped"')" = "$(said '"msg":"listening"')" ]; }

# A second signal does not cut this short.
down() {
    trap '' HUP INT TERM
    say "taking the nodes down"
    quietly nodes down --volumes --timeout 0
}

quietly docker compose version
[ -z "$(docker ps --quiet --all --filter label=com.docker.compose.project=echo-nodes)" ] ||
    fail "a cluster is there already: docker compose -f compose/swarm/nodes.yaml down --volumes"

have echo-server -f Dockerfile.server .
have echo-client -f Dockerfile.client .
have echo-haproxy compose/haproxy
have echo-node -f compose/swarm/Dockerfile.node compose/swarm

trap down EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
quietly sh compose/swarm/cluster.sh 3 echo-server echo-client echo-haproxy
say "three nodes"
quietly docker exec -e SERVER -e BALANCERS -e DURATION echo-nodes-node-1 \
    docker stack deploy -c /checkout/compose/swarm/stack.yaml echo
wait_until "three servers" runs server 3
wait_until "$BALANCERS balancers" runs haproxy "$BALANCERS"
wait_until "six clients" six_clients
roll
wait_until "rolled: three new servers, one after the other" rolled
quietly manager service scale --detach echo_server=5
wait_until "scaled out: five servers" runs server 5
quietly manager service scale --detach echo_server=2
wait_until "scaled in: two servers" runs server 2
quietly manager service scale --detach echo_client=0
wait_until "all six clients have reported" six_reports
quietly manager service scale --detach echo_server=0
wait_until "all servers have stopped" all_stopped

logs | docker run --rm --interactive echo-client merge --expect 6 -
