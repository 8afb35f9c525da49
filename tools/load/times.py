#!/usr/bin/env python3
"""How long people wait: for the first picture of a service, for a cancel, behind a training, for other trained weights.

    tools/load/times.py --binary target/release/calotype
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from service import POCKET_UNET, Service, lora, training_set

FOX = {"prompt": "a red fox in the snow", "num_inference_steps": 30}


def row(what, times, unit=1.0, digits=2, name="s"):
    shown = [f"{unit * value:.{digits}f} {name}" for value in (statistics.median(times), min(times), max(times))]
    print(f"| {what} | {shown[0]} | {shown[1]} | {shown[2]} | {len(times)} |", flush=True)


def first_picture(binary, rounds):
    """From the start of the process: until it listens, and until the first picture is there."""
    listening, pictures = [], []
    for _ in range(rounds):
        with Service(binary) as service:
            listening.append(service.listening)
            service.predict(seed=1, **FOX)
            pictures.append(time.monotonic() - service.started)
    row("start to open port", listening, 1000, 0, "ms")
    row("start to first picture", pictures)


def first_of_all(binary):
    """The same on a machine that has never run the program: the small model is unpacked first."""
    with tempfile.TemporaryDirectory() as cache:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = cache
        with Service(binary) as service:
            service.predict(seed=1, **FOX)
            row("start to first picture, the very first time", [time.monotonic() - service.started])
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def cancels(binary, rounds):
    """Of a job that waits: until the answer. Of one that computes: until the answer, and until the worker has begun the next job."""
    waits, answers, ends, steps = [], [], [], []
    with Service(binary) as service:
        for seed in range(rounds):
            large = {"prompt": "a", "width": 512, "height": 512, "num_inference_steps": 40, "seed": seed}
            long = service.submit(**large)
            waiting = service.submit(**large)
            begun = service.wait("prediction", long, lambda job: "| 2/40 " in (job["logs"] or ""))
            steps.append(float(re.findall(r"([\d.]+)s/step\]", begun["logs"])[-1]))
            start = time.monotonic()
            job = service.cancel("prediction", waiting)
            waits.append(time.monotonic() - start)
            assert job["status"] == "canceled", job
            following = service.submit(prompt="a", num_inference_steps=1, seed=seed)
            start, at = time.monotonic(), time.time()
            job = service.cancel("prediction", long)
            answers.append(time.monotonic() - start)
            assert job["status"] == "canceled", job
            done = service.wait("prediction", following, lambda job: job["status"] == "succeeded")
            ends.append(moment(done["started_at"]) - at)
    row("cancel of a job that waits", waits, 1000, 1, "ms")
    row("cancel of a job that computes: the answer", answers, 1000, 1, "ms")
    row("… until the worker has the next job", ends, 1000, 0, "ms")
    row("… a step of the canceled job takes", steps, 1000, 0, "ms")


def beside_a_training(binary, rounds):
    """A prediction alone, and while a training rests for it; and what the training loses."""
    training = {
        "input_images": training_set(), "resolution": 128, "train_batch_size": 2, "max_train_steps": 400, "seed": 1,
        "token_string": "TOK", "caption_prefix": "a photo of TOK, ",
    }
    with Service(binary) as service:
        service.predict(seed=0, **FOX)
        alone = [service.predict(seed=seed, **FOX)[0] for seed in range(rounds)]

        def train(predictions):
            name, times = service.train(**training), []
            service.wait("training", name, lambda job: "1/400" in (job["logs"] or "") or job["status"] == "succeeded")
            for seed in range(predictions):
                times.append(service.predict(seed=seed, **FOX)[0])
            job = service.wait("training", name, lambda job: job["status"] == "succeeded", 0.05)
            return moment(job["completed_at"]) - moment(job["started_at"]), times

        undisturbed, _ = train(0)
        disturbed, times = train(rounds)
    row("a prediction, nothing else computes", alone)
    row("the first in a training: the model is opened again", times[:1])
    row("the others in a training", times[1:])
    row("the training, undisturbed", [undisturbed])
    row(f"the training with {rounds} predictions, without their time", [disturbed - sum(times)])
    lost = (disturbed - sum(times) - undisturbed) / rounds
    row("what the training loses for a prediction, beside the prediction's time", [lost])


def other_weights(binary, rounds, count, model, size, options):
    """A prediction with the same LoRA as before, and with another. LoRAs are files of the service."""
    few = {**FOX, "num_inference_steps": 1, **({"width": size, "height": size} if size else {})}
    unet = Path(model, "unet/diffusion_pytorch_model.safetensors") if model else POCKET_UNET
    options = [*options, *(["--model", model] if model else [])]
    with Service(binary, *options) as service:
        files = [service.upload(lora(seed, unet), f"{seed}.safetensors") for seed in range(count)]

        def predict(i):
            return service.predict(seed=1, replicate_weights=files[i], **few)[0]

        [predict(i) for i in range(count) for _ in range(2)]
        time.sleep(3)  # files that have just been written may change unseen
        [predict(i) for i in range(count) for _ in range(2)]
        row("one step, no LoRA", [service.predict(seed=1, **few)[0] for _ in range(rounds)], 1000, 0, "ms")
        row("one step, the same LoRA", [predict(0) for _ in range(rounds)], 1000, 0, "ms")
        row("one step, two LoRAs in turn", [predict(i % 2) for i in range(rounds)], 1000, 0, "ms")
        row(f"one step, {count} LoRAs in turn", [predict(i % count) for i in range(rounds)], 1000, 0, "ms")
        print(f"memory at most: {service.most_memory() / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", choices=["start", "cancel", "training", "weights"])
    parser.add_argument("--model", help="folder of the model for the last part [pocket]")
    parser.add_argument("--loras", type=int, default=8, help="LoRAs in the last part")
    parser.add_argument("--size", type=int, help="width and height in the last part")
    parser.add_argument("options", nargs="*", help="options of the service for the last part, after --")
    args = parser.parse_args()
    print("| | median | least | most | of |\n|---|---|---|---|---|")
    if args.only in (None, "start"):
        first_of_all(args.binary)
        first_picture(args.binary, args.rounds)
    if args.only in (None, "cancel"):
        cancels(args.binary, args.rounds)
    if args.only in (None, "training"):
        beside_a_training(args.binary, args.rounds)
    if args.only in (None, "weights"):
        other_weights(args.binary, args.rounds, args.loras, args.model, args.size, args.options)


if __name__ == "__main__":
    main()
