"""Goldens of a set's squares, as Pillow makes them -> crates/sdxl/tests/golden/squares.safetensors: a picture (H, W, 3, 8 bits) and its mask
(H, W); and for each of some resolutions R, `picture.R` and `mask.R`, the squares in their middles, by Pillow's filters LANCZOS and BILINEAR."""

import numpy as np
import torch
from PIL import Image

from common import SDXL_GOLDEN, save

WIDTH, HEIGHT, RESOLUTIONS = 60, 44, (16, 44, 70)


def main():
    rng = np.random.default_rng(12)
    picture, mask = (rng.integers(0, 256, (HEIGHT, WIDTH, *rest), np.uint8) for rest in ((3,), ()))
    tensors = {"picture": picture, "mask": mask}
    left = (WIDTH - HEIGHT) // 2
    for name, values, resample in (("picture", picture, Image.LANCZOS), ("mask", mask, Image.BILINEAR)):
        square = Image.fromarray(values).crop((left, 0, left + HEIGHT, HEIGHT))
        for resolution in RESOLUTIONS:
            tensors[f"{name}.{resolution}"] = np.asarray(square.resize((resolution, resolution), resample))
    save(SDXL_GOLDEN / "squares.safetensors", {name: torch.from_numpy(values.copy()) for name, values in tensors.items()})


if __name__ == "__main__":
    main()
