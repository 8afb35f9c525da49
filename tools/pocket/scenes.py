"""Draws scenes without things, for compose.py to put things into.

    scenes.py FOLDER [--seconds 300] [--processes 4] [--count 16000] [--seed 3]

Files of 128, `scenes-*.npz`, each whole from the moment that it is there. Ends after the time, or the count.
"""
import argparse
import os
import time
from multiprocessing import Process
from pathlib import Path

import numpy as np

import generate
from captions import SETTINGS, TIMES, draw_lot
from places import PLAIN
from styles import STYLES
from things import COLOURS, THINGS

SHARD = 128
LISTS = {"thing": list(THINGS), "setting": list(SETTINGS), "time": list(TIMES), "colour": ["", *COLOURS],
         "background": ["", *PLAIN], "style": ["", *STYLES]}  # what a number in a file stands for


def numbers(content):
    """What a picture shows, as numbers."""
    return [names.index(getattr(content, field)) for field, names in LISTS.items()]


def write(path, **arrays):
    temporary = path.with_name("." + path.name)
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, path)


def scenes(rng, count):
    """Canvases, 256 × 256, what they show, and where feet stand (NaN: nothing stands)."""
    canvases, rows, feet = [], [], []
    for _ in range(count):
        content = draw_lot(rng, keep_held_out=True)
        content.style = ""
        canvas, foot = generate.scene(rng, content)
        canvases.append(np.asarray(canvas))
        rows.append(numbers(content))
        feet.append(np.nan if foot is None else foot)
    return {"canvas": np.stack(canvases), "row": np.array(rows, np.uint8), "foot": np.array(feet, np.float32)}


def draw(folder, seed, worker, until, shards, size):
    """One process's share."""
    rng = np.random.default_rng((seed, worker))
    for i in range(shards):
        if time.time() > until:
            break
        write(folder / f"scenes-{worker:02}-{i:04}.npz", **scenes(rng, size))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--count", type=int, default=16000)
    parser.add_argument("--size", type=int, default=SHARD, help="pictures in a file")
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    until, shards = time.time() + args.seconds, max(1, args.count // args.size // args.processes)
    workers = [Process(target=draw, args=(args.folder, args.seed, i, until, shards, args.size)) for i in range(args.processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
