"""Trains both text encoders and the UNet together, on latents and tokens made by latents.py.

    train_unet.py --latents FOLDER --vae FOLDER --tokenizers FOLDER --out FOLDER [--steps 5300] [--export FOLDER]
    train_unet.py … --device cuda --batch 1024 --minutes 8 --from MODEL

From scratch, or from the weights of a model's folder. The same command goes on where it stopped; more --steps make it longer.
With --minutes the clock decides. Parts that appear in the folder are taken up. v-prediction, an empty caption for some, averaged
weights, a sample sheet and an export now and then. On a GPU: bf16 and torch.compile.
"""
import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path

import threads  # first of all

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTokenizer

from checkpoint import Average, restore, save
from export import publish
from generate import sheet
from latents import tokens
from model import CHANNELS, SIZE, TOKENS, Pocket, alphas_cumprod, sample
from muon import Both

WARM_UP, GAMMA, EMPTY = 200, 5.0, 0.15
PROMPTS = ["a red fox in the snow", "an octopus in a city at night", "a photo of a cat on a beach", "a rocket in space",
           "a watercolour of a rabbit in a meadow of flowers", "pixel art of a dragon in the mountains", "a blue car in a desert at sunset",
           "a penguin in a living room", "a pencil sketch of an owl in a forest", "a turtle under water", "a yellow butterfly in the rain",
           "an elephant on the moon", "an oil painting of a sailboat on the sea at sunset", "a pumpkin in an autumn park at night",
           "a unicorn in the night sky", "a strawberry on a plain blue background"]


class Words:
    """Token ids, as both text encoders want them: they differ in what fills up."""

    def __init__(self, tokenizers, device):
        self.tokenizer = CLIPTokenizer.from_pretrained(tokenizers / "tokenizer")
        self.pads = [CLIPTokenizer.from_pretrained(tokenizers / name).pad_token_id for name in ("tokenizer", "tokenizer_2")]
        self.device = device
        self.empty = self.of([""])

    def of(self, captions):
        return torch.from_numpy(tokens(self.tokenizer, captions)).to(self.device)

    def filled(self, ids, length=TOKENS):
        """(B, length) for each tokenizer."""
        ids = torch.nn.functional.pad(ids.long(), (0, TOKENS - ids.shape[1]), value=-1)[:, :length]
        return [torch.where(ids < 0, pad, ids) for pad in self.pads]


class Data:
    """The parts that latents.py has made so far, on the device."""

    def __init__(self, folder, words):
        self.folder, self.words, self.known, self.latents, self.tokens = folder, words, set(), None, None

    def refresh(self):
        fresh = [path for path in sorted(self.folder.glob("*.npz")) if path not in self.known]
        for name in ("latents", "tokens") if fresh else ():
            old = getattr(self, name)
            new = [torch.from_numpy(np.load(path)[name]).to(self.words.device) for path in fresh]
            setattr(self, name, torch.cat(([] if old is None else [old]) + new))
        self.known.update(fresh)

    def __len__(self):
        return 0 if self.latents is None else len(self.latents)

    def batch(self, count, whole):
        """Latents, and the tokens of one wording of each. Unless whole, as long as the longest in three of four batches:
        what fills up is a third of a CPU's work, and one batch in four is enough to know it."""
        device = self.latents.device
        chosen = torch.randint(len(self), (count,), device=device)
        ids = self.tokens[chosen, torch.randint(self.tokens.shape[1], (count,), device=device)]
        ids = torch.where(torch.rand(count, 1, device=device) < EMPTY, self.words.empty, ids)
        length = TOKENS if whole or torch.rand(()) < 0.25 else int((ids >= 0).sum(1).max())
        return self.latents[chosen].float().contiguous(memory_format=torch.channels_last), self.words.filled(ids, length)


def sizes(count, device):
    """original size, crop, target size: what they are, and for a quarter anything, so that other sizes do no harm."""
    true = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE], device=device).expand(count, -1)
    return torch.where(torch.rand(count, 1, device=device) < 0.25, torch.randint(0, 129, (count, 6), device=device) * 8, true).float()


def strength(t):
    """How strong the picture is in its noisy version; 1 is what the schedule says.

    Sampling is unlike training in two ways, and a share of the batch prepares for both. It begins with noise alone, where the
    schedule leaves a trace of the picture: 0 for some of the noisiest. And guidance exaggerates the first steps' pictures: more
    than 1 for some, the more the noisier; the prediction is still the picture as it is, so that later steps come back to it.
    """
    chance, far = torch.rand_like(t), t / 1000
    exaggerated = 1 + torch.randn_like(t).abs() * 0.6 * far
    return torch.where(chance < 0.25 * (t > 900), 0, torch.where(chance > 0.7, exaggerated, 1))


