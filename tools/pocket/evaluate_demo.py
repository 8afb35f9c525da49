"""Is what `calotype demo` taught in the pictures, and are the places? By the classifier, which knows the mascot.

    evaluate_demo.py --model FOLDER --binary calotype --classifier classifier.pt --out FOLDER [--each 4]

And how much of its shape, and of the places, there is (likeness.py). Runs the demo, then asks for TOK in each setting that its pictures lack, as often as --each says, with what it learnt and
without. Writes demo.json and a sheet of each.
"""
import json

import threads  # noqa: F401, first of all

import torch

from classifier import load
from evaluate import arguments, judge, predict, shares
from generate import sheet
from likeness import GUIDANCE, SCALE, STEPS, demo, prompts, score


def main():
    parser = arguments(__doc__)
    parser.add_argument("--each", type=int, default=4)
    parser.set_defaults(guidance=GUIDANCE, steps=[STEPS])
    args = parser.parse_args()
    torch.set_num_threads(2)
    args.out.mkdir(parents=True, exist_ok=True)
    trained = demo(args.binary, args.out / "demo")
    rows, net, figures, made = prompts(args.each), load(args.classifier), {}, {}
    for name, more in (("before", {}), ("after", dict(replicate_weights=f"@{trained}", lora_scale=SCALE))):
        images = made[name] = [predict(args, row, args.out / name, STEPS, **more) for row in rows]
        sheet(images, 4 * args.each).save(args.out / f"{name}.png")
        figures[name] = shares(judge(net, images, rows))
    figures["likeness"] = score(made["after"], made["before"])
    (args.out / "demo.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
