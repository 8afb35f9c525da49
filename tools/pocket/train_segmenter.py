"""Trains pocket's segmenter, CLIPSeg's architecture, from nothing or from an earlier one.

    train_segmenter.py --scenes FOLDER [--set FOLDER] [--start FOLDER] --out FOLDER [--minutes 6] [--device cuda] [--smoke]
"""
import argparse
import json
import os
import shutil
from pathlib import Path

import threads  # noqa: F401, first of all

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer

import mask_words
from ahead import Ahead
from compose import NAMES, Composer
from generate import examples
from looks import worn
from timed import Timed, arguments

SIZE, WIDTH, TEXT_WIDTH, LONGEST = 256, 192, 128, 20
PROMPTS = 7  # for each picture
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOKENIZER = Path(os.environ.get("POCKET_TOKENIZER", Path(__file__).parents[2] / "models/pocket/tokenizer"))


def network(tokens):
    vision = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=5, num_attention_heads=6, image_size=SIZE, patch_size=16)
    # eos_token_id 2 as in CLIPSeg: transformers then pools at the largest id, which <|endoftext|> has
    text = dict(vocab_size=tokens, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1)
    model = CLIPSegForImageSegmentation(CLIPSegConfig(
        text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH, extract_layers=[1, 3, 4], reduce_dim=64, decoder_num_attention_heads=4,
        decoder_intermediate_size=256, conditional_layer=0, use_complex_transposed_convolution=True))
    for part in (model.decoder.film_mul, model.decoder.film_add, *model.decoder.reduces, *model.decoder.transposed_convolution):
        if hasattr(part, "reset_parameters"):  # transformers starts these fifty times too large
            part.reset_parameters()
    torch.nn.init.ones_(model.decoder.film_mul.bias)
    return model


def begin_with(model, folder):
    """The weights of an earlier network, of the parts that both have."""
    earlier, now = CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float32).state_dict(), model.state_dict()
    same = {name: value for name, value in earlier.items() if name in now and now[name].shape == value.shape}
    model.load_state_dict(same, strict=False)
    print(f"{len(same)} of {len(now)} tensors from {folder}", flush=True)


