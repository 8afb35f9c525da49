"""A small network that says what a picture shows: which thing, in which setting. Trained on the generator's own pictures.

    generate.py set FOLDER --everything --count 24000 --seed 50     # held-out things and pairs too
    classifier.py --set FOLDER --out classifier.pt [--epochs 10] [--device cuda]

Prints its own accuracy on pictures of the set that it was not trained on (the last 1,000).
"""
import argparse
import json
import time
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from captions import SETTINGS
from sets import Pictures
from things import HELD_OUT, THINGS

LABELS = [*THINGS, *HELD_OUT, "mascot"]
PLACES = list(SETTINGS)


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
                         nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Classifier(nn.Module):
    """(B, 3, 64, 64) in -1…1 → scores of things, scores of settings."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 24, 3, 1, 1), nn.ReLU(), block(24, 48), block(48, 96), block(96, 160), block(160, 224))
        self.thing, self.setting = nn.Linear(224 * 2, len(LABELS)), nn.Linear(224 * 2, len(PLACES))

    def forward(self, x):
        x = self.body(x)
        x = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        return self.thing(x), self.setting(x)


def prepare(pictures):
    """uint8 (B, 128, 128, 3) → what the classifier takes."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(x, 2).contiguous(memory_format=torch.channels_last)


def vary(x, rng):
    """Mirrored, moved, softer or noisier: a generated picture is never as crisp as a drawn one."""
    if rng.random() < 0.5:
        x = x.flip(3)
    x = x.roll(tuple(rng.integers(-4, 5, 2)), (2, 3))
    if rng.random() < 0.5:
        x = torch.lerp(x, F.avg_pool2d(x, 3, 1, 1), float(rng.random()))
    return x * float(rng.uniform(0.85, 1.15)) + torch.randn_like(x) * float(rng.uniform(0, 0.08))


def load(path):
    net = Classifier()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()


@torch.no_grad()
def accuracy(net, x, things, settings):
    right = torch.zeros(2)
    for i in range(0, len(x), 100):
        a, b = net(x[i : i + 100].float())
        right += torch.stack([(a.argmax(1) == things[i : i + 100]).sum(), (b.argmax(1) == settings[i : i + 100]).sum()]).cpu()
    return [round(share, 4) for share in (right / len(x)).tolist()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    pictures = Pictures(args.set)
    x = torch.cat([prepare(pictures.images(part)).half() for part in np.array_split(np.arange(len(pictures)), -(-len(pictures) // 500))])
    x = x.to(args.device, memory_format=torch.channels_last)
    things = torch.tensor([LABELS.index(r["thing"]) for r in pictures.rows], device=args.device)
    settings = torch.tensor([PLACES.index(r["setting"]) for r in pictures.rows], device=args.device)
    train = len(x) - min(1000, len(x) // 2)
    net = Classifier().to(args.device, memory_format=torch.channels_last)
    print(f"{len(x)} pictures, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters", flush=True)
    each = max(train // 64, 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=args.epochs * each, pct_start=0.15)
    start = time.time()
    for epoch in range(args.epochs):
        net.train()
        for chosen in np.array_split(rng.permutation(train), each):
            chosen = torch.from_numpy(np.sort(chosen)).to(args.device)
            a, b = net(vary(x[chosen].float(), rng))
            loss = F.cross_entropy(a, things[chosen], label_smoothing=0.05) + 0.5 * F.cross_entropy(b, settings[chosen], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        print(json.dumps(dict(epoch=epoch + 1, minutes=round((time.time() - start) / 60, 1), loss=round(loss.item(), 3),
                              things_settings=accuracy(net, x[train:], things[train:], settings[train:]))), flush=True)
        torch.save(net.state_dict(), args.out)


if __name__ == "__main__":
    main()
