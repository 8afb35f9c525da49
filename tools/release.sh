#!/usr/bin/env bash
# Builds the binary that is shipped, target/dist/release/calotype: the same bytes in any folder and any home, with one version of Rust.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd -P) cargo_home=${CARGO_HOME:-$HOME/.cargo}

# The folder of crates is named by the mirror that they come from, so it is there before its name is asked for.
cargo fetch --locked --quiet

# Where a panic says that it is: calotype/crates/…, crates/NAME-VERSION/…, rust/….
flags=("--remap-path-prefix=$cargo_home=cargo" "--remap-path-prefix=$(rustc --print sysroot)=rust" "--remap-path-prefix=$root=calotype")
for crates in "$cargo_home"/registry/src/*; do
    flags+=("--remap-path-prefix=$crates=crates")
done
# These take the place of RUSTFLAGS and of the flags of any configuration. A space does not part them.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS CARGO_INCREMENTAL=0
cargo build --release --locked --package calotype --target-dir target/dist

binary=target/dist/release/calotype
for place in "$root" "$cargo_home" "$HOME"; do
    ! grep --text --quiet --fixed-strings "$place/" $binary || { echo "$binary says where it was built: $place"; exit 1; }
done
sha256sum $binary
