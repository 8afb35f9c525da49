#!/usr/bin/env python3
"""Makes the sheet of pictures from pictures with the pocket model: img2img, inpainting, refinement. Needs Pillow.

    tools/pocket/from_pictures.py target/release/calotype docs/figures/from-pictures.png
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, GAP, LABEL = 128, 6, 14
COMMON = ["--num-inference-steps", "25", "--dtype", "f32", "-q"]


def predict(binary, folder, name, *args):
    """Makes one picture, and returns the path of its copy `name`."""
    done = subprocess.run([binary, "predict", "-o", str(folder), *COMMON, *args], capture_output=True, text=True, check=True)
    made, path = Path(done.stdout.strip()), folder / name
    made.rename(path)
    return path


def main():
    binary, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        make = lambda name, *args: predict(binary, scratch, name, *args)  # noqa: E731
        fox = make("fox.png", "--prompt", "a red fox in the snow", "--seed", "5")
        rows = [[("a red fox in the snow", fox)], [], []]
        for strength in ("0.4", "0.6", "0.8"):
            rows[0].append((f"a dog, strength {strength}", make(
                f"dog{strength}.png", "--image", str(fox), "--prompt", "a brown dog in the snow", "--seed", "7",
                "--prompt-strength", strength)))
        mask = Image.new("L", (SIDE, SIDE), 0)
        ImageDraw.Draw(mask).rounded_rectangle([4, 8, 112, 120], 24, fill=255)
        mask.save(scratch / "mask.png")
        rows[1].append(("the mask", scratch / "mask.png"))
        for thing, seed in (("a red apple", "1"), ("a cat", "2"), ("a yellow duck", "3")):
            rows[1].append((thing, make(
                f"{seed}.png", "--image", str(fox), "--mask", str(scratch / "mask.png"), "--prompt", f"{thing} in the snow",
                "--prompt-strength", "1", "--seed", seed)))
        octopus = ["--prompt", "an octopus in a city at night", "--seed", "11"]
        rows[2] = [("base alone", make("base.png", *octopus))]
        for label, more in (("expert, 0.8", ["expert_ensemble_refiner"]), ("expert, 0.5", ["expert_ensemble_refiner", "--high-noise-frac", "0.5"]),
                            ("base_image", ["base_image_refiner"])):
            rows[2].append((label, make(f"{label}.png", *octopus, "--refiner", "pocket", "--refine", *more)))
        width, height = 4 * (SIDE + GAP) + GAP, len(rows) * (SIDE + GAP + LABEL) + GAP
        sheet = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(sheet)
        for y, row in enumerate(rows):
            for x, (label, path) in enumerate(row):
                left, top = GAP + x * (SIDE + GAP), GAP + y * (SIDE + GAP + LABEL)
                sheet.paste(Image.open(path).convert("RGB"), (left, top))
                draw.text((left, top + SIDE + 1), label, fill="black")
        sheet.save(target, optimize=True)


if __name__ == "__main__":
    main()
