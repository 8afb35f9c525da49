"""Draws the evaluation's 100 prompts by lot and writes prompts.json: half pairs of training, half pairs that it never has.

Done once, before the training was tuned; the file is what counts. Plain backgrounds, where nothing is held out, are left out.
"""
import json
from pathlib import Path

import numpy as np

from captions import ALWAYS_APART, SETTINGS, Content, as_row, article, draw_lot, held_out

FILE = Path(__file__).with_name("prompts.json")


def sentence(content):
    """Plain words, as a person would write."""
    thing = article(f"{content.colour} {content.thing}".strip())
    place = SETTINGS[content.setting][0][0] + (f" at {content.time}" if content.time != "day" else "")
    lead = "" if not content.style else f"{content.style if content.style == 'pixel art' else article(content.style)} of "
    return f"{lead}{thing} {place}"


def main():
    rng = np.random.default_rng(2026)
    chosen = [Content("fox", "snow", colour="red"), Content("octopus", "city", time="night")]
    pairs = set(ALWAYS_APART)
    while len(chosen) < 100:
        content = draw_lot(rng, keep_held_out=len(chosen) < 50)
        pair = (content.thing, content.setting)
        if content.setting == "plain" or pair in pairs or held_out(*pair) != (len(chosen) < 50):
            continue
        pairs.add(pair)
        chosen.append(content)
    rows = [as_row(c, sentence(c)) | {"held_out": held_out(c.thing, c.setting), "seed": 1000 + i} for i, c in enumerate(chosen)]
    FILE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
