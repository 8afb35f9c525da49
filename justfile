# The commands of every day. `just` without a name lists them.

_default:
    @just --list

# What must pass before a change is merged
check:
    .ci/run

# The tests alone
test *args:
    cargo test --workspace --locked {{ args }}

# Format everything
fmt:
    cargo fmt --all

# Write THIRD-PARTY.md anew, after a change of dependencies
notices:
    python3 tools/third_party.py

# Build the binary that is shipped, the same bytes in any folder
release:
    tools/release.sh

# Make the golden files anew (needs the Python environment of tools/reference)
golden python="python3":
    cd tools/reference/golden && for script in ops rng models samplers tokens pipelines adapters pictures training; do {{ python }} $script.py; done

# Compare whole pictures with diffusers (needs the Python environment of tools/reference)
peer *args:
    cargo build --release --locked
    python3 tools/reference/peer_check.py {{ args }}

# Time calotype beside its peers, such as `just bench unet --cache DIR` (needs the Python environment of tools/reference)
bench *args:
    cargo build --release --locked
    python3 tools/reference/bench/bench.py {{ args }}
