"""Goldens of the captioner -> crates/sdxl/tests/golden/models/: `blip/`, a tiny random BLIP in f16 as transformers saves it, with a
vocabulary of its own, and `blip.safetensors`, computed in f32:

- `pictures` (NHWC, normalised), `vision` (the tower's states of each), `tokens` (a text for each) and `logits` (after each token);
- `kept` and `probabilities`: what sampling keeps of the first logits, and their probabilities;
- for each size of picture: `image.WxH` (8-bit RGB), `pixels.WxH` (what `BlipImageProcessorPil` makes of it), `greedy.WxH`, `logits.WxH`
  (of the greedy text, step by step) and `beam.WxH` (tokens). The metadata has the texts of both.

The end and the unknown word are unlikely by their biases, so that captions have words; the heads of the text are 12 wide."""

import json
import shutil

import numpy as np
import torch
from PIL import Image
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from common import SDXL_GOLDEN, gen, nhwc, save
from make_tiny import randomise

MODELS = SDXL_GOLDEN / "models"
NAME, SIDE, TEXT, STEPS = "blip", 48, 24, 12
GAIN, END = 2.0, -4.0
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "of", "in", "on", "with", "and", "dog", "cat", "car", "man",
         "woman", "house", "tree", "lake", "sky", "red", "green", "blue", "small", "large", "arafed", "araffe", "##s", "##ing", "##ed",
         "walk", "sit", "stand", "look", "photo", ".", ",", "?", "!", "'", "s", "n't", "'s", "is", "it", "that", "white", "black", "there"]
VOCABULARY = len(WORDS) + 2  # [DEC] and [ENC] are in no vocabulary file, as in the published models
SIZES = [(64, 50), (30, 70), (48, 48), (1, 40), (90, 33)]
SAVED = {  # preprocessor_config.json of the published models, but for the side
    "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "BlipImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "BlipProcessor",
    "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": SIDE, "width": SIDE}, "size_divisor": 32}


def model():
    config = BlipConfig(
        vision_config=dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE,
                           patch_size=16),
        text_config=dict(vocab_size=VOCABULARY, hidden_size=TEXT, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2,
                         max_position_embeddings=40, bos_token_id=len(WORDS), sep_token_id=3, pad_token_id=0))
    model = randomise(BlipForConditionalGeneration(config), 90, gain=GAIN)
    with torch.no_grad():
        for p in (model.vision_model.embeddings.class_embedding, model.vision_model.embeddings.position_embedding):
            p.copy_(0.7 * torch.randn(p.shape, generator=gen(91)))
        model.text_decoder.cls.predictions.decoder.bias[:5] -= torch.tensor([9.0, 9.0, 9.0, END, 9.0])
        model.text_decoder.cls.predictions.decoder.bias[-2:] -= 9
    return model


def write_folder(folder):
    shutil.rmtree(folder, ignore_errors=True)
    model().half().save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    (folder / "preprocessor_config.json").write_text(json.dumps(SAVED, indent=2) + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    return tokenizer


def images(seed, sizes):
    """8-bit pictures of odd sizes: smooth colours with an edge."""
    random = np.random.default_rng(seed)
    for width, height in sizes:
        coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        picture = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
        picture[height // 3:, width // 2] = (255, 0, 128)
        yield f"{width}x{height}", picture


def generated(model, pixels, **how):
    return model.generate(pixel_values=pixels, **how)[0]


def text_logits(model, pixels, tokens):
    return model(pixel_values=pixels, input_ids=tokens[None].long()).logits[0]


def main():
    tokenizer = write_folder(MODELS / NAME)
    net = BlipForConditionalGeneration.from_pretrained(MODELS / NAME, dtype=torch.float32).eval()
    processor = BlipImageProcessorPil(**{k: SAVED[k] for k in ("size", "image_mean", "image_std", "resample")})
    pictures = 1.5 * torch.randn(2, 3, SIDE, SIDE, generator=gen(92))
    tokens = torch.randint(5, VOCABULARY, (2, STEPS), generator=gen(93))
    tokens[:, 0] = len(WORDS)
    out, texts = {"pictures": nhwc(pictures), "tokens": tokens}, {}
    with torch.no_grad():
        out["vision"] = net.vision_model(pictures).last_hidden_state
        out["logits"] = net(pixel_values=pictures, input_ids=tokens).logits
        first = TopKLogitsWarper(50)(None, TemperatureLogitsWarper(0.7)(None, out["logits"][:1, 0]))[0]
        out["kept"], out["probabilities"] = first.isfinite().int(), first.softmax(-1)
        for name, image in images(94, SIZES):
            pixels = processor(Image.fromarray(image), return_tensors="pt").pixel_values
            greedy = generated(net, pixels, do_sample=False, num_beams=1, max_length=40)
            beam = generated(net, pixels, do_sample=False, num_beams=3, min_length=5, max_length=20)
            out |= {f"image.{name}": torch.from_numpy(image), f"pixels.{name}": nhwc(pixels), f"greedy.{name}": greedy,
                    f"logits.{name}": text_logits(net, pixels, greedy), f"beam.{name}": beam}
            for kind, ids in (("greedy", greedy), ("beam", beam)):
                texts[f"{kind}.{name}"] = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
                print(kind, name, len(ids), texts[f"{kind}.{name}"])
    save(MODELS / f"{NAME}.safetensors", out, texts)


if __name__ == "__main__":
    main()
