#!/usr/bin/env python3
"""The Python client of AUTOMATIC1111's web UI, `webuiapi`, as it comes from PyPI, against a running service: URL [TOKEN].

Fails at the first thing that does not work. `run.sh` starts the service.
"""

import sys

import webuiapi

base = sys.argv[1].rstrip("/")
api = webuiapi.WebUIApi(baseurl=f"{base}/sdapi/v1", sampler="Euler a", steps=2)
if len(sys.argv) > 2:
    api.set_auth("anyone", sys.argv[2])

answer = api.txt2img(prompt="a red fox", seed=7, width=64, height=64, n_iter=2)
assert [image.size for image in answer.images] == [(64, 64)] * 2
assert answer.info["all_seeds"] == [7, 8], answer.info["all_seeds"]
assert "Steps: 2" in answer.info["infotexts"][0], answer.info["infotexts"]
assert answer.images[0].info["parameters"] == answer.info["infotexts"][0]
print("txt2img: pictures with their seeds and infotexts")

again = api.txt2img(prompt="a red fox", seed=8, width=64, height=64)
assert again.image.tobytes() == answer.images[1].tobytes()
print("txt2img: each picture comes again from its own seed")

answer = api.img2img(images=[answer.images[0]], prompt="a blue fox", seed=7, width=64, height=64, denoising_strength=0.5)
assert answer.image.size == (64, 64)
print("img2img")

assert "Euler a" in [sampler["name"] for sampler in api.get_samplers()]
models = api.get_sd_models()
assert api.get_options()["sd_model_checkpoint"] == models[0]["title"]
api.set_options({"sd_model_checkpoint": models[0]["title"]})
assert api.get_progress()["state"]["job_count"] == 0
assert api.interrupt() == {}
assert api.get_upscalers() and api.get_loras() is not None and api.get_sd_vae() == []
print("options, models, samplers, progress, interrupt")
