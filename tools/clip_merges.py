#!/usr/bin/env python3
"""Writes crates/models/src/tokenizer/clip_merges.txt.gz: the merges of CLIP's tokenizer, for models that come as a single file.

    pip download --no-deps open_clip_torch      # MIT; carries OpenAI's list (MIT), unchanged
    python3 tools/clip_merges.py open_clip_torch-*.whl

OpenAI's list has more merges than CLIP uses: its vocabulary of 49,408 tokens has 256 bytes, the same 256 at a word's end, a token for
each merge, and two special tokens. So the first 48,894 merges are kept. The same list gives the same file."""

import gzip
import pathlib
import sys
import zipfile

MERGES = 49_408 - 256 - 256 - 2
OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/models/src/tokenizer/clip_merges.txt.gz"


def main():
    packed = zipfile.ZipFile(sys.argv[1]).read("open_clip/bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed).decode().split("\n")[1:]  # the first line is a version
    merges = lines[:MERGES]
    assert len(merges) == MERGES and all(len(line.split()) == 2 for line in merges)
    OUT.write_bytes(gzip.compress("".join(f"{line}\n" for line in merges).encode(), 9, mtime=0))
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


main()
