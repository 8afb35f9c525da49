"""Goldens of pocket's captioner, segmenter and upscaler, as transformers runs them in f32 on pictures that tools/pocket draws ->
crates/train/tests/golden/pocket_preprocessing.safetensors: pictures (H, W, 3, 8 bits), captions by greedy decoding (metadata), masks as the
published trainer makes them of a prompt's and the empty prompt's logits, the largest probability of each, and a small picture four times as large.

Needs Debian's fonts-noto-color-emoji (or its file's path in NOTO_COLOR_EMOJI)."""

import sys

import numpy as np
import torch
from PIL import Image

from common import ROOT, save

sys.path.insert(0, str(ROOT / "tools/pocket"))

from captions import Content  # noqa: E402
from evaluate_preprocessing import Captioner, Segmenter, Upscaler  # noqa: E402
from generate import compose, scene  # noqa: E402

MODEL = ROOT / "models/pocket"
OUT = ROOT / "crates/train/tests/golden/pocket_preprocessing.safetensors"
PICTURES = {  # what it shows, its size, prompts: for what is there, and for what is not
    "fox": (Content("fox", "snow"), (128, 128), ("a fox", "a photo of a bicycle")),
    "octopus": (Content("octopus", "beach", time="sunset"), (100, 76), ("the octopus", "a castle")),
    "mascot": (Content("mascot", "meadow"), (96, 96), ("a cartoon mascot", "a snake")),
}


def mask_of(p, size):
    """The trainer's mask of probabilities."""
    p = np.minimum(p + 0.01, 1)
    return Image.fromarray((p * 255 / p.max()).astype(np.uint8)).resize(size, Image.BICUBIC)


def main():
    captioner, segmenter, upscaler = (kind(MODEL / kind.__name__.lower()) for kind in (Captioner, Segmenter, Upscaler))
    tensors, meta = {}, {}
    for i, (name, (content, size, prompts)) in enumerate(PICTURES.items()):
        rng = np.random.default_rng(40 + i)
        picture = compose(rng, content, *scene(rng, content))[0].resize(size, Image.LANCZOS)
        tensors[f"{name}.picture"] = torch.from_numpy(np.asarray(picture).copy())
        meta[f"{name}.caption"] = captioner(picture, do_sample=False, num_beams=1)
        for k, (prompt, p) in enumerate(zip(prompts, segmenter(picture, prompts))):
            meta[f"{name}.prompt.{k}"] = prompt
            tensors[f"{name}.mask.{k}"] = torch.from_numpy(np.asarray(mask_of(p, size)).copy())
            tensors[f"{name}.largest.{k}"] = torch.tensor([p.max()])
        print(name, meta[f"{name}.caption"], [tensors[f"{name}.largest.{k}"].item() for k in range(2)])
    small = picture.resize((24, 16), Image.BICUBIC)
    tensors["small.picture"] = torch.from_numpy(np.asarray(small).copy())
    tensors["small.upscaled"] = torch.from_numpy(np.asarray(upscaler(small)).copy())
    save(OUT, tensors, meta)


if __name__ == "__main__":
    main()
