"""Puts things into scenes on the GPU, as generate.py does one by one: thousands of pictures a second, with masks.

What is seen is the generator's: its glyphs and colours, its scenes from scenes.py, its light, shadow and ground. Things are also put elsewhere
and smaller than the generator puts them, two at a time, or none at all; and there are figures and glyphs that only have a general word.
"""
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from creatures import KINDS, figure, kinds
from generate import LIGHT, SINKS
from looks import style
from captions import Content
from paint import S
from scenes import LISTS, numbers
from sets import parts, read_rows
from things import COLOURS, THINGS, coloured, glyph

CELL = 152  # the side of a sprite's square
NAMES = [*THINGS, *KINDS, "figure"]  # what a sprite is called
WET = ("sea", "rain")


class Sprites:
    """All things in all colours, and unknown ones: (N, 4, CELL, CELL), colour times alpha, and alpha."""

    def __init__(self, device, figures=1500, seed=5, colours=True):
        images, names, hues = [], [], []

        def add(image, name, colour=0):
            images.append(image)
            names.append(NAMES.index(name))
            hues.append(colour)

        for name in THINGS:
            add(glyph(name), name)
            for i, colour in enumerate(COLOURS if colours else ()):
                add(coloured(glyph(name), colour), name, i + 1)
        self.known = len(images)
        for kind, image in kinds():
            add(image, kind)
        self.kinds = len(images)
        rng = np.random.default_rng(seed)
        for _ in range(figures):
            add(figure(rng), "figure")
        cells = np.zeros((len(images), CELL, CELL, 4), np.uint8)
        for cell, image in zip(cells, images):
            x, y = (CELL - image.width) // 2, (CELL - image.height) // 2
            cell[y : y + image.height, x : x + image.width] = np.asarray(image)
        pixels = torch.from_numpy(cells).to(device).permute(0, 3, 1, 2).contiguous()
        self.pixels = pixels
        self.size = torch.tensor([[image.width, image.height] for image in images], dtype=torch.float32, device=device)
        self.name, self.hue = np.array(names), np.array(hues)
        self.per_thing = 1 + (len(COLOURS) if colours else 0)

    def pick(self, rng, count):
        """Numbers of sprites: mostly known things, a quarter of them coloured."""
        known = rng.integers(0, len(THINGS), count) * self.per_thing
        colour = np.where(rng.random(count) < 0.25, rng.integers(1, self.per_thing, count), 0) if self.per_thing > 1 else 0
        which = rng.random(count)
        picked = np.where(which < 0.88, known + colour, rng.integers(self.known, self.kinds, count))
        return np.where(which > 0.92, rng.integers(self.kinds, len(self.name), count), picked)


class Store:
    """Arrays on the device that grow as files appear, up to a capacity. shrink: how many times smaller canvases are kept."""

    def __init__(self, folder, device, capacity, shrink=1):
        self.folder, self.device, self.capacity, self.shrink = folder and Path(folder), device, capacity, shrink
        self.seen, self.arrays, self.count = set(), {}, 0

    def files(self):
        """The files that are there."""
        return sorted(self.folder.glob("scenes-*.npz"))

    def read(self, path):
        with np.load(path) as file:
            return {key: file[key] for key in file.files}

    def refresh(self, limit=2):
        """Takes up some of the new files; how many."""
        if self.folder is None or self.count == self.capacity:
            return 0
        new = [path for path in self.files() if path not in self.seen][:limit]
        for path in new:
            self.seen.add(path)
            arrays = self.read(path)
            for key, values in arrays.items():
                self._take(key, torch.from_numpy(values))
            self.count = min(self.capacity, self.count + len(arrays["row"]))
        return len(new)

    def _take(self, key, values):
        if key == "canvas" and self.shrink > 1:
            small = F.avg_pool2d(values.to(self.device).permute(0, 3, 1, 2).float(), self.shrink)
            values = small.round().byte().permute(0, 2, 3, 1)
        if key not in self.arrays:
            device = "cpu" if key == "row" else self.device
            self.arrays[key] = torch.empty((self.capacity, *values.shape[1:]), dtype=values.dtype, device=device)
        end = min(self.capacity, self.count + len(values))
        self.arrays[key][self.count : end] = values[: end - self.count].to(self.arrays[key].device)

    def wait(self, count, seconds=240):
        """Waits until there are this many."""
        since = time.time()
        while self.count < count:
            if not self.refresh(64):
                if time.time() - since > seconds:
                    raise SystemExit(f"compose.py: {self.folder}: {self.count} of {count} in {seconds} s")
                time.sleep(0.5)


