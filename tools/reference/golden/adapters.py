"""Goldens of trained weights -> crates/sdxl/tests/golden/adapters/: files for the tiny model of pipelines.py, in every
layout, and `pictures.safetensors`, what diffusers makes with them.

`diffusers.safetensors`: LoRA of all the UNet's linear layers and of both text encoders, saved by `save_lora_weights`, with
an alpha in the metadata. `all_layers.safetensors`: LoRA of every linear layer and convolution of the UNet, saved by it. `kohya.safetensors`: in SDXL's original block numbering, with alphas and a bundled embedding.
`trained_model.tar`: as cog-sdxl's trainer writes it. Every case of `pictures` is (1, H, W, 3) u8, its request (as for
calotype) in the metadata; diffusers gets `<s0><s1>` for TOK."""

import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open

from common import SDXL_GOLDEN, gen, save

FOLDER = SDXL_GOLDEN / "pipeline"
OUT = SDXL_GOLDEN / "adapters"
TOKENS = ["<s0>", "<s1>"]
REQUEST = dict(prompt="a photo of TOK riding a unicorn, TOKYO", negative_prompt="TOK, blurry", width=64, height=48,
               num_inference_steps=4, guidance_scale=5.0, seed=99, scheduler="K_EULER")
CASES = {  # what differs from REQUEST; `replicate_weights` are names in OUT
    "diffusers": dict(replicate_weights="diffusers.safetensors", lora_scale=0.8),
    "all_layers": dict(replicate_weights="all_layers.safetensors", lora_scale=0.5),
    "kohya": dict(replicate_weights="kohya.safetensors", lora_scale=1.3),
    "cog": dict(replicate_weights="trained_model.tar", lora_scale=0.6),
    "negative_scale": dict(replicate_weights="trained_model.tar", lora_scale=-0.5, guidance_scale=1.0),
}
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def pipeline():
    pipe = StableDiffusionXLPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def random_lora(model, layers, rank, seed):
    """PEFT's state dict of a random LoRA: {path}.lora_A.weight (rank, in), {path}.lora_B.weight (out, rank)."""
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers))
    state, g = get_peft_model_state_dict(model), gen(seed)
    return {k: 0.8 * torch.randn(v.shape, generator=g) * v[0].numel() ** -0.5 for k, v in sorted(state.items())}


def random_embeddings(pipe, seed):
    tables = [e.get_input_embeddings().weight for e in (pipe.text_encoder, pipe.text_encoder_2)]
    return [t.std().item() * torch.randn(len(TOKENS), t.shape[1], generator=gen(seed + i)) for i, t in enumerate(tables)]


def with_prefix(state, prefix):
    """Of the first text encoder, transformers 5's module has no `text_model`; files do."""
    inner = "text_model." if prefix.startswith("text_encoder") else ""
    return {f"{prefix}.{inner if not k.startswith(inner) else ''}{k}": v for k, v in state.items()}


def metadata(path):
    with safe_open(path, "pt") as f:
        return f.metadata()


def write_diffusers():
    pipe = pipeline()
    unet = random_lora(pipe.unet, UNET_LAYERS, 4, 1)
    text = [random_lora(e, TEXT_LAYERS, 2, 2 + i) for i, e in enumerate((pipe.text_encoder, pipe.text_encoder_2))]
    config = lambda rank, layers: dict(r=rank, lora_alpha=2 * rank, target_modules=layers)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_lora_weights(
            folder, unet_lora_layers=unet, text_encoder_lora_layers=text[0], text_encoder_2_lora_layers=text[1],
            unet_lora_adapter_metadata=config(4, UNET_LAYERS), text_encoder_lora_adapter_metadata=config(2, TEXT_LAYERS),
            text_encoder_2_lora_adapter_metadata=config(2, TEXT_LAYERS))
        file = Path(folder) / "pytorch_lora_weights.safetensors"
        # Written anew, as diffusers orders the metadata by a random hash.
        save(OUT / "diffusers.safetensors", safetensors.torch.load_file(file), metadata(file))


