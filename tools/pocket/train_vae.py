"""Trains the VAE on random 64 × 64 crops (and some whole pictures) of a set made by generate.py.

    train_vae.py --set FOLDER --out FOLDER [--steps 2000]       # the same command goes on where it stopped

L1 and L2, plus L1 on a Laplacian pyramid (edges at every scale), plus a little KL. Weights are averaged (EMA).
FOLDER/vae is the result.
"""
import argparse
import json
import time
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from checkpoint import Average, restore, save
from muon import Both
from whiten import whiten

CONFIG = dict(in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(32, 64, 96, 112), layers_per_block=1,
              down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, norm_num_groups=8,
              sample_size=128, act_fn="silu", force_upcast=False)
BATCH, CROP, LEARNING_RATE, KL = 8, 64, 2e-3, 1e-6


def crops(rng, images, count):
    """Random squares of random pictures, in -1…1, (count, 3, CROP, CROP)."""
    out = np.empty((count, CROP, CROP, 3), np.uint8)
    for i in range(count):
        picture = images[rng.integers(len(images))]
        y, x = rng.integers(0, picture.shape[0] - CROP + 1, 2)
        out[i] = picture[y : y + CROP, x : x + CROP]
    return to_tensor(out)


def to_tensor(pictures):
    t = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return t.contiguous(memory_format=torch.channels_last)


def pyramid_loss(a, b, levels=3):
    """L1 between what each halving loses."""
    total = 0
    for _ in range(levels):
        small_a, small_b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        detail = (a - F.interpolate(small_a, scale_factor=2)) - (b - F.interpolate(small_b, scale_factor=2))
        total = total + detail.abs().mean()
        a, b = small_a, small_b
    return total + (a - b).abs().mean()


@torch.no_grad()
def psnr(vae, pictures):
    """Mean over pictures of the reconstruction's PSNR in dB, and the spread of the latents."""
    x = to_tensor(pictures)
    latents = vae.encode(x).latent_dist.mode()
    y = vae.decode(latents).sample.clamp(-1, 1)
    error = ((x - y) / 2).pow(2).mean((1, 2, 3))
    return (-10 * error.log10()).mean().item(), latents.std().item()


def step(vae, optimizer, x):
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample()).sample
    l1, square, edges, kl = (x - y).abs().mean(), (x - y).pow(2).mean(), pyramid_loss(x, y), posterior.kl().mean()
    optimizer.zero_grad()
    (l1 + 2 * square + edges + KL * kl).backward()
    norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    return l1.item(), kl.item(), norm.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="in all; the learning rate falls over the last 40%%")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    images = np.load(args.set / "images.npy", mmap_mode="r")
    held, images = images[:64], images[64:]
    vae = AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimizer = Both(vae, LEARNING_RATE, ends=("conv_in", "conv_out", "quant_conv"))
    average = Average(vae, 0.999)
    done, spent = restore(args.out, vae=vae, optimizer=optimizer, average=average)
    rng = np.random.default_rng((7, done))
    last, since = time.time(), time.time()
    while done < args.steps:
        left = 1 - done / args.steps
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (done + 1) / 200, max(0.02, left / 0.4))
        l1, kl, norm = step(vae, optimizer, crops(rng, images, BATCH))
        average.update(vae)
        done += 1
        if done % 20 == 0:
            spent, last = spent + min(time.time() - last, 120), time.time()  # a pause does not count
        if done in (20, 50) or done % 100 == 0:
            quality, spread = psnr(average.model, held)
            print(json.dumps(dict(step=done, minutes=round(spent / 60, 1), l1=round(l1, 4), kl=round(kl, 1), norm=round(norm, 2),
                                  psnr=round(quality, 2), std=round(spread, 3))), flush=True)
        if time.time() - since > 240 or done == args.steps:
            save(args.out, done, spent, vae=vae, optimizer=optimizer, average=average)
            since = time.time()
    final = average.model
    whiten(final, to_tensor(images[:1024]))
    print(f"reconstruction: {psnr(final, held)[0]:.2f} dB", flush=True)
    final.save_pretrained(args.out / "vae")


if __name__ == "__main__":
    main()