class Drawn(Store):
    """A set as sets.py keeps it: whole pictures with their masks."""

    def files(self):
        return parts(self.folder)

    def read(self, path):
        rows = [numbers(Content(**{k: v for k, v in row.items() if k != "caption"})) for row in read_rows(path)]
        return {"image": np.load(path / "images.npy"), "mask": np.load(path / "masks.npy"), "row": np.array(rows, np.uint8)}


@dataclass
class Batch:
    """Pictures of 0…1 and what is known of them."""

    canvas: torch.Tensor   # (B, 3, size, size) as painted; of pictures that were drawn whole, the picture enlarged
    image: torch.Tensor    # (B, 3, 128, 128) in their styles
    masks: torch.Tensor    # (B, 2, size, size): what is seen of the first thing and of the second
    rows: np.ndarray       # (B, 6): numbers as in scenes.LISTS; thing as in NAMES, len(NAMES): none
    second: np.ndarray     # (B, 2): the second thing's name and colour; len(NAMES): none
    drawn: int = 0         # how many, the last ones, were drawn whole


def _table(device):
    """Light, depth and strength of the shadow for each setting and time."""
    light = torch.ones(len(LISTS["setting"]), len(LISTS["time"]), 3)
    for i, setting in enumerate(LISTS["setting"]):
        for j, moment in enumerate(LISTS["time"]):
            colour = LIGHT.get(moment, LIGHT.get(setting))
            if colour:
                light[i, j] = torch.tensor(colour)
    sinks = torch.tensor([SINKS.get(setting, 0.0) for setting in LISTS["setting"]])
    shadow = torch.tensor([0.3 if setting in WET else 0.5 for setting in LISTS["setting"]])
    return light.to(device), sinks.to(device), shadow.to(device)


