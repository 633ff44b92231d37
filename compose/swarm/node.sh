#!/bin/sh
# A node: its engine, and in /logs a file for each container that ever ran, which all nodes share. Swarm removes a task that it has
# scaled away, and the engine's own log goes with it.
dockerd --host=unix:///var/run/docker.sock --log-level=warn &
until docker info >/dev/null 2>&1; do sleep 0.1; done
docker events --filter type=container --filter event=start --format '{{.ID}}' | while read -r id; do
    docker logs --follow "$id" >"/logs/$id" 2>&1 &
done
