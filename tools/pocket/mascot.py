"""The mascot: a small camera that walks. Drawn from the shapes that `calotype demo` draws it from."""
import json
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = Path(__file__).parents[2] / "crates/cli/src/commands/demo/mascot.json"  # units are hundredths of its size


def draw(size):
    """The mascot on nothing, RGBA."""
    mascot = json.loads(SHAPES.read_text())
    big = 4 * size
    image = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    u = big / 100
    for shape in mascot["shapes"]:
        fill = tuple(mascot["colours"][shape["colour"]])
        if "disc" in shape:
            x, y, r = shape["disc"]
            pen.ellipse(((x - r) * u, (y - r) * u, (x + r) * u, (y + r) * u), fill=fill)
        elif "box" in shape:
            *box, radius = shape["box"]
            pen.rounded_rectangle([v * u for v in box], radius * u, fill=fill)
        else:
            pen.polygon([(x * u, y * u) for x, y in shape["polygon"]], fill=fill)
    image = image.resize((size, size), Image.LANCZOS)
    return image.crop(image.getbbox())
