"""Goldens of torch's two generators -> crates/tensor/tests/golden/rng.safetensors.

CPU values come from torch itself. CUDA values come from `philox.py`, written from the Philox paper and cuRAND's and
torch's documented behaviour, and checked against values that were printed on real GPUs (`PRINTED`)."""

import numpy as np
import torch

from common import TENSOR_GOLDEN, gen, save
from philox import CudaGenerator, philox4x32_10

SEEDS = (0, 1, 42, 1234567890123)
LENGTHS = (1, 7, 15, 16, 17, 33, 100, 1000)
SEQUENCE = (5, 20, 3, 16, 17)  # normal lengths drawn one after another from one generator

# torch.manual_seed(seed); torch.randn(n, device="cuda"), as published notebooks and documentation print it
PRINTED = {
    0: [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284, -1.0745, -0.3631, -1.6711, 2.2655,
        0.3117, -0.1842, 1.2866, 1.1820, -0.1271, 1.2169, 1.4353, 1.0605, -0.4941, -1.4244, -0.7244, -1.2973],
    42: [0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175, 0.5280, -1.2753, -1.6621, -0.3033,
         -0.0926, 0.1992, -1.1204, 1.8577, -0.7145, 0.6881, 0.7968],
}
# The next three draws of 4 values each after randn(4) with seed 42: they fix how far a draw advances the offset.
PRINTED_NEXT = [[0.1391, -0.1082, -0.7174, 0.7566], [-0.5187, 1.2268, 0.6255, -0.9117],
                [-0.6974, -1.8688, -0.8832, -1.6627]]

# Random123's known answers for philox4x32-10: counter, key -> output
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def cpu(tensors):
    for seed in SEEDS:
        for n in LENGTHS:
            tensors[f"cpu.randn.{seed}.{n}"] = torch.randn(n, generator=gen(seed))
        g = gen(seed)
        for i, n in enumerate(SEQUENCE):
            tensors[f"cpu.sequence.{seed}.{i}"] = torch.randn(n, generator=g)
        tensors[f"cpu.latents.{seed}"] = torch.randn(1, 4, 6, 8, generator=gen(seed))
        tensors[f"cpu.rand.{seed}"] = torch.rand(33, generator=gen(seed))
        tensors[f"cpu.randint1000.{seed}"] = torch.randint(0, 1000, (33,), generator=gen(seed))
        tensors[f"cpu.randperm37.{seed}"] = torch.randperm(37, generator=gen(seed))
        g = gen(seed)
        tensors[f"cpu.mixed.{seed}.0_rand3"] = torch.rand(3, generator=g)
        tensors[f"cpu.mixed.{seed}.1_randn3"] = torch.randn(3, generator=g)
        tensors[f"cpu.mixed.{seed}.2_randint2"] = torch.randint(0, 7, (2,), generator=g)
        tensors[f"cpu.mixed.{seed}.3_randn16"] = torch.randn(16, generator=g)
    # past the first regeneration of the 624-word state
    tensors["cpu.long.42.tail"] = torch.randn(5000, generator=gen(42))[-40:]


def cuda(tensors):
    for counter, key, want in KNOWN:
        got = philox4x32_10(np.array(counter, np.uint32).reshape(4, 1), np.array(key, np.uint32).reshape(2, 1))
        assert tuple(got[:, 0]) == want, "philox4x32-10"
    for seed, want in PRINTED.items():
        assert np.abs(CudaGenerator(seed).randn(len(want)) - np.array(want)).max() < 6e-5
    g = CudaGenerator(42)
    g.randn(4)
    for want in PRINTED_NEXT:
        assert np.abs(g.randn(4) - np.array(want)).max() < 6e-5
    for seed in SEEDS:
        for n in (7, 33, 1000):
            tensors[f"cuda.randn.{seed}.{n}"] = CudaGenerator(seed).randn(n)
        g = CudaGenerator(seed)
        for i, n in enumerate(SEQUENCE):
            tensors[f"cuda.sequence.{seed}.{i}"] = g.randn(n)
    for seed, want in PRINTED.items():
        tensors[f"cuda.printed.{seed}"] = np.array(want, np.float32)
    tensors["cuda.printed_next.42"] = np.array(PRINTED_NEXT, np.float32)
    for i, row in enumerate(KNOWN):
        for name, words in zip(("counter", "key", "output"), row):
            tensors[f"philox.known.{i}.{name}"] = np.array(words, np.uint32).view(np.int32)


if __name__ == "__main__":
    tensors = {}
    cpu(tensors)
    cuda(tensors)
    save(TENSOR_GOLDEN / "rng.safetensors", tensors, {"seeds": list(SEEDS), "sequence": list(SEQUENCE)})
