"""Goldens of adapters other than plain LoRA -> crates/sdxl/tests/golden/lycoris/: files for the tiny model of pipelines.py, and
`merged.safetensors`, the weights that the libraries compute with them.

`KIND.safetensors` is what lycoris-lora saves, by kohya's names, with random parameters; `peft_KIND/` is PEFT's own folder.
`merged.safetensors` has `KIND@SCALE/COMPONENT/KEY`: the weight of KEY in that file at a multiplier SCALE. LyCORIS' is the weight that its
module multiplies by (for a DoRA at multiplier 1 only, as the programs do not agree on others), PEFT's is that of `merge_and_unload`.

Needs lycoris-lora 4.1 with einops and toml beside the requirements: `pip install --target DIR --no-deps lycoris-lora==4.1.3 einops
toml`, and DIR in PYTHONPATH."""

import json
import shutil
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from diffusers import UNet2DConditionModel
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from adapters import original_name
from common import SDXL_GOLDEN, gen, save

FOLDER = SDXL_GOLDEN / "pipeline"
OUT = SDXL_GOLDEN / "lycoris"
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
LINEAR = [f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.to_out.0"]
KERNELS = ["down_blocks.1.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut"]
TEXT = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1"]
NORMS = [f"{BLOCK}.norm2", "down_blocks.1.resnets.0.norm1", "mid_block.attentions.0.norm", "conv_norm_out"]
LAYERS = LINEAR + KERNELS
KINDS = {  # module, layers, arguments
    "locon": (LoConModule, LAYERS, dict(lora_dim=3, alpha=2)),
    "locon_cp": (LoConModule, KERNELS[:1], dict(lora_dim=3, alpha=2, use_tucker=True)),
    "dora": (LoConModule, LAYERS, dict(lora_dim=3, alpha=2, weight_decompose=True)),
    "dora_inputs": (LoConModule, LAYERS, dict(lora_dim=3, alpha=2, weight_decompose=True, wd_on_out=False)),
    "loha": (LohaModule, LAYERS, dict(lora_dim=3, alpha=2)),
    "loha_cp": (LohaModule, KERNELS[:1], dict(lora_dim=3, alpha=2, use_tucker=True)),
    "loha_dora": (LohaModule, LAYERS, dict(lora_dim=3, alpha=2, weight_decompose=True)),
    "lokr": (LokrModule, LAYERS, dict(lora_dim=1, alpha=3, factor=2)),
    "lokr_both": (LokrModule, LAYERS, dict(lora_dim=1, alpha=3, decompose_both=True)),
    "lokr_cp": (LokrModule, KERNELS[:1], dict(lora_dim=2, alpha=3, factor=2, use_tucker=True)),
    "lokr_full": (LokrModule, LAYERS, dict(lora_dim=4, alpha=3, factor=4, full_matrix=True)),
    "lokr_dora": (LokrModule, LAYERS, dict(lora_dim=1, alpha=3, factor=2, weight_decompose=True)),
    "full": (FullModule, LAYERS, {}),
    "norm": (NormModule, NORMS, {}),
    "oft": (DiagOFTModule, LAYERS, dict(lora_dim=4)),
    "oft_limited": (DiagOFTModule, LAYERS, dict(lora_dim=4, constraint=0.05, rescaled=True)),
    "boft": (ButterflyOFTModule, LINEAR + KERNELS, dict(lora_dim=4)),
    "boft_limited": (ButterflyOFTModule, LINEAR + KERNELS, dict(lora_dim=4, constraint=0.05, rescaled=True)),
}
SCALES = (1.0, 0.6)


def models():
    return {"unet": UNet2DConditionModel.from_pretrained(FOLDER / "unet"),
            "text_encoder": CLIPTextModel.from_pretrained(FOLDER / "text_encoder"),
            "text_encoder_2": CLIPTextModelWithProjection.from_pretrained(FOLDER / "text_encoder_2")}


def layers(found, paths):
    """(component, path in checkpoints, kohya's name, module)"""
    if paths is LAYERS:
        for i, (component, path) in enumerate(zip(("text_encoder", "text_encoder_2"), TEXT)):
            modules = dict(found[component].named_modules())
            inner = path if path in modules else f"text_model.{path}"
            yield component, f"text_model.{path}", f"lora_te{i + 1}_text_model_{path.replace('.', '_')}", modules[inner]
    for path in paths:
        yield "unet", path, f"lora_unet_{original_name(path)}", found["unet"].get_submodule(path)


def used(module, x):
    """The weight that a module multiplies its input by."""
    op, seen = module.op, []
    module.op = lambda x, weight, *args, **kwargs: seen.append(weight.detach()) or op(x, weight, *args, **kwargs)
    with torch.no_grad():
        module(x)
    module.op = op
    return module.org_weight.detach() + seen[-1]


def lycoris(kind, merged):
    cls, paths, arguments = KINDS[kind]
    state, g = {}, gen(sum(map(ord, kind)))
    for component, path, name, layer in layers(models(), paths):
        module = cls(name, layer, **arguments).eval()
        with torch.no_grad():
            for key, parameter in module.named_parameters():
                noise = torch.randn(parameter.shape, generator=g)
                if key in ("dora_scale", "rescale"):
                    parameter.mul_(1 + 0.2 * noise)
                else:
                    spread = 0.1 if key in ("weight", "bias", "w_norm", "b_norm") else 0.5
                    parameter.copy_(spread * noise)
        tensors = module.custom_state_dict() or module.state_dict()
        if cls is FullModule:  # what it trains is the difference until it is applied
            tensors = {"diff": module.weight.data, **({"diff_b": module.bias.data} if module.bias is not None else {})}
        state.update({f"{name}.{key}": value.detach().clone() for key, value in tensors.items()})
        other = "dora" not in kind and path in (LINEAR[0], KERNELS[0])
        for scale in SCALES if other else SCALES[:1]:
            prefix = f"{kind}@{scale}/{component}/{path}"
            if cls is FullModule or cls is NormModule:
                bias = layer.bias
                merged[f"{prefix}.weight"] = layer.weight + scale * tensors["diff" if cls is FullModule else "w_norm"]
                if bias is not None:
                    merged[f"{prefix}.bias"] = bias + scale * tensors["diff_b" if cls is FullModule else "b_norm"]
                continue
            module.multiplier = scale
            shape = layer.weight.shape
            x = torch.zeros(1, shape[1], *(8 for _ in shape[2:]))
            merged[f"{prefix}.weight"] = used(module, x)
    save(OUT / f"{kind}.safetensors", state)


def peft(kind, config, paths, merged):
    unet, g = models()["unet"], gen(len(kind))
    model = get_peft_model(unet, config).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if any(mark in name for mark in ("lora_", "hada_", "lokr_")):
                noise = torch.randn(parameter.shape, generator=g)
                parameter.copy_(parameter * (1 + 0.2 * noise) if "magnitude" in name else 0.4 * noise)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        state = safetensors.torch.load_file(Path(folder) / "adapter_model.safetensors")
        text = json.loads((Path(folder) / "adapter_config.json").read_text())
    save(OUT / f"peft_{kind}/adapter_model.safetensors", dict(sorted(state.items())))
    text.update(base_model_name_or_path=None)
    (OUT / f"peft_{kind}/adapter_config.json").write_text(json.dumps(text, indent=1, sort_keys=True) + "\n")
    whole = model.merge_and_unload()
    for path in paths:
        layer = whole.get_submodule(path)
        merged[f"peft_{kind}@1.0/unet/{path}.weight"] = layer.weight.detach().clone()
        if config.peft_type == "LORA" and getattr(config, "lora_bias", False):
            merged[f"peft_{kind}@1.0/unet/{path}.bias"] = layer.bias.detach().clone()


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    merged = {}
    for kind in KINDS:
        lycoris(kind, merged)
    exactly = "|".join(path.replace(".", r"\.") for path in LAYERS)
    peft("dora", LoraConfig(r=3, lora_alpha=2, use_dora=True, target_modules=exactly), LAYERS, merged)
    biased = [LINEAR[2], KERNELS[0]]
    exactly_biased = "|".join(path.replace(".", r"\.") for path in biased)
    peft("bias", LoraConfig(r=3, lora_alpha=2, lora_bias=True, target_modules=exactly_biased), biased, merged)
    peft("loha", LoHaConfig(r=3, alpha=2, use_effective_conv2d=True, target_modules=exactly), LAYERS, merged)
    peft("lokr", LoKrConfig(r=2, alpha=3, target_modules=exactly, use_effective_conv2d=True, decompose_factor=2), LAYERS, merged)
    peft("lokr_full", LoKrConfig(r=40, alpha=24, target_modules=exactly), LAYERS, merged)
    save(OUT / "merged.safetensors", merged)


if __name__ == "__main__":
    main()
