"""How much TOK looks like the mascot after `calotype demo`, and how much the place stays what it was.

    likeness.py --model FOLDER --binary calotype --out FOLDER [--trained trained_model.tar] [--each 2] [--guidance 3] [--scale 1.1]

Without --trained, it runs the demo first.

*Shape*: the drawn mascot is laid over the picture at its best size, turn and place; the correlation of their colours inside its outline.
*Place*: what lies outside of this outline, blurred; its correlation with the untrained model's picture of the same prompt and seed.
Both are means over the pictures, in each setting that the demo's pictures lack. Writes likeness.json and a sheet of both.
"""
import argparse
import json
import subprocess
from functools import cache
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
from PIL import Image, ImageFilter

import mascot
from captions import SETTINGS
from evaluate import predict
from generate import sheet

GUIDANCE, SCALE, STEPS = 3.0, 1.1, 25  # of the demo's pictures
SIDE = 128
SIZES = range(52, 117, 4)  # pixels of the picture
ANGLES = range(-12, 13, 4)  # degrees
BLUR = 6  # pixels, of what lies outside


@cache
def templates():
    """The mascot at every size and turn: colours (h, w, 3) less their mean inside of the outline, outline (h, w), and where it was."""
    found = []
    for size in SIZES:
        drawn = mascot.draw(size)
        for mirrored in (False, True):
            image = drawn.transpose(Image.FLIP_LEFT_RIGHT) if mirrored else drawn
            for angle in ANGLES:
                turned = np.asarray(image.rotate(angle, Image.BICUBIC, expand=True), np.float32) / 255
                inside = (turned[..., 3] > 0.5).astype(np.float32)
                colours = turned[..., :3] - turned[..., :3][inside > 0].mean()
                found.append((colours * inside[..., None], inside))
    return found


@cache
def spectra():
    """The templates' transforms: of the colours, of the outline, and what the correlation is divided by."""
    pad = lambda t: np.fft.rfft2(t, (SIDE, SIDE), axes=(0, 1)).conj()  # noqa: E731
    return [(pad(t), pad(m), 3 * m.sum(), (t**2).sum()) for t, m in templates()]


def shape(image):
    """-> the best correlation, and the outline there, (SIDE, SIDE)"""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    colours = np.fft.rfft2(pixels, axes=(0, 1))
    total, squares = (np.fft.rfft2(x.sum(-1), axes=(0, 1)) for x in (pixels, pixels**2))
    back = lambda x: np.fft.irfft2(x, (SIDE, SIDE))  # noqa: E731
    best = (-2.0, None)
    for (template, inside), (t, m, count, power) in zip(templates(), spectra()):
        height, width = inside.shape
        product = back((colours * t).sum(-1))
        spread = back(squares * m) - back(total * m) ** 2 / count
        score = product / np.sqrt(np.maximum(spread, 1e-3) * power)
        score = score[: SIDE - height + 1, : SIDE - width + 1]  # all of it is in the picture
        if score.size and score.max() > best[0]:
            top, left = np.unravel_index(score.argmax(), score.shape)
            outline = np.zeros((SIDE, SIDE), np.float32)
            outline[top : top + height, left : left + width] = inside
            best = (float(score.max()), outline)
    return best


def place(image, before, outline):
    """-> the correlation outside of the outline"""
    grown = Image.fromarray((255 * outline).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    outside = np.asarray(grown) == 0
    steps = np.arange(SIDE)
    blur = np.exp(-(((steps[:, None] - steps[None]) / BLUR) ** 2) / 2)
    weight = blur @ outside @ blur

    def seen(picture):
        pixels = np.asarray(picture.convert("RGB"), np.float64) * outside[..., None]
        return np.stack([(blur @ pixels[..., c] @ blur / np.maximum(weight, 1e-9))[outside] for c in range(3)])

    return float(np.corrcoef(seen(image).ravel(), seen(before).ravel())[0, 1])


def score(images, before):
    """-> the mean shape and place, and each picture's"""
    rows = []
    for image, was in zip(images, before):
        found, outline = shape(image)
        rows.append((found, place(image, was, outline)))
    shapes, places = np.array(rows).T
    return dict(pictures=len(rows), shape=round(shapes.mean(), 3), place=round(places.mean(), 3),
                least_shape=round(shapes.min(), 3), least_place=round(places.min(), 3))


def prompts(each):
    """Every setting but the plain one, by its first words."""
    places = [(name, words[0]) for name, (words, _) in SETTINGS.items() if name != "plain"]
    return [dict(caption=f"a photo of TOK {words}", thing="mascot", setting=name, seed=1000 * i + 100)
            for name, words in places for i in range(each)]


def demo(binary, folder):
    """-> what the demo teaches, in the folder"""
    trained = folder / "run/trained_model.tar"
    if not trained.exists():
        subprocess.run([binary, "demo", "-o", str(folder)], check=True)
    return trained


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--binary", default="calotype")
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--scale", type=float, default=SCALE)
    parser.add_argument("--each", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    trained = args.trained or demo(args.binary, args.out / "demo")
    rows = prompts(args.each)
    before = [predict(args, row, args.out / "before", STEPS) for row in rows]
    after = [predict(args, row, args.out / "after", STEPS, replicate_weights=f"@{trained}", lora_scale=args.scale) for row in rows]
    sheet([p for pair in zip(before, after) for p in pair], 10).save(args.out / "sheet.png")
    figures = score(after, before)
    (args.out / "likeness.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
