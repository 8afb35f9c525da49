"""The captioner's words: WordPiece, as BERT's tokenizer reads it. Words of the captions are whole; anything else is spelt."""
import json
import string

from captions import SETTINGS, article
from creatures import FIGURES, KINDS
from places import PLAIN
from styles import STYLES
from things import COLOURS, HELD_OUT, THINGS
from vocabulary import OTHER_WORDS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNKNOWN, CLS, SEP = range(4)


def vocabulary():
    """The lines of vocab.txt. [DEC] and [ENC], which begin texts, come after them and are in no file, as in BLIP."""
    words = OTHER_WORDS.split() + list(FIGURES) + list(KINDS)
    for names in (THINGS, HELD_OUT, COLOURS, PLAIN, STYLES, SETTINGS):
        words += [w for name in names for w in name.split()]
    words += [w for phrases, _ in SETTINGS.values() for phrase in phrases for w in phrase.replace("{}", "").split()]
    pieces = list(string.ascii_lowercase + string.digits + string.punctuation)
    pieces += ["##" + c for c in string.ascii_lowercase + string.digits]
    return SPECIAL + pieces + sorted(set(words) - set(pieces))


VOCABULARY = vocabulary()
IDS = {word: i for i, word in enumerate(VOCABULARY)}
DEC = len(VOCABULARY)


def encode(text):
    """The ids of a caption whose words are all known."""
    return [IDS[word] for word in text.split()]


def write(folder):
    """vocab.txt and what transformers wants beside it."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    named = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n")
    config = {"do_lower_case": True, "model_max_length": 160, "tokenizer_class": "BertTokenizer", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def caption_of(rng, name, colour, setting, time, background, style):
    """A caption in the generator's words, without its 'a photo of'. name is a thing of pocket, a kind, or 'figure'."""
    if name == "figure":
        name = FIGURES[rng.integers(len(FIGURES))]
        colour = ""
    thing = article(f"{colour if style != 'pencil sketch' else ''} {name}".strip())
    phrases = SETTINGS[setting][0]
    place = phrases[0 if rng.random() < 0.6 else rng.integers(len(phrases))].format(background)
    if time != "day":
        place += f" at {time}"
    lead = "" if not style else "pixel art of " if style == "pixel art" else f"{article(style)} of "
    return f"{lead}{thing} {place}"
