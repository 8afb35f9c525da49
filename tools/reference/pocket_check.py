"""Compares ten of the pocket model's prompts: diffusers against `calotype predict`, same folder, same seeds, f32.

    pocket_check.py --binary ../../target/release/calotype [--least 45]

Prints PSNR in dB for each. Exit code 1 if one is under --least."""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from peer_check import calotype_images, diffusers_images, load_diffusers, psnr

ROOT = Path(__file__).parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="calotype")
    parser.add_argument("--model", type=Path, default=ROOT / "models/pocket")
    parser.add_argument("--least", type=float, default=45)
    args = parser.parse_args()
    prompts = json.loads((ROOT / "tools/pocket/prompts.json").read_text())[::10]
    pipe, worst = load_diffusers(args.model), np.inf
    for row in prompts:
        request = dict(prompt=row["caption"], negative_prompt="", width=128, height=128, scheduler="K_EULER",
                       num_inference_steps=50, guidance_scale=7.5, seed=row["seed"], num_outputs=1)
        with tempfile.TemporaryDirectory() as out:
            got = calotype_images(args.binary, args.model, request, out)[0]
        decibels, largest = psnr(got, diffusers_images(pipe, request)[0])
        print(f"{decibels:6.1f} dB, at most {largest} of 255 apart: {row['caption']}", flush=True)
        worst = min(worst, decibels)
    raise SystemExit(f"worst {worst:.1f} dB" if worst < args.least else 0)


if __name__ == "__main__":
    main()
