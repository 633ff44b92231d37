# Shorthands; nothing needs them. Each line of a recipe is a command that you can type.

# Lists the recipes
default:
    @just --list

# Formatting, lints, unit tests, and the tests of settings, rules and layers: after each edit
quick:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    cargo test --locked --quiet --lib --test layers --test rules --test settings

# All that can be told without running the programs: features, documentation, dependencies, the package
check:
    .ci/check

# Every order of events in small worlds
model:
    cargo test --locked --test model

# The containers and the walkthrough; needs a Docker engine
docker:
    .ci/base-images
    cargo test --locked --test containers --test swarm --test walkthrough

# All that a change must pass
all:
    .ci/run
