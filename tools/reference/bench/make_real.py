"""The real-size SDXL base folder with random weights (UNet of 2,567 M parameters), for timing: made once, in a cache.

    python make_real.py CACHE [--dtype bf16] [--parts unet vae text_encoder text_encoder_2 ...] [--tiny]

The folder is CACHE/sdxl-<dtype>; bf16 takes 7 GB of disk and as much memory while it is made, f32 twice that."""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, Swin2SRConfig,
                          Swin2SRForImageSuperResolution)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from make_tiny import DTYPES, SDXL_SCHEDULER, default_vocab, write_tokenizer  # noqa: E402

UNET = dict(
    sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20), cross_attention_dim=2048, use_linear_projection=True,
    addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
VAE = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=1024,
           down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
           scaling_factor=0.13025, force_upcast=True)
TEXT = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            hidden_act="quick_gelu", projection_dim=768, eos_token_id=2)
TEXT_2 = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
              hidden_act="gelu", projection_dim=1280, eos_token_id=2)
UPSCALER = dict(upscale=4, upsampler="nearest+conv")  # as caidas/swin2SR-realworld-sr-x4-64-bsrgan-psnr
TINY = dict(unet=dict(block_out_channels=(32, 64, 96), attention_head_dim=(2, 4, 6), cross_attention_dim=96,
                      transformer_layers_per_block=(1, 1, 2), projection_class_embeddings_input_dim=6 * 256 + 64),
            vae=dict(block_out_channels=(32, 32, 64, 64)),
            text_encoder=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4),
            text_encoder_2=dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=8,
                                projection_dim=64),
            upscaler=dict(embed_dim=60, depths=(2, 2), num_heads=(2, 2)))
PARTS = {
    "unet": lambda c: UNet2DConditionModel(**UNET | c),
    "vae": lambda c: AutoencoderKL(**VAE | c),
    "text_encoder": lambda c: CLIPTextModel(CLIPTextConfig(**TEXT | c)),
    "text_encoder_2": lambda c: CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2 | c)),
    "upscaler": lambda c: Swin2SRForImageSuperResolution(Swin2SRConfig(**UPSCALER | c)),
}
SDXL = tuple(part for part in PARTS if part != "upscaler")
INDEX = {"_class_name": "StableDiffusionXLPipeline", "_diffusers_version": "0.42.1",
         "force_zeros_for_empty_prompt": True, "feature_extractor": [None, None], "image_encoder": [None, None],
         "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNet2DConditionModel"],
         "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
         "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
         "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"]}


def materialise(build, dtype, seed):
    """Builds on the meta device and fills in `dtype` directly, so that no f32 copy of the whole model exists."""
    with torch.device("meta"):
        model = build().to(dtype)
    model = model.to_empty(device="cpu").eval()
    g = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                scale = 0.02 if "embedding.weight" in name else p[0].numel() ** -0.5
                p.normal_(generator=g).mul_(scale)
        for name, b in model.named_buffers():
            if name.endswith("position_ids"):
                b.copy_(torch.arange(b.shape[-1]).expand(b.shape))
    return model


def make_real(cache, dtype="bf16", parts=SDXL, tiny=False):
    folder = Path(cache) / f"sdxl-{'tiny-' if tiny else ''}{dtype}"
    for i, part in enumerate(parts):
        if not (folder / part / "done").exists():
            print(f"making {folder / part}", file=sys.stderr, flush=True)
            model = materialise(lambda part=part: PARTS[part](TINY[part] if tiny else {}), DTYPES[dtype], i)
            model.save_pretrained(folder / part)
            del model
            (folder / part / "done").touch()
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SDXL_SCHEDULER, indent=2))
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2))
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        write_tokenizer(folder / name, default_vocab(), pad)
    return folder


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cache")
    p.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    p.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(SDXL))
    p.add_argument("--tiny", action="store_true", help="the same layout in small, to try the benchmarks")
    a = p.parse_args()
    print(make_real(a.cache, a.dtype, a.parts, a.tiny))
