"""Goldens of the small decoder for previews -> crates/sdxl/tests/golden/models/: `autoencoder_tiny/`, a tiny random
`AutoencoderTiny` as diffusers saves it, and `autoencoder_tiny.safetensors`: latents as the denoiser has them (NHWC; some far
outside of ±3, where the network clamps) and the pictures that diffusers' pipelines decode from them (divided by
`scaling_factor`)."""

import shutil

import torch
from diffusers import AutoencoderTiny

from common import SDXL_GOLDEN, gen, nhwc, save
from make_tiny import randomise

MODELS = SDXL_GOLDEN / "models"
NAME = "autoencoder_tiny"

if __name__ == "__main__":
    model = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8), num_encoder_blocks=(1, 1, 1, 1), decoder_block_out_channels=(12, 12, 12, 12),
        num_decoder_blocks=(2, 1, 3, 1), scaling_factor=0.8)
    model = randomise(model, 90).eval()
    shutil.rmtree(MODELS / NAME, ignore_errors=True)
    model.save_pretrained(MODELS / NAME)
    latents = 2.5 * torch.randn(2, 4, 5, 7, generator=gen(91))
    with torch.no_grad():
        pictures = model.decode(latents / model.config.scaling_factor).sample
    print("largest", latents.abs().max(), pictures.min(), pictures.max())
    save(MODELS / f"{NAME}.safetensors", {"latents": nhwc(latents), "pictures": nhwc(pictures)})
