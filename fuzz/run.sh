#!/usr/bin/env bash
# Builds the fuzz targets, and runs them for so many seconds each, with libFuzzer's options as they are given:
#
#   fuzz/run.sh TARGET|all SECONDS [OPTION…]
#   fuzz/run.sh TARGET|all minimize           takes into corpus/ what was found, and only what it takes
#
# An input that a target cannot bear (a panic, too much memory or time, a message that is no clean line) stays in
# crashes/TARGET, and the exit code is not 0. Inputs that lead to new code stay in found/TARGET.
set -euo pipefail
cd "$(dirname "$0")"

# The longest input in bytes, and the longest time that one may take in seconds.
limits="-max_len=100000 -timeout=30"
host=$(rustc --print host-tuple)
targets=$(cd fuzz_targets && ls -- *.rs | sed 's/\.rs$//')

build() {
    command -v "${CXX:-c++}" >/dev/null || { echo "libFuzzer needs a C++ compiler: expected ${CXX:-c++}, found none"; exit 1; }
    # What cargo-fuzz passes, without what a nightly compiler is needed for (the address sanitizer; there is little `unsafe`).
    local llvm=-Cllvm-args=-sanitizer-coverage
    local flags="--cfg fuzzing -Cpasses=sancov-module $llvm-level=4 $llvm-inline-8bit-counters $llvm-pc-table $llvm-trace-compares"
    RUSTFLAGS=$flags CARGO_TARGET_DIR=target cargo build --locked --quiet --target "$host" --bins
}

# The golden files that are inputs as they are.
golden() {
    case $1 in
        pictures) echo ../crates/sdxl/tests/golden/pictures ;;
        torch_files) echo ../crates/sdxl/tests/golden/torch_files ;;
        weights) echo ../crates/sdxl/tests/golden/adapters ;;
    esac
}

run() { # target, seconds, options
    local target=$1 seconds=$2
    shift 2
    mkdir -p "found/$target" "crashes/$target"
    # shellcheck disable=SC2046,SC2086 # words apart
    RAYON_NUM_THREADS=1 "target/$host/debug/$target" "found/$target" "corpus/$target" $(golden "$target") \
        $limits -max_total_time="$seconds" -artifact_prefix="crashes/$target/" "$@" 2>&1
}

minimize() { # target
    local all=$TMPDIR/$1 golden
    golden=$(golden "$1")
    mkdir "$all"
    # What the golden files lead to needs no other input. How often code is passed does not count: that keeps few.
    [[ -z $golden ]] || cp "$golden"/* "$all"
    # shellcheck disable=SC2086 # words apart
    RAYON_NUM_THREADS=1 "target/$host/debug/$1" -merge=1 -use_counters=0 $limits "$all" "corpus/$1" "found/$1"
    [[ -z $golden ]] || (cd "$golden" && ls) | (cd "$all" && xargs rm)
    rm -r "corpus/$1"
    mv "$all" "corpus/$1"
}

asked=$1 seconds=$2
shift 2
build
# What the targets write, they write here.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
if [[ $asked != all && $seconds != minimize ]]; then
    run "$asked" "$seconds" "$@"
    exit
fi
[[ $asked == all ]] || targets=$asked
failed=0
for target in $targets; do
    if [[ $seconds == minimize ]]; then
        minimize "$target"
    elif run "$target" "$seconds" "$@" >"$TMPDIR/log"; then
        echo "$target: $(tail -n 1 "$TMPDIR/log")"
    else
        failed=1
        echo "$target: an input that it cannot bear:"
        tail -n 40 "$TMPDIR/log"
    fi
done
exit $failed
