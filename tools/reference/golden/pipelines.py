"""Goldens of whole pictures -> crates/sdxl/tests/golden/pipeline/ (a tiny SDXL folder) and pipeline.safetensors.

Per case: `images` (2, H, W, 3) u8 and the final `latents` (2, H/8, W/8, 4), as diffusers makes them in f32 with one CPU
generator an image (`seed`, `seed` + 1), and an empty negative prompt (encoded, not zeroed). Metadata holds the inputs."""

import shutil

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from common import SDXL_GOLDEN, gen, nhwc, save
from make_tiny import PUBLISHED_SAMPLERS, TINY_VOCAB, make_folder, make_sampler, parser

FOLDER = SDXL_GOLDEN / "pipeline"
SIZES = ("--block-out-channels 8,16 --layers-per-block 1 --transformer-layers 0,1 --heads 1,2 --norm-groups 4 "
         "--text-width 16,24 --text-heads 2,3 --text-layers 2,2 --text-intermediate 32,40 --projection-dim 16 "
         "--vae-channels 8,8,16,16 --vae-layers 1 --vae-norm-groups 4 --seed 70").split()
REQUEST = dict(prompt="an astronaut riding a rainbow unicorn, cinematic", negative_prompt="", width=64, height=48,
               num_inference_steps=5, guidance_scale=7.5, seed=1234)
CASES = {name: dict(scheduler=name) for name in PUBLISHED_SAMPLERS} | {
    "guidance_1": dict(scheduler="K_EULER", guidance_scale=1.0, num_inference_steps=4),
    "negative": dict(scheduler="K_EULER", negative_prompt="a dog, sharp focus", width=40, height=72, seed=2**40 + 7),
    "long_prompt": dict(scheduler="DDIM", prompt="a very long prompt, " * 40, num_inference_steps=2),
}


def picture(pipe, request, output_type):
    pipe.scheduler = make_sampler(request["scheduler"], pipe.folder_config)
    call = {k: v for k, v in request.items() if k not in ("seed", "scheduler")}
    generators = [gen(request["seed"] + i) for i in range(2)]
    return pipe(**call, generator=generators, num_images_per_prompt=2, output_type=output_type).images


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    make_folder(parser().parse_args([str(FOLDER), "--vocab", str(TINY_VOCAB), *SIZES]))
    pipe = StableDiffusionXLPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.folder_config = pipe.scheduler.config
    tensors, meta = {}, {}
    for case, change in CASES.items():
        request = REQUEST | change
        latents = picture(pipe, request, "latent")
        images = np.stack([np.asarray(image) for image in picture(pipe, request, "pil")])
        edge = ((images == 0) | (images == 255)).mean()
        print(f"{case}: mean {images.mean():.0f} deviation {images.std():.0f} saturated {edge:.1%}")
        tensors |= {f"{case}.images": torch.from_numpy(images), f"{case}.latents": nhwc(latents)}
        meta[case] = request
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    with torch.no_grad():
        encoded = pipe.encode_prompt(REQUEST["prompt"], negative_prompt="", do_classifier_free_guidance=True)
    tensors |= dict(zip(names, encoded))
    save(SDXL_GOLDEN / "pipeline.safetensors", tensors, meta)


if __name__ == "__main__":
    main()
