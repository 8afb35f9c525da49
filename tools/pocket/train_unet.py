"""Trains both text encoders and the UNet together, from scratch, on latents made by latents.py.

    train_unet.py --latents FOLDER --vae FOLDER --tokenizers FOLDER --out FOLDER [--steps 5300] [--export FOLDER]

The same command goes on where it stopped; more --steps make it longer. Shards that appear in the folder are taken up.
v-prediction, an empty caption for one in ten, averaged weights, a sample sheet and an export every 500 steps.
"""
import argparse
import json
import time
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTokenizer

from captions import Content, caption
from checkpoint import Average, restore, save
from generate import sheet
from export import publish
from model import CHANNELS, SIZE, Pocket, alphas_cumprod, sample
from muon import Both

BATCH, LEARNING_RATE, WARM_UP, GAMMA, EMPTY = 32, 1.5e-3, 200, 5.0, 0.1
PROMPTS = ["a red fox in the snow", "an octopus in a city at night", "a photo of a cat on a beach", "a rocket in space",
           "a watercolour of a rabbit in a meadow of flowers", "pixel art of a dragon in the mountains", "a blue car in a desert at sunset",
           "a penguin in a living room", "a pencil sketch of an owl in a forest", "a turtle under water", "a yellow butterfly in the rain",
           "an elephant on the moon", "an oil painting of a sailboat on the sea at sunset", "a pumpkin in an autumn park at night",
           "a unicorn in the night sky", "a strawberry on a plain blue background"]


class Data:
    """The shards of latents, with captions that are put into words anew each time."""

    def __init__(self, folder, tokenizers):
        self.folder, self.known, self.latents, self.rows = folder, set(), [], []
        self.tokenizer = CLIPTokenizer.from_pretrained(tokenizers / "tokenizer")
        self.pads = [CLIPTokenizer.from_pretrained(tokenizers / name).pad_token_id for name in ("tokenizer", "tokenizer_2")]
        self.refresh()

    def refresh(self):
        for path in sorted(self.folder.glob("*.npy")):
            if path not in self.known:
                self.known.add(path)
                self.latents.append(np.load(path))
                self.rows += [json.loads(line) for line in open(path.with_suffix(".jsonl"))]
                print(f"{path.name}: {len(self.rows)} pictures in all", flush=True)
        self.ends = np.cumsum([len(x) for x in self.latents])

    def tokens(self, captions, padding="max_length"):
        """(B, 77) for each tokenizer, or as long as the longest; they differ in what fills up."""
        ids = self.tokenizer(captions, padding=padding, truncation=True, max_length=77, return_attention_mask=True)
        mask, ids = torch.tensor(ids["attention_mask"]).bool(), torch.tensor(ids["input_ids"])
        return [torch.where(mask, ids, torch.tensor(pad)) for pad in self.pads]

    def batch(self, rng, count):
        latents, captions = [], []
        for i in rng.integers(0, self.ends[-1], count):
            shard = int(np.searchsorted(self.ends, i, "right"))
            latents.append(self.latents[shard][i - (self.ends[shard - 1] if shard else 0)])
            row = {k: v for k, v in self.rows[i].items() if k != "caption"}
            captions.append("" if rng.random() < EMPTY else caption(rng, Content(**row)))
        x = torch.from_numpy(np.stack(latents)).float().contiguous(memory_format=torch.channels_last)
        # what fills up is a third of the work; one batch in four is enough to know it
        return x, self.tokens(captions, "max_length" if rng.random() < 0.25 else "longest")


def sizes(rng, count):
    """original size, crop, target size: what they are, and for a quarter anything, so that other sizes do no harm."""
    ids = np.tile([SIZE, SIZE, 0, 0, SIZE, SIZE], (count, 1)).astype(np.float32)
    odd = rng.random(count) < 0.25
    ids[odd] = rng.integers(0, 129, (odd.sum(), 6)) * 8
    return torch.from_numpy(ids)


def loss_of(pocket, x, tokens, rng, generator, a):
    """The v-prediction's error, weighted less where there is hardly any noise, as in min-SNR 5, but not where there is
    much: that is where the words decide what is in the picture."""
    t = torch.randint(0, 1000, (len(x),), generator=generator)
    alpha = a[t].view(-1, 1, 1, 1)
    noise = torch.randn(x.shape, generator=generator)
    noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * x
    v = pocket(noisy.contiguous(memory_format=torch.channels_last), t, *tokens, sizes(rng, len(x)))
    snr = a[t] / (1 - a[t])
    weight = (GAMMA / (snr + 1)).clamp(max=1)
    return ((v - target).pow(2).mean((1, 2, 3)) * weight).mean()


@torch.no_grad()
def write_samples(pocket, vae, data, path):
    noise = torch.randn(len(PROMPTS), CHANNELS, 16, 16, generator=torch.Generator().manual_seed(1))
    latents = sample(pocket, data.tokens(PROMPTS + [""]), noise)
    pixels = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    pixels = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    sheet([Image.fromarray(p) for p in pixels]).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("latents", "vae", "tokenizers", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5300, help="in all; the learning rate falls over the last 30%%")
    parser.add_argument("--export", type=Path, help="where the model's folder goes, as it is so far")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    data = Data(args.latents, args.tokenizers)
    vae = AutoencoderKL.from_pretrained(args.vae).eval()
    pocket = Pocket(len(data.tokenizer))
    for name, part in pocket.named_children():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimizer = Both(pocket, LEARNING_RATE, ends=("conv_in", "conv_out"))
    average = Average(pocket, 0.9995)
    done, spent = restore(args.out, pocket=pocket, optimizer=optimizer, average=average)
    rng, generator = np.random.default_rng((11, done)), torch.Generator().manual_seed(11 + done)
    a, losses, last, since = alphas_cumprod(), [], time.time(), time.time()
    while done < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (done + 1) / WARM_UP, max(0.01, (1 - done / args.steps) / 0.3))
        x, tokens = data.batch(rng, BATCH)
        loss = loss_of(pocket, x, tokens, rng, generator, a)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(pocket.parameters(), 1.0)
        optimizer.step()
        average.update(pocket)
        done += 1
        losses.append(loss.item())
        if done % 10 == 0:
            spent, last = spent + min(time.time() - last, 120), time.time()  # a pause does not count
        if done % 100 == 0:
            print(json.dumps(dict(step=done, minutes=round(spent / 60, 1), loss=round(float(np.mean(losses)), 5), norm=round(norm.item(), 3))), flush=True)
            losses = []
            data.refresh()
        if time.time() - since > 280 or done % 500 == 0 or done == args.steps:
            save(args.out, done, spent, pocket=pocket, optimizer=optimizer, average=average)
            since = time.time()
        if done % 500 == 0 or done == args.steps:
            write_samples(average.model, vae, data, args.out / f"samples-{done:06}.png")
            if args.export:
                publish(args.out, args.vae, args.tokenizers, args.export)


if __name__ == "__main__":
    main()
