"""Writes the two tokenizers: CLIP's BPE (OpenAI, MIT), cut down to its commonest merges and those of the captions' words.

    vocabulary.py --clip FOLDER --out FOLDER      # FOLDER of --clip: any SDXL's tokenizer/ (vocab.json, merges.txt)

A word of the captions is split as the whole vocabulary splits it: every merge on its way is kept, and the order of merges is.
"""
import argparse
import json
from pathlib import Path

from captions import SETTINGS
from places import PLAIN
from styles import STYLES
from things import COLOURS, HELD_OUT, THINGS

COMMON = 2000  # merges kept from the front of the list
START, END = "<|startoftext|>", "<|endoftext|>"
OTHER_WORDS = """a an the of in on at to and with by from for under over near behind front above night day sunset sunrise dawn photo picture
image drawing sketch painting pixel art watercolor watercolour oil pencil color colour background plain grey gray small big large little cute
happy beautiful standing sitting flying swimming walking running camera mascot water sky winter summer spring street tree trees flower flowers
river lake hill sun star stars cloud clouds light dark bright gold golden silver brown girl boy man woman one two three"""


def caption_words():
    words = OTHER_WORDS.split()
    for names in (THINGS, HELD_OUT, COLOURS, PLAIN, STYLES, SETTINGS):
        words += [w for name in names for w in name.split()]
    words += [w for phrases, _ in SETTINGS.values() for p in phrases for w in p.replace("{}", "").split()]
    return sorted(set(words))


def merges_used(word, ranks):
    """The merges that turn a word into its tokens."""
    parts = list(word[:-1]) + [word[-1] + "</w>"]
    used = []
    while len(parts) > 1:
        pair = min(zip(parts, parts[1:]), key=lambda p: ranks.get(p, 1 << 30))
        if pair not in ranks:
            break
        used.append(pair)
        merged, i = [], 0
        while i < len(parts):
            if tuple(parts[i : i + 2]) == pair:
                merged.append(parts[i] + parts[i + 1])
                i += 2
            else:
                merged.append(parts[i])
                i += 1
        parts = merged
    return used


def cut(clip):
    """The smaller vocabulary and its merges."""
    lines = (clip / "merges.txt").read_text().splitlines()[1:]
    merges = [tuple(line.split()) for line in lines if line.strip()]
    ranks = {pair: i for i, pair in enumerate(merges)}
    kept = set(range(COMMON))
    for word in caption_words():
        kept |= {ranks[pair] for pair in merges_used(word, ranks)}
    kept = [merges[i] for i in sorted(kept)]
    full = json.loads((clip / "vocab.json").read_text())
    tokens = sorted(full, key=full.get)[:512] + ["".join(pair) for pair in kept] + [START, END]
    return {token: i for i, token in enumerate(tokens)}, kept


def write(folder, vocab, merges, pad):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))

    def special(content, normalized):
        return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}

    named = {"bos_token": special(START, True), "eos_token": special(END, True), "pad_token": pad, "unk_token": special(END, True)}
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2))
    added = {str(vocab[t]): {**special(t, t == START), "special": True} for t in dict.fromkeys((pad, START, END))}
    config = {"add_prefix_space": False, "added_tokens_decoder": added, "bos_token": START, "clean_up_tokenization_spaces": False,
              "do_lower_case": True, "eos_token": END, "errors": "replace", "model_max_length": 77, "pad_token": pad,
              "tokenizer_class": "CLIPTokenizer", "unk_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    vocab, merges = cut(args.clip)
    write(args.out / "tokenizer", vocab, merges, END)
    write(args.out / "tokenizer_2", vocab, merges, "!")
    print(f"{len(vocab)} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
