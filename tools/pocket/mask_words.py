"""What the segmenter is asked for, and which of the things shown it means."""
import numpy as np

from captions import article
from compose import NAMES
from creatures import KINDS
from scenes import LISTS
from things import THINGS

BIRDS = "turkey rooster chick penguin dove eagle duck swan owl peacock parrot".split()
INSECTS = "butterfly caterpillar bee ladybug spider".split()
GROUPS = {
    "bird": BIRDS + ["bird"],
    "insect": INSECTS + ["insect"],
    "vehicle": ["car", "bus", "fire engine", "bicycle", "scooter", "locomotive", "helicopter", "airplane", "rocket", "flying saucer", "sailboat",
                "vehicle"],
    "fruit": "apple banana pineapple strawberry watermelon lemon fruit".split(),
    "flower": "sunflower rose tulip".split(),
    "animal": list(THINGS)[: list(THINGS).index("shell")] + ["snail"] + INSECTS + "crab lobster monkey gorilla animal bird insect".split(),
    "object": ["object"],
}
UNSURE = {  # things that are neither plainly of a group nor plainly not
    "animal": {"dragon", "unicorn", "shell", "teddy bear", "figure", "ghost", "alien"}, "object": set(NAMES) - {"object", "figure"},
    "fruit": {"pumpkin", "carrot", "object"}, "flower": {"cactus", "object"}, "bird": {"animal"}, "insect": {"animal"}, "vehicle": {"object"},
}
FIGURE = ["a toy", "a character", "a mascot", "a cartoon character", "a cartoon mascot", "a camera mascot", "a small toy", "a figure", "the mascot",
          "the character", "the toy", "a cute character"]
FIGURE_LIKE = {"robot", "ghost", "alien", "snowman", "teddy bear", "object", "pumpkin"}
FRONT = ["the thing in front", "the subject", "the main thing", "the thing in the foreground", "the foreground", "the main subject", "something",
         "the thing"]
TEMPLATES = ["{}", "{a}", "the {}", "a photo of {a}", "photo of {a}", "a picture of {a}", "{a} in the picture", "photo of the {}"]


def phrase(rng, name, colour=""):
    """A thing in words; its colour may be said."""
    words = f"{colour} {name}".strip() if colour and rng.random() < 0.4 else name
    template = TEMPLATES[rng.choice(len(TEMPLATES), p=[0.2, 0.25, 0.1, 0.2, 0.1, 0.05, 0.05, 0.05])]
    return template.format(words, a=article(words))


def group_of(rng, name):
    """A group that a thing belongs to, or None."""
    groups = [group for group, names in GROUPS.items() if name in names]
    return groups[rng.integers(len(groups))] if groups else None


def asked(rng, shown, hue):
    """Words for a thing that is shown, and the names that these words mean."""
    if shown == "figure":
        return FIGURE[rng.integers(len(FIGURE))], {"figure"}
    group = group_of(rng, shown)
    if shown in KINDS or (group and rng.random() < 0.15):
        return phrase(rng, group), set(GROUPS[group])
    return phrase(rng, shown, LISTS["colour"][hue]), {shown}


def absent(rng, shown):
    """Words for something that is not shown."""
    while True:
        which = rng.random()
        if which < 0.85:
            name = list(THINGS)[rng.integers(len(THINGS))]
            if name not in shown:
                return phrase(rng, name)
        elif which < 0.93:
            if not (set(shown) & (FIGURE_LIKE | {"figure"})):
                return FIGURE[rng.integers(len(FIGURE))]
        else:
            group = list(GROUPS)[rng.integers(len(GROUPS))]
            if not set(shown) & (set(GROUPS[group]) | UNSURE.get(group, set())):
                return phrase(rng, group)


def alike(rng, shown):
    """Words for something that is not shown, of a group with what is, if that has a group."""
    name = shown[rng.integers(len(shown))] if shown else None
    others = sorted({other for names in GROUPS.values() if name in names for other in names if other in THINGS} - set(shown))
    return phrase(rng, others[rng.integers(len(others))]) if others else absent(rng, shown)


def prompts(rng, batch, each):
    """Prompts for each picture, and for each how much of the first and the second thing it means, (B, each, 2): nothing at all (""), something that
    is there, the front or another thing, and things that are not there."""
    texts, means = [], np.zeros((len(batch.rows), each, 2), np.float32)
    for i, (row, (second, second_hue)) in enumerate(zip(batch.rows, batch.second)):
        shown = [NAMES[n] if n < len(NAMES) else None for n in (row[0], second)]
        there = [name for name in shown if name]
        hues = (0 if LISTS["style"][row[5]] == "pencil sketch" else row[3], second_hue)

        def ask(slot, k):
            words, meant = asked(rng, shown[k], hues[k])
            means[i, slot] = [name in meant for name in shown]
            return words

        first = ask(1, 0) if shown[0] else absent(rng, there)
        which = rng.random()
        if which < 0.3 and shown[0]:
            other = FRONT[rng.integers(len(FRONT))]
            means[i, 2] = [1, 0]
        elif shown[1] and which < 0.85:
            other = ask(2, 1)
        else:
            other = absent(rng, there)
        texts += ["", first, other] + [(absent, alike)[slot % 2](rng, there) for slot in range(each - 3)]
    return texts, means
