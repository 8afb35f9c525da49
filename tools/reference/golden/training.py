"""Goldens of training, by ../trainer.py on the folder `pipeline/` -> crates/sdxl/tests/golden/training/

- `random.json`: `mix` and the first values of streams (f32 as the shortest decimals of the same f64).
- `captions.json`: captions, a token, and what becomes of them.
- `set.safetensors`: `picture.N` (H, W, 3) u8, `mask.N` (H, W) u8; the metadata's `examples`: captions and sizes.
- `optimizers.safetensors`: `KIND.i.grads` (steps, ...), `KIND.i.params` (steps + 1, ...): a tensor at first and after
  every step; KIND is `adamw` or `adafactor`, the metadata its arguments. It shows what the cases are too short for:
  weight decay, gradients of 0 or near eps, Adafactor's clipping and unfactored vectors.
- `noise.safetensors`: `latents`, `noise` (B, C, h, w), `timesteps`; by CONFIG (the metadata's), `CONFIG.noisy`,
  `CONFIG.target`, `CONFIG.weights` (min-SNR with γ = 5).
- `NAME.json`, `NAME.safetensors`: a case. JSON: its `settings`, `pivot`, the `items` of every micro-step, and what a
  comparison can ask for: `f64`, `nudged`: how far the same run is in f64, and with every weight × (1 + 1e-6·randn), see
  `differences`. Tensors: `losses`, `grad_norms` (before clipping), `lr`, `ti_lr` (steps,); `rows.0`, `rows.1`
  (steps + 1, 2, width): the new rows at first and after every step; `text_encoders_0`, `text_encoders_1` (2, width);
  `lora`: the tensors of lora.safetensors; `full`: `unet.NAME`, the final values of a few tensors, and `change_norms`,
  ‖final − initial‖ of the tensors in the metadata's `names`.
- `validation.json`: of each case, the validation loss before the first step and after the last.
- `first_step.safetensors`: everything that micro-step 0 of `lora_ti` computes, images (B, C, h, w), with `mean` and
  `logvar` of every picture, the initial LoRA `down` of the first linear, and the gradients `grad.NAME` of its loss."""

import json
import re
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from transformers.optimization import Adafactor

from common import SDXL_GOLDEN, gen, save
from trainer import (ADAFACTOR, INIT, ORDER, STEP, VALIDATION, Example, Settings, Trainer, attach_lora,
                     cog_name, load_set, lora_paths, mix, stream, with_tokens)

FOLDER, OUT = SDXL_GOLDEN / "pipeline", SDXL_GOLDEN / "training"
SIZE = 64
EXAMPLES = [  # the last has no token: its rows get no gradient
    dict(caption="A photo of TOK, sharp focus", original_size=(480, 640), crop_top_left=(0, 10)),
    dict(caption="a painting of tok in the style of TOKYO", original_size=(1024, 768), crop_top_left=(21, 0)),
    dict(caption="TOK riding a rainbow unicorn, (TOK:1.2)", original_size=(64, 64), crop_top_left=(0, 0)),
    dict(caption="in the style of TOK", original_size=(300, 901), crop_top_left=(0, 64)),
    dict(caption="the quick brown fox jumps over the lazy dog", original_size=(2000, 1999), crop_top_left=(1, 0)),
]
MASKED = (1, 3)
CAPTIONS = [("a photo of TOK", "TOK"), ("TOK", "TOK"), ("tok,TOK", "TOK"), ("TOKYO TOK_1 aTOK TOK2 2TOK", "TOK"),
            ("TOK's \u00e9TOK TOK\u00e9 (TOK) TOK-TOK", "TOK"), ("Tok.", "tOk"), ("", "TOK"), ("A C++ C+++ (c++)", "c++"),
            ("\u00c9TOILE \u00e9toiles de l'\u00e9toile", "\u00c9toile"), ("my Dog, my dogs", "my dog")]
BASE = Settings(seed=7, resolution=SIZE, train_batch_size=2, max_train_steps=20, lora_rank=4, lora_lr=1e-3, ti_lr=1e-2,
                unet_learning_rate=1e-3)
