"""Goldens of the networks -> crates/sdxl/tests/golden/models/.

Each `<name>/` is a tiny model as diffusers or transformers saves it; `<name>.safetensors` beside it holds inputs,
outputs and gradients of sum(output * dy), computed in f32 from the weights as stored. Images are NHWC; gradients
of parameters (`grad.<key>`) keep the checkpoint's layout."""

import shutil

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from common import SDXL_GOLDEN, gen, nhwc, save
from make_tiny import make_text, make_unet, make_vae

MODELS = SDXL_GOLDEN / "models"


def store(model, name, dtype, **options):
    """Saves the folder in `dtype` and gives back the f32 model of the stored weights."""
    shutil.rmtree(MODELS / name, ignore_errors=True)
    model.to(dtype).save_pretrained(MODELS / name, **options)
    return model.float().eval().requires_grad_(True)


def hook_outputs(modules, record):
    """Records the output of each named module, NHWC where it is an image."""
    def hook(name):
        def run(_module, _args, output):
            x = output[0] if isinstance(output, tuple) else output
            record[name] = nhwc(x) if x.dim() == 4 else x
        return run

    return [module.register_forward_hook(hook(name)) for name, module in modules.items()]


def gradients(model, output, dy, leaves, keys):
    output.backward(dy)
    out = {f"d{k}": nhwc(v.grad) if v.dim() == 4 else v.grad for k, v in leaves.items()}
    parameters = dict(model.named_parameters())
    return out | {f"grad.{k}": parameters[k].grad for k in keys}


