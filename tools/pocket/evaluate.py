"""Makes pictures for prompts.json, and has the classifier say what they show.

    evaluate.py --model FOLDER --binary calotype --classifier classifier.pt --out FOLDER [--steps 50 25] [--guidance 7.5]
    evaluate.py --model FOLDER --device cuda …      # without calotype, by model.sample

Also the VAE's reconstruction of 64 fresh pictures. Writes figures.json and a sheet for each number of steps.
"""
import argparse
import json
import subprocess
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from classifier import LABELS, PLACES, load, prepare
from generate import example, sheet
from model import CHANNELS, Pocket, sample
from train_unet import Words
from train_vae import psnr


def predict(args, row, out, steps, **more):
    """calotype's picture for a prompt; `more` are further fields."""
    request = dict(prompt=row["caption"], width=128, height=128, seed=row["seed"], num_inference_steps=steps, guidance_scale=args.guidance, **more)
    command = [args.binary, "predict", "--model", str(args.model), "--dtype", "f32", "-q", "-o", str(out)]
    for key, value in request.items():
        command += ["-i", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Image.open(done.stdout.strip().splitlines()[0]).convert("RGB")


@torch.no_grad()
def sampled(args, rows, steps):
    """All the pictures at once, on a device."""
    pocket, words = Pocket.open(args.model).eval().to(args.device), Words(args.model, args.device)
    vae = AutoencoderKL.from_pretrained(args.model / "vae", torch_dtype=torch.float32).to(args.device)
    noise = torch.cat([torch.randn(1, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(row["seed"])) for row in rows])
    ids = words.filled(words.of([row["caption"] for row in rows] + [""]))
    latents = sample(pocket, ids, noise.to(args.device), steps, args.guidance)
    pixels = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    return [Image.fromarray(p) for p in ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()]


@torch.no_grad()
def judge(net, images, rows):
    """For each picture: what the classifier takes it for."""
    things, settings = net(prepare(np.stack([np.asarray(image) for image in images])))
    found = zip(things.argmax(1).tolist(), settings.argmax(1).tolist())
    return [(LABELS[a], PLACES[b], row) for (a, b), row in zip(found, rows)]


def shares(judged):
    """How many things and settings of these are right."""
    n = max(len(judged), 1)
    return dict(pictures=len(judged), things=round(sum(t == r["thing"] for t, _, r in judged) / n, 3),
                settings=round(sum(s == r["setting"] for _, s, r in judged) / n, 3))


def arguments(description):
    """What every evaluation is told; more can be added."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "classifier", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--binary", default="calotype")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 25])
    parser.add_argument("--guidance", type=float, default=7.5)
    return parser


def figures_of(judged):
    """Shares of all and of groups, and what went wrong."""
    groups = {"all": judged, "pairs of training": [j for j in judged if not j[2]["held_out"]], "pairs held out": [j for j in judged if j[2]["held_out"]]}
    groups["no style"], groups["with a style"] = ([j for j in judged if bool(j[2]["style"]) == styled] for styled in (False, True))
    groups |= {f"style: {s}": [j for j in judged if j[2]["style"] == s] for s in sorted({j[2]["style"] for j in judged if j[2]["style"]})}
    wrong = [f"{r['caption']}: {t}, {s}" for t, s, r in judged if t != r["thing"] or s != r["setting"]]
    return {name: shares(part) for name, part in groups.items()} | {"wrong": wrong}


def main():
    parser = arguments(__doc__)
    parser.add_argument("--device", help="sample here, without calotype")
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    rows, net = json.loads(Path(__file__).with_name("prompts.json").read_text()), load(args.classifier)
    figures = {"guidance": args.guidance}
    for steps in args.steps:
        images = sampled(args, rows, steps) if args.device else [predict(args, row, args.out / "pictures", steps) for row in rows]
        sheet(images, 10).save(args.out / f"sheet-{steps}.png")
        figures[f"{steps} steps"] = figures_of(judge(net, images, rows))
    fresh = np.stack([np.asarray(example((900, i))[0]) for i in range(64)])
    quality, _ = psnr(AutoencoderKL.from_pretrained(args.model / "vae", torch_dtype=torch.float32), fresh)
    figures["vae_psnr"] = round(quality, 2)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
