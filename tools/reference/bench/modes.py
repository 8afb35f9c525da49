"""Times pictures from texts, from pictures, inpainted and refined: `calotype predict` beside diffusers, in turns, in f32.

    python modes.py [--binary target/release/calotype] [--model DIR --refiner-model DIR] [--size 256x256] [--steps 20] [--rounds 3]

For each mode and round, diffusers makes a picture in this process, and calotype in a process of its own, with the same request and
the same number of threads. Prints, as markdown, the median CPU time (user and system) of both, the median of the rounds' ratios, and
each time relative to text to image of the same program: CPU times vary less than others on a shared machine. Loading is part of
calotype's time, and not of diffusers'. The first round is a warm-up and is not counted. Without --model, the folders are random
ones (make_tiny.py), of sizes at which the UNet takes most of the time."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait take no CPU time, which would count

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import make_tiny  # noqa: E402
import picture_check  # noqa: E402

BASE = ("--block-out-channels 128,256,256 --transformer-layers 0,2,2 --heads 2,4,4 --text-width 128,128 --text-intermediate 256,256 "
        "--vae-channels 64,128,128,128")
REFINER = ("--refiner --block-out-channels 128,256,256 --transformer-layers 0,2,2 --heads 2,4,4 --text-width 128 --text-heads 4 "
           "--text-layers 3 --text-intermediate 256 --vae-channels 64,128,128,128 --seed 31")
MODES = {  # name -> (mode of picture_check.py, strength or high_noise_frac, guidance)
    "text to image": ("text", 1.0, 7.5),
    "text to image, guidance 1": ("text", 1.0, 1.0),
    "img2img at 0.5": ("img2img", 0.5, 7.5),
    "inpainting at 0.5": ("inpaint", 0.5, 7.5),
    "expert_ensemble_refiner, 0.8": ("expert", 0.8, 7.5),
    "base_image_refiner": ("base_image", 0.3, 7.5),
}


def request(name, a, scratch):
    """-> (the request of calotype, as its -i fields, and of picture_check.py)."""
    mode, strength, guidance = MODES[name]
    r = dict(prompt=picture_check.PROMPT, negative_prompt="a dog", scheduler="K_EULER", seed=7, num_inference_steps=a.steps,
             guidance_scale=guidance, num_outputs=1)
    more = dict(width=a.size[0], height=a.size[1])
    if mode in ("img2img", "inpaint"):
        more |= dict(image=f"@{scratch}/picture.png", prompt_strength=strength)
    if mode == "inpaint":
        more |= dict(mask=f"@{scratch}/mask.png")
    if mode in ("expert", "base_image"):
        more |= dict(refine={"expert": "expert_ensemble_refiner", "base_image": "base_image_refiner"}[mode])
    if mode == "expert":
        more |= dict(high_noise_frac=strength)
    return r, r | more


def make(out, sizes):
    return make_tiny.make_folder(make_tiny.parser().parse_args([str(out), *sizes.split()]))


def pipelines(folders):
    load, base = picture_check.load, folders["base"]
    of_base = {"text": load(StableDiffusionXLPipeline, base), "img2img": load(StableDiffusionXLImg2ImgPipeline, base),
               "inpaint": load(StableDiffusionXLInpaintPipeline, base)}
    refiner = load(StableDiffusionXLImg2ImgPipeline, folders["refiner"])
    refiner.vae = of_base["text"].vae
    return {"base": of_base, "refiner": refiner}


def of_diffusers(name, pipes, r, picture, mask):
    mode, strength, _ = MODES[name]
    start = time.process_time()
    if mode == "text":
        generators = [torch.Generator("cpu").manual_seed(r["seed"])]
        picture_check.call(pipes["base"]["text"], r, generators, width=picture.width, height=picture.height)
    else:
        picture_check.wanted(mode, pipes, r, picture, mask, strength)
    return time.process_time() - start


def of_calotype(a, folders, r, out):
    """-> CPU seconds of the whole process."""
    command = [a.binary, "predict", "-q", "--model", str(folders["base"]), "--dtype", "f32", "--threads", str(a.threads), "-o", str(out)]
    command += ["--refiner", str(folders["refiner"])] if "refine" in r else []
    fields = [arg for key, value in r.items() for arg in ("-i", f"{key}={value}")]
    child = subprocess.Popen(command + fields + ["-i", "apply_watermark=false", "-i", "disable_safety_checker=true"],
                             stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command + fields)}: exit status {status}")
    return usage.ru_utime + usage.ru_stime


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="a folder in diffusers' layout, with latents of 4 channels: diffusers refines no others")
    p.add_argument("--refiner-model", help="a refiner's folder")
    p.add_argument("--binary", default=str(make_tiny.REPO / "target/release/calotype"))
    p.add_argument("--size", type=lambda s: tuple(int(x) for x in s.split("x")), default=(256, 256), help="WIDTHxHEIGHT")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    times = {name: [] for name in MODES}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        folders = {kind: given or make(scratch / kind, sizes)
                   for kind, given, sizes in [("base", a.model, BASE), ("refiner", a.refiner_model, REFINER)]}
        pipes = pipelines(folders)
        picture, mask = picture_check.photograph(a.size), picture_check.block_mask(a.size)
        picture.save(scratch / "picture.png")
        mask.save(scratch / "mask.png")
        for round_ in range(a.rounds + 1):
            for name in MODES:
                r, fields = request(name, a, scratch)
                theirs = of_diffusers(name, pipes, r, picture, mask)
                ours = of_calotype(a, folders, fields, scratch / "out")
                print(f"round {round_}: {name}: calotype {ours:.2f} s; diffusers {theirs:.2f} s", file=sys.stderr, flush=True)
                if round_ > 0:
                    times[name].append((ours, theirs))
    median = lambda name, of: statistics.median(of(t) for t in times[name])  # noqa: E731
    ours, theirs = (lambda t: t[0]), (lambda t: t[1])
    first = next(iter(MODES))
    print("| mode | calotype | of text to image | diffusers | of text to image | ratio |")
    print("|---|---|---|---|---|---|")
    for name in MODES:
        ratios = [t / o for o, t in times[name]]
        print(f"| {name} | {median(name, ours):.2f} s | {median(name, ours) / median(first, ours):.2f} | {median(name, theirs):.2f} s "
              f"| {median(name, theirs) / median(first, theirs):.2f} | {statistics.median(ratios):.2f}x ({min(ratios):.2f} to "
              f"{max(ratios):.2f}) |")


if __name__ == "__main__":
    main()
