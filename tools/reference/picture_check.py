"""Compares pictures made from pictures, and refined ones: diffusers against `calotype predict`, f32. Prints PSNR in dB a run.

Modes: img2img; inpaint and inpaint9 (a UNet of 4 and of 9 channels: the painted part is compared 8 pixels and more inside, the
preserved part has to be the picture's own); expert and base_image (the refiner, with the request's sampler). The folders are random
tiny ones (make_tiny.py), or --model, --inpainting-model, --refiner-model. PNDM with pictures, and PNDM and Heun in the expert mode,
are left out: diffusers starts them at the wrong place (tests/samplers/ compares these with an ideal denoiser).
Exit code 1 if any picture is under --least dB."""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import (StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline)
from PIL import Image, ImageDraw, ImageFilter

import make_tiny
from peer_check import PROMPT, calotype_images, psnr

REFINER = "--refiner --text-width 48 --text-heads 6 --text-layers 3 --text-intermediate 96 --projection-dim 40 --seed 31"
SIZES = ""  # of the base and the inpainting folder: make_tiny's defaults
STARTS_WRONG = {"img2img": {"PNDM"}, "inpaint": {"PNDM"}, "inpaint9": {"PNDM"}, "expert": {"PNDM", "HeunDiscrete"},
                "base_image": {"PNDM"}}


def photograph(size, seed=5):
    """Smooth colours with shapes, as a photograph would be."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.BICUBIC)
    draw = ImageDraw.Draw(picture)
    draw.ellipse([size[0] // 4, size[1] // 4, size[0] // 2, size[1] * 3 // 4], fill=(200, 40, 30))
    return picture.filter(ImageFilter.GaussianBlur(1))


def block_mask(size):
    """Covers whole latents, so that diffusers' rule for masks and calotype's agree."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle([16, 16, size[0] * 3 // 4 // 8 * 8 - 1, size[1] // 8 * 8 - 9], fill=255)
    return mask


