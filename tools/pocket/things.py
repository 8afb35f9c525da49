"""The things: names, glyphs of Noto Color Emoji, and which of them training never sees."""
import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Debian's fonts-noto-color-emoji, SIL OFL 1.1
FONT = Path(os.environ.get("NOTO_COLOR_EMOJI", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))

THINGS = {
    "cat": "🐈", "dog": "🐕", "poodle": "🐩", "fox": "🦊", "wolf": "🐺", "lion": "🦁", "tiger": "🐅", "horse": "🐎", "unicorn": "🦄",
    "deer": "🦌", "cow": "🐄", "pig": "🐖", "sheep": "🐑", "goat": "🐐", "camel": "🐫", "llama": "🦙", "giraffe": "🦒",
    "elephant": "🐘", "mammoth": "🦣", "rhino": "🦏", "hippo": "🦛", "mouse": "🐁", "hamster": "🐹", "rabbit": "🐇", "squirrel": "🐿",
    "bat": "🦇", "bear": "🐻", "koala": "🐨", "panda": "🐼", "sloth": "🦥", "skunk": "🦨", "raccoon": "🦝", "turkey": "🦃",
    "rooster": "🐓", "chick": "🐥", "penguin": "🐧", "dove": "🕊", "eagle": "🦅", "duck": "🦆", "swan": "🦢", "owl": "🦉",
    "peacock": "🦚", "parrot": "🦜", "frog": "🐸", "crocodile": "🐊", "turtle": "🐢", "lizard": "🦎", "snake": "🐍", "dragon": "🐉",
    "dinosaur": "🦖", "whale": "🐳", "dolphin": "🐬", "fish": "🐠", "pufferfish": "🐡", "shark": "🦈", "octopus": "🐙", "squid": "🦑",
    "shell": "🐚", "snail": "🐌", "butterfly": "🦋", "caterpillar": "🐛", "bee": "🐝", "ladybug": "🐞", "spider": "🕷", "crab": "🦀",
    "lobster": "🦞", "monkey": "🐒", "gorilla": "🦍", "robot": "🤖", "ghost": "👻", "alien": "👽", "snowman": "⛄",
    "teddy bear": "🧸", "pumpkin": "🎃", "car": "🚗", "bus": "🚌", "fire engine": "🚒", "bicycle": "🚲", "scooter": "🛵",
    "locomotive": "🚂", "helicopter": "🚁", "airplane": "🛩", "rocket": "🚀", "flying saucer": "🛸", "sailboat": "⛵",
    "castle": "🏰", "house": "🏠", "tent": "⛺", "balloon": "🎈", "umbrella": "☂", "guitar": "🎸", "violin": "🎻", "trumpet": "🎺",
    "drum": "🥁", "telescope": "🔭", "alarm clock": "⏰", "crown": "👑", "top hat": "🎩", "gift": "🎁", "cactus": "🌵",
    "palm tree": "🌴", "christmas tree": "🎄", "sunflower": "🌻", "rose": "🌹", "tulip": "🌷", "mushroom": "🍄", "apple": "🍎", "banana": "🍌",
    "pineapple": "🍍", "strawberry": "🍓", "watermelon": "🍉", "lemon": "🍋", "carrot": "🥕", "pizza": "🍕", "burger": "🍔",
    "doughnut": "🍩", "cake": "🎂", "ice cream": "🍦", "soccer ball": "⚽",
}
HELD_OUT = {"flamingo": "🦩", "hedgehog": "🦔", "teapot": "🫖", "tractor": "🚜", "kangaroo": "🦘", "accordion": "🪗", "beaver": "🦫"}

COLOURS = {"red": (222, 40, 44), "orange": (246, 134, 30), "yellow": (250, 210, 44), "green": (58, 170, 76), "blue": (48, 116, 228),
           "purple": (140, 72, 204), "pink": (250, 126, 180), "white": (226, 230, 236), "black": (58, 60, 70)}


@cache
def glyph(name):
    """A thing's glyph, cropped, RGBA."""
    if name == "mascot":
        from mascot import draw
        return draw(272)
    font = ImageFont.truetype(str(FONT), 109)
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    character = {**THINGS, **HELD_OUT}[name]
    ImageDraw.Draw(image).text((10, 10), character, font=font, embedded_color=True)
    box = image.getbbox()
    if box is None:
        raise SystemExit(f"things.py: {FONT} has no glyph {character} for {name}")
    return image.crop(box)


def coloured(image, colour):
    """The picture in shades of one colour, with a little of what it was."""
    pixels = np.asarray(image, np.float32)
    rgb, target = pixels[..., :3], np.asarray(COLOURS[colour], np.float32)
    light = (rgb @ (0.3, 0.59, 0.11))[..., None] / 255
    solid = pixels[..., 3] > 128
    low, high = np.percentile(light[solid], (4, 96))
    light = np.clip((light - low) / max(high - low, 0.15), 0, 1)
    bright = target + (255 - target) * (0.35 if colour == "black" else 0.55)
    shades = np.where(light < 0.55, target * (0.3 + 0.7 * light / 0.55), target + (bright - target) * (light - 0.55) / 0.45)
    return Image.fromarray(np.dstack([0.88 * shades + 0.12 * rgb, pixels[..., 3]]).clip(0, 255).astype(np.uint8))
