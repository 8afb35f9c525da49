"""Times calotype beside its peers, in turns in one run, prints markdown tables and records the run.

    python bench.py unet  --cache DIR --dtype bf16 [--peers eager compile openvino calotype]
    python bench.py vae   --cache DIR ...        decodes one picture
    python bench.py upscaler --cache DIR ...     Swin2SR enlarges a picture of --size
    python bench.py ops   ...                    SDXL's operations one by one
    python bench.py start --cache DIR ...        process start to the first denoising step
    python bench.py train --cache DIR ...        training steps: LoRA, or with --full the UNet itself

Each peer runs in a process of its own, so that peak memory is its own; a round starts every peer once, and every other
round goes backwards. The first run of a process is cold and shown apart; the median is of the others. `--tiny`
tries everything on small models. A run is recorded in a folder (record.py): docs/benchmarks/runs/<date>-<cpu>, or the
one that `--save` names; `--tiny` runs only in one that `--save` names. Interfaces: peer.py, and
`calotype bench {unet,vae,upscaler,ops}` with the same arguments."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from make_real import PARTS, TINY, UNET, make_real
from record import Record, default_folder, machine

HERE = Path(__file__).resolve().parent
OPS = [  # the UNet's own shapes at 512x512, batch 2, after the table of the design
    "gemm:2048,2048,2048", "linear:2048,640,5120", "linear:2048,640,640", "linear:2048,2560,640",
    "linear:512,1280,1280", "linear:512,1280,10240", "linear:512,5120,1280", "linear:154,2048,1280",
    "conv:2,320,320,64,64,3,1", "conv:2,640,640,32,32,3,1", "conv:2,1280,1280,16,16,3,1", "conv:2,320,320,64,64,3,2",
    "conv:2,1920,640,32,32,1,1", "attention:2,10,64,1024,1024", "attention:2,20,64,256,256", "attention:2,20,64,256,77",
    "attention:1,1,512,4096,4096", "attention_bwd:2,10,64,1024,1024"]


def op_flops(op):
    kind, _, numbers = op.partition(":")
    n = [int(x) for x in numbers.split(",")]
    if kind == "conv":
        return 2 * n[0] * n[1] * n[2] * n[5] ** 2 * (n[3] // n[6]) * (n[4] // n[6])
    if kind.startswith("attention"):
        forward = 4 * n[0] * n[1] * n[2] * n[3] * n[4]
        return forward * 7 // 2 if kind.endswith("bwd") else forward  # 2 products forward, 5 backward (1 again)
    return 2 * n[0] * n[1] * n[2]


def model_flops(kind, shapes, tiny):
    """Counted by torch on the meta device, 2 per multiply-add."""
    from diffusers.models.attention_processor import AttnProcessor

    with torch.device("meta"):
        model = PARTS[kind](TINY[kind] if tiny else {})
        inputs = {k: torch.empty(s) for k, s in shapes.items()}
    if kind != "upscaler":
        model.set_attn_processor(AttnProcessor())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if kind == "upscaler":
            model(inputs["pixels"].permute(0, 3, 1, 2))
        elif kind == "vae":
            model.decode(inputs["latents"].permute(0, 3, 1, 2))
        else:
            added = {k: inputs[k] for k in ("text_embeds", "time_ids")}
            model(inputs["sample"].permute(0, 3, 1, 2), inputs["timestep"], inputs["encoder_hidden_states"],
                  added_cond_kwargs=added)
    return counter.get_total_flops()


def write_inputs(a, path):
    g = torch.Generator("cpu").manual_seed(0)
    config = UNET | (TINY["unet"] if a.tiny else {})
    side, batch = a.size // 8, a.batch
    if a.kind == "upscaler":
        tensors = {"pixels": torch.rand(1, a.size, a.size, 3, generator=g)}
    elif a.kind == "vae":
        tensors = {"latents": torch.randn(1, side, side, 4, generator=g)}
    else:
        pooled = config["projection_class_embeddings_input_dim"] - 6 * 256
        tensors = {"sample": torch.randn(batch, side, side, 4, generator=g), "timestep": torch.full((batch,), 501.0),
                   "encoder_hidden_states": torch.randn(batch, 77, config["cross_attention_dim"], generator=g),
                   "text_embeds": torch.randn(batch, pooled, generator=g),
                   "time_ids": torch.tensor([[a.size, a.size, 0, 0, a.size, a.size]] * batch).float()}
    save_file(tensors, path)
    return {k: tuple(v.shape) for k, v in tensors.items()}


def run_process(a, peer, arguments):
    """-> (the JSON that it printed, its peak resident bytes), or an error line."""
    script = [str(HERE / "train_peer.py")] if a.kind == "train" else [str(HERE / "peer.py"), peer]
    head = [a.binary, "bench"] if peer == "calotype" else [sys.executable, *script]
    env = os.environ | {"OMP_NUM_THREADS": str(a.threads), "RAYON_NUM_THREADS": str(a.threads)}
    with subprocess.Popen([*head, *arguments], stdout=subprocess.PIPE, env=env, text=True) as process:
        peak = []
        watch = threading.Thread(target=lambda: peak.append(most_memory(process.pid)))
        watch.start()
        out = process.stdout.read()
        watch.join()
    if process.returncode:
        raise RuntimeError(f"{peer} {' '.join(arguments)}: exit code {process.returncode}")
    result = json.loads(out.strip().splitlines()[-1])
    a.record.process(peer, arguments, result, peak[0])
    return result, peak[0]


def most_memory(pid):
    """The most bytes that a process has had in memory, once it has ended. Its `ru_maxrss` would count this process, which it began as."""
    most = 0
    while found := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
        most = int(found[1]) * 1024
        time.sleep(0.02)
    return most


def common_arguments(a, dtype=None):
    return ["--runs", str(a.runs), "--dtype", dtype or a.dtype, "--threads", str(a.threads)]


def turns(a, arguments):
    """`arguments(peer)` -> {peer: [(json, bytes), ...]}; a peer that fails is left out, with a line on stderr."""
    results = {}
    for i in range(a.rounds):
        for peer in a.peers if i % 2 == 0 else a.peers[::-1]:
            print(f"round {i + 1}: {peer}", file=sys.stderr, flush=True)
            try:
                results.setdefault(peer, []).append(run_process(a, peer, arguments(peer)))
            except (RuntimeError, OSError, ValueError) as e:
                print(f"left out: {e}", file=sys.stderr)
    return {p: results[p] for p in a.peers if results.get(p)}


def warm(seconds):
    return seconds[1:] or seconds


def gemm_peak(a):
    """The best GFLOP/s that any peer reaches on a 2048-cube product: the yardstick of the other shares."""
    op = "gemm:2048,2048,2048"
    peers = [p for p in ("eager", "calotype") if p in a.peers] or ["eager"]
    rates = []
    for peer in peers:
        try:
            result, _ = run_process(a, peer, ["ops", "--op", op, "--runs", "8", "--dtype", a.dtype, "--threads", str(a.threads)])
            rates.append(op_flops(op) / min(result["seconds"][op]) / 1e9)
        except (RuntimeError, OSError, ValueError) as e:
            print(f"no GEMM peak: {e}", file=sys.stderr)
    return max(rates, default=float("nan"))


def relative_error(path, reference):
    x, r = load_file(path)["out"].double(), load_file(reference)["out"].double()
    return ((x - r).norm() / r.norm()).item()


def reference_output(a, folder, inputs, key):
    """The f32 output of diffusers for the same weights, kept in the cache. Twice the memory of bf16 weights."""
    path = folder / f"reference-{key}.safetensors"
    if not path.exists() and a.reference:
        run_process(a, "eager", [a.kind, "--model", str(folder / a.kind), "--inputs", str(inputs), "--output", str(path),
                                 "--runs", "1", "--dtype", "f32", "--threads", str(a.threads)])
    return path if path.exists() else None


def bench_model(a):
    folder = make_real(a.cache, a.weights or a.dtype, (a.kind,), a.tiny)
    key = f"{a.kind}-{a.size}-{a.batch}"
    inputs = folder / f"inputs-{key}.safetensors"
    shapes = write_inputs(a, inputs)
    base = [a.kind, "--model", str(folder / a.kind), "--inputs", str(inputs)]
    if "openvino" in a.peers and not (folder / a.kind / f"openvino-{a.kind}/model.xml").exists():
        print("converting for OpenVINO", file=sys.stderr, flush=True)
        run_process(a, "openvino", [*base, "--convert-only"])
    reference = reference_output(a, folder, inputs, key)
    peak, flops = gemm_peak(a), model_flops(a.kind, shapes, a.tiny)
    output = lambda peer: folder / f"out-{key}-{peer}.safetensors"  # noqa: E731
    results = turns(a, lambda peer: [*base, "--output", str(output(peer)), *common_arguments(a)])
    medians = {p: statistics.median(s for r, _ in rows for s in warm(r["seconds"])) for p, rows in results.items()}
    baseline = medians.get("eager", next(iter(medians.values()), 1.0))
    batch = a.batch if a.kind == "unet" else 1
    a.record.print(f"\n{a.kind} {a.size}x{a.size}, batch {batch}, {a.dtype}, {flops / 1e12:.2f} TFLOP; "
                   f"GEMM peak {peak:.0f} GFLOP/s\n")
    a.record.print("| | load s | first s | median s | speed-up | GFLOP/s | share of GEMM | peak GB | relative error |")
    a.record.print("|---|---|---|---|---|---|---|---|---|")
    for peer, rows in results.items():
        load = statistics.median(r["load_seconds"] for r, _ in rows)
        first = statistics.median(r["seconds"][0] for r, _ in rows)
        rate = flops / medians[peer] / 1e9
        error = f"{relative_error(output(peer), reference):.1e}" if reference else "not measured"
        a.record.print(f"| {peer} | {load:.1f} | {first:.3f} | {medians[peer]:.3f} | {baseline / medians[peer]:.2f}x | "
                       f"{rate:.0f} | "
                       f"{rate / peak:.0%} | {max(b for _, b in rows) / 1e9:.2f} | {error} |")


def bench_ops(a):
    arguments = ["ops", *(x for op in a.ops for x in ("--op", op)), *common_arguments(a)]
    results = turns(a, lambda peer: arguments)
    best = {p: {op: statistics.median(s for r, _ in rows for s in warm(r["seconds"][op])) for op in a.ops}
            for p, rows in results.items()}
    a.record.print(f"\nops, {a.dtype}: milliseconds (GFLOP/s)\n\n| | {' | '.join(best)} | speed-up |\n|---|{'---|' * (len(best) + 1)}")
    for op in a.ops:
        cells = [f"{t[op] * 1e3:.2f} ({op_flops(op) / t[op] / 1e9:.0f})" for t in best.values()]
        ratio = f"{best['eager'][op] / best['calotype'][op]:.2f}x" if {"eager", "calotype"} <= set(best) else ""
        a.record.print(f"| {op} | {' | '.join(cells)} | {ratio} |")


def train_arguments(a, base, way):
    """(peer, whether it recomputes) -> its command line: the peers' options differ by name alone."""
    peer, recompute = way
    again = [] if not recompute else ["--recompute" if peer == "calotype" else "--checkpointing"]
    kind = ["train"] if peer == "calotype" else []
    return [*kind, *base, *common_arguments(a), *again, *(["--full"] if a.full else [])]


