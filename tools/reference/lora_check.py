"""LoRA of all layers: trains it on random tiny folders of several shapes, and compares pictures with diffusers, by export_check.py.

The exports are loaded by diffusers (`load_lora_weights`), by peft alone, and in kohya's layout, whose layers have SDXL's
original names. Exit code 1 if a picture is under --least dB."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import make_tiny
from peer_check import FOLDERS

EXPORT_CHECK = Path(__file__).with_name("export_check.py")
SHAPES = ["two_levels", "all_attention_fp16_json", "sdxl_heads"]  # diffusers' reader of kohya's names wants as many layers in each block


def write_set(folder):
    folder.mkdir()
    y, x = np.mgrid[:64, :64] / 64
    for i in range(3):
        waves = np.stack([np.sin(6.28 * ((i + 1) * x + c * y)) for c in range(3)], -1)
        Image.fromarray((127.5 + 120 * waves).astype(np.uint8)).save(folder / f"{i}.png")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--binary", default=str(make_tiny.REPO / "target/release/calotype"))
    p.add_argument("--shapes", nargs="*", default=SHAPES, choices=list(FOLDERS))
    p.add_argument("--least", default="50")
    a = p.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        write_set(scratch / "set")
        for name in a.shapes:
            arguments = [f"{scratch}/{name}", "--vocab", str(make_tiny.default_vocab()), *FOLDERS[name].split()]
            folder = make_tiny.make_folder(make_tiny.parser().parse_args(arguments))
            run = [a.binary, "train", "--model", str(folder), "--dtype", "f32", "-i", f"input_images=@{scratch}/set", "-q"]
            run += ["--lora-layers", "all", "--lora-rank", "3", "--lora-lr", "1e-2", "--resolution", "64"]
            run += ["--max-train-steps", "3", "--run-dir", f"{scratch}/{name}.run"]
            subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
            print(name, flush=True)
            check = [sys.executable, EXPORT_CHECK, f"{scratch}/{name}.run/trained_model.tar", "--model", str(folder)]
            check += ["--binary", a.binary, "--size", "64", "--steps", "4", "--lora-scale", "1", "--threads", "1", "--least", a.least]
            failed |= subprocess.run(check).returncode
    sys.exit(failed)


if __name__ == "__main__":
    main()
