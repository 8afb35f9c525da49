"""Judges the captioner, the segmenter and the upscaler of a model's folder on fresh pictures, as transformers runs them.

    evaluate_preprocessing.py --model FOLDER [--count 400] [--seed 990] [--networks captioner segmenter upscaler] [--sheet FOLDER]

Pictures go through Pillow as the processors' configs say. Known things come in all pairs with settings; held-out things and the mascot apart.
"""
import argparse
import io
import json
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
from PIL import Image
from transformers import BertTokenizer, BlipForConditionalGeneration, CLIPSegForImageSegmentation, CLIPTokenizer, Swin2SRForImageSuperResolution

import mask_words
from captions import SETTINGS, draw_lot
from generate import compose, scene, sheet, subject
from paint import S
from things import HELD_OUT, THINGS

UNKNOWN = [*HELD_OUT, "mascot"]
UNKNOWN_PROMPTS = ["the thing in front", "the subject", "something", "a toy", "a character", "a mascot", "a cartoon character", "an animal", "an object"]
FOUND = 0.3  # the largest probability from which on calotype takes a thing for found
ABSENT = 4  # things that are not there, for each picture


def pixels(picture, config):
    """(1, 3, H, W), as a processor's config says."""
    size = (config["size"]["width"], config["size"]["height"])
    x = np.asarray(picture.convert("RGB").resize(size, Image.Resampling(config["resample"])), np.float32) / 255
    x = (x - np.float32(config["image_mean"])) / np.float32(config["image_std"])
    return torch.from_numpy(x).permute(2, 0, 1)[None]


class Captioner:
    def __init__(self, folder):
        self.model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = BertTokenizer.from_pretrained(folder)
        self.config = json.loads((folder / "preprocessor_config.json").read_text())

    @torch.no_grad()
    def __call__(self, picture, **how):
        ids = self.model.generate(pixels(picture, self.config), max_length=150, **how)
        known = [i for i in ids[0].tolist() if i < len(self.tokenizer)]  # [DEC] is in no vocabulary
        return self.tokenizer.decode(known, skip_special_tokens=True)


class Segmenter:
    def __init__(self, folder):
        self.model = CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.config = json.loads((folder / "preprocessor_config.json").read_text())

    @torch.no_grad()
    def __call__(self, picture, prompts):
        """Probabilities of each prompt against the empty one, (n, H, W) of the network's size."""
        ids = self.tokenizer([*prompts, ""], padding="max_length", max_length=77, truncation=True, return_tensors="pt")["input_ids"]
        x = pixels(picture, self.config).expand(len(ids), -1, -1, -1)
        logits = self.model(input_ids=ids, pixel_values=x).logits.view(len(ids), *x.shape[2:])
        return (logits[:-1] - logits[-1:]).sigmoid().numpy()


class Upscaler:
    def __init__(self, folder):
        self.model = Swin2SRForImageSuperResolution.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def __call__(self, picture):
        x = torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)[None]
        out = self.model(pixel_values=x).reconstruction[0, :, : 4 * picture.height, : 4 * picture.width]
        return Image.fromarray((out.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def drawn(rng, things):
    content = draw_lot(rng, things, True)
    return *compose(rng, content, *scene(rng, content)), content


def names_thing(text, thing):
    return thing == max((name for name in THINGS if f" {name} " in f" {text} "), key=len, default="")


def names_setting(text, content):
    phrases = SETTINGS[content.setting][0]
    return any(phrase.format(content.background) in text for phrase in phrases)


def overlap(p, mask):
    """Intersection over union of the upper half of a mask, made as calotype and the published trainer make one, with the truth."""
    grey = (np.minimum(p + 0.01, 1) * 255 / min(p.max() + 0.01, 1)).astype(np.uint8)
    found = np.asarray(Image.fromarray(grey).resize(mask.size, Image.BICUBIC)) > 127
    truth = np.asarray(mask) > 127
    return (found & truth).sum() / max((found | truth).sum(), 1)


def share(values):
    return round(float(np.mean(values)), 4)


def judge_captions(captioner, rng, count):
    right = {"thing": [], "setting": [], "both": []}
    for _ in range(count):
        picture, _, content = drawn(rng, None)
        text = captioner(picture, do_sample=False, num_beams=1)
        thing, setting = names_thing(text, content.thing), names_setting(text, content)
        for key, value in zip(right, (thing, setting, thing and setting)):
            right[key].append(value)
    unknown, said = [], {}
    for i in range(len(UNKNOWN) * 10):
        thing = UNKNOWN[i % len(UNKNOWN)]
        picture, _, content = drawn(rng, [thing])
        text = captioner(picture, do_sample=False, num_beams=1)
        unknown.append(names_setting(text, content))
        said.setdefault(thing, []).append(text.split(" in ")[0].split(" on ")[0])
    return {**{key: share(values) for key, values in right.items()}, "setting_of_unknown_things": share(unknown), "said_of_them": said}


def judge_masks(segmenter, rng, count):
    overlaps, found, absent, wrong = [], [], [], {}
    for _ in range(count):
        picture, mask, content = drawn(rng, None)
        others = [mask_words.absent(rng, [content.thing]) for _ in range(ABSENT)]
        p, *rest = segmenter(picture, [f"a {content.thing}", *others])
        overlaps.append(overlap(p, mask))
        found.append(p.max() >= FOUND)
        absent += [q.max() >= FOUND for q in rest]
        for other in (other for other, q in zip(others, rest) if q.max() >= FOUND):
            wrong.setdefault(content.thing, []).append(other)
    unknown = {}
    for i in range(len(UNKNOWN) * 12):
        thing = UNKNOWN[i % len(UNKNOWN)]
        picture, mask, _ = drawn(rng, [thing])
        for prompt, p in zip(UNKNOWN_PROMPTS, segmenter(picture, UNKNOWN_PROMPTS)):
            unknown.setdefault("mascot" if thing == "mascot" else "held-out things", {}).setdefault(prompt, []).append((p.max() >= FOUND, overlap(p, mask)))
    unknown = {thing: {prompt: dict(zip(("found", "overlap"), map(share, zip(*values)))) for prompt, values in prompts.items()}
               for thing, prompts in unknown.items()}
    return {"overlap": share(overlaps), "overlap_of_0.75": share(np.array(overlaps) >= 0.75), "found": share(found), "found_though_absent": share(absent),
            "which": wrong, "unknown": unknown}


def decibels(a, b):
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-6))