def finish(model, folder):
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    config = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": MEAN, "image_processor_type": "ViTImageProcessor",
              "image_std": STD, "processor_class": "CLIPSegProcessor", "resample": 2, "rescale_factor": 1 / 255,
              "size": {"height": SIZE, "width": SIZE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")


class Prompts:
    """Texts as tokens, each looked up once; cut to LONGEST, which does no harm: what comes after <|endoftext|> has no effect."""

    def __init__(self, device):
        self.tokenizer, self.known, self.device = CLIPTokenizer.from_pretrained(TOKENIZER), {}, device

    def __call__(self, texts):
        for text in texts:
            if text not in self.known:
                ids = self.tokenizer(text, padding="max_length", truncation=True, max_length=LONGEST)["input_ids"]
                self.known[text] = torch.tensor(ids)
        return torch.stack([self.known[text] for text in texts]).to(self.device)


def enlarged_by(x, layer):
    """A transposed convolution whose kernel is its stride, as a product: several times as fast."""
    side = layer.kernel_size[0]
    weight, bias = layer.weight.flatten(1).t()[:, :, None, None], layer.bias.repeat_interleave(side * side)
    return F.pixel_shuffle(F.conv2d(x, weight, bias), side)


def decoded(decoder, states, text, each):
    """As CLIPSegDecoder.forward; what is the same for all prompts of a picture is computed once."""
    out = 0
    for i, (state, layer, reduce) in enumerate(zip(states[::-1], decoder.layers, decoder.reduces)):
        out = reduce(state).repeat_interleave(each, 0) + out
        if i == decoder.conditional_layer:
            out = decoder.film_mul(text)[:, None] * out + decoder.film_add(text)[:, None]
        out = layer(out, attention_mask=None)
    side = SIZE // 16
    smooth, _, first, _, second = decoder.transposed_convolution
    out = smooth(out[:, 1:].transpose(1, 2).unflatten(2, (side, side))).relu()
    return enlarged_by(enlarged_by(out, first).relu(), second).squeeze(1)


def logits(model, pixels, ids):
    """(B, 3, H, W) and (B · n, T), n prompts for each picture: (B, n, H, W), and the picture's last states.
    transformers' own forward has no gradients here."""
    seen = model.clip.vision_model(pixel_values=(pixels - mean_of(pixels)) / std_of(pixels), output_hidden_states=True).hidden_states
    text = model.clip.text_projection(model.clip.text_model(input_ids=ids).pooler_output)
    each = len(ids) // len(pixels)
    out = decoded(model.decoder, [seen[i + 1] for i in model.extract_layers], text, each)
    return out.unflatten(0, (len(pixels), each)), seen[-1][:, 1:]


def names_shown(batch, masks):
    """Which thing each patch shows, (B, patches); -100: a little of one."""
    cover = F.avg_pool2d(masks, 16).flatten(2)
    names = torch.from_numpy(np.stack([batch.rows[:, 0], batch.second[:, 0]], 1)).to(masks.device)
    most = cover.amax(1)
    return torch.where(most > 0.5, names.gather(1, cover.argmax(1)), torch.where(most < 0.1, len(NAMES), -100))


def mean_of(x):
    return torch.tensor(MEAN, device=x.device).view(1, 3, 1, 1)


def std_of(x):
    return torch.tensor(STD, device=x.device).view(1, 3, 1, 1)


def enlarged(image):
    """A picture as the processor hands it on."""
    return F.interpolate(image, size=SIZE, mode="bilinear", align_corners=False)


def vary(batch, composer):
    """Pictures and masks: a part of the batch as painted, the rest from 128 × 128; moved, lighter or darker, some worn."""
    b, pictures, masks = len(batch.image), batch.image, batch.masks
    pictures = torch.where(composer.uniform(0, 1, b, 1, 1, 1) < 0.25, worn(pictures, composer.generator), pictures)
    plain = torch.from_numpy(batch.rows[:, 5] == 0).to(pictures.device)[:, None, None, None]
    pictures = torch.where((composer.uniform(0, 1, b, 1, 1, 1) < 0.4) & plain, batch.canvas, enlarged(pictures))
    zoom, shift = composer.uniform(0.7, 1.15, b), composer.uniform(-0.15, 0.15, b, 2)
    theta = torch.zeros(b, 2, 3, device=pictures.device)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    moved = F.grid_sample(torch.cat([pictures, masks], 1), F.affine_grid(theta, (b, 5, SIZE, SIZE), align_corners=False),
                          padding_mode="reflection", align_corners=False)
    both = torch.where(composer.uniform(0, 1, b, 1, 1, 1) < 0.6, moved, torch.cat([pictures, masks], 1))
    pictures, masks = both[:, :3], both[:, 3:].clamp(0, 1)
    middle = pictures.mean((2, 3), keepdim=True)
    pictures = (pictures - middle) * composer.uniform(0.8, 1.2, b, 1, 1, 1) + middle * composer.uniform(0.85, 1.15, b, 1, 1, 1)
    return pictures.clamp(0, 1), masks


def example(composer, prompts, count):
    """Pictures, tokens, targets (B, PROMPTS - 1, H, W) of all but the empty prompts, and the patches' names."""
    batch = composer.batch(count)
    texts, means = mask_words.prompts(composer.rng, batch, PROMPTS)
    pictures, masks = vary(batch, composer)
    target = torch.einsum("bnk,bkhw->bnhw", torch.from_numpy(means[:, 1:]).to(masks.device), masks).clamp(0, 1)
    return pictures, prompts(texts), target, names_shown(batch, masks)


def loss_of(out, target):
    """Of logits less the empty prompt's, as masks are made of them: cross entropy; the overlap with what is there; and the most certain
    patches, so that nothing is found where nothing is. The empty prompt's logit is to be 0 everywhere."""
    empty, logit, area = out[:, :1], out[:, 1:] - out[:, :1], target.sum((2, 3))
    there, nothing = area > 200, area < 1
    entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none").mean((2, 3))
    p = logit.sigmoid()
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1) / (p.sum((2, 3)) + area + 1)
    most = F.max_pool2d(logit, 16).flatten(2).topk(6).values
    certain = F.softplus(torch.where(nothing, 1.0, -1.0)[:, :, None] * most).mean(2)
    flat = empty.clamp(-8, 8).pow(2).mean()
    return (2 * entropy + 0.5 * dice * there + 0.4 * certain * (there | nothing)).mean() + 0.1 * flat