def unet_case(unet, seed, batch, size, tokens, cross_dim, pooled_dim, time_ids, timesteps, keys):
    g = gen(seed)
    sample = torch.randn(batch, 4, *size, generator=g)
    context = torch.randn(batch, tokens, cross_dim, generator=g)
    pooled = torch.randn(batch, pooled_dim, generator=g)
    ids = torch.tensor(time_ids).float().expand(batch, -1) + torch.arange(batch)[:, None]
    t = torch.tensor(timesteps)
    leaves = {"sample": sample.requires_grad_(), "encoder_hidden_states": context.requires_grad_(),
              "text_embeds": pooled.requires_grad_()}
    record = {}
    named = {"conv_in": unet.conv_in, "time_embedding": unet.time_embedding, "add_embedding": unet.add_embedding,
             "mid_block": unet.mid_block}
    for part in ("down_blocks", "up_blocks"):
        named |= {f"{part}.{i}": block for i, block in enumerate(getattr(unet, part))}
    hooks = hook_outputs(named, record)
    y = unet(sample, t, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample
    dy = torch.randn(y.shape, generator=g)
    grads = gradients(unet, y, dy, leaves, keys)
    unet.zero_grad()
    for h in hooks:
        h.remove()
    inputs = {"sample": nhwc(sample), "timestep": t.float(), "encoder_hidden_states": context, "text_embeds": pooled,
              "time_ids": ids}
    return inputs | {f"mid.{k}": v for k, v in record.items()} | {"out": nhwc(y), "dy": nhwc(dy)} | grads


def prefixed(cases):
    return {f"{case}.{k}": v for case, values in cases.items() for k, v in values.items()}


def unet_base():
    """SDXL base in small: a plain level, then one with two transformer layers; f16 weights."""
    unet = make_unet([16, 24], 2, [0, 2], [2, 3], 64, 32, groups=8, seed=10)
    unet = store(unet, "unet_base", torch.float16)
    keys = ["conv_in.weight", "conv_out.bias", "time_embedding.linear_1.weight", "add_embedding.linear_2.bias",
            "down_blocks.0.resnets.1.time_emb_proj.weight", "down_blocks.0.downsamplers.0.conv.bias",
            "down_blocks.1.attentions.0.norm.weight", "down_blocks.1.attentions.1.proj_in.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight",
            "mid_block.attentions.0.transformer_blocks.1.ff.net.0.proj.weight",
            "mid_block.attentions.0.transformer_blocks.0.norm2.bias",
            "up_blocks.0.attentions.2.transformer_blocks.0.attn2.to_out.0.weight",
            "up_blocks.0.resnets.2.conv_shortcut.weight", "up_blocks.1.resnets.0.norm1.weight",
            "up_blocks.0.upsamplers.0.conv.bias"]
    ids = [48, 80, 0, 0, 48, 80]
    cases = {"even": unet_case(unet, 11, 2, (6, 10), 7, 64, 32, ids, [981, 21], keys),
             "odd": unet_case(unet, 12, 1, (5, 7), 77, 64, 32, ids, [500], keys[:1])}
    save(MODELS / "unet_base.safetensors", prefixed(cases))


def unet_refiner():
    """The refiner in small: four levels, attention in the middle two, five time ids, a fractional timestep; bf16 shards."""
    unet = make_unet([8, 16, 16, 24], 2, [0, 2, 1, 0], [1, 2, 1, 3], 40, 24, time_ids=5, groups=4, seed=20)
    unet = store(unet, "unet_refiner", torch.bfloat16, max_shard_size="300KB")
    keys = ["down_blocks.1.attentions.1.transformer_blocks.1.attn1.to_v.weight", "up_blocks.3.resnets.2.conv2.bias"]
    cases = {"even": unet_case(unet, 21, 2, (8, 16), 9, 40, 24, [64, 128, 0, 0, 6], [250.5, 3.0], keys),
             "odd": unet_case(unet, 22, 1, (9, 13), 5, 40, 24, [72, 104, 0, 0, 2.5], [999.0], keys)}
    save(MODELS / "unet_refiner.safetensors", prefixed(cases))


def vae():
    model = store(make_vae([8, 16, 24], 1, groups=8, seed=30), "vae", torch.float32)
    g = gen(31)
    image = (torch.rand(2, 3, 24, 16, generator=g) * 2 - 1).requires_grad_()
    record = {}
    hooks = hook_outputs({"encoder": model.encoder, "encoder.mid_block": model.encoder.mid_block,
                          "encoder.down_blocks.0": model.encoder.down_blocks[0]}, record)
    moments = model.encode(image).latent_dist.parameters  # mean, then logvar before it is clamped to [-30, 20]
    dmoments = torch.randn(moments.shape, generator=g)
    grads = gradients(model, moments, dmoments, {"image": image}, ["encoder.conv_in.weight", "quant_conv.weight"])
    mean, logvar = moments.chunk(2, dim=1)
    out = {"encode.image": nhwc(image), "encode.mean": nhwc(mean), "encode.logvar": nhwc(logvar),
           "encode.dmoments": nhwc(dmoments)} | {f"encode.{k}": v for k, v in grads.items()}
    latents = torch.randn(2, 4, 5, 7, generator=g).requires_grad_()
    hooks += hook_outputs({"decoder.conv_in": model.decoder.conv_in, "decoder.mid_block": model.decoder.mid_block,
                           "decoder.up_blocks.0": model.decoder.up_blocks[0]}, record)
    y = model.decode(latents).sample
    dy = torch.randn(y.shape, generator=g)
    grads = gradients(model, y, dy, {"latents": latents}, ["decoder.conv_out.weight"])
    out |= {"decode.latents": nhwc(latents), "decode.out": nhwc(y), "decode.dy": nhwc(dy)}
    out |= {f"decode.{k}": v for k, v in grads.items()} | {f"mid.{k}": v for k, v in record.items()}
    save(MODELS / "vae.safetensors", out, {"scaling_factor": 0.13025})


def vae_tiled():
    """diffusers' tiled decode of latents that are three by three tiles of 8, the last ones cut short."""
    model = AutoencoderKL.from_pretrained(MODELS / "vae").eval()
    model.enable_tiling()
    model.tile_latent_min_size, model.tile_sample_min_size = 8, 32
    latents = torch.randn(1, 4, 13, 17, generator=gen(32))
    with torch.no_grad():
        out = model.decode(latents).sample
    save(MODELS / "vae_tiled.safetensors", {"latents": nhwc(latents), "out": nhwc(out)})


def text_ids(vocab, eos, pads):
    """Prompts as tokenizers give them: one short, one full, one with the largest id before the end."""
    g = gen(41)
    bos, rows = eos - 1, []
    for length, pad in zip((5, 75, 11), pads):
        body = torch.randint(3, vocab - 10, (length,), generator=g)
        rows.append(torch.cat([torch.tensor([bos]), body, torch.tensor([eos]), torch.full((75 - length,), pad)]))
    ids = torch.stack(rows)
    ids[2, 4] = vocab - 1  # an added token (textual inversion): above the end token
    return ids


def text(name, seed, dtype, vocab, eos, config_eos, **sizes):
    """`config_eos` 2: pooled at the largest id (published SDXL); else at the first such id."""
    model = store(make_text(vocab_size=vocab, eos=config_eos, seed=seed, **sizes), name, dtype)
    ids = text_ids(vocab, eos, (eos, 0, eos))
    result = model(ids, output_hidden_states=True)
    hidden = result.hidden_states
    out = {"ids": ids, "penultimate": hidden[-2], "embeddings": hidden[0], "last_hidden_state": result.last_hidden_state}
    pooled = getattr(result, "text_embeds", None)
    out["pooled"] = result.pooler_output if pooled is None else pooled  # with the projection where there is one
    g = gen(seed + 1)
    dy = {k: torch.randn(out[k].shape, generator=g) for k in ("penultimate", "pooled")}
    sum((out[k] * v).sum() for k, v in dy.items()).backward()
    out |= {f"dy.{k}": v for k, v in dy.items()}
    keys = ["embeddings.token_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight",
            "encoder.layers.1.mlp.fc1.weight", "encoder.layers.0.layer_norm1.bias", "final_layer_norm.weight",
            "text_projection.weight"]
    parameters = {k.removeprefix("text_model."): p for k, p in model.named_parameters()}
    out |= {f"grad.{k}": parameters[k].grad for k in keys if k in parameters and parameters[k].grad is not None}
    save(MODELS / f"{name}.safetensors", out, {"eos_token_id": config_eos})


def with_prefix(name):
    """The same first encoder as published folders hold it: with `text_model.`, and the f16 variant's file name."""
    source, target = MODELS / name, MODELS / f"{name}_prefixed"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    shutil.copyfile(source / "config.json", target / "config.json")
    weights = load_file(source / "model.safetensors")
    assert not any(k.startswith("text_model.") for k in weights)
    save_file({f"text_model.{k}": v for k, v in weights.items()}, target / "model.fp16.safetensors", {"format": "pt"})


if __name__ == "__main__":
    unet_base()
    unet_refiner()
    vae()
    vae_tiled()
    text("text_encoder", 40, torch.float16, 400, 397, 2, width=32, heads=4, layers=3, intermediate=64,
         act="quick_gelu")
    with_prefix("text_encoder")
    text("text_encoder_2", 50, torch.bfloat16, 300, 297, 297, width=40, heads=5, layers=3, intermediate=72, act="gelu",
         projection=24)
    text("text_encoder_2_legacy", 60, torch.float32, 100, 97, 2, width=16, heads=2, layers=2, intermediate=32,
         act="gelu", projection=24)
