"""One peer in one process, with the command line that `calotype bench` has too:

    peer.py BACKEND unet --model DIR --inputs FILE --output FILE --runs N --dtype D --threads T
    peer.py BACKEND vae  ...   the same: decodes latents to a picture
    peer.py BACKEND upscaler ...   the same: Swin2SR enlarges a picture
    peer.py BACKEND ops  --op linear:2048,640,5120 --op ... --runs N --dtype D --threads T

BACKEND: eager (channels_last), compile (with freezing) or openvino. The last line of stdout is JSON:
{"seconds": [...], "load_seconds": s}, the first run cold; ops: {"seconds": {op: [...]}}. Files are safetensors, images
NHWC: `sample`, `timestep`, `encoder_hidden_states`, `text_embeds`, `time_ids`, `latents` or `pixels` in, `out` out.
Ops: linear:M,K,N (with bias), gemm:M,K,N, conv:B,I,O,H,W,k,stride, attention:B,heads,d,T,S, attention_bwd:..."""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
UNET_INPUTS = ("sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids")


class Unet(torch.nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states, text_embeds, time_ids):
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.unet(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latents):
        return self.vae.decode(latents, return_dict=False)[0]


class Upscaler(torch.nn.Module):
    def __init__(self, swin2sr):
        super().__init__()
        self.swin2sr = swin2sr

    def forward(self, pixels):
        return self.swin2sr(pixels, return_dict=False)[0]


def load_torch(kind, folder, dtype):
    if kind == "upscaler":
        from transformers import Swin2SRForImageSuperResolution

        return Upscaler(Swin2SRForImageSuperResolution.from_pretrained(folder, dtype=dtype)).eval()
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if kind == "unet":
        return Unet(UNet2DConditionModel.from_pretrained(folder, dtype=dtype)).eval()
    return Decoder(AutoencoderKL.from_pretrained(folder, dtype=dtype)).eval()


def read_inputs(kind, path, dtype):
    """In the order of `forward`, images in (B, C, H, W) with channels_last strides, as diffusers wants them."""
    data = load_file(path)
    images = ("sample", "latents", "pixels")
    names = {"unet": UNET_INPUTS, "vae": ("latents",), "upscaler": ("pixels",)}[kind]
    tensors = [data[n].permute(0, 3, 1, 2) if n in images else data[n] for n in names]
    keep = ("timestep", "time_ids")  # f32 in every dtype: diffusers casts their embeddings, not these
    return [t if n in keep else t.to(dtype) for n, t in zip(names, tensors)]


def openvino_model(a, inputs):
    """Converted once, in a process of its own (--convert-only), into the model's folder; then read back."""
    import openvino as ov

    path = f"{a.model}/openvino-{a.kind}/model.xml"
    if a.convert_only:
        with torch.inference_mode():
            model = ov.convert_model(load_torch(a.kind, a.model, torch.float32), example_input=tuple(inputs))
        return ov.save_model(model, path, compress_to_fp16=False)
    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": a.dtype, "INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    arrays = [x.float().numpy() for x in inputs]
    return lambda: torch.from_numpy(compiled(arrays)[0].copy())


def torch_model(a, inputs):
    model = load_torch(a.kind, a.model, DTYPES[a.dtype]).to(memory_format=torch.channels_last)
    if a.backend == "compile":
        torch._inductor.config.freezing = True
        model = torch.compile(model)
    return lambda: model(*inputs)


def bench_model(a):
    start = time.perf_counter()
    inputs = read_inputs(a.kind, a.inputs, torch.float32 if a.backend == "openvino" else DTYPES[a.dtype])
    run = (openvino_model if a.backend == "openvino" else torch_model)(a, inputs)
    if a.convert_only:
        return {}
    load, seconds = time.perf_counter() - start, []
    with torch.inference_mode(a.backend != "compile"), torch.no_grad():
        for _ in range(a.runs):
            start = time.perf_counter()
            out = run()
            seconds.append(time.perf_counter() - start)
    if a.output:
        save_file({"out": out.float().permute(0, 2, 3, 1).contiguous()}, a.output)
    return {"seconds": seconds, "load_seconds": load}


def op_function(op, dtype):
    kind, _, numbers = op.partition(":")
    n = [int(x) for x in numbers.split(",")]
    rand = lambda *shape: torch.randn(shape, dtype=dtype)  # noqa: E731
    if kind == "gemm":
        a, b = rand(n[0], n[1]), rand(n[1], n[2])
        return lambda: a @ b
    if kind == "linear":
        x, w, b = rand(n[0], n[1]), rand(n[2], n[1]), rand(n[2])
        return lambda: F.linear(x, w, b)
    if kind == "conv":
        batch, i, o, h, width, k, stride = n
        x = rand(batch, i, h, width).to(memory_format=torch.channels_last)
        w, b = rand(o, i, k, k).to(memory_format=torch.channels_last), rand(o)
        return lambda: F.conv2d(x, w, b, stride=stride, padding=k // 2)
    if kind not in ("attention", "attention_bwd"):
        raise SystemExit(f"unknown op {op}")
    batch, heads, d, t, s = n
    q, k, v = (rand(batch, length, heads * d).unflatten(-1, (heads, d)).transpose(1, 2) for length in (t, s, s))
    if kind == "attention":
        return lambda: F.scaled_dot_product_attention(q, k, v)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]

    def backward():
        y = F.scaled_dot_product_attention(*leaves)
        torch.autograd.grad(y, leaves, torch.ones_like(y))

    return backward


def bench_ops(a):
    torch.manual_seed(0)
    result = {}
    for op in a.op:
        run, seconds = op_function(op, DTYPES[a.dtype]), []
        with torch.set_grad_enabled("bwd" in op):
            for _ in range(a.runs):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
        result[op] = seconds
    return {"seconds": result}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("backend", choices=["eager", "compile", "openvino"])
    p.add_argument("kind", choices=["unet", "vae", "upscaler", "ops"])
    p.add_argument("--model")
    p.add_argument("--inputs")
    p.add_argument("--output")
    p.add_argument("--op", action="append", default=[])
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--dtype", choices=list(DTYPES), default="bf16")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--convert-only", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    print(json.dumps(bench_ops(a) if a.kind == "ops" else bench_model(a)))


if __name__ == "__main__":
    main()