def load(kind, folder):
    pipe = kind.from_pretrained(folder, dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.folder_config = pipe.scheduler.config
    return pipe


def call(pipe, r, generators, **more):
    pipe.scheduler = make_tiny.make_sampler(r["scheduler"], pipe.folder_config)
    given = dict(prompt=PROMPT, negative_prompt=r["negative_prompt"], guidance_scale=r["guidance_scale"],
                 num_inference_steps=r["num_inference_steps"], num_images_per_prompt=len(generators), generator=generators,
                 eta=0.3 if r["scheduler"] == "TCD" else 0.0)  # as in peer_check.py
    return pipe(**(given | more)).images


def wanted(mode, pipes, r, picture, mask, strength):
    generators = [torch.Generator("cpu").manual_seed(r["seed"] + i) for i in range(r["num_outputs"])]
    base, size = pipes["base"], dict(width=picture.width, height=picture.height)
    if mode == "img2img":
        return call(base["img2img"], r, generators, image=picture, strength=strength)
    if mode in ("inpaint", "inpaint9"):
        pipe = base["inpaint"] if mode == "inpaint" else pipes["inpaint9"]
        # One at a time: for several, diffusers samples the picture's latents once, from the first generator.
        one = dict(image=picture, mask_image=mask, strength=strength, **size)
        return [call(pipe, r, [generator], **one)[0] for generator in generators]
    refiner = pipes["refiner"]
    if mode == "expert":
        latents = call(base["text"], r, generators, denoising_end=strength, output_type="latent", **size)
        return call(refiner, r, generators, image=latents, denoising_start=strength, strength=1.0)
    latents = call(base["text"], r, generators, output_type="latent", **size)
    steps = dict(num_inference_steps=r["refine_steps"]) if "refine_steps" in r else {}
    return call(refiner, r, generators, image=latents, strength=0.3, **steps)


def compare(got, want, picture, mask):
    """The lowest PSNR; with a mask, inside, and 0 if a preserved pixel differs."""
    if mask is None:
        return min(psnr(a, b)[0] for a, b in zip(got, want, strict=True))
    inside = np.asarray(mask.filter(ImageFilter.MinFilter(19))) > 0
    kept = np.asarray(mask) == 0
    for image in got:
        if not (np.asarray(image)[kept] == np.asarray(picture)[kept]).all():
            print("a preserved pixel differs")
            return 0.0
    error = np.stack([np.asarray(a, np.float64)[inside] - np.asarray(b)[inside] for a, b in zip(got, want, strict=True)])
    return 10 * np.log10(255**2 / (error**2).mean()) if error.any() else np.inf


def check(a, mode, folders, pipes, scratch):
    picture, worst = photograph(a.size), np.inf
    mask = block_mask(a.size) if mode.startswith("inpaint") else None
    picture.save(scratch / "picture.png")
    if mask:
        mask.save(scratch / "mask.png")
    for scheduler in a.samplers:
        if scheduler in STARTS_WRONG[mode]:
            continue
        for i, strength in enumerate(a.strengths):
            steps = a.steps[i % len(a.steps)]
            if mode in ("expert", "base_image") and not 0 < strength < 1:
                continue
            r = dict(prompt=PROMPT, negative_prompt="" if i % 2 else "a dog", scheduler=scheduler, seed=a.seed,
                     num_inference_steps=steps, guidance_scale=a.guidance[i % len(a.guidance)], num_outputs=2)
            if mode == "base_image" and i % 2:
                r["refine_steps"] = steps + 7
            want = wanted(mode, pipes, r, picture, mask, strength)
            if mode in ("expert", "base_image"):
                r |= dict(width=picture.width, height=picture.height, refine={
                    "expert": "expert_ensemble_refiner", "base_image": "base_image_refiner"}[mode])
                r |= dict(high_noise_frac=strength) if mode == "expert" else {}
            else:
                r |= dict(image=f"@{scratch}/picture.png", prompt_strength=strength)
                r |= dict(mask=f"@{scratch}/mask.png") if mask else {}
            model = folders["inpaint9" if mode == "inpaint9" else "base"]
            options = ["--refiner", str(folders["refiner"])] if "refine" in r else []
            with tempfile.TemporaryDirectory() as out:
                try:
                    low = compare(calotype_images(a.binary, model, r, out, options), want, picture, mask)
                except (RuntimeError, OSError) as e:
                    print(f"{mode} {scheduler} {strength}: FAILED {e}", flush=True)
                    low = 0.0
            worst = min(worst, low)
            spread = np.mean([np.asarray(image).std() for image in want])
            print(f"{mode:11} {scheduler:20} strength {strength:<5} {steps:>3} steps guidance {r['guidance_scale']:<4}  "
                  f"{low:6.1f} dB  deviation {spread:.0f}{'' if low >= a.least else '  TOO LOW'}", flush=True)
    return worst


def main():
    size = lambda s: tuple(int(x) for x in s.split("x"))  # noqa: E731
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--model", help="a base model")
    p.add_argument("--inpainting-model", help="a model whose UNet takes 9 channels")
    p.add_argument("--refiner-model")
    p.add_argument("--make", default=SIZES, help="make_tiny.py's arguments for the base and the inpainting model")
    p.add_argument("--make-refiner", default=REFINER)
    p.add_argument("--binary", default=str(make_tiny.REPO / "target/release/calotype"))
    p.add_argument("--modes", nargs="*", default=list(STARTS_WRONG), choices=list(STARTS_WRONG))
    p.add_argument("--samplers", nargs="*", default=list(make_tiny.SAMPLERS), choices=list(make_tiny.SAMPLERS))
    p.add_argument("--size", type=size, default=(96, 80), help="WIDTHxHEIGHT")
    p.add_argument("--strengths", nargs="*", type=float, default=[0.3, 0.58, 0.8, 1.0], help="or high_noise_frac")
    p.add_argument("--guidance", nargs="*", type=float, default=[7.5, 1.0], help="one a strength, in turn")
    p.add_argument("--steps", nargs="*", type=int, default=[10, 25], help="one a strength, in turn")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--least", type=float, default=50.0)
    p.add_argument("--threads", type=int, default=1, help="of diffusers")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folders = {}
        for kind, given, sizes in [("base", a.model, a.make), ("inpaint9", a.inpainting_model, a.make + " --inpainting"),
                                   ("refiner", a.refiner_model, a.make_refiner)]:
            arguments = [str(scratch / kind), "--vocab", str(make_tiny.default_vocab()), *sizes.split()]
            folders[kind] = given or make_tiny.make_folder(make_tiny.parser().parse_args(arguments))
        text = load(StableDiffusionXLPipeline, folders["base"])
        kinds = {"img2img": StableDiffusionXLImg2ImgPipeline, "inpaint": StableDiffusionXLInpaintPipeline}
        pipes = {"base": {"text": text}, "inpaint9": load(StableDiffusionXLInpaintPipeline, folders["inpaint9"]),
                 "refiner": load(StableDiffusionXLImg2ImgPipeline, folders["refiner"])}
        for name, kind in kinds.items():
            pipes["base"][name] = load(kind, folders["base"])
        pipes["refiner"].vae = text.vae
        worst = min(check(a, mode, folders, pipes, scratch) for mode in a.modes)
    print(f"worst: {worst:.1f} dB (at least {a.least:g} is asked)")
    sys.exit(int(worst < a.least))


if __name__ == "__main__":
    main()
