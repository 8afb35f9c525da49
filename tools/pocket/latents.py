"""Encodes a set's pictures once.

    latents.py --vae FOLDER --set FOLDER --out FOLDER/NAME    # NAME.npy (float16, count × 8 × 16 × 16, scaled), NAME.jsonl
"""
import argparse
import os
import shutil
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
from diffusers import AutoencoderKL

from train_vae import to_tensor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    vae = AutoencoderKL.from_pretrained(args.vae).eval().to(memory_format=torch.channels_last)
    images = np.load(args.set / "images.npy", mmap_mode="r")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    latents = []
    with torch.no_grad():
        for i in range(0, len(images), 32):
            mean = vae.encode(to_tensor(images[i : i + 32])).latent_dist.mode()
            latents.append((mean * vae.config.scaling_factor).half().contiguous().numpy())
    shutil.copy(args.set / "captions.jsonl", f"{args.out}.jsonl")
    with open(f"{args.out}.tmp", "wb") as file:
        np.save(file, np.concatenate(latents))
    os.replace(f"{args.out}.tmp", f"{args.out}.npy")  # last, and whole: training looks for it


if __name__ == "__main__":
    main()
