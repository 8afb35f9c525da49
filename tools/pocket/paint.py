"""Brushes: everything that the scenes are painted with, on a canvas of twice the picture's size."""
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

S = 256  # the canvas; pictures are half of it
ROWS, COLUMNS = np.mgrid[0:S, 0:S].astype(np.float32)


def mix(a, b, t):
    """The colour between a and b."""
    return tuple(int(round(x + (y - x) * t)) for x, y in zip(a, b))


def jitter(rng, colour, amount=10):
    """The colour, a little different."""
    shift = rng.normal(0, amount / 3) + rng.normal(0, amount / 3, 3)
    return tuple(int(np.clip(c + s, 0, 255)) for c, s in zip(colour, shift))


def lit(colour, time):
    """A colour of the day as it looks at another time."""
    scale, add = {"day": ((1, 1, 1), (0, 0, 0)), "sunset": ((0.86, 0.62, 0.58), (22, 8, 22)),
                  "night": ((0.34, 0.42, 0.56), (6, 10, 30))}[time]
    return tuple(int(np.clip(c * s + a, 0, 255)) for c, s, a in zip(colour, scale, add))


def gradient(stops, size=S):
    """A vertical gradient through (height from 0 to 1, colour)."""
    at = np.linspace(0, 1, size)
    heights = [h for h, _ in stops]
    column = np.stack([np.interp(at, heights, [c[i] for _, c in stops]) for i in range(3)], 1)
    return Image.fromarray(np.repeat(column[:, None], size, 1).round().astype(np.uint8))


def pen(image):
    """Draws on an image, colours with a fourth number blending."""
    return ImageDraw.Draw(image, "RGBA")


def noise(rng, cells=4, octaves=3):
    """Smooth noise from 0 to 1."""
    total = np.zeros((S, S), np.float32)
    for octave in range(octaves):
        n = cells * 2**octave
        grid = Image.fromarray(rng.random((n + 1, n + 1)).astype(np.float32))
        total += np.asarray(grid.resize((S, S), Image.BICUBIC)) * 0.5**octave
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def blend(image, alpha, colour):
    """Lays a colour over the image, as thick as alpha says. Changes the image."""
    mask = Image.fromarray((np.clip(alpha, 0, 1) * 255).astype(np.uint8))
    image.paste(tuple(int(c) for c in colour), (0, 0, S, S), mask)


def glow(image, x, y, radius, colour, strength=0.8):
    """Light around a point."""
    distance = np.hypot(COLUMNS - x, ROWS - y) / radius
    blend(image, strength * np.clip(1 - distance, 0, 1) ** 2, colour)


def disc(image, x, y, radius, colour):
    pen(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def ridge(rng, y, height, waves=3):
    """A wavy line: its height at each column."""
    x = np.arange(S) / S
    line = np.zeros(S)
    for k in range(1, waves + 1):
        line += rng.normal(0, 1 / k) * np.sin(2 * np.pi * (k * 0.7 * x + rng.random()))
    line = line / (np.abs(line).max() + 1e-6)
    return y + height * line


def fill_below(image, line, top, bottom, depth=None):
    """Fills what lies under a line, from the colour top down to bottom. Changes the image."""
    start = max(int(np.min(line)) - 1, 0)
    if start >= S:
        return
    depth = depth or (S - start)
    t = np.clip((ROWS[start:] - line[None]) / depth, 0, 1)[..., None]
    colour = np.asarray(top, np.float32) * (1 - t) + np.asarray(bottom, np.float32) * t
    cover = np.clip(ROWS[start:] - line[None] + 0.5, 0, 1)
    fill = Image.fromarray(colour.round().astype(np.uint8))
    image.paste(fill, (0, start), Image.fromarray((cover * 255).astype(np.uint8)))


def texture(rng, image, line, amount=9, cells=24):
    """Makes what lies under a line a little uneven."""
    grain = (noise(rng, cells, 2) - 0.5) * 2 * amount
    grain *= np.clip(ROWS - line[None], 0, 1)
    pixels = np.asarray(image, np.float32) + grain[..., None]
    image.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))