def loss_of(pocket, x, ids, a):
    """The v-prediction's error, weighted less where there is hardly any noise, as in min-SNR 5, but not where there is
    much: that is where the words decide what is in the picture."""
    count, device = len(x), x.device
    t = (torch.arange(count, device=device) + torch.rand(count, device=device)) * (1000 / count)
    t = t.clamp(max=999).long()
    alpha = a[t].view(-1, 1, 1, 1)
    strong = strength(t.float()).view(-1, 1, 1, 1)
    spread = torch.where(strong == 0, 1, (1 - alpha).sqrt())
    noisy = alpha.sqrt() * strong * x + spread * torch.randn_like(x)
    target = (alpha.sqrt() * noisy - x) / (1 - alpha).sqrt()  # the v that leads from noisy to x
    v = pocket(noisy.contiguous(memory_format=torch.channels_last), t, *ids, sizes(count, device))
    weight = (GAMMA * (1 - a[t])).clamp(max=1)  # GAMMA / (SNR + 1)
    return ((v.float() - target).pow(2).mean((1, 2, 3)) * weight).mean()


@torch.no_grad()
def write_samples(pocket, vae, words, path):
    noise = torch.randn(len(PROMPTS), CHANNELS, 16, 16, generator=torch.Generator().manual_seed(1)).to(words.device)
    latents = sample(pocket, words.filled(words.of(PROMPTS + [""])), noise)
    pixels = vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)
    pixels = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    sheet([Image.fromarray(p) for p in pixels]).save(path)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("latents", "vae", "tokenizers", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5300, help="in all; the learning rate falls over the last 30%%")
    parser.add_argument("--minutes", type=float, help="instead of steps; the learning rate falls over the last 70%%")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--from", dest="start", type=Path, help="a model's folder whose weights to go on from")
    parser.add_argument("--wait", type=int, default=1000, help="pictures to begin with")
    parser.add_argument("--every", type=float, default=4.5, help="minutes between checkpoints, samples and exports")
    parser.add_argument("--export", type=Path, help="where the model's folder goes, as it is so far")
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    fast = args.device != "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    words = Words(args.tokenizers, args.device)
    data = Data(args.latents, words)
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval().to(args.device)
    pocket = (Pocket.open(args.start) if args.start else Pocket(len(words.tokenizer))).to(args.device).train()
    for name, part in pocket.named_children():
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimizer = Both(pocket, args.learning_rate, ends=("conv_in", "conv_out"))
    average = Average(pocket, 0.998 if args.minutes else 0.9995)
    done, spent = restore(args.out, pocket=pocket, optimizer=optimizer, average=average)
    torch.manual_seed(11 + done)
    if fast:
        torch._dynamo.config.suppress_errors = True  # slower is better than nothing
        pocket.unet.compile()
    a, losses, first = alphas_cumprod().to(args.device), [], done
    saved = reported = time.time()

    def left():  # 1…0
        return 1 - ((time.time() - threads.BEGAN) / (60 * args.minutes) if args.minutes else done / args.steps)

    while data.refresh() or len(data) < args.wait:
        time.sleep(0.5)
    while (now := left()) > 0:
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * min(1, (done - first + 1) / WARM_UP, max(0.01, now / (0.7 if args.minutes else 0.3)))
        with torch.autocast(args.device, torch.bfloat16) if fast else nullcontext():
            loss = loss_of(pocket, *data.batch(args.batch, fast), a)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(pocket.parameters(), 1.0)
        optimizer.step()
        average.update(pocket)
        done += 1
        losses.append(loss.detach())
        if done % 100 == 0 or done == first + 1:
            taken, reported = time.time() - reported, time.time()
            spent += min(taken, 1200)  # a pause does not count
            print(json.dumps(dict(step=done, minutes=round(spent / 60, 1), loss=round(torch.stack(losses).mean().item(), 5), norm=round(norm.item(), 3),
                                  per_second=round(len(losses) * args.batch / taken), of=len(data))), flush=True)
            losses = []
            data.refresh()
        last = left() <= 0
        if time.time() - saved > 60 * args.every or last:
            save(args.out, done, spent, pocket=pocket, optimizer=optimizer, average=average)
            write_samples(average.model, vae, words, args.out / f"samples-{done:06}.png")
            if args.export:
                publish(done, average.model, args.vae, args.tokenizers, args.export)
            saved = time.time()


if __name__ == "__main__":
    main()
