"""Compares pictures: diffusers against `calotype predict`, same folder, same seed, f32. Prints PSNR in dB a run.

Without --model it makes random tiny folders of several shapes (FOLDERS; sizes of your own: make_tiny.py, then --model).
Exit code 1 if any picture is under --least dB, or calotype fails."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import make_tiny
import single_file

PROMPT = "an astronaut riding a rainbow unicorn, cinematic, dramatic! \u732b"
FOLDERS = {  # make_tiny.py arguments
    "two_levels": "",
    "three_levels_bf16_sharded": "--block-out-channels 24,48,72 --layers-per-block 1 --transformer-layers 0,1,3 "
        "--heads 3,3,9 --norm-groups 8 --text-width 40,72 --text-heads 5,9 --projection-dim 48 "
        "--vae-channels 16,24,24,32 --vae-norm-groups 8 --vae-layers 2 --dtype bf16 --shard-size 300KB --seed 5",
    "all_attention_fp16_json": "--block-out-channels 40,80 --layers-per-block 3 --transformer-layers 1,1 --heads 1,1 "
        "--norm-groups 20 --text-width 24,48 --text-heads 3,6 --projection-dim 32 --eos-token-id 49407 "
        "--variant fp16 --dtype f16 --tokenizer-files json --seed 9",
    "v_prediction_zero_snr": "--block-out-channels 32,32 --heads 4,2 --transformer-layers 0,1 --seed 13 --scheduler "
        '{"prediction_type":"v_prediction","rescale_betas_zero_snr":true,"timestep_spacing":"trailing"}',
}


SDXL_HEADS = ("--block-out-channels 64,128 --heads 1,2 --text-width 64,128 --text-heads 1,2 --projection-dim 128 "
              "--vae-channels 32,64,64,64")  # heads of 64 channels and 32 groups, as SDXL: a single file needs no --config


FOLDERS["sdxl_heads"] = SDXL_HEADS


def single_files(scratch, name, folder):
    """The folder as single files, with either spelling of the projection: {name: (file, folder, whether it needs --config)}."""
    needs = name != "sdxl_heads"
    for key in ("text_projection", "text_projection.weight"):
        file = single_file.write(folder, f"{scratch}/{name}.{key}.safetensors", key)
        yield f"{name}: {key}", (file, folder, needs)


def load_diffusers(folder):
    if isinstance(folder, tuple) and folder[0].endswith(".text_projection.weight.safetensors"):
        folder = folder[1]  # diffusers does not read this spelling right
    if isinstance(folder, tuple):
        file, config, _ = folder
        pipe = make_tiny.StableDiffusionXLPipeline.from_single_file(
            file, config=str(config), local_files_only=True, torch_dtype=torch.float32, add_watermarker=False)
        pipe.set_progress_bar_config(disable=True)
        pipe.folder_config = pipe.scheduler.config
        return pipe
    variant = "fp16" if list(Path(folder).glob("unet/*.fp16*")) else None
    pipe = make_tiny.StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=torch.float32, variant=variant, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.folder_config = pipe.scheduler.config
    return pipe


def diffusers_images(pipe, r):
    pipe.scheduler = make_tiny.make_sampler(r["scheduler"], pipe.folder_config)
    n = r["num_outputs"]
    generators = [torch.Generator("cpu").manual_seed(r["seed"] + i) for i in range(n)]
    keys = ("prompt", "negative_prompt", "width", "height", "num_inference_steps", "guidance_scale")
    eta = 0.3 if r["scheduler"] == "TCD" else 0.0  # TCDScheduler's own default, which the pipeline replaces by 0
    return pipe(**{k: r[k] for k in keys}, eta=eta, generator=generators, num_images_per_prompt=n).images


def calotype_images(binary, folder, r, out, options=()):
    file, config, needs = folder if isinstance(folder, tuple) else (folder, None, False)
    command = [binary, "predict", "--model", str(file), "--dtype", "f32", "--long-prompts", "truncate", "-o", str(out)]
    command += ["--config", str(config)] if needs else []
    command += options
    for key, value in (r | {"apply_watermark": "false"}).items():
        command += ["-i", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return [Image.open(path) for path in done.stdout.split("\n") if path]


def psnr(a, b):
    a, b = (np.asarray(x.convert("RGB"), np.float64) for x in (a, b))
    if a.shape != b.shape:
        return 0.0, 255
    error = a - b
    mse = (error**2).mean()
    return (10 * np.log10(255**2 / mse) if mse else np.inf), int(np.abs(error).max())


def requests(a):
    for scheduler in a.samplers:
        for i, (width, height) in enumerate(a.sizes):
            for guidance in a.guidance:
                yield dict(prompt=PROMPT, negative_prompt="" if i % 2 == 0 else "a dog", width=width, height=height,
                           scheduler=scheduler, num_inference_steps=a.steps[i % len(a.steps)],
                           guidance_scale=guidance, seed=a.seed + i, num_outputs=2 if i == 0 else 1)


def check(a, name, folder):
    pipe, worst = load_diffusers(folder), np.inf
    for r in requests(a):
        label = (f"{name:28} {r['scheduler']:20} {r['width']:>4}x{r['height']:<4} guidance {r['guidance_scale']:<4} "
                 f"{r['num_inference_steps']:>3} steps")
        want = diffusers_images(pipe, r)
        spread = np.mean([np.asarray(image).std() for image in want])  # flat or saturated pictures would prove little
        with tempfile.TemporaryDirectory() as out:
            try:
                got = calotype_images(a.binary, folder, r, out)
                assert len(got) == len(want), f"{len(got)} pictures, not {len(want)}"
            except (RuntimeError, AssertionError, OSError) as e:
                print(f"{label}  FAILED {e}", flush=True)
                worst = 0.0
                continue
            scores = [psnr(x, y) for x, y in zip(got, want)]
        low = min(s for s, _ in scores)
        worst = min(worst, low)
        print(f"{label}  {low:6.1f} dB  off by at most {max(m for _, m in scores)}  deviation {spread:.0f}"
              f"{'' if low >= a.least else '  TOO LOW'}", flush=True)
    return worst


def main():
    size = lambda s: tuple(int(x) for x in s.split("x"))  # noqa: E731
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--model", action="append", help="an SDXL folder; may be repeated")
    p.add_argument("--folders", nargs="*", default=list(FOLDERS), choices=list(FOLDERS), help="which made ones")
    p.add_argument("--single-file", action="store_true",
                   help="each folder as single files, which diffusers reads by from_single_file")
    p.add_argument("--binary", default=str(make_tiny.REPO / "target/release/calotype"))
    p.add_argument("--samplers", nargs="*", default=list(make_tiny.SAMPLERS), choices=list(make_tiny.SAMPLERS))
    p.add_argument("--sizes", nargs="*", type=size, default=[(96, 64), (64, 120), (128, 128)], help="WIDTHxHEIGHT")
    p.add_argument("--guidance", nargs="*", type=float, default=[1.0, 7.5])
    p.add_argument("--steps", nargs="*", type=int, default=[6, 10, 25], help="one a size, in turn")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--least", type=float, default=50.0)
    p.add_argument("--threads", type=int, default=1, help="of diffusers; small models gain nothing from more")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    worst = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {Path(m).name: m for m in a.model or []}
        for name in [] if a.model else a.folders:
            arguments = [f"{scratch}/{name}", "--vocab", str(make_tiny.default_vocab()), *FOLDERS[name].split()]
            folders[name] = make_tiny.make_folder(make_tiny.parser().parse_args(arguments))
        if a.single_file:
            folders = {n: f for name, folder in folders.items() for n, f in single_files(scratch, name, folder)}
        for name, folder in folders.items():
            worst.append(check(a, name, folder))
    print(f"worst: {min(worst):.1f} dB (at least {a.least:g} is asked)")
    sys.exit(int(min(worst) < a.least))


if __name__ == "__main__":
    main()
