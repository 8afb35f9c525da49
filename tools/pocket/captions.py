"""What a picture shows, drawn by lot, and the words for it."""
from dataclasses import asdict, dataclass
from zlib import crc32

from places import PLAIN
from styles import STYLES
from things import COLOURS, THINGS

TIMES = ("day", "sunset", "night")
SETTINGS = {  # words for it; whether it has times of day
    "beach": (["on a beach", "on the beach", "at the beach"], True),
    "forest": (["in a forest", "in the forest", "in the woods"], True),
    "snow": (["in the snow", "in the snow", "in a snowy landscape"], True),
    "city": (["in a city", "in the city", "on a city street"], True),
    "desert": (["in a desert", "in the desert"], True),
    "mountains": (["in the mountains", "in front of mountains"], True),
    "meadow": (["in a meadow", "in a meadow of flowers", "in a field of flowers"], True),
    "sea": (["on the sea", "in the sea", "on the ocean"], True),
    "autumn": (["in an autumn park", "in autumn leaves", "in an autumn forest"], True),
    "rain": (["in the rain", "in the rain", "on a rainy day"], False),
    "under water": (["under water", "under the sea"], False),
    "night sky": (["in the night sky", "in a starry night sky"], False),
    "space": (["in space", "in outer space"], False),
    "moon": (["on the moon"], False),
    "room": (["in a room", "in a living room"], False),
    "plain": (["on a plain {} background", "on a {} background"], False),
}
ALWAYS_APART = {("fox", "snow"), ("octopus", "city")}  # the first examples anyone tries


def held_out(thing, setting):
    """Pairs that training never sees: an eighth of all, and the two above. A plain background goes with everything."""
    return (thing, setting) in ALWAYS_APART or (setting != "plain" and crc32(f"{thing}|{setting}".encode()) % 8 == 0)


@dataclass
class Content:
    thing: str
    setting: str
    time: str = "day"
    colour: str = ""      # of the thing; "" is its own
    background: str = ""  # of the plain setting
    style: str = ""


def draw_lot(rng, things=None, keep_held_out=False, styled=0.2, scene=None):
    """What one picture shows; styled: the share with a style; scene: another picture's content, whose place and time to keep."""
    things = things or list(THINGS)
    settings = [scene.setting] if scene else list(SETTINGS)
    while True:
        thing, setting = things[rng.integers(len(things))], settings[rng.integers(len(settings))]
        if keep_held_out or not held_out(thing, setting):
            break
    content = Content(thing, setting)
    if scene:
        content.time, content.background = scene.time, scene.background
    elif SETTINGS[setting][1]:
        content.time = TIMES[rng.choice(3, p=[0.4, 0.35, 0.25] if setting == "sea" else [0.6, 0.2, 0.2])]
    if setting == "plain" and not scene:
        content.background = list(PLAIN)[rng.integers(len(PLAIN))]
    if rng.random() < styled:
        styles = [s for s in STYLES if s != "pencil sketch" or not scene or scene.time == "day"]  # it has no time of day
        content.style = styles[rng.integers(len(styles))]
        if content.style == "pencil sketch":
            content.time = "day"
    if rng.random() < 0.25 and content.style != "pencil sketch":
        choices = [c for c in COLOURS if c != content.background]
        content.colour = choices[rng.integers(len(choices))]
    return content


def article(words):
    return ("an " if words[0] in "aeiou" and not words.startswith("uni") else "a ") + words


def caption(rng, content):
    """A sentence for it; now and then without its setting."""
    thing = article(f"{content.colour} {content.thing}".strip())
    words = SETTINGS[content.setting][0]
    place = words[rng.integers(len(words))].format(content.background)
    if content.time != "day":
        place += f" at {content.time}"
    if rng.random() < 0.04:
        place = ""
    style = content.style
    if not style:
        lead = ["", "", "a photo of ", "a picture of "][rng.integers(4)]
        sentence = f"{lead}{thing} {place}"
    elif rng.random() < 0.7:
        sentence = f"{style if style == 'pixel art' else article(style)} of {thing} {place}"
    else:
        return f"{thing} {place}".strip() + f", {style}"
    return sentence.strip()


def as_row(content, sentence):
    return {**asdict(content), "caption": sentence}
