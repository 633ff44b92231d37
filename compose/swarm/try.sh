#!/bin/sh
# The whole exercise in one command: a swarm of three nodes on this machine, three servers behind two balancers, six clients that
# verify every echo. Meanwhile the servers are rolled, scaled out and scaled in. At the end it prints one verdict over all clients, and
# the books of all servers that ever ran. Then it takes everything down.
#
#     sh compose/swarm/try.sh              # through the balancers
#     sh compose/swarm/try.sh direct       # without them: the clients take the servers' addresses by turns
set -eu
cd "$(dirname "$0")/../.."

case ${1-} in
    '') export SERVER=haproxy:12345 BALANCERS=2 ;;
    direct) export SERVER=server:12345 BALANCERS=0 ;;
    *)
        echo "usage: try.sh [direct]" >&2
        exit 2
        ;;
esac

say() { echo "try: $*"; }
down() { docker compose -f compose/swarm/nodes.yaml down --volumes --timeout 0 >/dev/null 2>&1; }

# have IMAGE ARGUMENT…: builds the image if it is missing, and otherwise says how old it is.
have() {
    image=$1
    shift
    if created=$(docker image inspect --format '{{.Created}}' "$image" 2>/dev/null); then
        say "the image $image is of $created"
    else
        say "building $image"
        docker build --quiet --tag "$image" "$@" >/dev/null
    fi
}

manager() { docker exec echo-nodes-node-1 docker "$@"; }

# wait_until WHAT COMMAND…: asks again and again, for three minutes at most.
wait_until() {
    what=$1
    shift
    deadline=$(($(date +%s) + 180))
    until "$@"; do
        [ "$(date +%s)" -lt $deadline ] || { say "not so: $what" >&2; exit 1; }
        sleep 0.2
    done
    say "$what"
}

# runs SERVICE N: so many replicas run, and are healthy.
runs() { [ "$(manager service ls --filter name="echo_$1" --format '{{.Replicas}}')" = "$2/$2" ]; }
# `service update` returns before it is done.
rolled() { [ "$(manager service inspect --format '{{.UpdateStatus.State}}' "echo_$1")" = completed ]; }
logs() { docker exec echo-nodes-node-1 sh -c 'cat /logs/*'; }
# said TEXT N: so many lines of the logs have it.
said() { [ "$(logs | grep -c "$1")" = "$2" ]; }

trap down EXIT
trap 'exit 130' INT TERM

have echo-server -f Dockerfile.server .
have echo-client -f Dockerfile.client .
have echo-haproxy compose/haproxy
have echo-node -f compose/swarm/Dockerfile.node compose/swarm

down
sh compose/swarm/cluster.sh 3 echo-server echo-client echo-haproxy >/dev/null 2>&1
say "three nodes"
docker exec -e SERVER -e BALANCERS echo-nodes-node-1 docker stack deploy -c /checkout/compose/swarm/stack.yaml echo >/dev/null
wait_until "three servers" runs server 3
wait_until "$BALANCERS balancers" runs haproxy "$BALANCERS"
manager service scale --detach echo_client=6 >/dev/null
wait_until "six clients" runs client 6
manager service update --detach --force echo_server >/dev/null
wait_until "rolled: three new servers, one after the other" rolled server
manager service scale --detach echo_server=5 >/dev/null
wait_until "scaled out: five servers" runs server 5
manager service scale --detach echo_server=2 >/dev/null
wait_until "scaled in: two servers" runs server 2
wait_until "all six clients have reported" said '"schema":"echo-client/1"' 6
manager service scale --detach echo_server=0 >/dev/null
wait_until "all eight servers have stopped" said '"msg":"stopped"' 8

logs | docker run --rm --interactive echo-client merge --expect 6 -
