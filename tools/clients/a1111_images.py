#!/usr/bin/env python3
"""What clients of AUTOMATIC1111's web UI ask for (Open WebUI, SillyTavern, LibreChat), against a running service.

    calotype serve &
    pip install webuiapi
    tools/clients/a1111_images.py 127.0.0.1 5000 [USER:TOKEN]

`webuiapi` is the Python client of the web UI, as it comes from PyPI. Fails at the first thing that does not work.
"""

import sys

import webuiapi

host, port = sys.argv[1], int(sys.argv[2])
api = webuiapi.WebUIApi(host=host, port=port, sampler="Euler a", steps=2)
if len(sys.argv) > 3:
    api.set_auth(*sys.argv[3].split(":", 1))

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
