"""Goldens of decoding pictures -> crates/sdxl/tests/golden/pictures/: small files of every kind that a training set may
hold, and `pictures.json` with the size that Pillow sees in them, upright, and 12 pixels (3 rows of 4) on white.

YCCK and 16-bit colours, which Pillow does not write, are put together here."""

import io
import json
import struct
import zlib

from common import SDXL_GOLDEN
from PIL import Image, ImageOps

OUT = SDXL_GOLDEN / "pictures"
ORIENTATION = 0x0112
W, H = 24, 16


def colours(mode="RGB"):
    """A corner in another colour each, so that a turned or mirrored picture is another; smooth for JPEG's sake."""
    picture = Image.new("RGB", (2, 2))
    picture.putdata([(230, 40, 30), (40, 200, 60), (30, 60, 220), (240, 220, 120)])
    return picture.resize((W, H), Image.Resampling.BILINEAR).convert(mode)


def with_alpha():
    picture = colours("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((W, H)))
    return picture


def deep(mode):
    """16 bits, as Pillow has only in grey."""
    return Image.linear_gradient("L").resize((W, H)).convert("I").point(lambda v: v * 257).convert(mode)


def exif(value):
    tags = Image.Exif()
    tags[ORIENTATION] = value
    return tags


def save(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def cmyk():
    """Inverted, with Adobe's marker, as Pillow and Photoshop write it."""
    c, m, y = ImageOps.invert(colours()).split()
    k = Image.linear_gradient("L").resize((W, H)).point(lambda v: v // 2)
    return save(Image.merge("CMYK", (c, m, y, k)), "JPEG", quality=95, subsampling=0)


def ycck():
    """What a CMYK file holds, called YCCK: the transform is the last byte of Adobe's marker. Its first three channels are
    those of YCbCr."""
    channels = [*colours("YCbCr").split(), Image.linear_gradient("L").resize((W, H))]
    # Pillow inverts as it writes.
    inverted = Image.merge("CMYK", [channel.point(lambda v: 255 - v) for channel in channels])
    file = bytearray(save(inverted, "JPEG", quality=95, subsampling=0))
    at = file.index(b"Adobe")
    file[at + 11] = 2
    return bytes(file)


def rgb16():
    """A PNG of 16 bits with transparency: rows of RGBA, big endian."""
    source = with_alpha().load()
    rows = b"".join(
        b"\0" + b"".join(struct.pack(">4H", *(v * 257 for v in source[x, y])) for x in range(W)) for y in range(H)
    )

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", W, H, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files():
    palette = colours().quantize(16)
    frames = [colours().quantize(32), Image.new("RGB", (W, H), "black").quantize(2)]
    clear = colours().quantize(16)
    clear.info["transparency"] = 0
    yield "rgb.png", save(colours(), "PNG")
    yield "alpha.png", save(with_alpha(), "PNG")
    yield "alpha16.png", rgb16()
    yield "grey.png", save(colours("L"), "PNG")
    yield "grey_alpha.png", save(with_alpha().convert("LA"), "PNG")
    yield "grey16.png", save(deep("I;16"), "PNG")
    yield "one_bit.png", save(colours("1"), "PNG")
    yield "palette.png", save(palette, "PNG")
    yield "palette_clear.png", save(clear, "PNG", transparency=0)
    yield "turned.png", save(colours(), "PNG", exif=exif(8))
    for value in range(1, 9):
        yield f"turned_{value}.jpg", save(colours(), "JPEG", quality=95, subsampling=0, exif=exif(value))
    yield "grey.jpg", save(colours("L"), "JPEG", quality=95)
    yield "progressive.jpg", save(colours(), "JPEG", quality=95, progressive=True)
    yield "cmyk.jpg", cmyk()
    yield "ycck.jpg", ycck()
    yield "lossy.webp", save(colours(), "WEBP", quality=95)
    yield "alpha.webp", save(with_alpha(), "WEBP", lossless=True, exact=True)
    yield "turned.webp", save(colours(), "WEBP", lossless=True, exif=exif(6))
    yield "rgb.bmp", save(colours(), "BMP")
    yield "palette.bmp", save(palette, "BMP")
    yield "frames.gif", save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "clear.gif", save(clear, "GIF", transparency=0)
    yield "rgb.tiff", save(colours(), "TIFF", compression="tiff_lzw")
    yield "turned.tif", save(colours(), "TIFF", exif=exif(3))
    yield "alpha.tiff", save(with_alpha(), "TIFF", compression="tiff_deflate")
    yield "grey16.tiff", save(deep("I;16"), "TIFF")
    yield "cmyk.tiff", save(colours("CMYK"), "TIFF")


def seen(file):
    """What Pillow sees: the first frame, upright, 16 bits rounded to 8, on white."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if picture.mode.startswith("I"):
        picture = picture.convert("I").point(lambda v: v / 257 + 0.5).convert("L")
    if picture.mode in ("RGBA", "LA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def sampled(width, height):
    """Four pixels of each of three rows, from edge to edge."""
    return [(x * (width - 1) // 3, y * (height - 1) // 2) for y in range(3) for x in range(4)]


def main():
    OUT.mkdir(exist_ok=True)
    golden = {}
    for name, file in files():
        (OUT / name).write_bytes(file)
        picture = seen(file)
        golden[name] = {"size": picture.size, "rgb": [picture.getpixel(at) for at in sampled(*picture.size)]}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in golden.items())
    (OUT / "pictures.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