def cloud(rng, image, x, y, width, colour, alpha=235):
    """A cloud: round heaps on a flat base, lighter above."""
    layer = Image.new("L", (S, S), 0)
    draw = ImageDraw.Draw(layer)
    for _ in range(9):
        dx = rng.uniform(-0.5, 0.5)
        r = width * (0.2 - 0.22 * abs(dx)) * rng.uniform(0.8, 1.3) + 3
        draw.ellipse((x + dx * width - r, y - r * 1.35, x + dx * width + r, y + r * 0.5), fill=alpha)
    layer = layer.filter(ImageFilter.GaussianBlur(2))
    shade = np.asarray(layer, np.float32) / 255
    below = np.clip((ROWS - (y - width * 0.12)) / (width * 0.25), 0, 1)
    blend(image, shade, colour)
    blend(image, shade * below * 0.5, mix(colour, (90, 105, 150), 0.45))


def stars(rng, image, bottom, count=70):
    draw = pen(image)
    for _ in range(count):
        x, y, r = rng.uniform(0, S), rng.uniform(0, bottom), rng.choice([0.7, 1.0, 1.5, 2.2], p=[0.4, 0.3, 0.2, 0.1])
        colour = (255, 255, int(rng.integers(200, 256)), int(rng.integers(130, 256)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        if r > 2 and rng.random() < 0.5:
            draw.line((x - 5, y, x + 5, y), fill=(255, 255, 255, 120))
            draw.line((x, y - 5, x, y + 5), fill=(255, 255, 255, 120))


def moon(rng, image, x, y, radius):
    """A full moon, or a crescent cut out of it."""
    glow(image, x, y, radius * 4, (190, 205, 255), 0.5)
    behind = image.copy() if rng.random() < 0.45 else None
    disc(image, x, y, radius, (252, 246, 215))
    if behind is not None:
        cut = Image.new("L", (S, S), 0)
        cx, cy, r = x + radius * 0.5, y - radius * 0.2, radius * 0.88
        ImageDraw.Draw(cut).ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
        image.paste(behind, (0, 0), cut)
        return
    for _ in range(4):
        a, d, r = rng.uniform(0, 6.28), rng.uniform(0, 0.6) * radius, rng.uniform(0.1, 0.24) * radius
        disc(image, x + d * np.cos(a), y + d * np.sin(a), r, (214, 206, 180, 150))


SKIES = {
    "day": [((70, 150, 230), (190, 228, 250)), ((52, 128, 214), (214, 236, 248)), ((96, 178, 240), (232, 244, 248)),
            ((84, 190, 226), (224, 246, 240))],
    "sunset": [((72, 52, 128), (252, 130, 84), (255, 206, 120)), ((58, 70, 150), (240, 110, 120), (255, 190, 130)),
               ((120, 60, 120), (250, 120, 60), (255, 214, 110)), ((40, 40, 100), (200, 80, 110), (255, 160, 90))],
    "night": [((8, 12, 44), (36, 52, 112)), ((12, 8, 48), (62, 48, 120)), ((4, 16, 40), (24, 72, 110))],
}


def sky(rng, time, horizon, clouds=True):
    """A sky down to the horizon, with its sun or moon."""
    colours = [jitter(rng, c, 10) for c in SKIES[time][rng.integers(len(SKIES[time]))]]
    h = horizon / S
    stops = list(zip(np.linspace(0, h, len(colours)), colours)) + [(1.0, colours[-1])]
    image = gradient(stops)
    x = rng.uniform(0.12, 0.88) * S
    if time == "day":
        if rng.random() < 0.6:
            y, r = rng.uniform(0.1, 0.25) * S, rng.uniform(11, 17)
            glow(image, x, y, r * 4, (255, 250, 210), 0.8)
            disc(image, x, y, r, (255, 244, 170))
    elif time == "sunset":
        y, r = horizon - rng.uniform(-4, 34), rng.uniform(18, 28)
        glow(image, x, y, r * 5, (255, 220, 130), 0.75)
        disc(image, x, y, r, (255, 238, 170))
    else:
        stars(rng, image, horizon, int(rng.integers(45, 90)))
        moon(rng, image, x, rng.uniform(0.12, 0.3) * S, rng.uniform(12, 20))
    if clouds:
        colour = {"day": (255, 255, 255), "sunset": (255, 176, 140), "night": (60, 70, 120)}[time]
        for _ in range(rng.integers(1, 5)):
            width = rng.uniform(40, 100)
            y = rng.uniform(0.08, 0.8) * horizon
            cloud(rng, image, rng.uniform(0, S), y, width, colour, 235 if time == "day" else 150)
    return image