def bench_train(a):
    folder = make_real(a.cache, a.weights or a.dtype, ("unet",), a.tiny)
    base = ["--model", str(folder / "unet"), "--inputs", str(folder / f"train-{a.size}-1.safetensors")]
    inputs = ["--size", str(a.size)]
    rows = {}
    for i in range(a.rounds):
        for way in [(peer, again) for again in (False, True) for peer in a.peers]:
            print(f"round {i + 1}: {way[0]}{', recomputation' if way[1] else ''}", file=sys.stderr, flush=True)
            try:
                arguments = train_arguments(a, base, way) + (inputs if way[0] == "eager" else [])
                rows.setdefault(way, []).append(run_process(a, way[0], arguments))
            except (RuntimeError, OSError, ValueError) as e:
                print(f"left out: {e}", file=sys.stderr)
    a.record.print(f"\ntraining, {'whole UNet' if a.full else 'LoRA'}, {a.size}x{a.size}, batch 1, {a.dtype}\n")
    a.record.print("| | recomputation | load s | first s | others s | median s | speed-up | peak GB |\n|---|---|---|---|---|---|---|---|")
    median = lambda way: statistics.median(s for r, _ in rows[way] for s in warm(r["seconds"]))  # noqa: E731
    for way, results in rows.items():
        again = "yes" if way[1] else "no"
        if any("seconds" not in r for r, _ in results):
            r = results[0][0]
            a.record.print(f"| {way[0]} | {again} | does not fit: {r['needed_bytes'] / 1e9:.1f} of {r['available_bytes'] / 1e9:.1f} GB |")
            continue
        others = ", ".join(f"{s:.1f}" for r, _ in results for s in warm(r["seconds"]))
        eager = rows.get(("eager", way[1]), [({}, 0)])
        ratio = f"{median(('eager', way[1])) / median(way):.2f}x" if "seconds" in eager[0][0] else ""
        load, first = (statistics.median(of(r) for r, _ in results)
                       for of in (lambda r: r["load_seconds"], lambda r: r["seconds"][0]))
        a.record.print(f"| {way[0]} | {again} | {load:.1f} | {first:.2f} | {others} | {median(way):.2f} | {ratio} | "
                       f"{max(b for _, b in results) / 1e9:.2f} |")


