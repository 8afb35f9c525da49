"""Compares pictures of trained weights: `calotype predict` with a trained_model.tar (or any layout it reads) against
diffusers with what `calotype export` makes of it, in both layouts, f32. The layout of diffusers is loaded twice: by
`load_lora_weights`, and by peft alone. Prints PSNR in dB for each way.

Exit code 1 if a picture is under --least dB, or calotype fails. diffusers 0.42 is wrong about two things in kohya's layout,
which are therefore not compared there: LoRA of text encoders (with transformers 5), and alphas that differ by layer."""

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from PIL import Image

from make_tiny import REPO
from peer_check import load_diffusers, psnr


def calotype(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"calotype {arguments[0]}: exit code {done.returncode}: {done.stderr.strip()}")
    return [Path(line) for line in done.stdout.splitlines()]


def token_map(path):
    """What a tar's words stand for."""
    if not tarfile.is_tarfile(path):
        return {}
    with tarfile.open(path) as tar:
        member = next(m for m in tar.getmembers() if Path(m.name).name == "special_params.json")
        return json.load(tar.extractfile(member))


def add_tokens(pipe, rows_of_both, first=0):
    parts = zip(rows_of_both, (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2))
    for rows, tokenizer, encoder in parts:
        names = [f"<s{first + i}>" for i in range(len(rows))]
        pipe.load_textual_inversion(rows, token=names, tokenizer=tokenizer, text_encoder=encoder)


def load_unet_or_lora(pipe, state, scale):
    if any(".lora" in k for k in state):
        pipe.load_lora_weights(state, adapter_name="x")
        pipe.set_adapters(["x"], scale)
    elif state:
        known = set(pipe.unet.state_dict())
        assert known >= set(state), f"not the UNet's: {sorted(set(state) - known)[:3]}"
        pipe.unet.load_state_dict(state, strict=False)


def load_by_peft(unet, state, scale):
    """LoRA of the UNet by peft's own loader, which knows nothing of diffusers' file."""
    state = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
    rank = next(len(v) for k, v in state.items() if k.endswith(".lora_A.weight"))
    modules = sorted({k.rsplit(".lora_", 1)[0] for k in state})
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank * scale, target_modules=modules), unet, "x")
    loaded = set_peft_model_state_dict(unet, state, "x")
    assert not loaded.unexpected_keys, f"not LoRA of this UNet: {loaded.unexpected_keys[:3]}"


def with_export(pipe, form, files, scale):
    """Gives diffusers the files of an export, by its own loaders or peft's."""
    state = safetensors.torch.load_file(files[0])
    if form == "kohya":
        bundles = sorted({k.rsplit(".", 1)[0] for k in state if k.startswith("bundle_emb.")})
        first = 0
        for bundle in bundles:
            rows = [state.pop(f"{bundle}.{k}") for k in ("clip_l", "clip_g")]
            add_tokens(pipe, rows, first)
            first += len(rows[0])
    elif len(files) > 1:
        rows = safetensors.torch.load_file(files[1])
        add_tokens(pipe, [rows["clip_l"], rows["clip_g"]])
    if form == "peft":
        load_by_peft(pipe.unet, state, scale)
    else:
        load_unet_or_lora(pipe, state, scale)


def is_full(path):
    with tarfile.open(path) as tar:
        return "unet.safetensors" in [Path(name).name for name in tar.getnames()]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("trained", help="trained_model.tar")
    p.add_argument("--model", required=True, help="the SDXL folder that it was trained on")
    p.add_argument("--binary", default=str(REPO / "target/release/calotype"))
    p.add_argument("--prompt", default="a photo of TOK riding a rainbow unicorn")
    p.add_argument("--lora-scale", type=float, default=0.6)
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--least", type=float, default=50.0)
    p.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of diffusers")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    full = tarfile.is_tarfile(a.trained) and is_full(a.trained)
    ways = {"diffusers": "diffusers"} if full else {"diffusers": "diffusers", "peft": "diffusers", "kohya": "kohya"}
    request = dict(width=a.size, height=a.size, num_inference_steps=a.steps)
    worst = float("inf")
    with tempfile.TemporaryDirectory() as scratch:
        fields = request | dict(prompt=a.prompt, seed=a.seed, lora_scale=a.lora_scale, replicate_weights=f"@{a.trained}")
        pairs = [x for k, v in fields.items() for x in ("-i", f"{k}={v}")]
        picture = calotype(a.binary, "predict", "--model", a.model, "--dtype", "f32", "-o", scratch, *pairs)[0]
        ours, prompt = Image.open(picture), a.prompt
        for word, value in token_map(a.trained).items():
            prompt = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", value, prompt)
        for way, form in ways.items():
            out = Path(scratch) / f"{way}.safetensors"
            files = calotype(a.binary, "export", a.trained, "--model", a.model, "--format", form, "-o", out)
            pipe = load_diffusers(a.model)
            with_export(pipe, way, files, a.lora_scale)
            theirs = pipe(prompt=prompt, negative_prompt="", guidance_scale=7.5, **request,
                          generator=torch.Generator("cpu").manual_seed(a.seed)).images[0]
            score, off = psnr(theirs, ours)
            worst = min(worst, score)
            print(f"{way:10} {score:6.1f} dB  off by at most {off}{'' if score >= a.least else '  TOO LOW'}", flush=True)
    sys.exit(int(worst < a.least))


if __name__ == "__main__":
    main()
