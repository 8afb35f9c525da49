"""Things that have no name in the captions: made-up figures, and glyphs known by their kind alone. From them the captioner and the
segmenter learn a general word for what they never saw."""
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from things import FONT

FIGURES = ("toy", "character", "mascot")  # the words for a figure
KINDS = {  # words for it: glyphs of Noto Color Emoji that are no things of pocket, and none of its held-out ones
    "animal": "🐆🦓🦬🦦🦡🐏🦧🐗🐃🫎🫏",
    "bird": "🦤🐦🪿",
    "insect": "🦗🪲🪳🦟🪰🐜🪱🦂",
    "vehicle": "🚕🚓🚑🚚🚛🚐🛻🚃🚢🚤🛶🚠",
    "fruit": "🍐🍒🍑🥭🥝🫐🍇🥥",
    "object": "🎥🪑🧲🔧🔨🪣🧯📻📺🖨🪆🏺🪔🔔🧭🕰🛎🧳🪜🎒👟👢🧢🪕🎷🎮🎲🪀🪁🏀🏈🎳🧦🕶💎🔑🏆🥄🫙☕🍵🥣🧁🥦🍆🧀🥐",
}


def glyph_of(character):
    """A character's glyph, cropped, RGBA; None if the font has none."""
    font = ImageFont.truetype(str(FONT), 109)
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((10, 10), character, font=font, embedded_color=True)
    box = image.getbbox()
    return box and image.crop(box)


def kinds():
    """(kind, glyph) for each of KINDS that the font has."""
    for kind, characters in KINDS.items():
        for character in characters:
            image = glyph_of(character)
            if image is not None:
                yield kind, image


def colours(rng, count):
    """Colours that go together more or less: some strong ones, one light, one dark."""
    strong = [tuple(int(v) for v in rng.integers(20, 256, 3)) for _ in range(count)]
    light = tuple(int(v) for v in rng.integers(205, 256, 3))
    dark = tuple(int(v) for v in rng.integers(15, 70, 3))
    return strong, light, dark


def body(rng, pen, fill):
    """A body about the middle of the unit square of 100; the box that it fills."""
    w, h = rng.uniform(44, 84), rng.uniform(40, 72)
    box = [50 - w / 2, 86 - h, 50 + w / 2, 86]
    shape = rng.integers(5)
    if shape == 0:
        pen("ellipse", box, fill)
    elif shape == 1:
        pen("box", box, fill, rng.uniform(2, 26))
    elif shape == 2:
        x0, y0, x1, y1 = box
        cut = rng.uniform(0.05, 0.4) * w
        pen("polygon", [(x0 + cut, y0), (x1 - cut, y0), (x1, y1), (x0, y1)], fill)
    else:
        n = 40
        angle = np.arange(n) / n * 2 * np.pi
        radius = 1 + sum(rng.normal(0, 0.09) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 6))
        pen("polygon", [(50 + w / 2 * r * np.cos(a), 86 - h / 2 + h / 2 * r * np.sin(a)) for a, r in zip(angle, radius)], fill)
    return box


def limbs(rng, pen, box, fill):
    x0, y0, x1, y1 = box
    for side in (-1, 1):
        if rng.random() < 0.8:  # legs
            x, w = 50 + side * rng.uniform(8, 18), rng.uniform(4, 9)
            pen("box", [x - w, y1 - 12, x + w, min(99, y1 + 12)], fill, 4)
        if rng.random() < 0.6:  # arms or ears
            y, h = rng.uniform(y0, (y0 + y1) / 2), rng.uniform(5, 13)
            x = x0 if side < 0 else x1
            pen("ellipse" if rng.random() < 0.5 else "box", [x - 8, y, x + 8, y + 2 * h], fill, 6)
    if rng.random() < 0.5:  # an aerial, a hat or a crest
        x, w, h = rng.uniform(30, 70), rng.uniform(2, 14), rng.uniform(6, 16)
        pen("box", [x - w, y0 - h, x + w, y0 + 8], fill, 3)
        if rng.random() < 0.6:
            r = rng.uniform(3, 7)
            pen("ellipse", [x - r, y0 - h - r, x + r, y0 - h + r], fill)


def face(rng, pen, box, light, dark, strong):
    """Eyes and mouth, or one large eye or lens."""
    x0, y0, x1, y1 = box
    middle, y = (x0 + x1) / 2, y0 + (y1 - y0) * rng.uniform(0.3, 0.55)
    if rng.random() < 0.4:
        r = min(x1 - x0, y1 - y0) * rng.uniform(0.2, 0.36)
        for colour, part in ((light, 1), (dark, 0.85), (strong, 0.62), (dark, 0.36), (light, 0.16)):
            pen("ellipse", [middle - r * part, y - r * part, middle + r * part, y + r * part], colour)
        return
    apart, r = (x1 - x0) * rng.uniform(0.12, 0.28), rng.uniform(4, 10)
    for side in (-1, 1):
        x = middle + side * apart
        pen("ellipse", [x - r, y - r, x + r, y + r], light)
        pen("ellipse", [x - r / 2, y - r / 2, x + r / 2, y + r / 2], dark)
    w, m = rng.uniform(5, 16), y + rng.uniform(10, 20)
    pen("box", [middle - w, m, middle + w, m + rng.uniform(2, 8)], dark, 3)


def figure(rng, size=144):
    """A made-up figure on nothing, RGBA, as high or wide as size at most."""
    big = 2 * size
    image = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    draw, unit = ImageDraw.Draw(image), big / 100

    def pen(shape, points, fill, radius=0.0):
        if shape == "polygon":
            return draw.polygon([(x * unit, y * unit) for x, y in points], fill=fill)
        x0, y0, x1, y1 = (v * unit for v in points)
        box = [x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)]
        if shape == "ellipse":
            return draw.ellipse(box, fill=fill)
        limit = min(box[2] - box[0], box[3] - box[1]) / 2
        return draw.rounded_rectangle(box, min(radius * unit, limit), fill=fill)

    strong, light, dark = colours(rng, 3)
    limbs(rng, pen, [20, 30, 80, 86], strong[1])
    box = body(rng, pen, strong[0])
    x0, y0, x1, y1 = box
    for _ in range(rng.integers(0, 4)):  # stripes and patches that stay within the body
        h = rng.uniform(2, 10)
        y = rng.uniform(y0 + 8, max(y0 + 9, y1 - 14))
        inset = (x1 - x0) * rng.uniform(0.06, 0.3)
        pen("box", [x0 + inset, y, x1 - inset, y + h], [light, dark, strong[2]][rng.integers(3)], 2)
    face(rng, pen, box, light, dark, strong[2])
    image = image.resize((size, size), Image.LANCZOS)
    return image.crop(image.getbbox())