def first_step(command, env):
    """Seconds from start to the first step's beginning: the end of step 1, less the time from there to the end of step 2."""
    start, ends = time.perf_counter(), {}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env, text=True) as process:
        for line in process.stderr:
            for step in re.findall(r"\b([12])/2\b", line):
                ends.setdefault(step, time.perf_counter() - start)
    if process.returncode or len(ends) < 2:
        raise RuntimeError(f"{command[0]}: exit code {process.returncode}, steps seen {sorted(ends)}")
    return 2 * ends["1"] - ends["2"]


DIFFUSERS = """
import sys, torch
from diffusers import StableDiffusionXLPipeline
folder, dtype, size, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=getattr(torch, dtype), add_watermarker=False)
def show(pipe, i, t, values):
    print(f"{i + 1}/2", file=sys.stderr, flush=True)
    return values
pipe.set_progress_bar_config(disable=True)
pipe("a photo of a cat", num_inference_steps=2, width=int(size), height=int(size), callback_on_step_end=show,
     output_type="latent")
"""


def bench_start(a):
    folder = make_real(a.cache, a.weights or a.dtype, tiny=a.tiny)
    env = os.environ | {"OMP_NUM_THREADS": str(a.threads), "RAYON_NUM_THREADS": str(a.threads)}
    dtype = {"bf16": "bfloat16", "f32": "float32"}[a.dtype]
    commands = {
        "eager": [sys.executable, "-c", DIFFUSERS, str(folder), dtype, str(a.size), str(a.threads)],
        "calotype": [a.binary, "predict", "--model", str(folder), "--dtype", a.dtype, "-o", str(folder / "pictures")]
        + [x for pair in (f"width={a.size}", f"height={a.size}", "num_inference_steps=2", "prompt=a photo of a cat",
                          "apply_watermark=false", "seed=0") for x in ("-i", pair)]}
    a.record.print("\n| | start to first step, s |\n|---|---|")
    for peer in ("eager", "calotype"):
        if peer in a.peers:
            try:
                first_step(commands[peer], env)  # fills the file cache
                seconds = [first_step(commands[peer], env) for _ in range(a.rounds)]
                a.record.process(peer, commands[peer][1:], {"seconds": seconds}, None)
                a.record.print(f"| {peer} | {statistics.median(seconds):.2f} |")
            except (RuntimeError, OSError) as e:
                print(f"left out: {e}", file=sys.stderr)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=["unet", "vae", "upscaler", "ops", "start", "train"])
    p.add_argument("--cache", help="folder for the models: 6 GB in bf16, 12 GB in f32, OpenVINO's f32 copy 11 GB")
    p.add_argument("--peers", nargs="*", choices=["eager", "compile", "openvino", "calotype"], default=["eager", "calotype"])
    p.add_argument("--binary", default=str(HERE.parents[2] / "target/release/calotype"))
    p.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    p.add_argument("--weights", choices=["bf16", "f32", "f16"], help="the files' dtype, where not --dtype")
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--runs", type=int, default=4, help="a process, the first cold")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--ops", nargs="*", default=OPS)
    p.add_argument("--full", action="store_true", help="train: the UNet itself rather than LoRA")
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--no-reference", dest="reference", action="store_false", help="no f32 run for the relative error")
    where = p.add_mutually_exclusive_group()
    where.add_argument("--save", metavar="DIR", help="folder that the run is recorded in")
    where.add_argument("--no-save", action="store_true", help="only print")
    a = p.parse_args()
    if a.kind != "ops" and not a.cache:
        p.error("--cache is needed")
    folder = a.save or (None if a.no_save or a.tiny else default_folder())
    a.record = Record(folder, sys.argv[1:])
    a.record.print(f"{machine()}; {a.threads} threads")
    {"ops": bench_ops, "start": bench_start, "train": bench_train}.get(a.kind, bench_model)(a)
    a.record.save()


if __name__ == "__main__":
    main()
