"""Pictures with captions: one from a seed, a contact sheet to look at, or a whole set on disk.

    generate.py sheet out.png [--seed 0] [--setting city] [--thing fox] [--style watercolour] [--time night]
    generate.py set FOLDER [--count 8000] [--seed 1] [--workers 2] [--minutes 5]      # sets.py says what is in the folder
"""
import argparse
import os
import time
from dataclasses import replace
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import nature
import places
from captions import SETTINGS, as_row, caption, draw_lot
from paint import ROWS, S, ridge
from sets import PART, SIZE, write_part
from styles import STYLES
from things import HELD_OUT, THINGS, coloured, glyph

SHARED = 4
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


def sink(rng, foot, depth):
    """How much the ground in front hides of each pixel, 0…1."""
    line = ridge(rng, foot - depth, 2.5, 3) + rng.normal(0, 0.8, S)
    return np.clip((ROWS - line[None]) / 3, 0, 1)


def scene(rng, content):
    """The empty place: a canvas, and the row where feet stand (None where things float)."""
    if content.setting == "plain":
        return places.plain(rng, content.background)
    return PAINTERS[content.setting](rng, content.time)


def compose(rng, content, canvas, foot):
    """The thing in the place: the picture, 128 × 128, and what of it the thing covers, L. The canvas is left as it was."""
    height = rng.uniform(0.57, 0.73) * S
    thing = subject(rng, content, height, foot is None)
    w, h = thing.size
    room = max(S - w, 0) / 2
    x = S / 2 + float(np.clip(rng.normal(0, 0.05) * S, -room, room))
    behind, canvas, cover = canvas, canvas.copy(), Image.new("L", (S, S), 0)
    hidden = None
    if foot is None:
        y = S * rng.uniform(0.44, 0.54) + h / 2
    else:
        y = foot = max(foot, h + 6)
        depth = SINKS.get(content.setting, 0) * h
        cast_shadow(canvas, x, foot - 2 - depth, w, 0.3 if content.setting in ("sea", "rain") else 0.5)
        if depth:
            hidden = Image.fromarray((sink(rng, foot, depth) * 255).astype(np.uint8))
    corner = (round(x - w / 2), round(y - h))
    canvas.paste(thing, corner, thing)
    cover.paste(thing.getchannel("A"), corner)
    if hidden:
        canvas.paste(behind, (0, 0), hidden)
        cover.paste(0, (0, 0), hidden)
    image = canvas.reduce(2)
    return STYLES[content.style](rng, image) if content.style else image, cover.reduce(2)


def paint(rng, content):
    """The picture, 128 × 128."""
    return compose(rng, content, *scene(rng, content))[0]


def example(seed, things=None, keep_held_out=False):
    """The picture, caption and content of a seed."""
    rng = np.random.default_rng(seed)
    content = draw_lot(rng, things, keep_held_out)
    return paint(rng, content), caption(rng, content), content


def examples(seed, count, everything, styled):
    """Pictures, covers and rows of a seed. SHARED in a row have one place, since a place takes most of the time; half see it mirrored."""
    rng = np.random.default_rng(seed)
    things = [*THINGS, *HELD_OUT, "mascot"] if everything else None
    for i in range(count):
        if i % SHARED == 0:
            content = draw_lot(rng, things, everything, styled)
            canvas, foot = scene(rng, content)
            place = replace(content)
        else:
            content = draw_lot(rng, things, everything, styled, place)
            canvas = ImageOps.mirror(canvas)
        picture, cover = compose(rng, content, canvas, foot)
        yield picture, cover, as_row(content, caption(rng, content))


def sheet(images, columns=8, size=SIZE):
    """Pictures in rows."""
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * (size + 4), rows * (size + 4)), "white")
    for i, image in enumerate(images):
        page.paste(image, (i % columns * (size + 4) + 2, i // columns * (size + 4) + 2))
    return page


def _part(job):
    folder, name, seed, everything, styled, until = job
    if time.time() < until:
        write_part(folder, name, examples(seed, PART, everything, styled))


def write_set(args):
    """Parts of PART pictures, as many as are missing of count, or as the minutes allow."""
    until = time.time() + (60 * args.minutes if args.minutes else 1e9)
    names = [(i, f"{args.seed}-{i:05}") for i in range(-(-args.count // PART))]
    jobs = [(args.out, name, (args.seed, i), args.everything, args.styled, until) for i, name in names if not (args.out / name).exists()]
    with Pool(args.workers, os.nice, (10,)) as pool:
        for i, _ in enumerate(pool.imap_unordered(_part, jobs)):
            if time.time() < until and i % 10 == 9:
                print(f"{args.out.name}: {(i + 1) * PART} pictures", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sheet", "set"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("setting", "thing", "style", "time", "colour"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--everything", action="store_true", help="held-out things and pairs too")
    parser.add_argument("--styled", type=float, default=0.4, help="share of pictures with a style")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="no part is begun after this time")
    args = parser.parse_args()
    if args.what == "set":
        return write_set(args)
    images = []
    for i in range(args.count):
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
