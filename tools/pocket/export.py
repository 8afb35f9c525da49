"""Writes the model's folder, fp16, as diffusers lays it out, and checks its size.

    export.py --training FOLDER --vae FOLDER --tokenizers FOLDER --out FOLDER     # replaces FOLDER in one move

What FOLDER has besides (the networks of `calotype preprocess`) stays.
"""
import argparse
import copy
import json
import os
import shutil
from pathlib import Path

import threads  # noqa: F401, first of all

import torch
from diffusers import AutoencoderKL

from model import SCHEDULER, Pocket

LIMIT = 40_000_000
INDEX = {
    "_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.42.0", "force_zeros_for_empty_prompt": False,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
}


def write(folder, pocket, vae, tokenizers):
    for name, part in copy.deepcopy(pocket).cpu().named_children():
        part.half().to(memory_format=torch.contiguous_format).save_pretrained(folder / name)
    vae = AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32)
    vae.half().to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tokenizers / name, folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    for path in folder.glob("*/config.json"):
        plain(path)
    card = Path(__file__).with_name("model_card.md")
    if card.exists():
        shutil.copy(card, folder / "README.md")


def plain(path):
    """Drops from a configuration what says where and with what it was written: it differs from machine to machine."""
    config = json.loads(path.read_text())
    kept = {key: value for key, value in config.items() if key not in ("_name_or_path", "transformers_version")}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def keep_others(old, fresh):
    """Copies what only the old folder has: it belongs to other tools."""
    for path in old.iterdir() if old.exists() else ():
        if not (fresh / path.name).exists():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, fresh / path.name)


def publish(step, pocket, vae, tokenizers, out):
    """Writes the folder beside the old one, checks it, and puts it in its place."""
    fresh, old = (out.with_name(out.name + end) for end in (".new", ".old"))
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh, pocket, vae, tokenizers)
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > LIMIT:
        raise SystemExit(f"export.py: {size} bytes are more than {LIMIT}")
    keep_others(out, fresh)
    if out.exists():
        os.rename(out, old)
    os.rename(fresh, out)
    shutil.rmtree(old, ignore_errors=True)
    print(f"step {step}: {size / 1e6:.1f} MB in {out}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("training", "vae", "tokenizers", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    pocket = Pocket(len(json.loads((args.tokenizers / "tokenizer/vocab.json").read_text())))
    state = torch.load(args.training / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    pocket.load_state_dict(state["average"]["model"])
    publish(state["step"], pocket, args.vae, args.tokenizers, args.out)


if __name__ == "__main__":
    main()
