"""The reference trainer: what `calotype train` computes, in plain PyTorch, diffusers and transformers, all in f32.

    python trainer.py FOLDER SET.safetensors SETTINGS.json OUT      (files: see `load_set` and `Settings`)

**Random numbers** are stateless: `stream(seed, purpose, index)` is a torch CPU generator of its own, seeded by `mix`.
- INIT 0 and 1: the new rows of text encoder 0 and 1: randn(2, width) × the std of its whole embedding table, as it was
  before (torch's std, unbiased). INIT 2+i: LoRA down of the i-th layer that has LoRA: randn(rank, in) / rank, or of a
  convolution randn(rank, in, k, k) / rank, which is diffusers' old LoRALinearLayer and LoRAConv2dLayer (a *standard
  deviation* of 1/rank); up = 0. Layers in byte order of their paths:
  `….attn1.to_k`, `….attn1.to_out.0`, `….attn1.to_q`, `….attn1.to_v`, `….attn2.to_k`, …
- ORDER e: randperm(n), the order of epoch e. Micro-step m (from 0, over the whole run) takes items mB … mB+B−1 of all
  epochs' orders one after another, so a batch may cross the end of an epoch.
- STEP m: one generator, drawn in this order, images as (B, C, h, w): eps randn(B, 4, h, w); noise randn(B, 4, h, w);
  timesteps randint(0, 1000, (B,)); if noise_offset > 0, randn(B, 4, 1, 1); if caption_dropout > 0, rand(B).

**Captions.** Lower-cased; then every whole word that is the lower-cased token becomes `<s0><s1>`. A whole word has no
letter, digit or underscore beside it. The two new tokens have the ids vocab and vocab + 1 in both tokenizers. Where
rand < caption_dropout, the caption is the empty prompt, encoded; the time ids stay.

**Conditioning.** Both encoders' hidden_states[-2], concatenated; the second's projection of its pooled output, pooled
where transformers pools: with published SDXL's `eos_token_id` of 2 at the largest id, which is `<s1>` where it occurs.
Time ids: original height, width, crop top, left (as the set says), resolution, resolution.

**Latents.** Pictures are u8/255·2 − 1. z = mean + exp(0.5·clamp(logvar, −30, 20))·eps; then z − shift_factor if the
config has it, (z − latents_mean) / latents_std if it has those, and × scaling_factor.
**Noise.** noise += noise_offset · randn(B, 4, 1, 1); √ᾱ·z + √(1−ᾱ)·noise by DDPM with the folder's betas. Target: the
noise (with its offset), or √ᾱ·noise − √(1−ᾱ)·z for v_prediction.
**Loss.** A sample's: sum(mask·(prediction − target)²) / (4·sum(mask)), mask = grey/255 resized as torch's `nearest`
(pixel floor(i·H/h)), 1 without a mask; one that is 0 all over is an error. Times, if min_snr_gamma is set,
min(snr, γ)/snr (epsilon) or min(snr, γ)/(snr + 1) (v), snr = ᾱ/(1 − ᾱ). The mean over the batch; a step's loss is the
mean over its micro-steps, whose gradients are those of loss / gradient_accumulation_steps, added up.
**Validation loss.** The mean loss of 8 samples that are always the same: sample i is picture i mod n at timestep
floor((2i + 1)·1000/16), with eps and then noise, each randn(1, 4, h, w), of stream VALIDATION i; masked as above, but
without min-SNR, noise offset and caption dropout. It changes nothing.

**What trains**, by `kind`:
- `lora`: W x + up(down(x)) on to_q, to_k, to_v, to_out.0 of every attention of the UNet (`lora_layers` attention), or
  on every linear layer and convolution of the UNet (`all`; a convolution's down has its kernel, stride and padding, and
  up is 1 × 1), and the new rows.
- `full`: all UNet tensors except names that fnmatch `*.norm*.weight` or `*time*`, and the new rows. fnmatch's `*` also
  matches dots, and the whole name has to match: out go the weights (not the biases) of `….norm`, `….norm1`, `….norm2`,
  `….norm3`, and `time_embedding.*` and `….time_emb_proj.*`; `conv_norm_out.*`, `add_embedding.*` are trained.
- `ti`: the new rows alone; there is no LoRA.
Rows are f32 parameters of their own beside the frozen table; a step whose captions have no token gives them a gradient
of 0, which Adam steps on.

**The pivot.** Optimizer steps 0 … pivot−1 train the rows, pivot = ceil(max_train_steps / 2), or max_train_steps for
`ti`, as nothing would be left to train. After each of those steps, an encoder's two rows together are multiplied by
(std / rows.std())^0.1, std being the table's at the start. From step `pivot` on the rows stand still: no gradient, no
part in the gradient norm, no weight decay, no rescaling; everything else keeps its Adam state.

**Optimizer.** AdamW, betas 0.9 and 0.999, eps 1e-8; LoRA: lora_lr, decay 1e-4; UNet: unet_learning_rate, 1e-4; rows:
ti_lr, 1e-3. Gradients are clipped together to max_grad_norm: × min(1, max / (norm + 1e-6)); null: not.
`optimizer: adafactor` (only `full`): for the UNet, transformers.optimization.Adafactor at an absolute learning rate
(Shazeer and Stern, arXiv:1804.04235, its updates scaled neither by the parameter's size nor by 1/√step): decay_rate
−0.8, eps (1e-30, —), clip_threshold 1, no first moment, no decay, factored over the last two axes in the checkpoint's
layout (a convolution's kh, kw); AdamW for the rows; no clipping of gradients, since each is used and dropped as soon as
it is known.
`constant`: no warm-up. `linear`: diffusers' get_linear_schedule_with_warmup: step k runs at lr · k/warmup, then
lr · (N − k)/(N − warmup), so that step 0 runs at 0, and 0 is what would follow the last step."""

