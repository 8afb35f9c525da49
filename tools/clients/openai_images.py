#!/usr/bin/env python3
"""OpenAI's own Python client, as it comes from PyPI, against a running service: URL [TOKEN].

Prints a line for each thing that works, and fails at the first that does not. `run.sh` starts the service.
"""

import base64
import io
import sys
import threading
import time
import urllib.request

import openai
from PIL import Image

base = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=f"{base}/v1", api_key=sys.argv[2] if len(sys.argv) > 2 else "none", max_retries=0)


def picture(data: bytes, kind: str, size: tuple[int, int]) -> Image.Image:
    found = Image.open(io.BytesIO(data))
    assert (found.format, found.size) == (kind, size), (found.format, found.size)
    return found


def png(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    file.name = "picture.png"
    return file


def refused(kind: type, field: str | None, **fields) -> None:
    try:
        client.images.generate(**fields)
    except kind as error:
        assert error.param == field, error.param
        return
    raise AssertionError(f"accepted: {fields}")


quick = {"extra_body": {"steps": 2, "seed": 7}}
answer = client.images.generate(model="gpt-image-1", prompt="a red fox", size="64x64", quality="high", **quick)
first = base64.b64decode(answer.data[0].b64_json)
picture(first, "PNG", (64, 64))
assert abs(answer.created - time.time()) < 600
answer = client.images.generate(model="dall-e-3", prompt="a red fox", size="64x64", quality="hd", style="vivid", **quick)
assert urllib.request.urlopen(answer.data[0].url).read() == first
print("generations: base64 by default, URLs from the older models")

answer = client.images.generate(prompt="a red fox", size="64x64", n=2, response_format="url", **quick)
urls = [one.url for one in answer.data]
again = [urllib.request.urlopen(url).read() for url in urls]
assert again[0] == first and again[1] != first
print("generations: URLs that answer without a token; the same seed gives the same bytes, and the next picture has the next one")

for name, kind in (("jpeg", "JPEG"), ("webp", "WEBP")):
    answer = client.images.generate(prompt="a red fox", size="64x64", output_format=name, **quick)
    picture(base64.b64decode(answer.data[0].b64_json), kind, (64, 64))
print("generations: jpeg and webp")

source = Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50).convert("RGB")
mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
mask.paste((0, 0, 0, 0), (32, 0, 64, 64))
answer = client.images.edit(image=png(source), mask=png(mask), prompt="a red fox", size="64x64", **quick)
edited = picture(base64.b64decode(answer.data[0].b64_json), "PNG", (64, 64)).convert("RGB")
difference = [abs(a - b) for a, b in zip(source.tobytes(), edited.tobytes())]
rows = [difference[i : i + 192] for i in range(0, len(difference), 192)]
kept, filled = (sum(sum(row[part]) for row in rows) / (64 * 96) for part in (slice(0, 84), slice(108, 192)))
assert kept < filled, (kept, filled)
print(f"edits: what is opaque in the mask is kept (mean difference {kept:.1f}), what is transparent is filled ({filled:.1f})")

answer = client.images.edit(image=[png(source)], prompt="a red fox", **quick)
picture(base64.b64decode(answer.data[0].b64_json), "PNG", (64, 64))
print("edits: image[] without a mask, at the picture's own size")

refused(openai.BadRequestError, "size", prompt="x", size="63x64")
refused(openai.BadRequestError, "size", prompt="x", size="large")
refused(openai.BadRequestError, "n", prompt="x", n=11)
refused(openai.BadRequestError, "steps", prompt="x", extra_body={"steps": 0})
refused(openai.BadRequestError, "output_format", prompt="x", output_format="bmp")
print("errors name OpenAI's fields")

assert {model.id for model in client.models.list()} >= {"dall-e-2", "dall-e-3"}
print("models: the names that clients look for are listed")

slow = threading.Thread(target=lambda: client.with_options(timeout=1).images.generate(prompt="x", size="512x512", extra_body={"steps": 500}))
threading.excepthook = lambda args: None
slow.start()
slow.join()
start = time.time()
client.images.generate(prompt="a red fox", size="64x64", **quick)
assert time.time() - start < 60, "the canceled picture is still being made"
print("a client that hangs up cancels its picture")
