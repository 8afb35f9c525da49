"""Goldens of the watermark -> crates/sdxl/tests/golden/watermark/: `plain.png`, whose sides 8 does not divide;
`package.png`, the same marked by the package invisible-watermark as diffusers calls it; `marked.png`, marked by the package's
parts with the inverse transform put right (the package swaps its horizontal and its vertical detail). The package reads all
48 bits from both.

Needs the packages invisible-watermark, opencv-python-headless and PyWavelets (`pip install --no-deps` spares PyTorch)."""

import cv2
import numpy as np
import pywt
from imwatermark.maxDct import EmbedMaxDct
from imwatermark.watermark import WatermarkDecoder, WatermarkEncoder

from common import SDXL_GOLDEN

OUT = SDXL_GOLDEN / "watermark"
MESSAGE = 0xB3EC907BB19E
BITS = [int(bit) for bit in f"{MESSAGE:048b}"]
WIDTH, HEIGHT = 268, 260


def picture():
    """BGR: gradients, with one coloured spot of 2 x 2 pixels in each block of 8 x 8, so that the bit is certain."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    bgr = np.stack([90 + y // 4, 60 + x // 3, 150 - x // 5], axis=2)
    random = np.random.default_rng(7)
    for row in range(0, HEIGHT - 1, 8):
        for column in range(0, WIDTH - 1, 8):
            left, top = column + 2 * random.integers(4), row + 2 * random.integers(4)
            colour = random.choice([(255, 0, 40), (220, 130, 0), (0, 200, 255), (30, 240, 120)])
            bgr[top:top + 2, left:left + 2] = colour
    return bgr


def by_package(bgr):
    encoder = WatermarkEncoder()
    encoder.set_watermark("bits", BITS)
    return encoder.encode(bgr.copy(), "dwtDct")


def put_right(bgr):
    rows, columns = (side // 4 * 4 for side in bgr.shape[:2])
    yuv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV)
    average, detail = pywt.dwt2(yuv[:rows, :columns, 1], "haar")
    EmbedMaxDct(BITS, wmLen=48).encode_frame(average, 36)
    yuv[:rows, :columns, 1] = pywt.idwt2((average, detail), "haar")
    return cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR)


def save(name, bgr):
    """The 8-bit picture, as floats."""
    bytes_ = np.rint(bgr).clip(0, 255).astype(np.uint8)
    path = OUT / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), bytes_, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    decoder = WatermarkDecoder("bits", 48)
    right = int((decoder.decode(bytes_.astype(np.float32), "dwtDct") == BITS).sum())
    print(f"{path.name}: {right} of 48 bits, {path.stat().st_size / 1024:.0f} KB")
    return right


if __name__ == "__main__":
    plain = picture().astype(np.float32)
    save("plain", plain)
    assert save("package", by_package(plain)) == 48
    assert save("marked", put_right(plain)) == 48
