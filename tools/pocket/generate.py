"""Pictures with captions: one from a seed, a contact sheet to look at, or a whole set on disk.

    generate.py sheet out.png [--seed 0] [--setting city] [--thing fox] [--style watercolour] [--time night]
    generate.py set FOLDER [--count 50000] [--seed 1]      # images.npy (uint8, count × 128 × 128 × 3), captions.jsonl
"""
import argparse
import json
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import nature
import places
from captions import SETTINGS, as_row, caption, draw_lot
from paint import S, ridge
from styles import STYLES
from things import HELD_OUT, THINGS, coloured, glyph

SIZE = 128
PAINTERS = {"beach": places.beach, "forest": nature.forest, "snow": nature.snow, "city": places.city, "desert": nature.desert,
            "mountains": nature.mountains, "meadow": nature.meadow, "sea": places.sea, "autumn": nature.autumn, "rain": nature.rain,
            "under water": places.under_water, "night sky": places.night_sky, "space": places.space, "moon": places.on_the_moon,
            "room": places.room}
LIGHT = {"sunset": (1.0, 0.87, 0.8), "night": (0.74, 0.79, 0.98), "under water": (0.84, 0.96, 1.0), "night sky": (0.86, 0.88, 1.0),
         "space": (0.95, 0.95, 1.0), "rain": (0.86, 0.9, 0.95)}
SINKS = {"sea": 0.16, "snow": 0.06, "meadow": 0.06, "forest": 0.04, "autumn": 0.04, "beach": 0.03, "desert": 0.03}


def subject(rng, content, height, floats):
    """The thing as it stands in the picture: coloured, lit, turned, RGBA."""
    image = glyph(content.thing)
    if content.colour:
        image = coloured(image, content.colour)
    light = LIGHT.get(content.time, LIGHT.get(content.setting))
    if light:
        pixels = np.asarray(image, np.float32) * np.asarray((*light, 1))
        image = Image.fromarray(pixels.round().astype(np.uint8))
    scale = min(height / image.height, 0.86 * S / image.width)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.BICUBIC)
    angle = rng.normal(0, 6 if floats else 2.5)
    image = image.rotate(angle, Image.BICUBIC, expand=True)
    return image.crop(image.getbbox())


def cast_shadow(canvas, x, foot, width, strength):
    """A soft shadow on the ground."""
    shadow = Image.new("L", (S, S), 0)
    ImageDraw.Draw(shadow).ellipse((x - width * 0.46, foot - width * 0.085, x + width * 0.46, foot + width * 0.085), fill=int(255 * strength))
    canvas.paste((8, 10, 28), (0, 0, S, S), shadow.filter(ImageFilter.GaussianBlur(4)))


def sink(rng, canvas, behind, foot, depth):
    """The ground in front hides the feet."""
    line = ridge(rng, foot - depth, 2.5, 3) + rng.normal(0, 0.8, S)
    rows = np.mgrid[0:S, 0:S][0]
    mask = np.clip((rows - line[None]) / 3, 0, 1) * 255
    canvas.paste(behind, (0, 0), Image.fromarray(mask.astype(np.uint8)))


def paint(rng, content):
    """The picture, 128 × 128."""
    if content.setting == "plain":
        canvas, foot = places.plain(rng, content.background)
    else:
        canvas, foot = PAINTERS[content.setting](rng, content.time)
    height = rng.uniform(0.57, 0.73) * S
    thing = subject(rng, content, height, foot is None)
    w, h = thing.size
    room = max(S - w, 0) / 2
    x = S / 2 + float(np.clip(rng.normal(0, 0.05) * S, -room, room))
    if foot is None:
        y = S * rng.uniform(0.44, 0.54) + h / 2
        canvas.paste(thing, (round(x - w / 2), round(y - h)), thing)
    else:
        foot = max(foot, h + 6)
        behind = canvas.copy()
        depth = SINKS.get(content.setting, 0) * h
        cast_shadow(canvas, x, foot - 2 - depth, w, 0.3 if content.setting in ("sea", "rain") else 0.5)
        canvas.paste(thing, (round(x - w / 2), round(foot - h)), thing)
        if depth:
            sink(rng, canvas, behind, foot, depth)
    image = canvas.reduce(2)
    return STYLES[content.style](rng, image) if content.style else image


def example(seed, things=None, keep_held_out=False):
    """The picture, caption and content of a seed."""
    rng = np.random.default_rng(seed)
    content = draw_lot(rng, things, keep_held_out)
    return paint(rng, content), caption(rng, content), content


def sheet(images, columns=8, size=SIZE):
    """Pictures in rows."""
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * (size + 4), rows * (size + 4)), "white")
    for i, image in enumerate(images):
        page.paste(image, (i % columns * (size + 4) + 2, i // columns * (size + 4) + 2))
    return page


def _one(job):
    seed, everything = job
    image, sentence, content = example(seed, [*THINGS, *HELD_OUT, "mascot"] if everything else None, everything)
    return np.asarray(image), as_row(content, sentence)


def write_set(folder, count, seed, everything):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, SIZE, SIZE, 3))
    jobs = (((seed, i), everything) for i in range(count))
    with Pool(2) as pool, open(folder / "captions.jsonl", "w") as rows:
        for i, (image, row) in enumerate(pool.imap(_one, jobs, chunksize=64)):
            images[i] = image
            rows.write(json.dumps(row) + "\n")
            if i % 5000 == 0:
                print(i, row["caption"], flush=True)
    images.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sheet", "set"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("setting", "thing", "style", "time", "colour"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--everything", action="store_true", help="held-out things and pairs too")
    args = parser.parse_args()
    if args.what == "set":
        return write_set(args.out, args.count or 50000, args.seed, args.everything)
    images = []
    for i in range(args.count or 64):
        rng = np.random.default_rng((args.seed, i))
        content = draw_lot(rng, [args.thing] if args.thing else None, True)
        for name in ("setting", "style", "time", "colour"):
            if getattr(args, name) is not None:
                setattr(content, name, getattr(args, name))
        if content.setting == "plain":
            content.background = content.background or "blue"
        elif not SETTINGS[content.setting][1]:
            content.time = "day"
        images.append(paint(rng, content))
    sheet(images).save(args.out)


if __name__ == "__main__":
    main()
