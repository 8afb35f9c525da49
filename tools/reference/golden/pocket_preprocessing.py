"""Goldens of pocket's captioner, segmenter and upscaler, as transformers runs them in f32 on pictures that tools/pocket draws ->
crates/sdxl/tests/golden/pocket_preprocessing.safetensors: pictures (H, W, 3, 8 bits), captions by greedy decoding (metadata), masks as the
published trainer makes them of a prompt's and the empty prompt's logits, the largest probabilities for something that is there and for
something that is not, and a small picture four times as large. Also what of its picture the fox really covers, and that picture a quarter as large.

Needs Debian's fonts-noto-color-emoji (or its file's path in NOTO_COLOR_EMOJI)."""

import sys

import numpy as np
import torch
from PIL import Image

from common import ROOT, SDXL_GOLDEN, save

sys.path.insert(0, str(ROOT / "tools/pocket"))

from captions import Content  # noqa: E402
from evaluate_preprocessing import Captioner, Segmenter, Upscaler  # noqa: E402
from generate import compose, scene  # noqa: E402

MODEL = ROOT / "models/pocket"
OUT = SDXL_GOLDEN / "pocket_preprocessing.safetensors"
PICTURES = {  # what it shows, its size, prompts: for what is there, and for what is not
    "fox": (Content("fox", "snow"), (128, 128), ("a fox", "a photo of a bicycle")),
    "octopus": (Content("octopus", "beach", time="sunset"), (64, 48), ("the octopus", "a castle")),
    "mascot": (Content("mascot", "meadow"), (66, 66), ("a cartoon mascot", "a snake")),
}


def mask_of(p, size):
    """The trainer's mask of probabilities."""
    p = np.minimum(p + 0.01, 1)
    return Image.fromarray((p * 255 / p.max()).astype(np.uint8)).resize(size, Image.BICUBIC)


def tensor(picture):
    return torch.from_numpy(np.asarray(picture).copy())


def main():
    captioner, segmenter, upscaler = (kind(MODEL / kind.__name__.lower()) for kind in (Captioner, Segmenter, Upscaler))
    tensors, meta = {}, {}
    for i, (name, (content, size, prompts)) in enumerate(PICTURES.items()):
        rng = np.random.default_rng(40 + i)
        whole, cover = compose(rng, content, *scene(rng, content))
        picture = whole.resize(size, Image.LANCZOS)
        tensors[f"{name}.picture"] = tensor(picture)
        if name == "fox":
            tensors["fox.cover"] = tensor(cover)
            tensors["fox.small"] = tensor(picture.resize((32, 32), Image.BICUBIC))
        meta[f"{name}.caption"] = captioner(picture, do_sample=False, num_beams=1)
        there, absent = segmenter(picture, prompts)
        meta[f"{name}.prompt"], meta[f"{name}.absent"] = prompts
        tensors[f"{name}.mask"] = tensor(mask_of(there, size))
        tensors[f"{name}.largest"] = torch.tensor([there.max(), absent.max()])
        print(name, meta[f"{name}.caption"], tensors[f"{name}.largest"].tolist())
    small = picture.resize((24, 16), Image.BICUBIC)
    tensors["small.picture"] = tensor(small)
    tensors["small.upscaled"] = tensor(upscaler(small))
    save(OUT, tensors, meta)


if __name__ == "__main__":
    main()