CASES = {
    "lora_ti": BASE,
    "ti_alone": replace(BASE, seed=17, kind="ti"),  # its micro-step 7 has the caption without the token twice
    "full_adamw": replace(BASE, seed=9, kind="full"),
    "full_adafactor": replace(BASE, seed=10, kind="full", optimizer="adafactor"),
    "lora_linear_accumulate_clip_snr_offset_dropout": replace(
        BASE, seed=2**40 + 11, gradient_accumulation_steps=2, max_train_steps=21, lr_scheduler="linear",
        lr_warmup_steps=4, max_grad_norm=0.13, min_snr_gamma=5.0, noise_offset=0.05, caption_dropout=0.3),
    "lora_all": replace(BASE, seed=13, lora_layers="all", lora_rank=2, max_train_steps=8),
    "v_prediction": replace(BASE, seed=12, scheduler={"prediction_type": "v_prediction"}, min_snr_gamma=5.0),
}
KEPT = ["conv_in.weight", "conv_norm_out.weight", "conv_out.bias", "add_embedding.linear_1.weight",
        "down_blocks.0.resnets.0.conv1.weight", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight", "up_blocks.0.resnets.0.norm1.bias"]


def write_json(name, value):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # a list a line
    (OUT / name).write_text(text + "\n")
    print(f"{name}: {(OUT / name).stat().st_size / 1024:.0f} KB")


def random_streams():
    seeds = (0, 1, 7, 42, 2**32, 2**63 + 5, 2**64 - 1)
    keys = ((INIT, 0), (INIT, 2), (ORDER, 0), (ORDER, 1), (STEP, 999), (VALIDATION, 3))
    mixed = [dict(seed=s, purpose=p, index=i, value=mix(s, p, i)) for s in seeds for p, i in keys]
    draws = []
    for seed, purpose, index in ((0, INIT, 0), (42, ORDER, 3), (2**64 - 1, STEP, 17)):
        g = lambda: stream(seed, purpose, index)  # noqa: B023, E731
        draws.append(dict(
            seed=seed, purpose=purpose, index=index, randperm5=torch.randperm(5, generator=g()).tolist(),
            randperm37=torch.randperm(37, generator=g()).tolist(),
            randint1000=torch.randint(0, 1000, (8,), generator=g()).tolist(), rand4=torch.rand(4, generator=g()).tolist(),
            randn6=torch.randn(6, generator=g()).tolist(), randn40=torch.randn(40, generator=g()).tolist()))
    write_json("random.json", {"mix": mixed, "draws": draws})


def write_set():
    """Waves of other lengths and colours in each picture; masks fall off from a point, and are 0 far from it."""
    y, x = torch.meshgrid(torch.arange(SIZE) / SIZE, torch.arange(SIZE) / SIZE, indexing="ij")
    tensors = {}
    for i in range(len(EXAMPLES)):
        waves = [torch.sin(6.2832 * ((i + 1) * x * (c + 1) / 2 + (3 - c) * y + 0.13 * i * c)) for c in range(3)]
        tensors[f"picture.{i}"] = (127.5 + 120 * torch.stack(waves, dim=-1)).round().to(torch.uint8)
        if i in MASKED:
            far = ((x - 0.3 * i) ** 2 + (y - 0.5) ** 2).sqrt()
            tensors[f"mask.{i}"] = (255 * (1.2 - 2 * far)).clamp(0, 255).round().to(torch.uint8)
    save(OUT / "set.safetensors", tensors, {"examples": EXAMPLES})
    return load_set(OUT / "set.safetensors")


def write_optimizers():
    """Each parameter by itself, its gradients given: at scales 1, 1e-5 and near eps, every fourth of them 0."""
    kinds = {"adamw": dict(lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, foreach=False),
             "adafactor": dict(lr=0.1, **ADAFACTOR)}
    near_eps = {"adamw": 1e-9, "adafactor": 1e-15}
    tensors, shapes = {}, ((7,), (5, 6), (4, 3, 3, 3), (6, 4, 1, 1), (3, 5), (3, 5))
    for kind, arguments in kinds.items():
        for i, shape in enumerate(shapes):
            g = gen(200 + i)
            scale, start = ((1.0, 1.0), (1e-5, 1.0), (near_eps[kind], 1e-6))[i % 3]
            p = torch.nn.Parameter(start * torch.randn(shape, generator=g))
            grads = scale * torch.randn(12, *shape, generator=g)
            grads[3::4] = 0
            optimizer = {"adamw": torch.optim.AdamW, "adafactor": Adafactor}[kind]([p], **arguments)
            history = [p.detach().clone()]
            for grad in grads:
                p.grad = grad.clone()
                optimizer.step()
                history.append(p.detach().clone())
            tensors |= {f"{kind}.{i}.grads": grads, f"{kind}.{i}.params": torch.stack(history)}
    save(OUT / "optimizers.safetensors", tensors, kinds)


def write_noise(examples):
    """Configurations that the cases do not have, from the first timestep to the last."""
    v = {"prediction_type": "v_prediction"}
    configs = {"epsilon": {}, "v": v, "v_zero_snr": v | {"rescale_betas_zero_snr": True}}
    g, timesteps = gen(300), torch.tensor([0, 57, 499, 998, 999])
    latents, noise = (torch.randn(5, 4, 2, 3, generator=g) for _ in range(2))
    tensors = {"latents": latents, "noise": noise, "timesteps": timesteps}
    for name, config in configs.items():
        trainer = Trainer(FOLDER, replace(BASE, kind="ti", scheduler=config, min_snr_gamma=5.0), examples)
        tensors[f"{name}.noisy"], tensors[f"{name}.target"] = trainer.noised(latents, noise, timesteps)
        tensors[f"{name}.weights"] = trainer.weights(timesteps)
    save(OUT / "noise.safetensors", tensors, configs)


def check_peft():
    """Our LoRA is peft's: the same layers are found, and output and gradients agree."""
    kinds = {"attention": ["to_q", "to_k", "to_v", "to_out.0"], "all": None}
    for layers, targets in kinds.items():
        unets = [UNet2DConditionModel.from_pretrained(FOLDER / "unet").requires_grad_(False).eval() for _ in range(2)]
        ours = attach_lora(unets[0], 4, 0, layers)
        unets[1].add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets or lora_paths(unets[1], "all")))
        check_gradients(layers, ours, unets)


