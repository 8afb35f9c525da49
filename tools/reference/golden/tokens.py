"""Goldens of the CLIP tokenizers -> crates/sdxl/tests/golden/{tokens.json, tokens_tiny.json, tiny_vocab/}.

`tokens.json` is of the real vocabulary (`../shared/data/clip_tokenizer`, which stays outside the repository);
`tokens_tiny.json` of `tiny_vocab/`, a small one made here. Each prompt has the 77 padded ids of both of SDXL's
tokenizers (the first pads with `<|endoftext|>`, the second with `!`), and its length before truncation."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from common import SDXL_GOLDEN
from make_tiny import REAL_VOCAB, TINY_VOCAB, write_tokenizer

PROMPTS = [
    "", " ", "a photo of a cat", "A PHOTO of a Cat", "an astronaut riding a rainbow unicorn, cinematic, dramatic",
    "  leading and   trailing \t whitespace \n\n here  ", "no\u00a0break\u3000ideographic\u2003em\u200bzero width",
    "it's we're they've i'm you'll he'd don't O'Neil 'sup", "it\u2019s a curly apostrophe\u2026 \u201cquoted\u201d \u2014 dash",
    "1234567890 3.14 1,000 v1.0 2024-01-31 50% 4k 8K", "hello!!! what??? wow?! ... ;:,.<>/\\|[]{}()*&^%$#@~`_-+=",
    "!", "hi!", "! !! !!!", "wait ! stop", "<b>bold</b> &amp; &lt;html&gt; <br/>", "snake_case camelCase kebab-case",
    "caf\u00e9 na\u00efve \u00fcber sm\u00f8rrebr\u00f8d", "cafe\u0301 nai\u0308ve u\u0308ber (NFD)", "\ufb01 ligature \u2460 \u00bd \u00b2 \u2122",
    "\u0130stanbul I\u0307 \u00df \u1e9e \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03a3", "\u732b\u306e\u5199\u771f\u3001\u7f8e\u3057\u3044", "\u4e00\u53ea\u53ef\u7231\u7684\u732b", "\uace0\uc591\uc774 \uc0ac\uc9c4", "\u0444\u043e\u0442\u043e \u041a\u041e\u0422\u0410",
    "\u0635\u0648\u0631\u0629 \u0642\u0637\u0629", "\u0e41\u0e21\u0e27\u0e19\u0e49\u0e33", "\u092c\u093f\u0932\u094d\u0932\u0940 \u0915\u0940 \u0924\u0938\u094d\u0935\u0940\u0930", "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2764\ufe0f \U0001f44d\U0001f3fd", "cat\U0001f431dog",
    "a <|endoftext|> b", "<|startoftext|>twice", "<|endoftext|>", "x<|EndOfText|>y", "<|endoftext |>", "<s0><s1> in the style of TOK",
    "\u0661\u0662\u0663 \u2167 \u216f 10\u00b2", "a\u0000b\u0007c\u007fd", "zalgo z\u0351\u0346a\u0310l\u0313g\u0312o\u0313", "https://example.com/a?b=c&d=e", "user@mail.org (c) \u00a9 2024",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a very long prompt, " * 30, "word " * 75, "word " * 76, "\u732b" * 80, "!" * 90,
]
CORPUS = """a photo of a cat. a photo of a dog. a painting of an astronaut riding a rainbow unicorn, cinematic, dramatic
the quick brown fox jumps over the lazy dog. in the style of a watercolor portrait, highly detailed, sharp focus
a very long prompt with many words and no end to the story that it tells, on and on, over and over"""


def byte_characters():
    """CLIP's printable stand-ins for the 256 bytes, in vocabulary order: `!` is token 0."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def merge_pair(word, pair):
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def make_tiny_vocab(merge_count=120):
    """Byte-pair encoding trained on CORPUS; ties go to the first pair in order, so every run is the same."""
    words = Counter((*w[:-1], w[-1] + "</w>") for w in CORPUS.replace(",", " ,").replace(".", " .").split())
    merges = []
    while len(merges) < merge_count:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        merged = Counter()
        for word, n in words.items():
            merged[merge_pair(word, best)] += n
        words = merged
    base = byte_characters()
    tokens = base + [c + "</w>" for c in base] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    TINY_VOCAB.mkdir(parents=True, exist_ok=True)
    vocab = {t: i for i, t in enumerate(tokens)}
    (TINY_VOCAB / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, separators=(",", ":")) + "\n")
    (TINY_VOCAB / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def encode(vocab):
    with tempfile.TemporaryDirectory() as folder:
        tokenizers = [write_tokenizer(Path(folder) / str(i), vocab, pad) for i, pad in enumerate(("<|endoftext|>", "!"))]
    rows = []
    for prompt in PROMPTS:
        row = {"prompt": prompt}
        for name, t in zip(("tokenizer", "tokenizer_2"), tokenizers):
            row[name] = t(prompt, padding="max_length", max_length=77, truncation=True)["input_ids"]
            row[f"{name}_length"] = len(t(prompt, padding=False, truncation=False)["input_ids"])
            assert len(row[name]) == 77
        rows.append(row)
    return rows


def main():
    make_tiny_vocab()
    for name, vocab in (("tokens_tiny", TINY_VOCAB), ("tokens", REAL_VOCAB)):
        if not vocab.is_dir():
            print(f"skipped: no {vocab}")
            continue
        lines = [json.dumps(row, separators=(",", ":")) for row in encode(vocab)]
        path = SDXL_GOLDEN / f"{name}.json"
        path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(path.name, len(lines), "prompts,", path.stat().st_size // 1024, "KB")


if __name__ == "__main__":
    main()
