"""transformers against calotype on random captioners and segmenters of any sizes: tokens and text of captions, masks.

    python tools/reference/words_check.py --binary target/debug/examples/words [--seeds 5]

Each seed draws the sizes: patches, pictures, layers, heads, vocabulary, the kind of the decoder's end. Both sides read the same folder, as
transformers saves it, and the same pictures. A caption may differ where two tokens were as good as equally likely; then the margin
between them is printed, and must be small. Masks may differ by 2 in 255."""

import argparse
import json
import random
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor, CLIPSegConfig,
                          CLIPSegForImageSegmentation, CLIPSegProcessor)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

sys.path.insert(0, str(Path(__file__).parent))
from make_tiny import TINY_VOCAB, randomise, write_tokenizer  # noqa: E402

MARGIN, APART = 2e-3, 2


def pictures(random, folder):
    for i in range(3):
        width, height = random.choice([(random.randint(1, 300), random.randint(1, 300)), (1, 1), (1, 400), (640, 480)])
        coarse = np.random.default_rng(random.randrange(1 << 30)).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(coarse).resize((width, height), random.choice([0, 2, 3])).save(path)
        yield path


def blip(random, folder, dtype):
    """A random captioner, and its processor."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "'", "s", "n't", "##s", "##ing"]
    words += ["".join(random.choices(string.ascii_lowercase, k=random.randint(1, 7))) for _ in range(random.randint(20, 300))]
    words = list(dict.fromkeys(words))
    heads, patch = random.randint(1, 5), random.choice([4, 7, 8, 14, 16])
    side = patch * random.randint(1, 6) + random.choice([0, 0, patch - 1])
    text_heads = random.randint(1, 5)
    config = BlipConfig(
        vision_config=dict(hidden_size=heads * random.choice([4, 8, 12, 20]), intermediate_size=random.randint(8, 90),
                           num_hidden_layers=random.randint(1, 3), num_attention_heads=heads, image_size=side, patch_size=patch),
        text_config=dict(vocab_size=len(words) + 2, hidden_size=text_heads * random.choice([4, 8, 12, 20]),
                         intermediate_size=random.randint(8, 90), num_hidden_layers=random.randint(1, 3),
                         num_attention_heads=text_heads, max_position_embeddings=random.randint(30, 60), bos_token_id=len(words),
                         sep_token_id=3, pad_token_id=0))
    model = randomise(BlipForConditionalGeneration(config), random.randrange(1 << 30), gain=2.5)
    with torch.no_grad():
        for p in (model.vision_model.embeddings.class_embedding, model.vision_model.embeddings.position_embedding):
            p.copy_(0.7 * torch.randn(p.shape))
        model.text_decoder.cls.predictions.decoder.bias[3] += random.uniform(0, 5)
    save(random, model.to(dtype), folder)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": side, "width": side}), BertTokenizer(str(folder / "vocab.txt")))
    processor.save_pretrained(folder)
    if random.random() < 0.5:
        (folder / "vocab.txt").unlink()
    return BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(), processor


def save(random, model, folder):
    """As safetensors or, as older checkpoints are, as PyTorch's file of weights, which has tied tensors twice."""
    model.save_pretrained(folder)
    if random.random() < 0.4:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def margin(model, pixels, tokens, ours):
    """How much likelier the first token that differs was than ours."""
    same = next(i for i, (a, b) in enumerate(zip(tokens, ours)) if a != b)
    logits = model(pixel_values=pixels, input_ids=torch.tensor([tokens[:same]])).logits[0, -1].log_softmax(-1)
    return float(logits[tokens[same]] - logits[ours[same]])


def check_captions(random, folder, binary, dtype):
    model, processor = blip(random, folder, dtype)
    paths, worst = list(pictures(random, folder)), 0.0
    for how, arguments in (("greedy", dict(num_beams=1, max_length=min(150, model.config.text_config.max_position_embeddings))),
                           ("beam", dict(num_beams=3, min_length=5, max_length=20))):
        for line, path in zip(run(binary, "caption", folder, "f32", how, 0, *paths), paths):
            pixels = processor.image_processor(Image.open(path), return_tensors="pt").pixel_values
            with torch.no_grad():
                tokens = model.generate(pixel_values=pixels, do_sample=False, **arguments)[0].tolist()
                if tokens != line["tokens"]:
                    worst = max(worst, margin(model, pixels, tokens, line["tokens"]))
                    print(f"  {how} {path.name}: margin {worst:.1e}: {tokens} {line['tokens']}")
                    continue
            text = processor.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=True)
            assert text == line["text"], (text, line["text"])
    return worst <= MARGIN


