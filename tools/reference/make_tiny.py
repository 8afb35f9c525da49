"""Builds a random SDXL folder with sizes from its command line (see --help), in the layout diffusers writes.

Every parameter is drawn from a seeded generator at a scale that keeps activations near one, so that pictures are
neither flat nor saturated; norm weights are not one and biases not zero, so that dropping any of them shows."""

import argparse
import json
import shutil
from pathlib import Path

import diffusers
import torch
from diffusers import (AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline,
                       StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

REPO = Path(__file__).resolve().parents[2]
REAL_VOCAB = REPO.parent / "shared/data/clip_tokenizer"
TINY_VOCAB = REPO / "crates/sdxl/tests/golden/tiny_vocab"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SDXL_SCHEDULER = {  # scheduler/scheduler_config.json of SDXL base
    "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False}
PUBLISHED_SAMPLERS = {  # wire name -> diffusers class, and what is changed on the folder's config
    "DDIM": ("DDIMScheduler", {}),
    "DPMSolverMultistep": ("DPMSolverMultistepScheduler", {}),
    "HeunDiscrete": ("HeunDiscreteScheduler", {}),
    "KarrasDPM": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "K_EULER_ANCESTRAL": ("EulerAncestralDiscreteScheduler", {}),
    "K_EULER": ("EulerDiscreteScheduler", {}),
    "PNDM": ("PNDMScheduler", {}),
}
SAMPLERS = PUBLISHED_SAMPLERS | {
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "DPMSolverMultistepSDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
}


def make_sampler(name, config):
    kind, change = SAMPLERS[name]
    return getattr(diffusers, kind).from_config(config, **change)


def default_vocab():
    return REAL_VOCAB if REAL_VOCAB.is_dir() else TINY_VOCAB


def randomise(model, seed, gain=1.0):
    """Fills every parameter from one generator, in the order of their names."""
    g = torch.Generator("cpu").manual_seed(seed)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            x = torch.randn(p.shape, generator=g)
            kind = type(modules[name.rpartition(".")[0]]).__name__
            if name.endswith("bias"):
                p.copy_(0.1 * x)
            elif "Norm" in kind:
                p.copy_(1 + 0.2 * x)
            elif kind == "Embedding":
                p.copy_(0.7 * x)
            else:
                p.copy_(gain * x * (p[0].numel() if p.dim() else 1) ** -0.5)
    return model.eval()


def make_unet(channels, layers, transformers, heads, cross_dim, pooled_dim, time_ids=6, time_dim=8, groups=32,
              seed=0, **extra):
    """`transformers`: depth of each level's transformers; 0 is a level without attention."""
    down = ["CrossAttnDownBlock2D" if t else "DownBlock2D" for t in transformers]
    up = ["CrossAttnUpBlock2D" if t else "UpBlock2D" for t in reversed(transformers)]
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=tuple(channels), layers_per_block=layers, down_block_types=down,
        up_block_types=up, transformer_layers_per_block=[max(t, 1) for t in transformers],
        attention_head_dim=list(heads), cross_attention_dim=cross_dim, norm_num_groups=groups,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=time_dim,
        projection_class_embeddings_input_dim=time_ids * time_dim + pooled_dim, **extra)
    return randomise(unet, seed)


def make_vae(channels, layers, groups=32, latent_channels=4, seed=0):
    n = len(channels)
    vae = AutoencoderKL(
        block_out_channels=tuple(channels), layers_per_block=layers, down_block_types=["DownEncoderBlock2D"] * n,
        up_block_types=["UpDecoderBlock2D"] * n, latent_channels=latent_channels, norm_num_groups=groups,
        sample_size=8 * 2 ** (n - 1), scaling_factor=0.13025, force_upcast=True)
    return randomise(vae, seed)


def make_text(width, heads, layers, intermediate, vocab_size, act, projection=None, eos=2, bos=0, pad=1, seed=0):
    """The second encoder (with `projection`) adds a projection of the pooled output."""
    config = CLIPTextConfig(
        vocab_size=vocab_size, hidden_size=width, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, hidden_act=act, projection_dim=projection or width, eos_token_id=eos,
        bos_token_id=bos, pad_token_id=pad, max_position_embeddings=77)
    return randomise((CLIPTextModelWithProjection if projection else CLIPTextModel)(config), seed)


def write_tokenizer(folder, vocab_dir, pad):
    """The four files that published SDXL folders have."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(vocab_dir / name, folder / name)
    token = lambda s: dict(content=s, lstrip=False, normalized=True, rstrip=False, single_word=False)  # noqa: E731
    special = dict(bos_token=token("<|startoftext|>"), eos_token=token("<|endoftext|>"), pad_token=pad,
                   unk_token=token("<|endoftext|>"))
    config = {k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in special.items()}
    config |= dict(add_prefix_space=False, do_lower_case=True, errors="replace", model_max_length=77,
                   tokenizer_class="CLIPTokenizer")
    for name, value in (("special_tokens_map", special), ("tokenizer_config", config)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def make_pipeline(a, out):
    """The pipeline of parsed arguments `a`; its tokenizers' files are already in `out`."""
    vocab = Path(a.vocab)
    vocab_size = len(json.loads((vocab / "vocab.json").read_text()))
    parts, widths, encoders = {}, a.text_width, []
    for i, width in enumerate(widths):
        last = i == len(widths) - 1  # the encoder with a projection: the only one of a refiner
        suffix = "_2" if last else ""
        parts[f"tokenizer{suffix}"] = write_tokenizer(out / f"tokenizer{suffix}", vocab, "!" if last else "<|endoftext|>")
        parts[f"text_encoder{suffix}"] = make_text(
            width, a.text_heads[i], a.text_layers[i], a.text_intermediate[i], vocab_size,
            "gelu" if last else "quick_gelu", a.projection_dim if last else None, eos=a.eos_token_id, seed=a.seed + 1 + i)
    if len(widths) == 1:
        parts |= dict(tokenizer=None, text_encoder=None)
    channels = a.latent_channels
    unet = make_unet(a.block_out_channels, a.layers_per_block, a.transformer_layers, a.heads, sum(widths),
                     a.projection_dim, time_ids=5 if a.refiner else 6, time_dim=a.addition_time_embed_dim,
                     groups=a.norm_groups, seed=a.seed, in_channels=2 * channels + 1 if a.inpainting else channels,
                     out_channels=channels)
    vae = make_vae(a.vae_channels, a.vae_layers, a.vae_norm_groups, a.latent_channels, seed=a.seed + 3)
    scheduler = EulerDiscreteScheduler.from_config(SDXL_SCHEDULER)
    parts |= dict(unet=unet, vae=vae, scheduler=scheduler, add_watermarker=False)
    if a.refiner:
        return StableDiffusionXLImg2ImgPipeline(
            requires_aesthetics_score=True, force_zeros_for_empty_prompt=False, **parts)
    return (StableDiffusionXLInpaintPipeline if a.inpainting else StableDiffusionXLPipeline)(**parts)


def make_folder(a):
    out = Path(a.out)
    pipe = make_pipeline(a, out).to(DTYPES[a.dtype])
    pipe.save_pretrained(out, variant=a.variant, max_shard_size=a.shard_size)
    scheduler = SDXL_SCHEDULER | json.loads(a.scheduler)  # as published: with the keys that only other samplers read
    (out / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n")
    if a.tokenizer_files == "vocab":  # transformers 5 writes tokenizer.json; published folders have the older files
        for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
            if (out / name).is_dir():
                shutil.rmtree(out / name)
                write_tokenizer(out / name, Path(a.vocab), pad)
    else:
        for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
            for folder in out.glob("tokenizer*"):
                (folder / name).unlink(missing_ok=True)
    return out


def parser():
    ints = lambda s: [int(x) for x in s.split(",")]  # noqa: E731
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("out")
    p.add_argument("--block-out-channels", type=ints, default=[32, 64])
    p.add_argument("--layers-per-block", type=int, default=2)
    p.add_argument("--transformer-layers", type=ints, default=[0, 2], help="a level; 0: no attention there")
    p.add_argument("--heads", type=ints, default=[2, 4], help="a level (the config calls it attention_head_dim)")
    p.add_argument("--norm-groups", type=int, default=32)
    p.add_argument("--addition-time-embed-dim", type=int, default=8)
    p.add_argument("--text-width", type=ints, default=[32, 64], help="one width: a refiner's single encoder")
    p.add_argument("--text-heads", type=ints, default=[4, 4])
    p.add_argument("--text-layers", type=ints, default=[2, 3])
    p.add_argument("--text-intermediate", type=ints, default=[64, 128])
    p.add_argument("--projection-dim", type=int, default=64)
    p.add_argument("--eos-token-id", type=int, default=2, help="2: published SDXL's, pooled at the largest id")
    p.add_argument("--vae-channels", type=ints, default=[32, 32, 64, 64])
    p.add_argument("--vae-layers", type=int, default=1)
    p.add_argument("--vae-norm-groups", type=int, default=32)
    p.add_argument("--latent-channels", type=int, default=4)
    p.add_argument("--inpainting", action="store_true", help="a UNet that also takes the mask and the masked picture")
    p.add_argument("--refiner", action="store_true", help="five time ids; give one --text-width")
    p.add_argument("--scheduler", default="{}", help="JSON to change in scheduler_config.json")
    p.add_argument("--vocab", default=str(default_vocab()), help="folder with vocab.json and merges.txt")
    p.add_argument("--tokenizer-files", choices=["vocab", "json"], default="vocab")
    p.add_argument("--dtype", choices=list(DTYPES), default="f32")
    p.add_argument("--variant", help="fp16: the file names' infix")
    p.add_argument("--shard-size", default="10GB", help="200KB, say: sharded files with an index")
    p.add_argument("--seed", type=int, default=0)
    return p


if __name__ == "__main__":
    print(make_folder(parser().parse_args()))
