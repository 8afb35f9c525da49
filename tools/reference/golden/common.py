"""Shared by every golden script: seeds, layouts and saving."""

import json
import struct
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[3]
TENSOR_GOLDEN = ROOT / "crates/tensor/tests/golden"
SDXL_GOLDEN = ROOT / "crates/sdxl/tests/golden"
DTYPES = {torch.float32: "F32", torch.int32: "I32", torch.int64: "I64", torch.uint8: "U8"}

torch.set_num_threads(1)  # one reduction order, so that a second run writes the same bytes
torch.use_deterministic_algorithms(True)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # make_tiny.py lives one folder up


def gen(seed):
    """A CPU generator; every golden value comes from one of these."""
    return torch.Generator("cpu").manual_seed(seed)


def nhwc(x):
    """(B, C, H, W) -> (B, H, W, C), the layout of images in golden files."""
    return x.permute(0, 2, 3, 1)


def storable(t):
    """f64 is rounded to f32, and integers are i32 where they fit."""
    t = torch.as_tensor(t).detach()
    if t.dtype == torch.float64:
        t = t.float()
    if t.dtype == torch.int64 and (t.numel() == 0 or t.abs().max() < 2**31):
        t = t.int()
    return t.contiguous()


def save(path, tensors, meta=None):
    """Writes a safetensors file, with JSON metadata (one string a key).

    The library's own writer orders metadata by a random hash; a golden file has to be the same bytes each time."""
    header = {"__metadata__": {k: v if isinstance(v, str) else json.dumps(v) for k, v in (meta or {}).items()}}
    header["__metadata__"]["torch"] = torch.__version__
    data = b""
    for name, t in tensors.items():
        t = storable(t)
        raw = t.numpy().tobytes()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(f"{path.relative_to(ROOT)}: {len(tensors)} tensors, {path.stat().st_size / 1024:.0f} KB")
