"""Times training steps of diffusers and peft (forward, backward, AdamW) in one process; see peer.py.

    train_peer.py --model DIR/unet --inputs FILE --runs N --dtype D --threads T [--rank R] [--checkpointing] [--full]

LoRA of the given rank in f32 on the attentions of a UNet in `dtype`, or with --full the UNet itself, in `dtype`, its
AdamW too. Latents and text embeddings are given. FILE is written first where it does not exist, for --batch pictures of
--size: the tensors of peer.py's UNet (`sample` is the noised latents) and `target`, NHWC.
The last line of stdout is JSON: {"seconds": [...], the first run cold, "median_seconds": of the others, "losses": [...],
"load_seconds", "peak_rss_bytes": of the process, "step_peak_rss_bytes": after loading}, or, where weights, gradients and
moments alone are more than there is, or an allocation fails: {"does_not_fit": why, "needed_bytes", "available_bytes"}."""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from peer import DTYPES, Unet, read_inputs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trainer import full_names, lora_paths  # noqa: E402


def write_inputs(path, config, size, batch):
    g = torch.Generator("cpu").manual_seed(0)
    side = size // 8
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    save_file({"sample": torch.randn(batch, side, side, 4, generator=g), "timestep": torch.full((batch,), 501.0),
               "encoder_hidden_states": torch.randn(batch, 77, config["cross_attention_dim"], generator=g),
               "text_embeds": torch.randn(batch, pooled, generator=g),
               "time_ids": torch.tensor([[size, size, 0, 0, size, size]] * batch).float(),
               "target": torch.randn(batch, side, side, 4, generator=g)}, path)


def sizes(folder, full, rank):
    """-> values in the UNet, and how many of them (or of its LoRA) train"""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    if full:
        trained = sum(unet.get_parameter(name).numel() for name in full_names(unet))
    else:
        trained = sum(rank * sum(unet.get_submodule(path).weight.shape) for path in lora_paths(unet, "attention"))
    return sum(p.numel() for p in unet.parameters()), trained


def available_bytes():
    """What the kernel, and the control group if there is one, would still give."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = [int(memory["MemAvailable"].split()[0]) * 1024]
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip() != "max":
        free.append(int(limit.read_text()) - int(used.read_text()))
    return min(free)


def own_bytes(field):
    """VmHWM: peak of the resident memory, since the start or `reset_peak`; VmData: what RLIMIT_DATA counts."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def load(a):
    unet = UNet2DConditionModel.from_pretrained(a.model, dtype=DTYPES[a.dtype]).requires_grad_(False)
    unet.to(memory_format=torch.channels_last).train()  # diffusers recomputes only in training mode; dropout is 0
    if a.full:
        trained = [unet.get_parameter(name).requires_grad_() for name in full_names(unet)]
    else:
        unet.add_adapter(LoraConfig(r=a.rank, lora_alpha=a.rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
        cast_training_params(unet, torch.float32)
        trained = [p for p in unet.parameters() if p.requires_grad]
    if a.checkpointing:
        unet.enable_gradient_checkpointing()
    return Unet(unet), trained, torch.optim.AdamW(trained, lr=a.lr, weight_decay=1e-4)


def bench(a):
    config = UNet2DConditionModel.load_config(a.model)
    if not Path(a.inputs).exists():
        write_inputs(a.inputs, config, a.size, a.batch)
    inputs = read_inputs("unet", a.inputs, DTYPES[a.dtype])
    target = load_file(a.inputs)["target"].permute(0, 3, 1, 2)
    start = time.perf_counter()
    unet, trained, optimizer = load(a)
    load_seconds, seconds, losses, load_peak = time.perf_counter() - start, [], [], own_bytes("VmHWM")
    reset_peak()
    for _ in range(a.runs):
        start = time.perf_counter()
        loss = F.mse_loss(unet(*inputs).float(), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    step_peak = own_bytes("VmHWM")
    return {"seconds": seconds, "median_seconds": statistics.median(seconds[1:] or seconds), "losses": losses,
            "load_seconds": load_seconds, "peak_rss_bytes": max(load_peak, step_peak), "step_peak_rss_bytes": step_peak,
            "trained_values": sum(p.numel() for p in trained)}


def bench_if_it_fits(a):
    values, trained = sizes(a.model, a.full, a.rank)
    width = DTYPES[a.dtype].itemsize
    needed, available = values * width + trained * 3 * (width if a.full else 4), available_bytes()  # no activations
    size = {"needed_bytes": needed, "available_bytes": available}
    if needed > available:
        return {"does_not_fit": "weights, gradients and AdamW's moments are more than the memory"} | size
    limit = available + own_bytes("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # a failed allocation, not a killed process
    try:
        return bench(a)
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and "alloc" not in str(e):
            raise
        return {"does_not_fit": "an allocation failed"} | size


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--inputs", required=True)
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--rank", type=int, default=32)
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--runs", type=int, default=4)
    p.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--full", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    print(json.dumps(bench_if_it_fits(a)))


if __name__ == "__main__":
    main()
