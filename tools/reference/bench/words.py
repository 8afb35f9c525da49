"""Captioner and segmenter of the published sizes, random weights: seconds a picture of transformers and calotype, in turns, and the peak
memory of each.

    python tools/reference/bench/words.py --binary target/debug/examples/words --work /tmp/words_bench [--threads 2] [--turns 3]

BLIP large decodes with 3 beams to 20 tokens, CLIPSeg looks for one prompt (and the empty one) at 352 x 352. Each turn is a process of
its own that does three pictures; the first is left out, since it loads and packs. The folders take 2.5 GB, and are removed at the end."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
PROMPT, PICTURES = "a photo of a fox", 3


def fill(model):
    import torch
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.03, generator=generator) if p.dim() > 1 else p.fill_(0.01 if p.dim() else 2.0)
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1)
    return model


def make(work):
    from transformers import (BlipConfig, BlipForConditionalGeneration, CLIPSegConfig, CLIPSegForImageSegmentation)
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    from make_tiny import TINY_VOCAB, write_tokenizer
    blip, clipseg = work / "blip", work / "clipseg"
    config = BlipConfig(vision_config=dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16),
                        text_config=dict(num_attention_heads=12))
    fill(BlipForConditionalGeneration(config)).save_pretrained(blip)
    (blip / "vocab.txt").write_text("".join(f"w{i}\n" for i in range(30522)))
    BlipImageProcessorPil().save_pretrained(blip)
    config = CLIPSegConfig(vision_config=dict(patch_size=16), text_config=dict(eos_token_id=2), use_complex_transposed_convolution=True)
    fill(CLIPSegForImageSegmentation(config)).save_pretrained(clipseg)
    write_tokenizer(clipseg, TINY_VOCAB, "<|endoftext|>")
    ViTImageProcessorPil(size={"height": 352, "width": 352}).save_pretrained(clipseg)
    for i in range(PICTURES):
        noise = np.random.default_rng(i).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((1024, 768)).save(work / f"{i}.png")


def peer(kind, folder, dtype, threads, paths):
    """transformers, in this process: a line of JSON for each picture."""
    import torch
    from transformers import BlipForConditionalGeneration, CLIPSegForImageSegmentation, CLIPTokenizer
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    torch.set_num_threads(threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    cls, processor = {"caption": (BlipForConditionalGeneration, BlipImageProcessorPil),
                      "mask": (CLIPSegForImageSegmentation, ViTImageProcessorPil)}[kind]
    model, processor = cls.from_pretrained(folder, dtype=dtype).eval(), processor.from_pretrained(folder)
    if kind == "mask":
        ids = CLIPTokenizer.from_pretrained(folder)([PROMPT, ""], padding="max_length", truncation=True, return_tensors="pt")
        with torch.inference_mode():
            prompts = model.get_conditional_embeddings(2, **ids)
    for path in paths:
        image = Image.open(path).convert("RGB")
        begun = time.perf_counter()
        with torch.inference_mode():
            pixels = processor(image, return_tensors="pt").pixel_values.to(dtype)
            if kind == "caption":
                tokens = model.generate(pixel_values=pixels, do_sample=False, num_beams=3, min_length=5, max_length=20)
                assert tokens.shape[1] == 20, tokens.shape
            else:
                model(pixel_values=pixels.repeat(2, 1, 1, 1), conditional_embeddings=prompts).logits.float()
        print(json.dumps({"seconds": time.perf_counter() - begun}))


def turn(command, threads):
    """Seconds a picture without the first, and the peak memory of the process in GiB."""
    env = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return min(json.loads(line)["seconds"] for line in lines[1:]), usage.ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/words_bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.peer[0], a.peer[1], a.peer[2], a.threads, a.peer[3:])
    if a.make:
        return make(a.work)
    own = [sys.executable, __file__, "--work", a.work, "--threads", a.threads]
    subprocess.run(list(map(str, own + ["--make"])), check=True, stderr=subprocess.DEVNULL)
    pictures = [a.work / f"{i}.png" for i in range(PICTURES)]
    for kind, name, ask in (("caption", "blip", ["beam", 0]), ("mask", "clipseg", [PROMPT, 1.0])):
        for dtype in ("f32", "bf16"):
            ours, theirs = [a.binary, kind, a.work / name, dtype, *ask, *pictures], own + ["--peer", kind, a.work / name, dtype, *pictures]
            seconds = {"transformers": [], "calotype": []}
            memory = {}
            for _ in range(a.turns):
                for who, command in (("transformers", theirs), ("calotype", ours)):
                    time_taken, memory[who] = turn(command, a.threads)
                    seconds[who].append(time_taken)
            best = {who: min(values) for who, values in seconds.items()}
            middle = {who: statistics.median(values) for who, values in seconds.items()}
            print(f"{name} {dtype}: transformers {best['transformers']:.2f} s, calotype {best['calotype']:.2f} s: "
                  f"{best['transformers'] / best['calotype']:.2f}x (medians {middle['transformers']:.2f}, {middle['calotype']:.2f}); "
                  f"peak {memory['transformers']:.2f} and {memory['calotype']:.2f} GiB", flush=True)
    shutil.rmtree(a.work)


if __name__ == "__main__":
    main()
