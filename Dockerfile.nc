# What compose/netcat-check.sh runs: netcat, so that nothing need be installed on the host.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends netcat-openbsd \
    && rm -rf /var/lib/apt/lists/*
USER 65532:65532
