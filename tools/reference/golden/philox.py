"""torch.randn on a CUDA device, in numpy.

Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11). Normals: cuRAND's Box-Muller
(`curand_normal4`). Layout: torch's grid-stride kernel, blocks of 256 threads, 4 values a thread and step."""

import numpy as np

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint32)
INV_2POW32 = np.float32(2.3283064e-10)
INV_2POW32_2PI = np.float32(2.3283064e-10) * np.float32(6.2831855)


def philox4x32_10(counter, key):
    """counter (4, n), key (2, n) of u32 -> (4, n)"""
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = c0.astype(np.uint64) * MULTIPLIERS[0], c2.astype(np.uint64) * MULTIPLIERS[1]
        hi0, lo0 = (p0 >> np.uint64(32)).astype(np.uint32), p0.astype(np.uint32)
        hi1, lo1 = (p1 >> np.uint64(32)).astype(np.uint32), p1.astype(np.uint32)
        c0, c1, c2, c3 = hi1 ^ c1 ^ key[0], lo1, hi0 ^ c3 ^ key[1], lo0
        key = key + WEYL
    return np.stack([c0, c1, c2, c3])


def fma(x, a, b):
    """x * a + b with one rounding to f32, as nvcc compiles it."""
    return (x.astype(np.float32).astype(np.float64) * np.float64(a) + np.float64(b)).astype(np.float32)


def box_muller(x, y):
    """Two u32 words -> two normals, sine first."""
    u = fma(x, INV_2POW32, INV_2POW32 / np.float32(2)).astype(np.float64)
    v = fma(y, INV_2POW32_2PI, INV_2POW32_2PI / np.float32(2)).astype(np.float64)
    s = np.sqrt(-2.0 * np.log(u))
    return s * np.sin(v), s * np.cos(v)


class CudaGenerator:
    """`threads` is the most that one launch holds: multiprocessors * (threads per multiprocessor / 256) * 256.

    Only draws longer than that depend on the GPU; the default is an A100's."""

    def __init__(self, seed, threads=108 * 2048):
        self.seed, self.offset, self.max_threads = seed, 0, threads

    def randn(self, n):
        threads = min(-(-n // 256) * 256, self.max_threads)
        steps = (n - 1) // (threads * 4) + 1
        out = np.empty(steps * 4 * threads, np.float32)
        lane = np.arange(threads, dtype=np.uint64)
        key = np.array([[self.seed & 0xFFFFFFFF], [self.seed >> 32]], np.uint32) * np.ones((1, threads), np.uint32)
        for step in range(steps):
            position = self.offset // 4 + step  # the sequence's 128-bit counter: (position, lane)
            counter = np.stack([np.full(threads, position & 0xFFFFFFFF, np.uint32),
                                np.full(threads, position >> 32, np.uint32),
                                lane.astype(np.uint32), (lane >> np.uint64(32)).astype(np.uint32)])
            words = philox4x32_10(counter, key)
            values = [*box_muller(words[0], words[1]), *box_muller(words[2], words[3])]
            for i, value in enumerate(values):
                at = (step * 4 + i) * threads
                out[at : at + threads] = value
        self.offset += steps * 4
        return out[:n]
