"""Goldens of pictures made from pictures, and of refined ones -> crates/sdxl/tests/golden/: refiner/ (a tiny folder), inpainting/ (a
UNet of 9 channels, for the folder pipeline/ otherwise) and from_pictures.safetensors.

`picture` (H, W, 3) and `mask` (H, W) u8, and per case `images` (2, H, W, 3) u8, as diffusers makes them in f32 with one CPU generator an
image. Inpainted pictures are not pasted. Metadata holds the inputs and the mode."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import (StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline,
                       UNet2DConditionModel)

import pipelines
from common import SDXL_GOLDEN, save
from make_tiny import TINY_VOCAB, make_folder, parser
from picture_check import PROMPT, block_mask, load, photograph, wanted

SIZE = (64, 48)
REFINER = ("--block-out-channels 8,16 --layers-per-block 1 --transformer-layers 0,1 --heads 1,2 --norm-groups 4 --refiner "
           "--text-width 24 --text-heads 3 --text-layers 2 --text-intermediate 40 --projection-dim 16 "
           "--vae-channels 8,8,16,16 --vae-layers 1 --vae-norm-groups 4 --seed 80").split()
REQUEST = dict(prompt=PROMPT, negative_prompt="", num_inference_steps=5, guidance_scale=7.5, seed=77, num_outputs=2)
CASES = [  # mode, scheduler, strength or high_noise_frac, more
    ("img2img", "DDIM", 0.8, {}), ("img2img", "DPMSolverMultistep", 0.58, {}), ("img2img", "HeunDiscrete", 0.58, {}),
    ("img2img", "KarrasDPM", 0.8, {}), ("img2img", "K_EULER_ANCESTRAL", 0.58, {}), ("img2img", "K_EULER", 0.3, {}),
    ("img2img", "K_EULER", 1.0, dict(guidance_scale=1.0, negative_prompt="a dog")),
    ("inpaint", "DDIM", 0.58, {}), ("inpaint", "HeunDiscrete", 0.8, {}), ("inpaint", "K_EULER_ANCESTRAL", 1.0, {}),
    ("inpaint", "KarrasDPM", 0.8, {}), ("inpaint9", "K_EULER_ANCESTRAL", 0.8, {}), ("inpaint9", "DPMSolverMultistep", 1.0, {}),
    ("expert", "K_EULER_ANCESTRAL", 0.6, {}), ("expert", "DDIM", 0.5, {}), ("expert", "KarrasDPM", 0.8, {}),
    ("base_image", "K_EULER", 0.8, {}), ("base_image", "K_EULER_ANCESTRAL", 0.8, dict(refine_steps=9)),
]


def make(folder, arguments):
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(parser().parse_args([str(folder), "--vocab", str(TINY_VOCAB), *arguments]))
    return folder


def pipes(scratch):
    refiner = make(SDXL_GOLDEN / "refiner", REFINER)
    for part in ("vae/diffusion_pytorch_model.safetensors",):  # the base's is used
        (refiner / part).unlink()
    nine = make(scratch / "nine", [*pipelines.SIZES[:-1], "90", "--inpainting"])
    shutil.rmtree(SDXL_GOLDEN / "inpainting", ignore_errors=True)
    shutil.copytree(nine / "unet", SDXL_GOLDEN / "inpainting")
    base = load(StableDiffusionXLPipeline, pipelines.FOLDER)
    kinds = {"img2img": StableDiffusionXLImg2ImgPipeline, "inpaint": StableDiffusionXLInpaintPipeline}
    found = {"base": {"text": base} | {name: load(kind, pipelines.FOLDER) for name, kind in kinds.items()}}
    found["inpaint9"] = load(StableDiffusionXLInpaintPipeline, pipelines.FOLDER)
    found["inpaint9"].register_modules(unet=UNet2DConditionModel.from_pretrained(SDXL_GOLDEN / "inpainting"))
    found["refiner"] = StableDiffusionXLImg2ImgPipeline.from_pretrained(
        refiner, vae=base.vae, torch_dtype=torch.float32, add_watermarker=False)
    found["refiner"].set_progress_bar_config(disable=True)
    found["refiner"].folder_config = found["refiner"].scheduler.config
    return found


def main():
    picture, mask = photograph(SIZE), block_mask(SIZE)
    tensors = {"picture": torch.from_numpy(np.array(picture)), "mask": torch.from_numpy(np.array(mask))}
    meta = {}
    with tempfile.TemporaryDirectory() as scratch:
        made = pipes(Path(scratch))
        for mode, scheduler, strength, more in CASES:
            case, request = f"{mode}.{scheduler}.{strength}", REQUEST | dict(scheduler=scheduler) | more
            images = np.stack([np.asarray(x) for x in wanted(mode, made, request, picture, mask, strength)])
            edge = ((images == 0) | (images == 255)).mean()
            print(f"{case}: mean {images.mean():.0f} deviation {images.std():.0f} saturated {edge:.1%}")
            tensors[f"{case}.images"] = torch.from_numpy(images)
            size = dict(width=SIZE[0], height=SIZE[1])
            meta[case] = request | size | {"mode": mode, "high_noise_frac" if mode == "expert" else "prompt_strength": strength}
    save(SDXL_GOLDEN / "from_pictures.safetensors", tensors, meta)


if __name__ == "__main__":
    main()
