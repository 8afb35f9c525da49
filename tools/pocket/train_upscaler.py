"""Trains pocket's upscaler, Swin2SR's architecture, four times, from nothing.

    train_upscaler.py --scenes FOLDER [--set FOLDER] --out FOLDER [--minutes 6] [--device cuda] [--smoke]
"""
import argparse
import functools
import json

import threads  # noqa: F401, first of all

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution
from transformers.models.swin2sr.modeling_swin2sr import Swin2SRLayer

from compose import Composer
from generate import examples
from looks import shrink, worn
from timed import Timed, arguments

LARGE = 128  # the side of what is learnt at a time


def network():
    return Swin2SRForImageSuperResolution(Swin2SRConfig(
        image_size=LARGE // 4, patch_size=1, embed_dim=64, depths=[4, 4, 4], num_heads=[4, 4, 4], window_size=8, mlp_ratio=2.0, upscale=4, img_range=1.0,
        resi_connection="1conv", upsampler="nearest+conv", drop_path_rate=0.0))


def finish(model, folder):
    config = {"do_pad": True, "do_rescale": True, "image_processor_type": "Swin2SRImageProcessor", "pad_size": 8, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")


def keep_masks():
    """The masks of shifted windows are the same in every step: made once."""
    plain = Swin2SRLayer.get_attn_mask

    @functools.lru_cache(maxsize=None)
    def kept(layer, *args, **kwargs):
        mask = plain(layer, *args, **kwargs)
        return mask if mask is None else mask.to(next(layer.parameters()).device)

    Swin2SRLayer.get_attn_mask = kept


def examples_of(composer, count):
    """(B, 3, 32, 32) and (B, 3, 128, 128): half of them pictures, half of them parts of what was painted twice as large."""
    batch = composer.batch(count)
    half, b = count // 2, count - count // 2
    y, x = (int(v) for v in composer.rng.integers(0, LARGE + 1, 2))
    order = torch.from_numpy(composer.rng.permutation(count)).to(batch.image.device)
    parts = batch.canvas[order[half:], :, y : y + LARGE, x : x + LARGE]
    plain = torch.from_numpy(batch.rows[:, 5] == 0).to(order.device)[order[half:]][:, None, None, None]
    large = torch.cat([batch.image[order[:half]], torch.where(plain, parts, batch.image[order[half:]])])
    assert len(parts) == b
    large = large[torch.from_numpy(composer.rng.permutation(count)).to(order.device)]  # each filter gets some of each kind
    bright = composer.uniform(0.8, 1.1, count, 1, 1, 1)
    large = ((large * bright).clamp(0, 1) * 255).round() / 255
    small = torch.cat([shrink(part, which) for which, part in enumerate(large.chunk(4))])
    return torch.where(composer.uniform(0, 1, count, 1, 1, 1) < 0.4, worn(small, composer.generator), small), large


def decibels(a, b):
    return -10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) / 255**2 + 1e-12)


@torch.no_grad()
def judge(model, device, count, seed=77):
    """Peak signal to noise against bicubic, on pictures that no training saw, made small by Pillow."""
    gains, plain = [], []
    for image, _, _ in examples(seed, count, False, 0.2):
        small = image.resize((image.width // 4, image.height // 4), Image.BICUBIC)
        x = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].float().to(device) / 255
        out = model(pixel_values=x).reconstruction[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).cpu().numpy()
        truth = np.asarray(image)
        plain.append(decibels(np.asarray(small.resize(image.size, Image.BICUBIC)), truth))
        gains.append(decibels(out, truth) - plain[-1])
    print(json.dumps(dict(pictures=count, bicubic=round(float(np.mean(plain)), 2), gain=round(float(np.mean(gains)), 2))), flush=True)


def main():
    args = arguments(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    device, smoke = args.device, args.smoke
    keep_masks()
    composer = Composer(args.scenes, args.set, device, capacity=400 if smoke else 16000, figures=20 if smoke else 1500, seed=3, size=256)
    composer.scenes.wait(32 if smoke else 1024)
    model = network().to(device)
    timed = Timed(model, args, 8e-4, finish, decay=0.0)
    count = 4 if smoke else 96
    while not timed.over:
        with torch.no_grad():
            small, large = examples_of(composer, count)
        with torch.autocast(device, torch.bfloat16):
            out = model(pixel_values=small).reconstruction
        timed.step(((out.float() - large).pow(2) + 1e-6).sqrt().mean())
        if timed.steps % 20 == 0:
            composer.refresh()
    timed.save()
    judge(timed.average.model.eval(), device, 4 if smoke else 300)


if __name__ == "__main__":
    main()
