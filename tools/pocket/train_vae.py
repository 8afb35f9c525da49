"""Trains the VAE on random 64 × 64 crops of a set made by generate.py.

    train_vae.py --set FOLDER --out FOLDER [--steps 2000]       # the same command goes on where it stopped
    train_vae.py --set FOLDER --out FOLDER --decoder-of VAE --device cuda --batch 64 --crop 128 --minutes 3

L1 and L2, plus L1 on a Laplacian pyramid (edges at every scale), plus a little KL. Weights are averaged (EMA).
FOLDER/vae is the result. With --decoder-of, only the decoder of a finished VAE is trained, so that latents keep their meaning.
"""
import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import threads  # first of all

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from checkpoint import Average, restore, save
from muon import Both
from sets import SIZE, Pictures
from whiten import whiten

CONFIG = dict(in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(32, 64, 96, 112), layers_per_block=1,
              down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, norm_num_groups=8,
              sample_size=128, act_fn="silu", force_upcast=False)
KL, HELD = 1e-6, 64


def crops(rng, pictures, count, crop, device):
    """Random squares of random pictures but for the HELD first, in -1…1, (count, 3, crop, crop)."""
    images = pictures.images(rng.integers(HELD, len(pictures), count))
    corners = rng.integers(0, SIZE - crop + 1, (count, 2))
    return to_tensor(np.stack([image[y : y + crop, x : x + crop] for image, (y, x) in zip(images, corners)]), device)


def to_tensor(pictures, device="cpu"):
    t = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
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
    x = to_tensor(pictures, vae.device)
    latents = vae.encode(x).latent_dist.mode()
    y = vae.decode(latents).sample.clamp(-1, 1)
    error = ((x - y) / 2).pow(2).mean((1, 2, 3))
    return (-10 * error.log10()).mean().item(), latents.std().item()


def latents_of(vae, x, frozen):
    """The latents to decode, and their KL. A frozen encoder's: for half the pictures a little off, as the UNet's are."""
    if not frozen:
        posterior = vae.encode(x).latent_dist
        return posterior.sample(), posterior.kl().mean()
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mode()
        off = torch.rand(len(x), 1, 1, 1, device=x.device) * 0.3 - 0.15
        return latents + off.clamp(min=0) * latents.std() * torch.randn_like(latents), latents.new_zeros(())


def step(vae, optimizer, x, frozen):
    with torch.autocast("cuda", torch.bfloat16, enabled=x.is_cuda):
        latents, kl = latents_of(vae, x, frozen)
        y = vae.decode(latents).sample.float()
    l1, square, edges = (x - y).abs().mean(), (x - y).pow(2).mean(), pyramid_loss(x, y)
    optimizer.zero_grad()
    (l1 + 2 * square + edges + KL * kl).backward()
    norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    return l1.detach(), kl.detach(), norm


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="in all; the learning rate falls over the last 40%%")
    parser.add_argument("--minutes", type=float, help="instead of steps; the learning rate falls all the time")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--decoder-of", type=Path)
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    pictures = Pictures(args.set)
    held = pictures.images(range(HELD))
    vae = AutoencoderKL.from_pretrained(args.decoder_of, torch_dtype=torch.float32) if args.decoder_of else AutoencoderKL(**CONFIG)
    vae = vae.to(args.device, memory_format=torch.channels_last)
    if args.decoder_of:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    before = psnr(vae, held)[0]
    print(f"{sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters, {before:.2f} dB", flush=True)
    optimizer = Both(vae, args.learning_rate, ends=("conv_in", "conv_out", "quant_conv"))
    average = Average(vae, 0.998 if args.minutes else 0.999)
    done, spent = restore(args.out, vae=vae, optimizer=optimizer, average=average)
    rng = np.random.default_rng((7, done))
    last, since, reported = time.time(), time.time(), 0

    def left():  # 1…0
        return 1 - ((time.time() - threads.BEGAN) / (60 * args.minutes) if args.minutes else done / args.steps)

    with ThreadPoolExecutor(1) as pool:  # the next batches are read while this one is worked on
        coming = [pool.submit(crops, rng, pictures, args.batch, args.crop, args.device)]
        while (now := left()) > 0:
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * min(1, (done + 1) / 200, max(0.02, now / (1 if args.minutes else 0.4)))
            coming.append(pool.submit(crops, rng, pictures, args.batch, args.crop, args.device))
            l1, kl, norm = step(vae, optimizer, coming.pop(0).result(), bool(args.decoder_of))
            average.update(vae)
            done += 1
            if done % 20 == 0:
                spent, last = spent + min(time.time() - last, 120), time.time()  # a pause does not count
            if done in (20, 50) or done % 100 == 0 and time.time() - reported > 10:
                reported = time.time()
                quality, spread = psnr(average.model, held)
                print(json.dumps(dict(step=done, minutes=round(spent / 60, 1), l1=round(l1.item(), 4), kl=round(kl.item(), 1), norm=round(norm.item(), 2),
                                      psnr=round(quality, 2), std=round(spread, 3))), flush=True)
                pictures.refresh()
            if time.time() - since > 240 or left() <= 0:
                save(args.out, done, spent, vae=vae, optimizer=optimizer, average=average)
                since = time.time()
    final = average.model
    if not args.decoder_of:
        whiten(final, to_tensor(pictures.images(range(HELD, HELD + 900)), args.device))
    print(f"reconstruction: {(after := psnr(final, held)[0]):.2f} dB", flush=True)
    if after < before:
        raise SystemExit("train_vae.py: worse than before; nothing is written")
    final.cpu().save_pretrained(args.out / "vae")


if __name__ == "__main__":
    main()