def write_all_layers():
    pipe = pipeline()
    layers = [name for name, m in pipe.unet.named_modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_lora_weights(folder, unet_lora_layers=random_lora(pipe.unet, layers, 2, 5))
        save(OUT / "all_layers.safetensors", safetensors.torch.load_file(Path(folder) / "pytorch_lora_weights.safetensors"))


def original_name(path):
    """diffusers' path -> kohya's name, for the tiny model: two levels of one ResNet, so that the blocks are few."""
    for new, old in (("down_blocks.1.attentions.0.", "input_blocks.3.1."), ("mid_block.attentions.0.", "middle_block.1."),
                     ("up_blocks.0.attentions.0.", "output_blocks.0.1."), ("up_blocks.0.attentions.1.", "output_blocks.1.1.")):
        path = path.replace(new, old)
    return path.replace(".", "_")


def write_kohya():
    pipe = pipeline()
    parts = {"lora_unet_": random_lora(pipe.unet, UNET_LAYERS[1::2], 4, 11), "lora_te1_": random_lora(pipe.text_encoder, TEXT_LAYERS[::2], 4, 12),
             "lora_te2_": random_lora(pipe.text_encoder_2, TEXT_LAYERS[1::2], 4, 13)}
    tensors = {}
    for prefix, state in parts.items():
        for i, name in enumerate(sorted({k.rsplit(".", 2)[0] for k in state})):
            kohya = original_name(name)
            if "te" in prefix and not kohya.startswith("text_model_"):
                kohya = "text_model_" + kohya
            tensors[f"{prefix}{kohya}.lora_down.weight"] = state[f"{name}.lora_A.weight"]
            tensors[f"{prefix}{kohya}.lora_up.weight"] = state[f"{name}.lora_B.weight"]
            # One alpha for the whole UNet: diffusers 0.42 gives attention layers the commonest, whatever theirs is.
            tensors[f"{prefix}{kohya}.alpha"] = torch.tensor(3.0 if "unet" in prefix else 2.0 + i % 2)
    for key, rows in zip(("clip_l", "clip_g"), random_embeddings(pipe, 14)):
        tensors[f"bundle_emb.TOK.{key}"] = rows
    save(OUT / "kohya.safetensors", tensors, {"ss_network_module": "networks.lora", "ss_network_dim": "4"})


def write_cog():
    pipe = pipeline()
    state = random_lora(pipe.unet, ["to_q", "to_k", "to_v", "to_out.0"], 4, 21)
    lora = {}
    for key, value in state.items():
        block, layer = key.replace("to_out.0", "to_out").rsplit(".", 3)[0:2]
        part = "down" if ".lora_A." in key else "up"
        lora[f"{block}.processor.{layer}_lora.{part}.weight"] = value
    embeddings = {f"text_encoders_{i}": rows for i, rows in enumerate(random_embeddings(pipe, 22))}
    members = {"lora.safetensors": safetensors.torch.save(lora), "embeddings.pti": safetensors.torch.save(embeddings),
               "special_params.json": json.dumps({"TOK": "".join(TOKENS)}).encode()}
    with tarfile.open(OUT / "trained_model.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def add_tokens(pipe, embeddings):
    for rows, tokenizer, encoder in zip(embeddings, (pipe.tokenizer, pipe.tokenizer_2), (pipe.text_encoder, pipe.text_encoder_2)):
        pipe.load_textual_inversion(rows, token=TOKENS, tokenizer=tokenizer, text_encoder=encoder)


def merge_text(pipe, state, scale):
    """Takes kohya's LoRA of text encoders out of `state` and merges it by hand: diffusers 0.42 with transformers 5 drops
    the attention layers'."""
    for prefix, encoder in (("lora_te1_", pipe.text_encoder), ("lora_te2_", pipe.text_encoder_2)):
        for path, module in encoder.named_modules():
            name = prefix + ("" if path.startswith("text_model.") else "text_model_") + path.replace(".", "_")
            if f"{name}.alpha" in state:
                down, up, alpha = (state.pop(f"{name}.{k}") for k in ("lora_down.weight", "lora_up.weight", "alpha"))
                with torch.no_grad():
                    module.weight += scale * alpha / len(down) * (up @ down)
    assert not any(k.startswith("lora_te") for k in state)


def load(pipe, name, scale):
    """Gives diffusers a file of OUT, by its own loaders."""
    path = OUT / name
    if name == "trained_model.tar":
        with tarfile.open(path) as tar:
            read = lambda member: safetensors.torch.load(tar.extractfile(member).read())  # noqa: E731
            lora, embeddings = read("lora.safetensors"), read("embeddings.pti")
        pipe.load_lora_weights({f"unet.{k}": v for k, v in lora.items()}, adapter_name="x")
        add_tokens(pipe, [embeddings["text_encoders_0"], embeddings["text_encoders_1"]])
        return
    state = safetensors.torch.load_file(path)
    bundled = {k: state.pop(k) for k in list(state) if k.startswith("bundle_emb.")}
    if bundled:
        merge_text(pipe, state, scale)
        pipe.load_lora_weights(state, adapter_name="x")
        add_tokens(pipe, [bundled["bundle_emb.TOK.clip_l"], bundled["bundle_emb.TOK.clip_g"]])
    else:
        pipe.load_lora_weights(path, adapter_name="x")


def picture(request):
    pipe = pipeline()
    call = {k: v for k, v in request.items() if k not in ("seed", "scheduler", "replicate_weights", "lora_scale")}
    if name := request.get("replicate_weights"):
        load(pipe, name, request["lora_scale"])
        pipe.set_adapters(["x"], request["lora_scale"])
        if TOKENS[0] in pipe.tokenizer.get_added_vocab():
            for field in ("prompt", "negative_prompt"):
                call[field] = " ".join(w.replace("TOK", "<s0><s1>") if w.strip(",") == "TOK" else w for w in call[field].split(" "))
    image = pipe(**call, generator=gen(request["seed"])).images[0]
    return torch.from_numpy(np.asarray(image)[None].copy())


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    write_diffusers()
    write_all_layers()
    write_kohya()
    write_cog()
    images = {name: picture(REQUEST | change) for name, change in CASES.items()}
    none = picture(REQUEST)
    for name, image in images.items():
        apart = (image.float() - none.float()).square().mean().sqrt()
        print(f"{name}: mean {image.float().mean():.0f} deviation {image.float().std():.0f}, {apart:.0f} from none")
    save(OUT / "pictures.safetensors", images, {name: REQUEST | change for name, change in CASES.items()})


if __name__ == "__main__":
    main()