def check_gradients(layers, ours, unets):
    theirs = {n.removesuffix(".lora_A"): m for n, m in unets[1].named_modules() if n.endswith(".lora_A")}
    assert sorted(theirs) == sorted(ours) == list(ours)
    with torch.no_grad():
        for i, (path, layer) in enumerate(ours.items()):
            layer.up.copy_(torch.randn(layer.up.shape, generator=gen(i)))
            layer.down.mul_(0.5)
            peft = unets[1].get_submodule(path)
            peft.lora_A["default"].weight.copy_(layer.down)
            peft.lora_B["default"].weight.copy_(layer.up)
    g, grads = gen(1), []
    x, states, pooled = (torch.randn(shape, generator=g) for shape in ((2, 4, 8, 8), (2, 77, 40), (2, 16)))
    for unet in unets:
        added = {"text_embeds": pooled, "time_ids": torch.full((2, 6), 64.0)}
        unet(x, torch.tensor([3, 700]), states, added_cond_kwargs=added).sample.square().mean().backward()
    for path, layer in ours.items():
        peft = unets[1].get_submodule(path)
        grads += [(layer.down.grad, peft.lora_A["default"].weight.grad), (layer.up.grad, peft.lora_B["default"].weight.grad)]
    worst = max((relative(a, b) for a, b in grads))
    assert worst < 1e-5, worst
    print(f"peft: {layers}: {len(ours)} layers, gradients differ by {worst:.1e}")


