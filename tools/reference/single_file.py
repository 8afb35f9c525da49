"""Writes a folder of diffusers as a single file in Stability's original layout (`sgm`). usage: single_file.py FOLDER FILE.safetensors

Written independently of calotype's own tables, after the names in Stability's checkpoint. With --check, diffusers' from_single_file reads
the file with the folder's configs, and every tensor has to be the folder's own."""

import argparse
import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
OUTSIDE = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
           "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0",
           "add_embedding.linear_2": "label_emb.0.2"}


def unet_name(key, config):
    layer, kind = key.rsplit(".", 1)
    if layer in OUTSIDE:
        return f"{OUTSIDE[layer]}.{kind}"
    levels = len(config["block_out_channels"])
    count = config["layers_per_block"]
    counts = [count] * levels if isinstance(count, int) else count
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)$", layer):
        what, i, rest = found.groups()
        return f"middle_block.1.{rest}.{kind}" if what == "attentions" else f"middle_block.{2 * int(i)}.{RESNET[rest]}.{kind}"
    side, level, what, i, rest = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.?(.*)$", layer).groups()
    level, i = int(level), int(i)
    if side == "down":
        block = f"input_blocks.{1 + sum(n + 1 for n in counts[:level]) + (counts[level] if what == 'downsamplers' else i)}"
    else:
        reverse = counts[::-1]
        last = what == "upsamplers"
        block = f"output_blocks.{sum(n + 1 for n in reverse[:level]) + (reverse[level] if last else i)}"
    if what == "resnets":
        return f"{block}.0.{RESNET[rest]}.{kind}"
    if what == "attentions":
        return f"{block}.1.{rest}.{kind}"
    if what == "downsamplers":
        return f"{block}.0.op.{kind}"
    return f"{block}.{2 if 'Attn' in config['up_block_types'][level] else 1}.conv.{kind}"


def vae_name(key, config):
    levels = len(config["block_out_channels"])
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{1 + int(m[1])}", key)
    for new, old in (("mid_block.attentions.0.", "mid.attn_1."), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
                     ("to_out.0", "proj_out"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out")):
        key = key.replace(new, old)
    return key


def clip_name(key):
    if key == "text_model.embeddings.position_embedding.weight":
        return "positional_embedding"
    for new, old in (("text_model.embeddings.", ""), ("text_model.final_layer_norm", "ln_final"), ("text_model.encoder.layers", "transformer.resblocks"),
                     ("layer_norm", "ln_"), ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
        key = key.replace(new, old)
    return key


def places(folder):
    """{original key: [component, keys, how]}: the tensors of a folder that make a tensor of the file. `how` is "", "cat" (rows
    one after the other), "transposed" or "pointwise" (a matrix as a 1 × 1 convolution)."""
    folder = Path(folder)
    out = {}
    keys = lambda part: sorted(weights(folder, part))  # noqa: E731
    config = lambda part: json.loads((folder / part / "config.json").read_text())  # noqa: E731
    unet, vae = config("unet"), config("vae")
    for key in keys("unet"):
        out["model.diffusion_model." + unet_name(key, unet)] = ["unet", [key], ""]
    for key in keys("vae"):
        matrix = ".attentions." in key and key.endswith("weight") and "group_norm" not in key
        out["first_stage_model." + vae_name(key, vae)] = ["vae", [key], "pointwise" if matrix else ""]
    base = (folder / "text_encoder").is_dir()
    for key in keys("text_encoder") if base else []:
        out["conditioner.embedders.0.transformer." + prefixed(key)] = ["text_encoder", [key], ""]
    second = f"conditioner.embedders.{int(base)}.model."
    for key in keys("text_encoder_2"):
        if key == "text_projection.weight":
            out[second + "text_projection"] = ["text_encoder_2", [key], "transposed"]
        elif found := re.match(r"(.*)\.self_attn\.q_proj\.(weight|bias)$", key):
            each = [f"{found[1]}.self_attn.{x}_proj.{found[2]}" for x in "qkv"]
            out[second + clip_name(prefixed(found[1])) + f".attn.in_proj_{found[2]}"] = ["text_encoder_2", each, "cat"]
        elif not re.search(r"self_attn\.[kv]_proj", key):
            out[second + clip_name(prefixed(key))] = ["text_encoder_2", [key], ""]
    return out


def prefixed(key):
    """transformers 5 leaves the prefix off."""
    return key if key.startswith(("text_model.", "text_projection.")) else "text_model." + key


def weights(folder, part):
    out = {}
    for file in sorted((folder / part).glob("*.safetensors")):
        out |= load_file(file)
    return out


def write(folder, path, projection="text_projection", dtype=None, extra=()):
    """`projection`: the key of the projection; "text_projection.weight" is not transposed. `extra`: keys of empty tensors."""
    folder, parts, tensors = Path(folder), {}, {}
    for key, (part, keys, how) in places(folder).items():
        parts[part] = parts.get(part) or weights(folder, part)
        x = torch.cat([parts[part][k] for k in keys])
        if how == "pointwise":
            x = x.reshape(*x.shape[:2], 1, 1)
        if key.endswith("text_projection") and projection == "text_projection":
            x = x.T
        elif key.endswith("text_projection"):
            key += ".weight"
        tensors[key] = x.contiguous().clone() if dtype is None else x.to(dtype).contiguous().clone()
    tensors |= {key: torch.zeros(0) for key in extra}
    save_file(tensors, path)
    return path


def check(folder, path):
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_single_file(path, config=str(folder), local_files_only=True, torch_dtype=torch.float32)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        model = getattr(pipe, part, None)
        if model is None:
            continue
        mine = {prefixed(k) if part.startswith("text") else k: v for k, v in weights(Path(folder), part).items()}
        theirs = {prefixed(k) if part.startswith("text") else k: v for k, v in model.state_dict().items()}
        different = [k for k, v in mine.items() if k not in theirs or not torch.equal(v.float(), theirs[k].float())]
        assert not different, f"{part}: {different[:4]}"
    return pipe


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("folder")
    p.add_argument("file")
    p.add_argument("--projection", choices=["text_projection", "text_projection.weight"], default="text_projection")
    p.add_argument("--dtype", choices=["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
    p.add_argument("--extra", nargs="*", default=[], help="keys of empty tensors, such as v_pred ztsnr")
    p.add_argument("--places", action="store_true", help="write the table of names (JSON) instead of the tensors")
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    if a.places:
        rows = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(places(a.folder).items()))
        Path(a.file).write_text(f"{{\n{rows}\n}}\n")
    else:
        write(a.folder, a.file, a.projection, a.dtype and getattr(torch, a.dtype), a.extra)
    if a.check:
        check(a.folder, a.file)
