"""The mascot: a small camera that walks. A list of shapes, so that it can be drawn anywhere; units are hundredths of its size."""
from PIL import Image, ImageDraw

ORANGE, RUST, CREAM, INK, TEAL, SKY, WHITE, GOLD = (
    (244, 126, 52), (204, 88, 34), (255, 238, 208), (40, 36, 52), (24, 140, 150), (120, 218, 226), (255, 255, 255), (255, 206, 74))

SHAPES = [  # ("box", left, top, right, bottom, corner's radius, colour), ("disc", x, y, radius, colour), ("polygon", [points], colour)
    ("box", 28, 80, 42, 97, 6, INK), ("box", 58, 80, 72, 97, 6, INK),                # boots
    ("box", 3, 48, 17, 72, 7, RUST), ("box", 83, 48, 97, 72, 7, RUST),               # arms
    ("polygon", [(36, 30), (40, 15), (60, 15), (64, 30)], RUST),                     # viewfinder
    ("box", 43, 18, 57, 27, 3, SKY),
    ("box", 72, 20, 84, 32, 4, GOLD), ("disc", 22, 22, 5, CREAM), ("box", 20.5, 24, 23.5, 32, 1, INK),  # flash, antenna
    ("box", 10, 27, 90, 86, 20, ORANGE),                                             # body
    ("box", 10, 66, 90, 86, 18, RUST), ("box", 10, 60, 90, 74, 0, ORANGE),
    ("box", 10, 40, 90, 45, 0, CREAM),                                               # stripe
    ("disc", 50, 54, 28, CREAM), ("disc", 50, 54, 24, INK), ("disc", 50, 54, 19, TEAL), ("disc", 50, 54, 11, INK),  # the lens is its eye
    ("disc", 50, 54, 6, SKY), ("disc", 42, 45, 5, WHITE), ("disc", 58, 62, 2.5, WHITE),
]


def draw(size):
    """The mascot on nothing, RGBA."""
    big = 4 * size
    image = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    u = big / 100
    for kind, *shape in SHAPES:
        if kind == "disc":
            x, y, r, colour = shape
            pen.ellipse(((x - r) * u, (y - r) * u, (x + r) * u, (y + r) * u), fill=colour)
        elif kind == "box":
            *box, radius, colour = shape
            pen.rounded_rectangle([v * u for v in box], radius * u, fill=colour)
        else:
            points, colour = shape
            pen.polygon([(x * u, y * u) for x, y in points], fill=colour)
    image = image.resize((size, size), Image.LANCZOS)
    return image.crop(image.getbbox())
