#!/usr/bin/env python3
"""The Python package `replicate` 1.x against a running service: REPLICATE_BASE_URL, REPLICATE_API_TOKEN."""

import asyncio
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import replicate
import replicate.__about__
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import Webhooks

SDXL = "stability-ai/sdxl"
PUBLISHED = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
SMALL = {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}


def refused(status, ask):
    try:
        ask()
    except ReplicateError as e:
        assert e.status == status, e
        assert e.detail, e
    else:
        raise AssertionError(f"not refused with {status}")


def zipped(picture):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in "abcd":
            archive.writestr(f"{name}.png", picture)
    file.seek(0)
    file.name = "pictures.zip"
    return file


def run():
    one = replicate.run(SDXL, input=SMALL)
    picture = one[0].read()
    assert picture[1:4] == b"PNG", picture[:8]
    assert replicate.run(f"{SDXL}:{PUBLISHED}", input=SMALL)[0].read() == picture, "the same input, another picture"
    file = io.BytesIO(picture)
    file.name = "fox.png"
    changed = replicate.run(SDXL, input={**SMALL, "image": file, "prompt_strength": 0.5})[0].read()
    assert changed[1:4] == b"PNG" and changed != picture
    late = replicate.run(SDXL, input=SMALL, wait=False)
    assert late[0].read() == picture
    try:
        replicate.run(SDXL, input={**SMALL, "image": "data:image/png;base64,AAAA"})
    except ModelError as e:
        assert "image" in e.prediction.error, e.prediction.error
    else:
        raise AssertionError("a broken picture was taken")
    return picture


def predictions(picture):
    version = replicate.models.get(SDXL).versions.get(PUBLISHED)
    assert version.id == PUBLISHED and version.openapi_schema["components"]["schemas"]["Input"]
    made = replicate.predictions.create(version=version, input=SMALL)
    assert made.status == "starting" and made.version == PUBLISHED, made
    made.wait()
    assert made.status == "succeeded" and made.progress and made.progress.percentage == 1.0, made.logs
    long = replicate.predictions.create(version=PUBLISHED, input={**SMALL, "num_inference_steps": 500, "width": 512, "height": 512})
    long.cancel()
    assert replicate.predictions.get(long.id).status == "canceled"
    assert made.id in [job.id for job in replicate.predictions.list().results]
    refused(422, lambda: replicate.predictions.create(version=PUBLISHED, input={"width": 63}))
    refused(422, lambda: replicate.predictions.create(version="none", input={}))
    refused(404, lambda: replicate.predictions.get("none"))
    file = replicate.files.create(io.BytesIO(picture), metadata={"a": "b"})
    assert file.size == len(picture) and replicate.files.get(file.id).id == file.id
    assert file.id in [known.id for known in replicate.files.list()]
    replicate.files.delete(file.id)
    refused(404, lambda: replicate.files.get(file.id))


def trainings(picture):
    destination = "clients/python-1"
    made = replicate.trainings.create(
        model=SDXL,
        version=PUBLISHED,
        destination=destination,
        input={"input_images": zipped(picture), "max_train_steps": 1, "resolution": 64, "train_batch_size": 1, "caption_prefix": "a photo of TOK, "},
    )
    assert made.status == "starting", made
    while made.status not in ("succeeded", "failed", "canceled"):
        made.reload()
    assert made.status == "succeeded", made.error
    version = made.output["version"]
    assert version.startswith(f"{destination}:"), version
    assert replicate.run(version, input={**SMALL, "prompt": "TOK"})[0].read()[1:4] == b"PNG"
    assert replicate.models.get(destination).latest_version.id == version.split(":")[1]
    refused(404, lambda: replicate.trainings.create(model=SDXL, version=PUBLISHED, destination="<x>", input={}))
    other = replicate.trainings.create(model=SDXL, version=PUBLISHED, destination=destination, input={"input_images": zipped(picture), "max_train_steps": 1000})
    other.cancel()
    assert replicate.trainings.get(other.id).status == "canceled"
    assert {made.id, other.id} <= {job.id for job in replicate.trainings.list().results}


def webhooks():
    """Needs a service with --allow-private-networks: the receiver is on this machine."""
    received = []
    done = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            received.append((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()
            done.set()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    made = replicate.predictions.create(version=PUBLISHED, input=SMALL, webhook=url, webhook_events_filter=["completed"])
    assert done.wait(60), "no webhook"
    server.shutdown()
    headers, body = received[0]
    Webhooks.validate(headers={name.lower(): value for name, value in headers.items()}, body=body, secret=replicate.webhooks.default.secret())
    assert json.loads(body)["id"] == made.id and json.loads(body)["status"] == "succeeded"


def the_rest():
    models = replicate.models.list()
    assert SDXL in [f"{model.owner}/{model.name}" for model in models]
    assert [model.name for model in replicate.models.search("sdxl")] == ["sdxl"]
    assert replicate.default_client.accounts.current().username
    assert replicate.hardware.list()[0].sku
    assert replicate.collections.get("text-to-image").models
    refused(404, lambda: replicate.deployments.get("a/b"))
    refused(401, lambda: replicate.Client(api_token="invalid").accounts.current())


async def at_once():
    outputs = await asyncio.gather(*(replicate.async_run(SDXL, input=SMALL) for _ in range(4)))
    assert len({await output[0].aread() for output in outputs}) == 1


picture = run()
predictions(picture)
the_rest()
asyncio.run(at_once())
webhooks()
trainings(picture)
print("replicate", replicate.__about__.__version__, "works")