@torch.no_grad()
def judge(model, prompts, device, count, seed=77):
    """On pictures that no training saw: the overlap with the thing named, and the largest probability of things that are not there."""
    rng, model = np.random.default_rng(5), model.eval()
    overlaps, largest, found = [], [], []
    drawn = list(examples(seed, count, False, 0.2))
    for i in range(0, count, 50):
        part = drawn[i : i + 50]
        x = torch.from_numpy(np.stack([np.asarray(picture) for picture, _, _ in part])).permute(0, 3, 1, 2).float().to(device) / 255
        truth = torch.from_numpy(np.stack([np.asarray(mask) for _, mask, _ in part])).to(device) > 127
        texts = [t for _, _, row in part for t in (f"a {row['thing']}", mask_words.absent(rng, [row["thing"]]), "")]
        out = logits(model, enlarged(x), prompts(texts))[0].float()
        p = (out[:, :2] - out[:, 2:]).sigmoid()
        mask = F.interpolate(p[:, :1], size=x.shape[2:], mode="area")[:, 0] > 0.5
        overlaps += ((mask & truth).sum((1, 2)) / (mask | truth).sum((1, 2)).clamp(min=1)).tolist()
        found += p[:, 0].amax((1, 2)).tolist()
        largest += p[:, 1].amax((1, 2)).tolist()
    print(json.dumps(dict(pictures=count, overlap=round(float(np.mean(overlaps)), 4), overlap_075=round(float(np.mean(np.array(overlaps) > 0.75)), 4),
                          found=round(float(np.mean(np.array(found) > 0.3)), 4),
                          absent_found=round(float(np.mean(np.array(largest) > 0.3)), 4))), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, help="folder of an earlier segmenter to go on from")
    args = arguments(parser)
    device, smoke = args.device, args.smoke
    prompts = Prompts(device)
    composer = Composer(args.scenes, args.set, device, capacity=400 if smoke else 40000, figures=20 if smoke else 1500, seed=2, size=256)
    composer.scenes.wait(32 if smoke else 1024)
    model = network(len(prompts.tokenizer))
    if args.start:
        begin_with(model, args.start)
    model.to(device)
    head = torch.nn.Linear(WIDTH, len(NAMES) + 1).to(device)  # told the names directly, the tower learns faster than through prompts; not kept
    timed = Timed(model, args, 8e-4, finish)
    timed.optimizer.add_param_group({"params": list(head.parameters()), "weight_decay": 0.0})
    count = 4 if smoke else 160
    batches = Ahead(lambda: example(composer, prompts, count), device, refresh=composer.refresh)
    while not timed.over:
        pictures, ids, target, names = batches.next()
        with torch.autocast(device, torch.bfloat16):
            out, states = logits(model, pictures, ids)
            named = F.cross_entropy(head(states).float().flatten(0, 1), names.flatten(), ignore_index=-100)
        timed.step(loss_of(out.float(), target) + 0.3 * named)
    batches.close()
    timed.save()
    judge(timed.average.model, prompts, device, 4 if smoke else 400)


if __name__ == "__main__":
    main()
