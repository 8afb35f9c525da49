#!/usr/bin/env python3
"""The Python package `replicate` 2.x against a running service, with strict checks of every answer: REPLICATE_BASE_URL, REPLICATE_API_TOKEN."""

import base64
import os

# This version wants the path too. It reads the variable once.
os.environ["REPLICATE_BASE_URL"] += "/v1"

import replicate
from replicate import Replicate

SDXL = "stability-ai/sdxl"
OWNER, NAME = SDXL.split("/")
PUBLISHED = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
SMALL = {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}

client = Replicate(_strict_response_validation=True, max_retries=0)

picture = client.run(SDXL, input=SMALL)[0].read()
assert picture[1:4] == b"PNG"
again = replicate.use(f"{SDXL}:{PUBLISHED}")(**SMALL)[0]
assert base64.b64decode(again.split(",")[1]) == picture, "the same input, another picture"

made = client.predictions.create(version=PUBLISHED, input=SMALL)
assert made.status == "starting" and made.version == PUBLISHED
made = client.predictions.wait(made.id)
assert made.status == "succeeded", made
waited = client.models.predictions.create(model_owner=OWNER, model_name=NAME, input=SMALL, prefer="wait")
assert waited.status == "succeeded", waited
assert client.predictions.get(prediction_id=made.id).id == made.id
assert made.id in [job.id for job in client.predictions.list()]
assert client.predictions.list(created_before="2001-01-01T00:00:00Z").results == []
long = client.predictions.create(version=PUBLISHED, input={**SMALL, "num_inference_steps": 500, "width": 512, "height": 512})
assert client.predictions.cancel(prediction_id=long.id).status == "canceled"

model = client.models.get(model_owner=OWNER, model_name=NAME)
assert model.latest_version
assert SDXL in [f"{known.owner}/{known.name}" for known in client.models.list()]
assert client.models.search(body="sdxl").results
assert client.models.versions.list(model_owner=OWNER, model_name=NAME).results
assert client.models.versions.get(model_owner=OWNER, model_name=NAME, version_id=PUBLISHED).id == PUBLISHED
assert client.models.examples.list(model_owner=OWNER, model_name=NAME).results == []
client.models.readme.get(model_owner=OWNER, model_name=NAME)
client.models.create(owner="clients", name="python-2", visibility="private", hardware="cpu")
changed = client.models.update(model_owner="clients", model_name="python-2", description="made by a client")
assert changed.description == "made by a client"
client.models.delete(model_owner="clients", model_name="python-2")

file = client.files.create(content=picture, filename="fox.png", type="image/png", metadata={"a": "b"})
assert client.files.get(file_id=file.id).size == len(picture)
assert file.id in [known.id for known in client.files.list()]
again = client.run(SDXL, input={**SMALL, "image": file.urls.get})
assert again[0].read()[1:4] == b"PNG"
client.files.delete(file_id=file.id)

training = client.trainings.create(
    model_owner=OWNER,
    model_name=NAME,
    version_id=PUBLISHED,
    destination="clients/python-2-trained",
    input={"input_images": "https://example.invalid/pictures.zip"},
)
assert training.status == "starting"
assert client.trainings.cancel(training_id=training.id).status == "canceled"
assert client.trainings.get(training_id=training.id).id == training.id
assert training.id in [job.id for job in client.trainings.list()]

assert client.account.get().username
assert client.hardware.list()[0].sku
assert client.collections.list().results
assert client.collections.get(collection_slug="text-to-image").models
assert client.webhooks.default.secret.get().key.startswith("whsec_")
assert client.search(query="sdxl").models
try:
    client.predictions.get(prediction_id="none")
except replicate.NotFoundError as e:
    assert e.status_code == 404
else:
    raise AssertionError("found")
print("replicate", replicate.__version__, "works")