import argparse
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from diffusers.optimization import get_scheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.optimization import Adafactor

INIT, ORDER, STEP, VALIDATION = range(4)
U64 = (1 << 64) - 1
NEW_TOKENS = ["<s0>", "<s1>"]
VALIDATIONS = 8
ATTENTION_LINEAR = re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$")
NOT_TRAINED = ("*.norm*.weight", "*time*")
ADAFACTOR = {"eps": (1e-30, 1e-3), "clip_threshold": 1.0, "decay_rate": -0.8, "weight_decay": 0.0,
             "scale_parameter": False, "relative_step": False, "warmup_init": False}


def splitmix64(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


def mix(seed: int, purpose: int, index: int) -> int:
    return splitmix64(splitmix64(splitmix64(seed) ^ purpose) ^ index) & 0xFFFFFFFF  # torch takes 32 bits of a seed


def stream(seed: int, purpose: int, index: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(mix(seed, purpose, index))


@dataclass(frozen=True)
class Settings:
    """The request's fields and defaults, and what it lacks: `kind`, `lora_layers`, `optimizer`, `scheduler`, the last
    group."""

    seed: int = 0
    kind: str = "lora"  # lora, full, ti
    lora_layers: str = "attention"  # attention, all
    optimizer: str = "adamw"  # adamw, adafactor (the UNet of `full`)
    resolution: int = 512
    train_batch_size: int = 4
    max_train_steps: int = 1000  # optimizer steps
    unet_learning_rate: float = 1e-6
    ti_lr: float = 3e-4
    lora_lr: float = 1e-4
    lora_rank: int = 32
    lr_scheduler: str = "constant"
    lr_warmup_steps: int = 100
    token_string: str = "TOK"
    scheduler: dict[str, Any] = field(default_factory=dict)  # changes of scheduler_config.json
    gradient_accumulation_steps: int = 1
    max_grad_norm: float | None = 1.0
    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    caption_dropout: float = 0.0

    @property
    def pivot(self) -> int:
        return self.max_train_steps if self.kind == "ti" else -(-self.max_train_steps // 2)

    @property
    def main_lr(self) -> float:
        return {"lora": self.lora_lr, "full": self.unet_learning_rate, "ti": self.ti_lr}[self.kind]


@dataclass(frozen=True)
class Example:
    """A picture that is already cropped and scaled to resolution × resolution."""

    picture: Tensor  # (H, W, 3) u8
    caption: str
    original_size: tuple[int, int]  # height, width
    crop_top_left: tuple[int, int]
    mask: Tensor | None = None  # (H, W) u8


def load_set(path: Path) -> list[Example]:
    """A safetensors file: `picture.N`, sometimes `mask.N`; the JSON `examples` of its metadata has the other fields."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        rows = json.loads(file.metadata()["examples"])
    return [Example(tensors[f"picture.{i}"], mask=tensors.get(f"mask.{i}"), **row) for i, row in enumerate(rows)]


def with_tokens(caption: str, token: str) -> str:
    word = rf"(?<!\w){re.escape(token.lower())}(?!\w)"
    return re.sub(word, "".join(NEW_TOKENS), caption.lower())


class TokenEmbedding(nn.Module):
    """A text encoder's frozen table, with two rows that train after it."""

    def __init__(self, table: Tensor, generator: torch.Generator):
        super().__init__()
        self.std = table.std()
        self.register_buffer("table", table)
        self.rows = nn.Parameter(torch.randn(2, table.shape[1], generator=generator).to(table.dtype) * self.std)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, torch.cat([self.table, self.rows]))

    @torch.no_grad()
    def rescale(self) -> None:
        self.rows.mul_((self.std / self.rows.std()) ** 0.1)


class Lora(nn.Module):
    """A linear layer or a convolution with LoRA beside it."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, generator: torch.Generator):
        super().__init__()
        out, *inputs = base.weight.shape
        dtype, ones = base.weight.dtype, [1] * (len(inputs) - 1)
        self.base = base
        self.down = nn.Parameter((torch.randn(rank, *inputs, generator=generator) / rank).to(dtype))
        self.up = nn.Parameter(torch.zeros(out, rank, *ones, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.base, nn.Linear):
            return self.base(x) + F.linear(F.linear(x, self.down), self.up)
        inner = F.conv2d(x, self.down, stride=self.base.stride, padding=self.base.padding)
        return self.base(x) + F.conv2d(inner, self.up)


def lora_paths(unet: nn.Module, layers: str) -> list[str]:
    """The layers that get LoRA, in byte order of their paths."""
    if layers == "attention":
        return sorted(name for name, _ in unet.named_modules() if ATTENTION_LINEAR.search(name))
    return sorted(name for name, m in unet.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)))


def attach_lora(unet: nn.Module, rank: int, seed: int, layers: str = "attention") -> dict[str, Lora]:
    attached = {}
    for i, path in enumerate(lora_paths(unet, layers)):
        attached[path] = Lora(unet.get_submodule(path), rank, stream(seed, INIT, 2 + i))
        parent, _, name = path.rpartition(".")
        setattr(unet.get_submodule(parent), name, attached[path])
    return attached


def cog_name(path: str) -> str:
    """`….attn1.to_out.0` -> `….attn1.processor.to_out_lora`; what the original program does not train: `….conv1.lora`"""
    if not ATTENTION_LINEAR.search(path):
        return f"{path}.lora"
    attention, _, name = path.removesuffix(".0").rpartition(".")
    return f"{attention}.processor.{name}_lora"


def full_names(unet: nn.Module) -> list[str]:
    names = (name for name, _ in unet.named_parameters())
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in NOT_TRAINED))


class Trainer:
    """One run. `dtype` f64 shows how far f32's rounding alone carries a run: the same random numbers, drawn in f32."""

    def __init__(self, folder: Path, settings: Settings, examples: list[Example], dtype: torch.dtype = torch.float32):
        self.settings, self.examples, self.dtype = settings, examples, dtype
        pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=dtype, add_watermarker=False)
        self.unet, self.vae = pipe.unet, pipe.vae
        self.encoders = [pipe.text_encoder, pipe.text_encoder_2]
        self.tokenizers = [pipe.tokenizer, pipe.tokenizer_2]
        self.noise = DDPMScheduler.from_config(pipe.scheduler.config, **settings.scheduler)
        for part in (self.unet, self.vae, *self.encoders):
            part.eval().requires_grad_(False)
        self.tokens = [self.add_tokens(i) for i in range(2)]
        self.rows = [t.rows for t in self.tokens]
        self.lora: dict[str, Lora] = {}
        self.full: dict[str, nn.Parameter] = {}
        if settings.kind == "lora":
            self.lora = attach_lora(self.unet, settings.lora_rank, settings.seed, settings.lora_layers)
        elif settings.kind == "full":
            self.full = {name: self.unet.get_parameter(name).requires_grad_() for name in full_names(self.unet)}
        self.main = [p for layer in self.lora.values() for p in (layer.down, layer.up)] + list(self.full.values())
        self.optimizers = self.make_optimizers()
        self.schedules = [get_scheduler(settings.lr_scheduler, o, num_warmup_steps=settings.lr_warmup_steps,
                                        num_training_steps=settings.max_train_steps) for o in self.optimizers]
        self.moments = [self.encode_picture(e) for e in examples]
        self.masks = [self.latent_mask(e, self.moments[0][0].shape[-2:]) for e in examples]
        self.captions = [with_tokens(e.caption, settings.token_string) for e in examples]
        self.last: dict[str, Tensor] = {}  # what the last micro-step computed

    def add_tokens(self, i: int) -> TokenEmbedding:
        encoder, tokenizer = self.encoders[i], self.tokenizers[i]
        table = encoder.get_input_embeddings().weight.detach()
        tokenizer.add_tokens(NEW_TOKENS)
        assert tokenizer.convert_tokens_to_ids(NEW_TOKENS) == [len(table), len(table) + 1]
        tokens = TokenEmbedding(table, stream(self.settings.seed, INIT, i))
        encoder.set_input_embeddings(tokens)
        return tokens

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        s = self.settings
        adamw = {"betas": (0.9, 0.999), "eps": 1e-8, "foreach": False}
        rows = {"params": self.rows, "lr": s.ti_lr, "weight_decay": 1e-3}
        if s.optimizer == "adafactor":
            main = Adafactor(self.main, lr=s.main_lr, **ADAFACTOR)
            return [main, torch.optim.AdamW([rows], **adamw)]
        main = [{"params": self.main, "lr": s.main_lr, "weight_decay": 1e-4}] if self.main else []
        return [torch.optim.AdamW([*main, rows], **adamw)]

    @torch.no_grad()
    def encode_picture(self, example: Example) -> tuple[Tensor, Tensor]:
        """-> mean, logvar, each (4, h, w); a picture's are always the same, so they are computed once"""
        x = example.picture.to(self.dtype).permute(2, 0, 1)[None] / 255 * 2 - 1
        posterior = self.vae.encode(x).latent_dist
        return posterior.mean[0], posterior.logvar[0]  # logvar is clamped by diffusers

    def latent_mask(self, example: Example, size: tuple[int, int]) -> Tensor:
        if example.mask is None:
            return torch.ones(1, *size, dtype=self.dtype)
        mask = F.interpolate(example.mask[None, None].to(self.dtype) / 255, size=tuple(size), mode="nearest")[0]
        if mask.sum() == 0:
            raise ValueError(f"the mask of {example.caption!r} is 0 all over")
        return mask

    def batch(self, m: int) -> list[int]:
        n, size = len(self.examples), self.settings.train_batch_size
        epochs = range(m * size // n, (m * size + size - 1) // n + 1)
        orders = torch.cat([torch.randperm(n, generator=stream(self.settings.seed, ORDER, e)) for e in epochs])
        start = m * size - epochs[0] * n
        return orders[start : start + size].tolist()

    def encode_captions(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """-> (B, 77, both widths), pooled (B, projection)"""
        states, pooled = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.encoders):
            ids = tokenizer(captions, max_length=77, padding="max_length", truncation=True, return_tensors="pt")
            out = encoder(ids.input_ids, output_hidden_states=True)
            states.append(out.hidden_states[-2])
            pooled = out[0]  # kept from the second, whose first output is the projection
        return torch.cat(states, dim=-1), pooled

    def scaled(self, z: Tensor) -> Tensor:
        c = self.vae.config
        if c.shift_factor is not None:
            z = z - c.shift_factor
        if c.latents_mean is not None and c.latents_std is not None:
            mean, std = (torch.tensor(v, dtype=z.dtype).view(1, -1, 1, 1) for v in (c.latents_mean, c.latents_std))
            z = (z - mean) / std
        return z * c.scaling_factor

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """-> noisy latents, what the UNet should predict"""
        v = self.noise.config.prediction_type == "v_prediction"
        target = self.noise.get_velocity(latents, noise, timesteps) if v else noise
        return self.noise.add_noise(latents, noise, timesteps), target

    def weights(self, timesteps: Tensor) -> Tensor:
        """min-SNR, (B,)"""
        gamma = self.settings.min_snr_gamma
        if gamma is None:
            return torch.ones(len(timesteps), dtype=self.dtype)
        alphas = self.noise.alphas_cumprod.to(self.dtype)[timesteps]
        snr = alphas / (1 - alphas)
        v = self.noise.config.prediction_type == "v_prediction"
        return snr.clamp(max=gamma) / (snr + 1 if v else snr)

    def micro_step(self, m: int) -> Tensor:
        s, items, g = self.settings, self.batch(m), stream(self.settings.seed, STEP, m)
        shape = (len(items), *self.moments[0][0].shape)
        eps, noise = (torch.randn(shape, generator=g).to(self.dtype) for _ in range(2))
        timesteps = torch.randint(0, self.noise.config.num_train_timesteps, (len(items),), generator=g)
        if s.noise_offset > 0:
            noise = noise + s.noise_offset * torch.randn(*shape[:2], 1, 1, generator=g).to(self.dtype)
        dropped = torch.zeros(len(items), dtype=torch.bool)
        if s.caption_dropout > 0:
            dropped = torch.rand(len(items), generator=g) < s.caption_dropout
        captions = ["" if drop else self.captions[i] for i, drop in zip(items, dropped)]
        losses = self.losses(items, captions, eps, noise, timesteps) * self.weights(timesteps)
        self.last = {"items": torch.tensor(items), "dropped": dropped.int()} | self.last | {"losses": losses}
        return losses.mean()

    def losses(self, items: list[int], captions: list[str], eps: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Each sample's, unweighted: (B,)"""
        s = self.settings
        mean, logvar = (torch.stack([self.moments[i][k] for i in items]) for k in range(2))
        latents = self.scaled(mean + torch.exp(0.5 * logvar) * eps)
        noisy, target = self.noised(latents, noise, timesteps)

        states, pooled = self.encode_captions(captions)
        time_ids = torch.tensor([[*self.examples[i].original_size, *self.examples[i].crop_top_left, s.resolution,
                                  s.resolution] for i in items], dtype=self.dtype)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        prediction = self.unet(noisy, timesteps, states, added_cond_kwargs=added).sample

        mask = torch.stack([self.masks[i] for i in items])  # (B, 1, h, w)
        squares = (mask * (prediction - target) ** 2).sum(dim=(1, 2, 3))
        self.last = {"eps": eps, "noise": noise, "timesteps": timesteps, "latents": latents, "noisy": noisy,
                     "target": target, "encoder_hidden_states": states, "text_embeds": pooled, "time_ids": time_ids,
                     "prediction": prediction}
        return squares / (target.shape[1] * mask.sum(dim=(1, 2, 3)))

    @torch.no_grad()
    def validation_loss(self) -> float:
        total, timesteps = 0.0, self.noise.config.num_train_timesteps
        for i in range(VALIDATIONS):
            item, g = i % len(self.examples), stream(self.settings.seed, VALIDATION, i)
            eps, noise = (torch.randn(1, *self.moments[0][0].shape, generator=g).to(self.dtype) for _ in range(2))
            t = torch.tensor([(2 * i + 1) * timesteps // (2 * VALIDATIONS)])
            total += self.losses([item], [self.captions[item]], eps, noise, t).item()
        return total / VALIDATIONS

    def step(self, k: int) -> dict[str, float]:
        """Optimizer step k -> its loss, the norm of what trains (before clipping), and the learning rates it ran at."""
        s = self.settings
        if k == s.pivot:
            for rows in self.rows:
                rows.requires_grad_(False)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for a in range(s.gradient_accumulation_steps):
            micro = self.micro_step(k * s.gradient_accumulation_steps + a)
            (micro / s.gradient_accumulation_steps).backward()
            loss += micro.item() / s.gradient_accumulation_steps
        trained = [p for p in (*self.main, *self.rows) if p.requires_grad]
        clip = math.inf if s.max_grad_norm is None or s.optimizer == "adafactor" else s.max_grad_norm
        norm = nn.utils.clip_grad_norm_(trained, clip, foreach=False).item()
        factor = self.schedules[0].lr_lambdas[0](k)
        for optimizer, schedule in zip(self.optimizers, self.schedules):
            optimizer.step()
            schedule.step()
        if k < s.pivot:
            for tokens in self.tokens:
                tokens.rescale()
        return {"loss": loss, "grad_norm": norm, "lr": s.main_lr * factor, "ti_lr": s.ti_lr * factor * (k < s.pivot)}

    def lora_tensors(self) -> dict[str, Tensor]:
        """As in lora.safetensors: down (rank, in), up (out, rank); of a convolution down (rank, in, k, k), up (out, rank, 1, 1)."""
        return {f"{cog_name(path)}.{part}.weight": getattr(layer, part).detach()
                for path, layer in self.lora.items() for part in ("down", "up")}

    def embeddings(self) -> dict[str, Tensor]:
        """As in embeddings.pti."""
        return {f"text_encoders_{i}": rows.detach() for i, rows in enumerate(self.rows)}


def settings_from(values: dict[str, Any]) -> Settings:
    known = {f.name for f in fields(Settings)}
    if unknown := values.keys() - known:
        raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
    return Settings(**values)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "set", "settings", "out"):
        p.add_argument(name, type=Path)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    settings = settings_from(json.loads(a.settings.read_text()))
    trainer = Trainer(a.folder, settings, load_set(a.set))
    steps = []
    for k in range(settings.max_train_steps):
        steps.append(trainer.step(k))
        print(json.dumps({"step": k} | steps[-1]), flush=True)
    a.out.mkdir(parents=True, exist_ok=True)
    trained = {"lora.safetensors": trainer.lora_tensors(), "embeddings.pti": trainer.embeddings(),
               "unet.safetensors": {name: p.detach() for name, p in trainer.full.items()}}
    for name, tensors in trained.items():
        if tensors:
            save_file(tensors, a.out / name)
    (a.out / "steps.json").write_text(json.dumps({"settings": asdict(settings), "steps": steps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