def large(rng):
    """A scene with a thing, 256 × 256, with its true detail."""
    content = draw_lot(rng, None, True)
    canvas, foot = scene(rng, content)
    thing = subject(rng, content, rng.uniform(0.57, 0.73) * S, foot is None)
    canvas.paste(thing, (round((S - thing.width) / 2), round((foot or 0.8 * S) - thing.height)), thing)
    return canvas


def through_jpeg(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def judge_upscaler(upscaler, rng, count):
    gains, bicubic = {}, {}
    for i in range(count):
        for name, picture in (("128", drawn(rng, None)[0]), ("256", large(rng))):
            small = picture.resize((picture.width // 4, picture.height // 4), Image.BICUBIC)
            for key, given in ((name, small), (f"{name}, JPEG 75", through_jpeg(small, 75))):
                plain = decibels(given.resize(picture.size, Image.BICUBIC), picture)
                bicubic.setdefault(key, []).append(plain)
                gains.setdefault(key, []).append(decibels(upscaler(given), picture) - plain)
    return {key: {"bicubic": round(float(np.mean(bicubic[key])), 2), "gain": round(float(np.mean(gains[key])), 2)} for key in gains}


def write_sheets(folder, captioner, segmenter, upscaler, rng):
    """What each network makes of some pictures, to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    masks, enlarged, lines = [], [], []
    for i in range(24):
        picture, _, content = drawn(rng, [UNKNOWN[i % len(UNKNOWN)]] if i % 3 == 0 else None)
        prompt = "a mascot" if content.thing == "mascot" else f"a {content.thing}"
        lines.append(f"{i}: {content.thing} {content.setting} {content.time} {content.style} -> {captioner(picture, do_sample=False, num_beams=1)}")
        red = Image.new("RGB", picture.size, (255, 0, 0))
        p = Image.fromarray((segmenter(picture, [prompt])[0] * 200).astype(np.uint8)).resize(picture.size, Image.BICUBIC)
        masks += [picture, Image.composite(red, picture, p)]
        small = picture.resize((32, 32), Image.BICUBIC)
        enlarged += [small.resize(picture.size, Image.BICUBIC), upscaler(small), picture]
    sheet(masks, 8).save(folder / "masks.png")
    sheet(enlarged, 9).save(folder / "enlarged.png")
    (folder / "captions.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=990)
    parser.add_argument("--networks", nargs="+", default=["captioner", "segmenter", "upscaler"], choices=["captioner", "segmenter", "upscaler"])
    parser.add_argument("--sheet", type=Path, help="folder for pictures of what all three make")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rngs = [np.random.default_rng((args.seed, i)) for i in range(4)]
    if args.sheet:
        write_sheets(args.sheet, *(kind(args.model / name) for name, (kind, _, _) in JUDGES.items()), rngs[3])
    for (name, (kind, judge, part)), rng in zip(JUDGES.items(), rngs):
        if name in args.networks:
            print(json.dumps({name: judge(kind(args.model / name), rng, args.count // part)}, indent=1), flush=True)


# of each network: what runs it, its judge, and how many pictures of the count are for one that it is given
JUDGES = {"captioner": (Captioner, judge_captions, 1), "segmenter": (Segmenter, judge_masks, 1), "upscaler": (Upscaler, judge_upscaler, 4)}


if __name__ == "__main__":
    main()