class Composer:
    """Batches from a folder of scenes, and from a set of drawn pictures if there is one."""

    def __init__(self, scenes, drawn, device, capacity=16000, figures=1500, seed=0, share=0.35, size=S):
        self.device, self.share, self.size = device, share, size
        self.rng, self.generator = np.random.default_rng((17, seed)), torch.Generator(device).manual_seed(17 + seed)
        self.sprites = Sprites(device, figures)
        self.scenes, self.drawn = Store(scenes, device, capacity, S // size), Drawn(drawn, device, 4 * capacity)
        self.light, self.sinks, self.shadow = _table(device)
        full = (torch.arange(S, device=device) + 0.5).float()
        self.y_full, self.x_full = torch.meshgrid(full, full, indexing="ij")
        part = (torch.arange(size, device=device) + 0.5) * (S / size)  # the canvas's own pixels, in units of the full canvas
        self.y, self.x = torch.meshgrid(part, part, indexing="ij")

    def refresh(self):
        """Takes up new files, a few at a time."""
        self.scenes.refresh()
        self.drawn.refresh(4)

    def uniform(self, low, high, *size):
        return torch.rand(size, generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, *size):
        return torch.randn(size, generator=self.generator, device=self.device)

    def layer(self, numbers, x, bottom, scale, angle, light, flip):
        """Sprites as they stand: colour times alpha and alpha, (B, 4, size, size); bottom is their lower end, in pixels."""
        pixels = self.sprites.pixels[numbers].float() / 255
        alpha = pixels[:, 3:]
        pixels = torch.cat([pixels[:, :3] * alpha * light[:, :, None, None], alpha], 1)
        w, h = (self.sprites.size[numbers] * scale[:, None]).unbind(1)
        cos, sin = angle.cos(), angle.sin()
        y = bottom - (h * cos + w * sin.abs()) / 2
        dx, dy = self.x_full[None] - x[:, None, None], self.y_full[None] - y[:, None, None]
        unit = 2 / (CELL * scale[:, None, None])
        u = (dx * cos[:, None, None] + dy * sin[:, None, None]) * unit * flip[:, None, None]
        v = (dy * cos[:, None, None] - dx * sin[:, None, None]) * unit
        layer = F.grid_sample(pixels, torch.stack([u, v], -1), mode="bilinear", padding_mode="zeros", align_corners=False)
        return F.avg_pool2d(layer, S // self.size), w

    def put(self, canvas, numbers, setting, light, foot, x, height, flip, shown):
        """One thing for each canvas. The new canvases, and the mask of what is seen of the things, (B, 1, size, size)."""
        count = len(canvas)
        floats = foot.isnan()
        size = self.sprites.size[numbers]
        scale = torch.minimum(height / size[:, 1], 0.86 * S / size[:, 0])
        h = size[:, 1] * scale
        angle = self.normal(count) * torch.where(floats, 6.0, 2.5) * (torch.pi / 180)
        bottom = torch.where(floats, S * self.uniform(0.44, 0.54, count) + h / 2, torch.maximum(foot, h + 6))
        layer, w = self.layer(numbers, x, bottom, scale, angle, light, flip)
        layer = layer * shown[:, None, None, None]
        depth = self.sinks[setting] * h * ~floats
        under = bottom - 2 - depth  # a soft ellipse, a little below the feet
        far = ((self.x[None] - x[:, None, None]) / (w * 0.46)[:, None, None]) ** 2
        far = far + ((self.y[None] - under[:, None, None]) / (w * 0.085 + 2)[:, None, None]) ** 2
        dark = torch.sigmoid((1 - far) * 2.5)[:, None] * (self.shadow[setting] * ~floats * shown)[:, None, None, None]
        seen = 1 - layer[:, 3:]
        shade = torch.tensor([8, 10, 28], device=self.device).view(1, 3, 1, 1) / 255
        painted = (canvas * (1 - dark) + shade * dark) * seen + layer[:, :3]
        wave = torch.sin(self.x[None, 0] / S * self.uniform(3, 14, count)[:, None] + self.uniform(0, 6.3, count)[:, None])
        line = (bottom - depth)[:, None] + 2 * wave + 0.8 * self.normal(count, self.size)
        ground = ((self.y[None] - line[:, None]) / 3).clamp(0, 1) * (depth > 0)[:, None, None]
        ground = ground[:, None]
        return painted * (1 - ground) + canvas * ground, layer[:, 3:] * (1 - ground)

    def composed(self, count):
        """Pictures put together."""
        rng = self.rng
        chosen = torch.from_numpy(rng.integers(0, self.scenes.count, count))
        rows = self.scenes.arrays["row"][chosen].numpy().astype(np.int64)
        at = chosen.to(self.device)
        canvas = self.scenes.arrays["canvas"][at].permute(0, 3, 1, 2).float() / 255
        foot = self.scenes.arrays["foot"][at]
        mirrored = torch.from_numpy(rng.random(count) < 0.5).to(self.device)
        canvas = torch.where(mirrored[:, None, None, None], canvas.flip(3), canvas)
        setting, moment = (torch.from_numpy(rows[:, i]).to(self.device) for i in (1, 2))
        light = self.light[setting, moment]
        usual = rng.random(count) < 0.65  # as the generator does; else smaller, anywhere, with another thing or without any
        pair = ~usual & (rng.random(count) < 0.6)
        empty = ~usual & ~pair & (rng.random(count) < 0.25)
        one, two = self.sprites.pick(rng, count), self.sprites.pick(rng, count)
        pair &= self.sprites.name[one] != self.sprites.name[two]
        height = np.where(usual, rng.uniform(0.57, 0.73, count), rng.uniform(0.28, 0.8, count)) * S
        small = height * np.where(pair, rng.uniform(0.45, 0.8, count), 1)
        side = np.where(rng.random(count) < 0.5, 1, -1)
        x = np.where(usual, np.clip(rng.normal(0, 0.05, count), -0.2, 0.2), np.clip(rng.normal(0, 0.16, count), -0.3, 0.3))
        x = (0.5 + np.where(pair, side * rng.uniform(0.08, 0.22, count), x)) * S
        other = S / 2 - side * rng.uniform(0.2, 0.36, count) * S

        def tensor(values):
            return torch.as_tensor(values, dtype=torch.float32, device=self.device)

        def numbers(values):
            return torch.from_numpy(values).to(self.device)

        def flips():  # a thing that looks the other way
            return tensor(np.where(rng.random(count) < 0.3, -1.0, 1.0))

        behind = torch.zeros(count, 1, self.size, self.size, device=self.device)
        if pair.any():
            some = np.flatnonzero(pair)
            at = numbers(some)
            canvas[at], behind[at] = self.put(canvas[at], numbers(two[some]), setting[at], light[at], foot[at] - self.uniform(0, 12, len(some)),
                                              tensor(other[some]), tensor(small[some]), flips()[at], tensor(np.ones(len(some))))
        canvas, first = self.put(canvas, numbers(one), setting, light, foot, tensor(x), tensor(height), flips(), tensor(~empty))
        none = len(NAMES)
        rows[:, 0] = np.where(empty, none, self.sprites.name[one])
        rows[:, 3] = np.where(empty, 0, self.sprites.hue[one])
        second = np.stack([np.where(pair, self.sprites.name[two], none), np.where(pair, self.sprites.hue[two], 0)], 1)
        masks = torch.cat([first, behind * (1 - first)], 1)
        image = F.avg_pool2d(canvas, self.size // 128)
        styles = np.where(rng.random(count) < 0.12, rng.integers(1, len(LISTS["style"]), count), 0)
        styles = np.where((styles == LISTS["style"].index("pencil sketch")) & (rows[:, 2] > 0), 0, styles)  # it has no time of day
        rows[:, 5] = styles
        image = style(image, styles, self.generator)
        return Batch(canvas, image, masks, rows, second)

    @torch.no_grad()
    def batch(self, count):
        """Pictures put together, and a share of pictures that the generator drew whole."""
        whole = int(count * self.share) if self.drawn.count else 0
        batch = self.composed(count - whole)
        if not whole:
            return batch
        chosen = torch.from_numpy(self.rng.integers(0, self.drawn.count, whole))
        at = chosen.to(self.device)
        image = self.drawn.arrays["image"][at].permute(0, 3, 1, 2).float() / 255
        mask = self.drawn.arrays["mask"][at][:, None].float() / 255
        mirrored = torch.from_numpy(self.rng.random(whole) < 0.5).to(self.device)[:, None, None, None]
        image, mask = torch.where(mirrored, image.flip(3), image), torch.where(mirrored, mask.flip(3), mask)
        rows = self.drawn.arrays["row"][chosen].numpy().astype(np.int64)
        second = np.stack([np.full(whole, len(NAMES)), np.zeros(whole, np.int64)], 1)
        canvas = image
        if self.size > 128:
            canvas, mask = (F.interpolate(v, size=self.size, mode="bilinear", align_corners=False) for v in (image, mask))
        return Batch(torch.cat([batch.canvas, canvas]), torch.cat([batch.image, image]),
                     torch.cat([batch.masks, torch.cat([mask, torch.zeros_like(mask)], 1)]), np.concatenate([batch.rows, rows]),
                     np.concatenate([batch.second, second]), whole)


