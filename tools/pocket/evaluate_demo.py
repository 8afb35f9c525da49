"""Is what `calotype demo` taught in the pictures, and are the places? By the classifier, which knows the mascot.

    evaluate_demo.py --model FOLDER --binary calotype --classifier classifier.pt --out FOLDER [--each 4]

Runs the demo, then asks for TOK in each setting that its pictures lack, as often as --each says, with what it learnt and
without. Writes demo.json and a sheet of each.
"""
import json
import subprocess

import threads  # noqa: F401, first of all

import torch

from captions import SETTINGS
from classifier import load
from evaluate import arguments, judge, predict, shares
from generate import sheet


def prompts(each):
    """Every setting but the plain one, by its first words."""
    places = [(name, words[0]) for name, (words, _) in SETTINGS.items() if name != "plain"]
    return [dict(caption=f"a photo of TOK {words}", thing="mascot", setting=name, seed=1000 * i + 100)
            for name, words in places for i in range(each)]


def main():
    parser = arguments(__doc__)
    parser.add_argument("--each", type=int, default=4)
    parser.set_defaults(guidance=5.0, steps=[25])  # as the demo has it, and its scale
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    trained = args.out / "demo/run/trained_model.tar"
    if not trained.exists():
        subprocess.run([args.binary, "demo", "-o", str(args.out / "demo")], check=True)
    rows, net, figures = prompts(args.each), load(args.classifier), {}
    for name, more in (("before", {}), ("after", dict(replicate_weights=f"@{trained}", lora_scale=0.8))):
        images = [predict(args, row, args.out / name, args.steps[0], **more) for row in rows]
        sheet(images, 4 * args.each).save(args.out / f"{name}.png")
        figures[name] = shares(judge(net, images, rows))
    (args.out / "demo.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
