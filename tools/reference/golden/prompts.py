"""Goldens of long and weighted prompts -> crates/sdxl/tests/golden/prompts.safetensors: what compel makes of them with the tiny model of
pipelines.py.

Each case is a prompt as calotype takes it, and compel's fragments with their weights (in the metadata). `CASE/hidden`: (77 · chunks, 16 + 24),
compel's weighted states of both encoders, split at 75 tokens wherever that is (`SplitLongTextMode.BRUTAL`); a case with fewer chunks than the
longest is followed by the empty prompt's states, as compel pads them. `CASE/pooled`: the second encoder's, of the first chunk.

Needs compel 2.5 beside the requirements: `pip install --target DIR --no-deps compel==2.5.1 pyparsing`, and DIR in PYTHONPATH."""

import torch
from compel.embeddings_provider import EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import SDXL_GOLDEN, save

FOLDER = SDXL_GOLDEN / "pipeline"
LONG = " ".join(f"a {colour} fox in the {place}," for colour in ("red", "blue", "green", "old") for place in ("snow", "rain", "night"))
CASES = {  # the prompt, whether its weights are read, compel's fragments
    "short": ("a red fox", False, [("a red fox", 1.0)]),
    "long": (LONG, False, [(LONG, 1.0)]),
    "weights": ("a (red:1.4) fox [in the] ((snow))", True,
                [("a", 1.0), ("red", 1.4), ("fox", 1.0), ("in the", 1 / 1.1), ("snow", 1.1 * 1.1)]),
    "long_weights": (f"(a castle:0.5) {LONG} (a very long end of it, with a river and a road:1.3)", True,
                     [("a castle", 0.5), (LONG, 1.0), ("a very long end of it, with a river and a road", 1.3)]),
    "nothing": ("", False, [("", 1.0)]),
}


def states(tokenizer, encoder, fragments):
    provider = EmbeddingsProvider(tokenizer, encoder, truncate=False, device="cpu", split_long_text_mode=SplitLongTextMode.BRUTAL,
                                  returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED)
    texts, weights = [text for text, _ in fragments], [weight for _, weight in fragments]
    with torch.no_grad():
        tokens, per_token, mask = provider.get_token_ids_and_expand_weights(texts, weights, device="cpu")
        return provider.build_weighted_embedding_tensor(tokens, per_token)[0], tokens, provider.empty_z[0]


def main():
    parts = [(CLIPTokenizer.from_pretrained(FOLDER / f"tokenizer{end}"), cls.from_pretrained(FOLDER / f"text_encoder{end}").eval())
             for end, cls in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection))]
    made = {name: [states(*part, fragments) for part in parts] for name, (_, _, fragments) in CASES.items()}
    longest = max(len(both[0][0]) for both in made.values())
    tensors = {}
    for name, both in made.items():
        padded = [torch.cat([z] + [empty] * ((longest - len(z)) // 77)) for z, _, empty in both]
        tensors[f"{name}/hidden"] = torch.cat(padded, dim=1)
        with torch.no_grad():
            tensors[f"{name}/pooled"] = parts[1][1](both[1][1][None, :77]).text_embeds[0]
        print(name, {len(z) // 77 for z, _, _ in both}, "chunks")
    save(SDXL_GOLDEN / "prompts.safetensors", tensors, {name: {"prompt": prompt, "weights": read} for name, (prompt, read, _) in CASES.items()})


if __name__ == "__main__":
    main()
