"""Goldens of the segmenter -> crates/sdxl/tests/golden/models/: `clipseg/` and `clipseg_simple/`, tiny random ones in f16 as
transformers saves them, with the tiny vocabulary, and `clipseg.safetensors` and `clipseg_simple.safetensors`, computed in f32:

- `pictures` (NHWC, normalised, twice the side that the positions are for), `ids` (a prompt for each), `prompts` (what the text
  tower makes of each) and `logits`;
- for each size of picture: `image.WxH` (8-bit RGB), `pixels.WxH` (what `ViTImageProcessorPil` makes of it), `logits.WxH` (of the prompt
  and of the empty one), `mask.WxH` (8-bit, by the published rule) and `largest.WxH` (the largest probability).

The simple one ends with one convolution, takes the prompt in its second layer, has patches of 8 that do not divide the picture, and
layers in another order; heads of both decoders are 6 wide."""

import json
import shutil

import numpy as np
import torch
from PIL import Image
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from captioner import images
from common import SDXL_GOLDEN, gen, nhwc, save
from make_tiny import TINY_VOCAB, randomise, write_tokenizer

MODELS = SDXL_GOLDEN / "models"
PROMPT, TEMPERATURE, BIAS = "a photo of a red fox", 0.8, 0.01
SIZES = [(30, 70), (1, 40), (90, 33)]
NETWORKS = {  # name -> side of the pictures, sizes of the network
    "clipseg": (64, dict(patch_size=16, image_size=32, use_complex_transposed_convolution=True, extract_layers=[1, 2, 3])),
    "clipseg_simple": (44, dict(patch_size=8, image_size=32, use_complex_transposed_convolution=False, extract_layers=[2, 0, 4],
                                conditional_layer=1)),
}


def model(patch_size, image_size, **extra):
    vocabulary = len(json.loads((TINY_VOCAB / "vocab.json").read_text()))
    config = CLIPSegConfig(
        vision_config=dict(hidden_size=24, intermediate_size=32, num_hidden_layers=5, num_attention_heads=3, image_size=image_size,
                           patch_size=patch_size),
        text_config=dict(vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                         eos_token_id=2, bos_token_id=vocabulary - 2, pad_token_id=1),
        projection_dim=20, reduce_dim=12, decoder_num_attention_heads=2, decoder_intermediate_size=40, **extra)
    model = randomise(CLIPSegForImageSegmentation(config), 100, gain=1.5)
    with torch.no_grad():
        p = model.clip.vision_model.embeddings.class_embedding
        p.copy_(0.7 * torch.randn(p.shape, generator=gen(101)))
    return model


def write_folder(folder, side, sizes):
    shutil.rmtree(folder, ignore_errors=True)
    model(**sizes).half().save_pretrained(folder)
    tokenizer = write_tokenizer(folder, TINY_VOCAB, "<|endoftext|>")
    saved = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
             "image_processor_type": "ViTImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 2,
             "rescale_factor": 0.00392156862745098, "size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(saved, indent=2) + "\n")
    return tokenizer, ViTImageProcessorPil(**{k: saved[k] for k in ("size", "image_mean", "image_std", "resample")})


def mask(logits, size):
    """logits (2, H, W) of the prompt and of the empty one -> the mask, by cog-sdxl's rule, and the largest probability."""
    probabilities = torch.softmax(logits / TEMPERATURE, dim=0)[0]
    biased = (probabilities + BIAS).clamp(0, 1)
    grey = 255 * biased / biased.max()
    picture = Image.fromarray(grey.numpy()).convert("L").resize(size)
    return torch.from_numpy(np.array(picture)), probabilities.max()


def main():
    for name, (side, sizes) in NETWORKS.items():
        tokenizer, processor = write_folder(MODELS / name, side, sizes)
        net = CLIPSegForImageSegmentation.from_pretrained(MODELS / name, dtype=torch.float32).eval()
        pictures = 1.5 * torch.randn(2, 3, side, side, generator=gen(102))
        encode = lambda texts: tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")  # noqa: E731
        ids = encode([PROMPT, ""])
        with torch.no_grad():
            prompts = net.get_conditional_embeddings(2, **ids)
            out = {"pictures": nhwc(pictures), "ids": ids.input_ids, "prompts": prompts,
                   "logits": net(pixel_values=pictures, **ids).logits}
            for label, image in images(103, SIZES):
                pixels = processor(Image.fromarray(image), return_tensors="pt").pixel_values
                logits = net(pixel_values=pixels.repeat(2, 1, 1, 1), **ids).logits
                grey, largest = mask(logits, image.shape[1::-1])
                out |= {f"image.{label}": torch.from_numpy(image), f"logits.{label}": logits, f"mask.{label}": grey,
                        f"largest.{label}": largest[None]}
                out |= {f"pixels.{label}": nhwc(pixels)} if label == "30x70" else {}
                print(name, label, logits.shape, float(logits.std()), float(largest), grey.float().mean(), grey.min())
        save(MODELS / f"{name}.safetensors", out, {"prompt": PROMPT, "temperature": str(TEMPERATURE)})


if __name__ == "__main__":
    main()
