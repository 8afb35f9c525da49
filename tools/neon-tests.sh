#!/bin/sh
# Runs the tests of crates/tensor on arm64 under qemu: the kernels' NEON paths, on an x86-64 Debian or Ubuntu machine.
#
#   SUITE   the Debian suite that gives rustc, its arm64 library, the cross compiler and qemu (default: testing).
#           Its rustc must be as new as Cargo.toml's rust-version.
#   ROOT    the folder that the suite is unpacked into, some 2 GB (default: target/neon/SUITE); kept for the next run.
#   MIRROR  the Debian archive (default: the machine's own).
#
# Each test runs once for each instruction set of arm64. (The tests named every_isa do that by starting themselves again, which
# an emulated program cannot.) Arguments go to `cargo test`, such as `--test gemm`.
# Needs root (chroot, mount) and debootstrap. The crates come from cargo's cache.
set -eu

SUITE=${SUITE:-testing}
project=$(cd "$(dirname "$0")/.." && pwd)
ROOT=${ROOT:-$project/target/neon/$SUITE}
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)}
cargo_home=${CARGO_HOME:-$HOME/.cargo}

if ! [ -e "$ROOT/unpacked" ]; then
    debootstrap --variant=minbase "$SUITE" "$ROOT" "$MIRROR"
    touch "$ROOT/unpacked"
fi
if ! [ -e "$ROOT/installed" ]; then
    chroot "$ROOT" dpkg --add-architecture arm64
    # A mirror may be a snapshot, older than its lists are valid for.
    chroot "$ROOT" apt-get update --option Acquire::Check-Valid-Until=false
    chroot "$ROOT" apt-get install --yes --no-install-recommends \
        rustc cargo gcc libc6-dev libstd-rust-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    touch "$ROOT/installed"
fi

# The sources are read-only there; what is built stays in the folder.
cargo fetch --locked --manifest-path "$project/Cargo.toml"
mkdir -p "$ROOT/project" "$ROOT/cargo/registry" "$ROOT/build"
exec unshare --mount sh -eu -c '
    root=$1 project=$2 registry=$3
    shift 3
    mount --bind -o ro "$project" "$root/project"
    mount --bind "$registry" "$root/cargo/registry"
    for isa in neon portable emulated; do
        echo "CALOTYPE_ISA=$isa"
        chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CALOTYPE_ISA="$isa" \
            CARGO_HOME=/cargo CARGO_TARGET_DIR=/build \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
            cargo test --manifest-path /project/Cargo.toml --offline --locked \
            --target aarch64-unknown-linux-gnu --package calotype-tensor "$@" -- --skip every_isa
    done
' neon-tests "$ROOT" "$project" "$cargo_home/registry" "$@"
