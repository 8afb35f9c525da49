"""Styles: what a finished picture of 128 × 128 looks like by another hand. Each: (rng, image) → image."""
import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps


def pixel_art(rng, image):
    small = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(1.2)).enhance(1.1).resize((32, 32), Image.BOX)
    small = small.quantize(20, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    return small.resize(image.size, Image.NEAREST)


def kuwahara(image, radius):
    """Each pixel takes the mean of the calmest of the four windows that touch it."""
    a = np.asarray(image, np.float32)
    pad = np.pad(a, ((radius + 1, radius), (radius + 1, radius), (0, 0)), mode="edge")
    n = radius + 1

    def windows(x):  # sums over windows of n × n
        c = np.pad(x.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
        return (c[n:, n:] - c[:-n, n:] - c[n:, :-n] + c[:-n, :-n]) / (n * n)

    mean = windows(pad)
    spread = (windows(pad**2) - mean**2).sum(2)
    h, w, _ = a.shape
    best, value = np.zeros_like(a), np.full((h, w), np.inf, np.float32)
    for y in (1, n):
        for x in (1, n):
            m, s = mean[y : y + h, x : x + w], spread[y : y + h, x : x + w]
            best = np.where((s < value)[..., None], m, best)
            value = np.minimum(s, value)
    return Image.fromarray(best.clip(0, 255).astype(np.uint8))


def oil_painting(rng, image):
    painted = kuwahara(ImageEnhance.Color(image.filter(ImageFilter.GaussianBlur(0.5))).enhance(1.25), 2)
    emboss = np.asarray(painted.convert("L").filter(ImageFilter.Kernel((3, 3), (-1, -1, 0, -1, 0, 1, 0, 1, 1), 1, 128)), np.float32) - 128
    y, x = np.mgrid[0:128, 0:128]
    canvas = 3 * np.sin(x * 1.6) * np.sin(y * 1.6) + 0.3 * emboss
    return Image.fromarray((np.asarray(painted, np.float32) + canvas[..., None]).clip(0, 255).astype(np.uint8))


def watercolour(rng, image):
    wash = np.asarray(kuwahara(image, 2).filter(ImageFilter.GaussianBlur(0.8)), np.float32) / 255
    wash = 1 - (1 - wash) * 0.84
    blots = Image.fromarray(rng.random((10, 10)).astype(np.float32)).resize((128, 128), Image.BICUBIC)
    wash = wash + (np.asarray(blots)[..., None] - 0.5) * 0.14
    grey = image.convert("L").filter(ImageFilter.GaussianBlur(1.2))
    edges = (np.asarray(grey.filter(ImageFilter.GaussianBlur(2)), np.float32) - np.asarray(grey, np.float32)) / 255
    wash = wash - np.clip(edges * 2, 0, 0.3)[..., None]
    y, x = np.mgrid[0:128, 0:128] / 63.5 - 1
    border = np.clip((np.maximum(np.abs(x), np.abs(y)) - 0.92 + 0.1 * (np.asarray(blots) - 0.5)) * 12, 0, 1)[..., None]
    wash = wash * (1 - border) + np.asarray((0.98, 0.965, 0.93)) * border
    return Image.fromarray((wash * 255).clip(0, 255).astype(np.uint8))


def pencil_sketch(rng, image):
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=1)
    blurred = np.asarray(ImageChops.invert(grey).filter(ImageFilter.GaussianBlur(3)), np.float32)
    g = np.asarray(grey, np.float32)
    lines = np.clip(g / np.maximum(255 - blurred, 24), 0, 1)
    y, x = np.mgrid[0:128, 0:128]
    hatch = 0.5 + 0.5 * np.sin((x + y) * 1.15)
    tone = 1 - (1 - g / 255) * 0.3 * (0.55 + 0.6 * hatch)
    value = np.clip(lines**1.6 * tone, 0, 1)[..., None]
    return Image.fromarray((value * np.asarray((250, 247, 240)) + (1 - value) * np.asarray((52, 52, 60))).astype(np.uint8))


STYLES = {"pixel art": pixel_art, "watercolour": watercolour, "pencil sketch": pencil_sketch, "oil painting": oil_painting}
