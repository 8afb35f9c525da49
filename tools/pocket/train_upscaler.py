"""Trains pocket's upscaler, Swin2SR's architecture, four times, from nothing.

    train_upscaler.py --scenes FOLDER [--set FOLDER] --out FOLDER [--minutes 6] [--device cuda] [--smoke]
"""
import argparse
import json

import threads  # noqa: F401, first of all

import numpy as np
import torch
from PIL import Image
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution
from transformers.models.swin2sr.modeling_swin2sr import Swin2SRLayer

from ahead import Ahead
from compose import Composer
from generate import examples
from looks import shrink, worn
from timed import Timed, arguments

LARGE = 128  # the side of what is learnt at a time


def network():
    return Swin2SRForImageSuperResolution(Swin2SRConfig(
        image_size=LARGE // 4, patch_size=1, embed_dim=80, depths=[4, 4, 4], num_heads=[5, 5, 5], window_size=8, mlp_ratio=2.0, upscale=4, img_range=1.0,
        resi_connection="1conv", upsampler="nearest+conv", drop_path_rate=0.0))


def finish(model, folder):
    config = {"do_pad": True, "do_rescale": True, "image_processor_type": "Swin2SRImageProcessor", "pad_size": 8, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")


def layers(model):
    return [layer for stage in model.swin2sr.encoder.stages for layer in stage.layers]


def keep_masks(model):
    """The masks of shifted windows are the same in every step: made once."""
    for layer in layers(model):
        mask = layer.get_attn_mask(LARGE // 4, LARGE // 4, torch.float32)
        layer.register_buffer("kept", mask, persistent=False)
    Swin2SRLayer.get_attn_mask = lambda layer, *args, **kwargs: layer.kept


def compile_parts(model):
    """Layers, which share what is compiled, and the upsampler. TORCHDYNAMO_DISABLE=1 leaves them as they are."""
    for part in (*layers(model), model.upsample):
        part.compile(dynamic=False)


def examples_of(composer, count):
    """(B, 3, 32, 32) and (B, 3, 128, 128): pictures, and of those put together here a half as parts of what was painted twice as large."""
    batch = composer.batch(count)
    device, some = batch.image.device, (count - batch.drawn) // 2
    y, x = (int(v) for v in composer.rng.integers(0, LARGE + 1, 2))
    plain = torch.from_numpy(batch.rows[:some, 5] == 0).to(device)[:, None, None, None]
    parts = torch.where(plain, batch.canvas[:some, :, y : y + LARGE, x : x + LARGE], batch.image[:some])
    large = torch.cat([parts, batch.image[some:]])
    large = large[torch.from_numpy(composer.rng.permutation(count)).to(device)]  # each filter gets some of each kind
    bright = torch.where(composer.uniform(0, 1, count, 1, 1, 1) < 0.25, composer.uniform(0.8, 1.1, count, 1, 1, 1), 1.0)
    large = ((large * bright).clamp(0, 1) * 255).round() / 255
    part = count // 8  # mostly bicubic, as most programs make pictures small
    small = torch.cat([shrink(large[:part], 0), shrink(large[part : 2 * part], 1), shrink(large[2 * part :], 2)])
    return torch.where(composer.uniform(0, 1, count, 1, 1, 1) < 0.25, worn(small, composer.generator), small), large


def loss_of(out, large):
    """The logarithm of each picture's mean squared error: what decibels measure. Errors below 47 dB matter no more."""
    return ((out - large).pow(2).mean((1, 2, 3)) + 2e-5).log().mean()


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
    composer = Composer(args.scenes, args.set, device, capacity=400 if smoke else 40000, figures=20 if smoke else 1500, seed=3, share=0.6, size=256)
    composer.scenes.wait(32 if smoke else 1024)
    model = network()
    keep_masks(model)
    model.to(device, memory_format=torch.channels_last)
    timed = Timed(model, args, 1e-3, finish, decay=0.0)
    count = 4 if smoke else 128

    def loss(small, large):
        with torch.autocast(device, torch.bfloat16):
            out = model(pixel_values=small).reconstruction
        return loss_of(out.float(), large)

    if device == "cuda":
        compile_parts(model)
        loss(*examples_of(composer, count)).backward()  # compiles, before there is a second thread
    batches = Ahead(lambda: examples_of(composer, count), device, refresh=composer.refresh)
    while not timed.over:
        timed.step(loss(*batches.next()))
    batches.close()
    timed.save()
    judge(timed.average.model.eval(), device, 4 if smoke else 200)


if __name__ == "__main__":
    main()
