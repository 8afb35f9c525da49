"""Encodes a set's pictures once, and puts each into words eight times.

    latents.py --vae FOLDER --tokenizers FOLDER --set SET --out FOLDER [--device cuda] [--minutes 5]

A part of SET becomes FOLDER/PART.npz: latents (float16, count × 8 × 16 × 16, scaled), tokens (int16, count × 8 × LENGTH, -1 where
the words end). With --minutes, waits for parts that are still to come.
"""
import argparse
import os
import time
from pathlib import Path

import threads  # first of all

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from captions import Content, caption
from sets import parts, read_rows
from train_vae import to_tensor

WORDINGS, LENGTH, BATCH = 8, 40, {"cpu": 32, "cuda": 250}


def tokens(tokenizer, captions):
    """(B, LENGTH), filled up with -1."""
    ids = tokenizer(captions, padding="max_length", truncation=True, max_length=LENGTH, return_attention_mask=True)
    return np.where(np.asarray(ids["attention_mask"], bool), np.asarray(ids["input_ids"]), -1).astype(np.int16)


def worded(tokenizer, rows, rng):
    """Each row's tokens in WORDINGS wordings, (B, WORDINGS, LENGTH)."""
    contents = [Content(**{k: v for k, v in row.items() if k != "caption"}) for row in rows]
    ids = tokens(tokenizer, [caption(rng, content) for content in contents for _ in range(WORDINGS)])
    return ids.reshape(len(rows), WORDINGS, LENGTH)


@torch.no_grad()
def encode(vae, images, device):
    latents = []
    for i in range(0, len(images), BATCH[device]):
        mean = vae.encode(to_tensor(images[i : i + BATCH[device]], device)).latent_dist.mode()
        latents.append((mean * vae.config.scaling_factor).half().contiguous().cpu().numpy())
    return np.concatenate(latents)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vae", "tokenizers", "set", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    until = threads.BEGAN + 60 * args.minutes
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval().to(args.device, memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizers / "tokenizer")
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    while True:
        fresh = [part for part in parts(args.set) if not (args.out / f"{part.name}.npz").exists()]
        for part in fresh:
            latents = encode(vae, np.load(part / "images.npy"), args.device)
            with open(args.out / "new.tmp", "wb") as file:
                np.savez(file, latents=latents, tokens=worded(tokenizer, read_rows(part), rng))
            os.replace(args.out / "new.tmp", args.out / f"{part.name}.npz")  # whole: training looks for it
        if time.time() > until:
            break
        if not fresh:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
