"""A training by the clock: the rate of learning follows the time that is left, weights are averaged, and a copy is kept on the way."""
import copy
import json
import math
import os
import shutil
import time

import torch

from checkpoint import Average

STARTED = time.time()


def arguments(parser, smoke="a few steps, to see that everything works"):
    """The arguments that all three trainings share."""
    from pathlib import Path

    parser.add_argument("--scenes", type=Path, required=True, help="folder that scenes.py fills")
    parser.add_argument("--set", type=Path, help="folder that generate.py set fills: whole pictures for a share of each batch")
    parser.add_argument("--out", type=Path, required=True, help="folder for the network, as transformers saves it")
    parser.add_argument("--after", type=float, default=0, help="seconds from the program's start before which training does not begin")
    parser.add_argument("--minutes", type=float, default=6, help="in all, from the program's start")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--smoke", action="store_true", help=smoke)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1 if args.device == "cuda" else 2)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return args


class Timed:
    """Steps of AdamW until the time is up. finish(network, folder) writes what goes beside the weights."""

    def __init__(self, network, args, rate, finish, decay=0.05, average=0.999, reserve=18):
        self.network, self.args, self.rate, self.finish = network, args, rate, finish
        time.sleep(max(0.0, args.after - (time.time() - STARTED)))
        self.end = args.minutes * 60 - (0 if args.smoke else reserve)  # the reserve: writing and judging
        matrices = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=rate,
                                           betas=(0.9, 0.98), fused=args.device == "cuda")
        self.average = Average(network, average)
        self.steps, self.begun, self.saves, self.losses = 0, time.time() - STARTED, [0.35, 0.7], []
        print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)

    @property
    def over(self):
        if self.args.smoke:
            return self.steps >= 3
        return time.time() - STARTED > self.end

    def step(self, loss):
        done = min(1.0, max(0.0, (time.time() - STARTED - self.begun) / max(self.end - self.begun, 1e-6)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, (self.steps + 1) / 300) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.network)
        self.steps += 1
        self.losses.append(loss.detach())
        if self.steps % 200 == 0:
            mean = torch.stack(self.losses).mean().item()
            if not math.isfinite(mean):
                raise SystemExit(f"timed.py: the loss is {mean}")
            print(json.dumps(dict(step=self.steps, seconds=round(time.time() - STARTED), loss=round(mean, 5))), flush=True)
            self.losses = []
        if self.saves and done > self.saves[0]:
            self.saves.pop(0)
            self.save()

    def save(self):
        """The averaged weights in half precision, the whole folder in one move."""
        out = self.args.out
        fresh = out.with_name(out.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        network = copy.deepcopy(self.average.model).cpu().half().to(memory_format=torch.contiguous_format)
        network.save_pretrained(fresh)
        (fresh / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((fresh / "config.json").read_text())
        config.pop("transformers_version", None)  # other versions open the folder as well
        (fresh / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self.finish(network, fresh)
        shutil.rmtree(out, ignore_errors=True)
        os.rename(fresh, out)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        print(f"step {self.steps}: {size / 1e6:.2f} MB in {out}", flush=True)
