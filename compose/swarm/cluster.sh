#!/bin/sh
# A swarm for practice on one machine: cluster.sh N IMAGE… starts N nodes and puts the images on each of them. The first node is
# the manager, and has the checkout at /checkout and the logs of all nodes' containers in /logs:
#
#     sh compose/swarm/cluster.sh 3 echo-server echo-client echo-haproxy
#     docker exec echo-nodes-node-1 docker node ls
#     docker compose -f compose/swarm/nodes.yaml down --volumes
set -eu
cd "$(dirname "$0")"

case ${1-} in
    '' | *[!0-9]*)
        echo "usage: cluster.sh N IMAGE…" >&2
        exit 2
        ;;
esac
n=$1
shift

node() {
    i=$1
    shift
    docker exec -i "echo-nodes-node-$i" "$@"
}

docker compose -f nodes.yaml up --detach --wait --scale node="$n"
# Tasks that were replaced stay in the list, so that their ends can be looked up.
node 1 docker swarm init --advertise-addr eth0 --task-history-limit 50 >/dev/null
token=$(node 1 docker swarm join-token --quiet worker)
manager=$(node 1 docker info --format '{{.Swarm.NodeAddr}}:2377')
for i in $(seq "$n"); do
    [ "$i" = 1 ] || node "$i" docker swarm join --token "$token" "$manager"
    [ $# = 0 ] || docker save "$@" | node "$i" docker load --quiet
done