def clipseg(random, folder, dtype):
    vocabulary = len(json.loads((TINY_VOCAB / "vocab.json").read_text()))
    layers, heads, text_heads, decoder_heads = (random.randint(2, 6), *(random.randint(1, 4) for _ in range(3)))
    taken = random.sample(range(layers), random.randint(1, min(3, layers)))
    patch = random.choice([4, 6, 8, 14, 16, 32])
    config = CLIPSegConfig(
        vision_config=dict(hidden_size=heads * random.choice([4, 8, 12]), intermediate_size=random.randint(8, 60),
                           num_hidden_layers=layers, num_attention_heads=heads, patch_size=patch,
                           image_size=patch * random.randint(1, 5) + random.choice([0, patch - 1])),
        text_config=dict(vocab_size=vocabulary, hidden_size=text_heads * random.choice([4, 8, 12]),
                         intermediate_size=random.randint(8, 60), num_hidden_layers=random.randint(1, 3),
                         num_attention_heads=text_heads, eos_token_id=random.choice([2, vocabulary - 1]), bos_token_id=vocabulary - 2),
        projection_dim=random.randint(4, 30), reduce_dim=decoder_heads * random.choice([2, 4, 8, 10]),
        decoder_num_attention_heads=decoder_heads, decoder_intermediate_size=random.randint(8, 60), extract_layers=taken,
        conditional_layer=random.randint(0, 3), use_complex_transposed_convolution=random.random() < 0.6)
    save(random, randomise(CLIPSegForImageSegmentation(config), random.randrange(1 << 30), gain=1.5).to(dtype), folder)
    tokenizer = write_tokenizer(folder, TINY_VOCAB, random.choice(["!", "<|endoftext|>"]))
    side = patch * random.randint(1, 6) + random.choice([0, patch - 1])
    processor = CLIPSegProcessor(ViTImageProcessorPil(size={"height": side, "width": side}), tokenizer)
    if random.random() < 0.5:
        processor.image_processor.save_pretrained(folder)
    else:
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor.image_processor.to_dict()}, default=str))
    return CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float32).eval(), processor


def check_masks(random, folder, binary, dtype):
    model, processor = clipseg(random, folder, dtype)
    paths, prompt, temperature = list(pictures(random, folder)), "a photo of a red fox", random.choice([0.5, 1.0, 3.0])
    fine = True
    for line, path in zip(run(binary, "mask", folder, "f32", prompt, temperature, *paths), paths):
        image = Image.open(path).convert("RGB")
        ids = processor.tokenizer([prompt, ""], padding="max_length", truncation=True, return_tensors="pt")
        pixels = processor.image_processor(image, return_tensors="pt").pixel_values.repeat(2, 1, 1, 1)
        with torch.no_grad():
            logits = model(pixel_values=pixels, **ids).logits
        logits = logits.reshape(2, *logits.shape[-2:])
        likely = torch.softmax(logits / temperature, dim=0)[0]
        biased = (likely + 0.01).clamp(0, 1)
        want = np.array(Image.fromarray((255 * biased / biased.max()).numpy()).convert("L").resize(image.size)).astype(int)
        apart = np.abs(want - np.array(Image.open(f"{path}.mask.png"))).max()
        close = apart <= APART and abs(float(likely.max()) - line["largest"]) < 1e-3
        if not close:
            print(f"  {path.name} {image.size}: {apart} apart, largest {float(likely.max())} {line['largest']}")
        fine &= bool(close)
    return fine


def run(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    a = parser.parse_args()
    failed = []
    for seed in range(a.seeds):
        for check in (check_captions, check_masks):
            choices = random.Random(f"{seed} {check.__name__}")
            torch.manual_seed(seed)
            dtype = choices.choice([torch.float32, torch.float16, torch.bfloat16])
            with tempfile.TemporaryDirectory() as folder:
                fine = check(choices, Path(folder), a.binary, dtype)
            print(f"{check.__name__} {seed}: {'ok' if fine else 'FAILED'}")
            failed += [] if fine else [(check.__name__, seed)]
    sys.exit(f"failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
