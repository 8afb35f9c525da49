"""Goldens of Swin2SR (transformers) and SwinIR (the package spandrel 0.4.2, whose architecture is that of SwinIR's authors) ->
crates/sdxl/tests/golden/models/{swin2sr,swinir}_*.safetensors.

    pip install --no-deps --target /some/where spandrel==0.4.2 einops torchvision && PYTHONPATH=/some/where python super_resolution.py

A file has pixels `x` (1, H, W, 3), what the network makes of them, `y` (1, 4 H, 4 W, 3), and in `swin2sr_picture` a picture of 8-bit
numbers with what becomes of it as a picture. Weights would be larger than all of that, and are made by a formula: the metadata's `weights`
has for each key the shape and two numbers a and b; element i of the n-th key, in order of the keys, is a + b · u(n, i), in f32. `config` is
the model's `config.json`."""

import sys

import numpy as np
import torch

from common import SDXL_GOLDEN, gen, nhwc, save

MODELS = SDXL_GOLDEN / "models"


def uniform(seed, count):
    """Numbers from -1 to 1: a hash of their place, and of the seed."""
    x = np.arange(count, dtype=np.uint32) + np.uint32(seed * 0x9E3779B1 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return (x >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def scale(key, shape, gain, table):
    """(a, b) of a tensor."""
    if key.endswith("logit_scale"):
        return 3.5, 2.0  # some are above what is allowed
    if key.endswith("bias"):
        return 0.0, 0.2
    if "norm" in key:
        return 1.0, 0.3
    if key.endswith("relative_position_bias_table"):
        return 0.0, table
    if "position_bias_mlp" in key:
        return 0.0, 1.0 if ".0." in key else 0.3
    return 0.0, gain * (3.0 / np.prod(shape[1:])) ** 0.5


def fill(model, last, table=2.0):
    """Gives the model its weights, and says how they are made. `last`: the beginning of the last layer's keys. `table`: the largest bias
    of an offset; with some hundreds, a mask of -100 can be told from others."""
    state = {key: value for key, value in model.state_dict().items() if value.is_floating_point()
             and not key.endswith(("attn_mask", "relative_coords_table", "mean"))}
    weights = {}
    for n, key in enumerate(sorted(state)):
        shape = tuple(state[key].shape)
        a, b = scale(key, shape, 2.0 if key.startswith(last) else 1.0, table)
        values = np.float32(a) + np.float32(b) * uniform(n, int(np.prod(shape)))
        state[key].copy_(torch.from_numpy(values.reshape(shape)))
        weights[key] = [list(shape), a, float(np.float32(b))]
    return model.eval(), weights


def pixels(height, width, seed):
    return torch.rand(1, 3, height, width, generator=gen(seed))


def swin2sr(name, size, seed=1, **config):
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution
    config = Swin2SRConfig(**(dict(embed_dim=60, depths=[2, 2], num_heads=[2, 2], upscale=4, upsampler="nearest+conv",
                                   hidden_dropout_prob=0.0, drop_path_rate=0.0) | config))
    model, weights = fill(Swin2SRForImageSuperResolution(config), "upsample.final_convolution")
    x = pixels(*size, seed)
    y = model(x).reconstruction
    meta = {"weights": weights, "config": config.to_json_string()}
    save(MODELS / f"swin2sr_{name}.safetensors", {"x": nhwc(x), "y": nhwc(y)}, meta)
    return model, meta


def picture(model, meta, height, width):
    """Mirrored with the edge pixel up to whole windows, cut to the enlarged picture's size."""
    picture = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = np.pad(picture, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="symmetric")
    x = torch.from_numpy(whole.astype(np.float32) / 255).permute(2, 0, 1)[None]
    y = nhwc(model(x).reconstruction)[0, :4 * height, :4 * width].clamp(0, 1)
    y = (y.numpy() * 255.0).round().astype(np.uint8)
    print(f"{np.mean((y == 0) | (y == 255)):.3f} of the picture's numbers are 0 or 255")
    tensors = {"picture": torch.from_numpy(picture), "enlarged": torch.from_numpy(y)}
    save(MODELS / f"swin2sr_picture_{height}x{width}.safetensors", tensors, meta)


def swinir(name, size, seed=2, table=2.0, **config):
    from spandrel.architectures.SwinIR.__arch.SwinIR import SwinIR
    config = dict(img_size=64, window_size=8, embed_dim=60, depths=[2, 2], num_heads=[2, 2], mlp_ratio=2, upscale=4,
                  upsampler="nearest+conv") | config
    model, weights = fill(SwinIR(**config), "conv_last", table)
    x = pixels(*size, seed)
    save(MODELS / f"swinir_{name}.safetensors", {"x": nhwc(x), "y": nhwc(model(x))}, {"weights": weights})


@torch.no_grad()
def main():
    model, meta = swin2sr("base", (24, 40))
    swin2sr("one_window", (8, 8))
    # Heads of one feature: cosines are 1 or -1, times 100, so that a mask of -200 can be told from others.
    swin2sr("other", (12, 8), embed_dim=36, depths=[3, 1], num_heads=[36, 2], window_size=4, qkv_bias=False, mlp_ratio=1.5,
            layer_norm_eps=1e-2, img_range=255.0, resi_connection="3conv", hidden_act="quick_gelu")
    swin2sr("unshifted", (16, 8), image_size=8)
    picture(model, meta, 19, 29)
    picture(model, meta, 3, 1)
    sys.stdout.flush()
    swinir("medium", (24, 40))
    swinir("large", (16, 8), embed_dim=48, depths=[2, 1, 2], num_heads=[4, 4, 2], resi_connection="3conv")
    swinir("double", (16, 24), table=300.0, upscale=2, window_size=4, mlp_ratio=4)


if __name__ == "__main__":
    main()
