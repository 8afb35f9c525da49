"""Goldens of the safety checker and its vision tower -> crates/sdxl/tests/golden/models/: `safety_checker/`, a tiny random one as
diffusers saves it, and `safety_checker.safetensors`: normalised pictures (NHWC), the tower's states, the scores of each picture
and whether it is flagged; a picture (8-bit RGB) of each of several sizes and what `CLIPImageProcessorPil` makes of it.

Thresholds lie at the cosines of certain pictures, so that some are flagged, one only by the special care, and one is not."""

import json
import shutil

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from common import SDXL_GOLDEN, gen, nhwc, save
from make_tiny import randomise

MODELS = SDXL_GOLDEN / "models"
NAME, SIDE, WIDTH, PROJECTION, PICTURES = "safety_checker", 28, 32, 24, 4
SIZES = [(40, 36), (61, 28), (28, 83), (17, 23), (28, 28)]


def checker():
    config = CLIPConfig(
        vision_config=dict(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                           image_size=SIDE, patch_size=9, hidden_act="quick_gelu"), projection_dim=PROJECTION)
    return randomise(StableDiffusionSafetyChecker(config), 80)


def set_thresholds(model, pixels):
    """All thresholds above any cosine, but for: concept 2 just below picture 0; concept 5 less than .01 above picture 1, to which
    special concept 1 is near; picture 2 is near special concept 0 only; picture 3 near nothing."""
    with torch.no_grad():
        embeds = model.visual_projection(model.vision_model(pixels).pooler_output)
        noise = torch.randn(4, PROJECTION, generator=gen(81))
        for table, row, picture, i in ((model.concept_embeds, 2, 0, 0), (model.concept_embeds, 5, 1, 1),
                                       (model.special_care_embeds, 1, 1, 2), (model.special_care_embeds, 0, 2, 3)):
            mean = embeds.mean(0)
            table[row] = (embeds[picture] - mean) / (embeds[picture] - mean).norm() + 0.2 * noise[i] / noise[i].norm()
        special = cosine_distance(embeds, model.special_care_embeds)
        concepts = cosine_distance(embeds, model.concept_embeds)
        model.special_care_embeds_weights.fill_(1.5)
        model.concept_embeds_weights.fill_(1.5)
        model.concept_embeds_weights[2] = concepts[0, 2] - 0.02
        model.concept_embeds_weights[5] = concepts[1, 5] + 0.006
        model.special_care_embeds_weights[1] = special[1, 1] - 0.05
        model.special_care_embeds_weights[0] = special[2, 0] - 0.03


def scores(model, pixels):
    """What diffusers rounds and compares, in its own arithmetic."""
    embeds = model.visual_projection(model.vision_model(pixels).pooler_output)
    special = cosine_distance(embeds, model.special_care_embeds).numpy()
    concepts = cosine_distance(embeds, model.concept_embeds).numpy()
    out = []
    for i in range(len(pixels)):
        care, row = 0.0, []
        for cosine, limit in zip(special[i], model.special_care_embeds_weights):
            row.append(round(float(cosine) - limit.item() + care, 3))
            care = 0.01 if row[-1] > 0 else care
        for cosine, limit in zip(concepts[i], model.concept_embeds_weights):
            row.append(round(float(cosine) - limit.item() + care, 3))
        out.append(row)
    return torch.tensor(out)


def images():
    """8-bit pictures of odd sizes: smooth colours with an edge."""
    random = np.random.default_rng(82)
    out = {}
    for width, height in SIZES:
        coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        picture = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
        picture[height // 3:, width // 2] = (255, 0, 128)
        processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
        pixels = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
        out[f"image.{width}x{height}"] = torch.from_numpy(picture)
        out[f"pixels.{width}x{height}"] = nhwc(pixels)
    return out


if __name__ == "__main__":
    model = checker()
    pixels = 1.5 * torch.randn(PICTURES, 3, SIDE, SIDE, generator=gen(83))
    set_thresholds(model, pixels)
    shutil.rmtree(MODELS / NAME, ignore_errors=True)
    model.save_pretrained(MODELS / NAME)
    with torch.no_grad():
        tower = model.vision_model(pixels, output_hidden_states=True)
        out = {"pictures": nhwc(pixels), "pooled": tower.pooler_output, "scores": scores(model, pixels)}
        out |= {f"hidden.{i}": state for i, state in enumerate(tower.hidden_states)}
        _, flagged = model(pixels, [np.zeros((2, 2, 3)) for _ in range(PICTURES)])
    print(flagged, json.loads((MODELS / NAME / "config.json").read_text()).get("architectures"))
    assert flagged == [True, True, False, False]
    save(MODELS / f"{NAME}.safetensors", out | {"flagged": torch.tensor(flagged).int()} | images())