def check_conditioning(trainer):
    """The captions' encoding is that of diffusers' pipeline with the same tokens and rows."""
    pipe = StableDiffusionXLPipeline.from_pretrained(FOLDER, add_watermarker=False)
    parts = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
    for (tokenizer, encoder), rows in zip(parts, trainer.rows):
        tokenizer.add_tokens(["<s0>", "<s1>"])
        encoder.resize_token_embeddings(len(tokenizer))
        encoder.get_input_embeddings().weight.data[-2:] = rows.detach()
    with torch.no_grad():
        want = pipe.encode_prompt(trainer.captions, do_classifier_free_guidance=False)
        for a, b in zip(trainer.encode_captions(trainer.captions), (want[0], want[2])):
            assert torch.equal(a, b)


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def largest(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def run(settings, examples, dtype=torch.float32, folder=FOLDER):
    trainer = Trainer(folder, settings, examples, dtype)
    start = {name: p.detach().clone() for name, p in trainer.unet.named_parameters()}
    rows, steps = [[r.detach().clone()] for r in trainer.rows], []
    validation = [trainer.validation_loss()]
    for k in range(settings.max_train_steps):
        steps.append(trainer.step(k))
        for history, r in zip(rows, trainer.rows):
            history.append(r.detach().clone())
    validation.append(trainer.validation_loss())
    columns = {"losses": "loss", "grad_norms": "grad_norm", "lr": "lr", "ti_lr": "ti_lr"}
    tensors = {name: torch.tensor([s[key] for s in steps], dtype=torch.float64) for name, key in columns.items()}
    tensors |= {f"rows.{i}": torch.stack(history) for i, history in enumerate(rows)}
    tensors |= trainer.embeddings() | trainer.lora_tensors()
    changes = {name: p.detach() - start[name] for name, p in trainer.full.items()}
    if changes:
        tensors |= {f"unet.{name}": trainer.full[name].detach() for name in KEPT}
        tensors["change_norms"] = torch.stack([d.norm() for d in changes.values()])
    return trainer, tensors, changes, validation


def differences(tensors, exact, changes, exact_changes):
    """Of two runs: the largest difference over the largest value (losses, gradient norms), or the largest of
    ‖difference‖ / ‖value‖ (LoRA) or ‖difference‖ / ‖change since the start‖ (the rest) over the tensors."""
    out = {name: largest(tensors[name], exact[name]) for name in ("losses", "grad_norms")}
    moved = {f"rows.{i}": exact[f"rows.{i}"][-1] - exact[f"rows.{i}"][0] for i in range(2)}
    out["rows"] = max(((tensors[n][-1] - exact[n][-1]).norm() / d.norm()).item() for n, d in moved.items())
    lora = [n for n in exact if "_lora." in n]
    if lora:
        out["lora.up"] = max(relative(tensors[n], exact[n]) for n in lora if ".up." in n)
        out["lora.down"] = max(relative(tensors[n], exact[n]) for n in lora if ".down." in n)
    if changes:
        out["unet_change"] = max(relative(changes[n], exact_changes[n]) for n in changes)
        out["change_norms"] = ((tensors["change_norms"] - exact["change_norms"]) / exact["change_norms"]).abs().max().item()
    return {name: float(f"{value:.1e}") for name, value in out.items()}


def nudge(folder):
    """A copy of the model folder whose every weight is × (1 + 1e-6·randn): some ten roundings' worth."""
    shutil.copytree(FOLDER, folder)
    for i, path in enumerate(sorted(folder.glob("*/*.safetensors"))):
        g = gen(i)
        save_file({k: v * (1 + 1e-6 * torch.randn(v.shape, generator=g)) for k, v in sorted(load_file(path).items())},
                  path, metadata={"format": "pt"})
    return folder


def write_case(name, settings, examples, nudged):
    """-> the validation losses"""
    trainer, tensors, changes, validation = run(settings, examples)
    others = {"f64": run(settings, examples, torch.float64), "nudged": run(settings, examples, folder=nudged)}
    off = {other: differences(tensors, t, changes, c) for other, (_, t, c, _) in others.items()}
    micro_steps = settings.max_train_steps * settings.gradient_accumulation_steps
    items = [trainer.batch(m) for m in range(micro_steps)]
    save(OUT / f"{name}.safetensors", tensors, {"names": list(changes)} if changes else None)
    write_json(f"{name}.json", dict(settings=asdict(settings), pivot=settings.pivot, items=items) | off)
    losses, norms = tensors["losses"], tensors["grad_norms"]
    print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, gradient norms {norms.min():.3g} to {norms.max():.3g}; {off}")
    return validation


def write_first_step(examples):
    trainer = Trainer(FOLDER, CASES["lora_ti"], examples)
    check_conditioning(trainer)
    trainer.micro_step(0).backward()
    path = lora_paths(trainer.unet, "attention")[0]
    tensors = trainer.last | {k: torch.stack([m[i] for m in trainer.moments]) for i, k in enumerate(("mean", "logvar"))}
    tensors[f"{cog_name(path)}.down.weight"] = trainer.lora[path].down
    tensors |= {f"grad.text_encoders_{i}": rows.grad for i, rows in enumerate(trainer.rows)}
    tensors |= {f"grad.{cog_name(p)}.up.weight": layer.up.grad for p, layer in trainer.lora.items()}
    save(OUT / "first_step.safetensors", tensors)


def main():
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
    OUT.mkdir(parents=True, exist_ok=True)
    random_streams()
    write_json("captions.json", [dict(caption=c, token=t, text=with_tokens(c, t)) for c, t in CAPTIONS])
    check_peft()
    examples = write_set()
    assert isinstance(examples[0], Example)
    write_first_step(examples)
    write_optimizers()
    write_noise(examples)
    with tempfile.TemporaryDirectory() as scratch:
        nudged = nudge(Path(scratch) / "nudged")
        validation = {name: write_case(name, settings, examples, nudged) for name, settings in CASES.items()}
    write_json("validation.json", validation)


if __name__ == "__main__":
    main()
