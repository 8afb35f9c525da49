"""Trains pocket's captioner, BLIP's architecture, from nothing.

    train_captioner.py --scenes FOLDER [--set FOLDER] --out FOLDER [--minutes 6] [--device cuda] [--smoke]
"""
import argparse
import json

import threads  # noqa: F401, first of all

import numpy as np
import torch
import torch.nn.functional as F
from transformers import BlipConfig, BlipForConditionalGeneration
from transformers.models.blip.modeling_blip import BlipAttention

import wordpiece
from captions import SETTINGS
from compose import NAMES, Composer
from generate import examples
from looks import worn
from scenes import LISTS
from things import THINGS
from timed import Timed, arguments

SIZE, WIDTH, TEXT_WIDTH, LONGEST = 128, 192, 128, 26
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def network():
    vision = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=5, num_attention_heads=6, image_size=SIZE, patch_size=8,
                  initializer_range=0.02)
    text = dict(vocab_size=len(wordpiece.VOCABULARY) + 2, hidden_size=TEXT_WIDTH, encoder_hidden_size=WIDTH, intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=160, bos_token_id=wordpiece.DEC, eos_token_id=wordpiece.SEP,
                sep_token_id=wordpiece.SEP, pad_token_id=wordpiece.PAD, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    for name, value in model.named_parameters():  # transformers' own start for vision is next to nothing
        if name.startswith("vision_model") and value.ndim > 1:
            torch.nn.init.normal_(value, std=0.02)
    return model


def attend(self, hidden_states, *args, **kwargs):
    """BlipAttention's forward, by torch's fused attention."""
    b, n, width = hidden_states.shape
    q, k, v = self.qkv(hidden_states).view(b, n, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
    return self.projection(mixed.transpose(1, 2).reshape(b, n, width)), None


def finish(model, folder):
    wordpiece.write(folder)
    config = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": MEAN,
              "image_processor_type": "BlipImageProcessor", "image_std": STD, "processor_class": "BlipProcessor", "resample": 3,
              "rescale_factor": 1 / 255, "size": {"height": SIZE, "width": SIZE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")


def normalised(x):
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def words(rng, batch):
    """(B, LONGEST) inputs and labels; what shows no thing has no labels."""
    ids = np.full((len(batch.rows), LONGEST + 1), wordpiece.PAD, np.int64)
    for i, row in enumerate(batch.rows):
        if row[0] < len(NAMES):
            names = [LISTS[field][n] for field, n in list(zip(LISTS, row))[1:]]
            setting, time, colour, background, style = names
            sentence = wordpiece.encode(wordpiece.caption_of(rng, NAMES[row[0]], colour, setting, time, background, style))
            ids[i, : len(sentence) + 2] = [wordpiece.DEC, *sentence, wordpiece.SEP]
    ids = torch.from_numpy(ids).to(batch.image.device)
    return ids[:, :-1], torch.where(ids[:, 1:] == wordpiece.PAD, -100, ids[:, 1:])


def vary(x, composer):
    """Pictures moved, nearer or farther, lighter or darker, some worn."""
    b = len(x)
    zoom, shift = composer.uniform(0.8, 1.12, b), composer.uniform(-0.08, 0.08, b, 2)
    theta = torch.zeros(b, 2, 3, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    moved = F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), padding_mode="reflection", align_corners=False)
    x = torch.where(composer.uniform(0, 1, b, 1, 1, 1) < 0.6, moved, x)
    x = torch.where(composer.uniform(0, 1, b, 1, 1, 1) < 0.3, worn(x, composer.generator), x)
    middle = x.mean((2, 3), keepdim=True)
    return ((x - middle) * composer.uniform(0.8, 1.2, b, 1, 1, 1) + middle * composer.uniform(0.85, 1.15, b, 1, 1, 1)).clamp(0, 1)


def fresh(count, seed=77):
    """Pictures of all pairs that no training saw, and what they show."""
    pictures, rows = zip(*[(np.asarray(image), row) for image, _, row in examples(seed, count, False, 0.2)])
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255, rows


def decode(ids):
    """The words of what generate() gave."""
    return " ".join(wordpiece.VOCABULARY[i] for i in ids if wordpiece.SEP < i < len(wordpiece.VOCABULARY))


def judged(text, row):
    """Whether a caption names the thing, and the setting."""
    named = max((name for name in THINGS if f" {name} " in f" {text} "), key=len, default="")
    return named == row["thing"], any(phrase.format(row["background"]) in text for phrase in SETTINGS[row["setting"]][0])


@torch.no_grad()
def judge(model, pictures, rows, device):
    model.eval()
    right, texts = np.zeros(3), []
    for i in range(0, len(rows), 100):
        ids = model.generate(normalised(pictures[i : i + 100].to(device)), max_length=LONGEST, do_sample=False, num_beams=1)
        texts += [decode(line) for line in ids.tolist()]
    for text, row in zip(texts, rows):
        thing, setting = judged(text, row)
        right += [thing, setting, thing and setting]
    for text, row in list(zip(texts, rows))[:12]:
        print(f"  {row['caption']} -> {text}", flush=True)
    print(json.dumps(dict(zip(("thing", "setting", "both"), (right / len(rows)).round(4).tolist()), pictures=len(rows))), flush=True)


def main():
    args = arguments(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    device, smoke = args.device, args.smoke
    pictures, rows = fresh(8 if smoke else 400)
    composer = Composer(args.scenes, args.set, device, capacity=400 if smoke else 16000, figures=20 if smoke else 1500, seed=1, size=128)
    composer.scenes.wait(32 if smoke else 1024)
    BlipAttention.forward = attend
    model = network().to(device)
    timed = Timed(model, args, 8e-4, finish)
    count = 8 if smoke else 256
    while not timed.over:
        batch = composer.batch(count)
        ids, labels = words(composer.rng, batch)
        with torch.no_grad():
            x = normalised(vary(batch.image, composer))
        with torch.autocast(device, torch.bfloat16):
            seen = model.vision_model(pixel_values=x).last_hidden_state
            logits = model.text_decoder(input_ids=ids, encoder_hidden_states=seen, use_cache=False).logits
        timed.step(F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=0.02))
        if timed.steps % 20 == 0:
            composer.refresh()
    timed.save()
    judge(timed.average.model, pictures, rows, device)


if __name__ == "__main__":
    main()
