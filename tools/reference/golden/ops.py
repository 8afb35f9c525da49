"""Goldens of every tensor op, forward and backward -> crates/tensor/tests/golden/ops_*.safetensors.

Inputs are f32. The reference is computed in f64 from them and rounded once, so a test measures our error
and not torch's. Images are stored NHWC; convolution weights keep PyTorch's (O, I, kh, kw).
A case `c` has its inputs `c.x`, ..., its output `c.y`, the upstream gradient `c.dy` and the gradients
`c.dx`, ... of sum(y * dy); its hyperparameters are JSON under key `c` of the file's metadata.
"""

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding

from common import TENSOR_GOLDEN, gen, nhwc, save


class OpFile:
    """Collects the cases of one op and writes them as one file."""

    def __init__(self, op, seed):
        self.op, self.g, self.tensors, self.meta = op, gen(seed), {}, {}

    def rand(self, *shape, scale=1.0):
        return torch.randn(shape, generator=self.g) * scale

    def case(self, name, fn, inputs, images=(), constants=(), **meta):
        """Runs `fn(**inputs)` in f64 and records inputs, output and gradients.

        `images` names the (B, C, H, W) tensors, stored NHWC ("y" for the output); `constants` get no gradient."""
        leaves = {k: v.double().requires_grad_(k not in constants) for k, v in inputs.items()}
        y = fn(**leaves)
        dy = self.rand(*y.shape)
        y.backward(dy.double())
        values = {**inputs, "y": y, "dy": dy}
        values |= {f"d{k}": v.grad for k, v in leaves.items() if v.requires_grad}
        for key, value in values.items():
            is_image = key in images or (key[0] == "d" and key[1:] in images)
            self.tensors[f"{name}.{key}"] = nhwc(value) if is_image else value
        self.meta[name] = meta

    def write(self):
        save(TENSOR_GOLDEN / f"ops_{self.op}.safetensors", self.tensors, self.meta)


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def geglu(x):
    a, gate = x.chunk(2, dim=-1)
    return a * F.gelu(gate)


ACTIVATIONS = {"none": lambda x: x, "silu": F.silu, "gelu": F.gelu, "quick_gelu": quick_gelu, "geglu": geglu}
LATER_ACTIVATIONS = {"relu": F.relu}  # at the ends of files, whose earlier random numbers stay


def linear():
    f = OpFile("linear", 1)

    def add(name, m, k, n, act, bias=True, residual=False, lead=()):
        rows = 2 * n if act == "geglu" else n
        inputs = {"x": f.rand(*lead, m, k), "w": f.rand(rows, k, scale=k**-0.5)}
        if bias:
            inputs["b"] = f.rand(rows)
        if residual:
            inputs["residual"] = f.rand(*lead, m, n)

        def run(x, w, b=None, residual=0.0):
            return (ACTIVATIONS | LATER_ACTIVATIONS)[act](F.linear(x, w, b)) + residual

        f.case(name, run, inputs, act=act, bias=bias, residual=residual)

    for act in ACTIVATIONS:
        add(f"small_{act}", 7, 24, 40, act)
        add(f"small_{act}_residual", 7, 24, 40, act, residual=True)
    add("small_no_bias", 7, 24, 40, "none", bias=False)
    add("odd", 5, 13, 11, "none")
    add("one_row", 1, 40, 24, "silu")
    add("mid_none_residual", 37, 136, 56, "none", residual=True)
    add("mid_geglu", 37, 136, 24, "geglu")
    add("long_k", 3, 1100, 17, "none")
    add("batched", 5, 16, 24, "gelu", residual=True, lead=(2, 3))
    for act in LATER_ACTIVATIONS:
        add(f"small_{act}_residual", 7, 24, 40, act, residual=True)
    f.write()


def conv2d():
    f = OpFile("conv2d", 2)

    def add(name, i, o, hw, kernel=3, stride=1, padding="same", bias=True, shift=False, residual=False, batch=2):
        inputs = {"x": f.rand(batch, i, *hw), "w": f.rand(o, i, kernel, kernel, scale=(i * kernel**2) ** -0.5)}

        def run(x, w, b=None, shift=None, residual=None):
            if padding == "bottom_right":
                y = F.conv2d(F.pad(x, (0, 1, 0, 1)), w, b, stride=stride)
            else:
                y = F.conv2d(x, w, b, stride=stride, padding=kernel // 2)
            y = y if shift is None else y + shift[:, :, None, None]
            return y if residual is None else y + residual

        if bias:
            inputs["b"] = f.rand(o)
        if shift:
            inputs["shift"] = f.rand(batch, o)
        if residual:
            out = run(inputs["x"], inputs["w"])
            inputs["residual"] = f.rand(*out.shape)
        f.case(name, run, inputs, images=("x", "y", "residual"), kernel=kernel, stride=stride,
               padding=padding, bias=bias, shift=shift, residual=residual)

    add("k3_4to32", 4, 32, (9, 7))
    add("k3_32to4", 32, 4, (9, 7))
    add("k3_24to40_shift_residual", 24, 40, (9, 7), shift=True, residual=True)
    add("k3_no_bias", 8, 16, (5, 6), bias=False)
    add("k3_3to8_wide", 3, 8, (4, 37), batch=1)
    add("k3_one_pixel", 8, 8, (1, 1))
    add("k3_s2_24to40_odd", 24, 40, (9, 7), stride=2)
    add("k3_s2_16to16_even", 16, 16, (8, 6), stride=2)
    add("k3_s2_bottom_right_even", 24, 24, (8, 6), stride=2, padding="bottom_right")
    add("k3_s2_bottom_right_odd", 16, 24, (9, 7), stride=2, padding="bottom_right")
    add("k1_40to24", 40, 24, (9, 7), kernel=1)
    add("k1_24to40_residual", 24, 40, (5, 3), kernel=1, residual=True)
    add("k3_long_k", 136, 8, (3, 5), batch=1)
    f.write()


def split_heads(x, heads):
    """(B, T, heads * d) -> (B, heads, T, d)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attention():
    f = OpFile("attention", 3)

    def add(name, heads, d, t, s, batch=1, causal=False, bias=None, scale=1.0):
        c = heads * d
        inputs = {"q": f.rand(batch, t, c, scale=scale), "k": f.rand(batch, s, c), "v": f.rand(batch, s, c)}
        if bias is not None:
            inputs["bias"] = bias

        def run(q, k, v, bias=None):
            q, k, v = (split_heads(x, heads) for x in (q, k, v))
            scores = q @ k.transpose(-1, -2) * d**-0.5
            if causal:
                scores = scores + torch.full((t, s), float("-inf"), dtype=scores.dtype).triu(1)
            if bias is not None:
                scores = scores + bias
            return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

        mask = "causal" if causal else "none" if bias is None else "bias"
        f.case(name, run, inputs, constants=("bias",), heads=heads, head_dim=d, mask=mask)

    add("d8_h3", 3, 8, 37, 77, batch=2)
    add("d8_long", 1, 8, 130, 200)
    add("d16_one_key", 2, 16, 5, 1)
    add("d40_h2", 2, 40, 21, 45)
    add("d64_h2", 2, 64, 13, 77)
    add("d64_sharp", 1, 64, 19, 33, scale=20.0)
    add("d80_h1", 1, 80, 21, 45)
    add("d512_single", 1, 512, 9, 9)
    add("d64_causal", 1, 64, 37, 37, causal=True)
    add("d8_causal_77", 2, 8, 77, 77, causal=True)
    add("d40_bias", 2, 40, 13, 29, bias=f.rand(13, 29))
    masked = torch.zeros(9, 21).masked_fill(torch.rand(9, 21, generator=f.g) < 0.4, float("-inf"))
    masked[:, 3] = 0.0  # no row is fully masked
    add("d8_bias_inf", 2, 8, 9, 21, batch=2, bias=masked)
    add("d8_blocks", 2, 8, 401, 203)  # more than one block and one group of each on the way back
    add("d8_causal_blocks", 1, 8, 251, 251, causal=True)
    f.write()


def windows(x, window):
    """(B, H, W, C) -> (B * windows, window^2, C)"""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.transpose(2, 3).reshape(-1, window * window, c)


def window_attention():
    """As Swin Transformer has it: the image is rolled and cut into windows, and rolled back."""
    f = OpFile("window_attention", 10)

    def add(name, shape, heads, window, shift=0, cosine=False, apart=0.0):
        b, h, w, c = shape
        area = window * window
        x = {key: f.rand(*shape) for key in "qkv"}
        x["q"][0, 0, 1] = 0.0
        x["scale"] = f.rand(heads).abs() * (20.0 if cosine else (c // heads) ** -0.5)
        x["bias"] = f.rand(heads, area, area)

        def run(q, k, v, scale, bias):
            q, k, v = (split_heads(windows(x.roll((-shift, -shift), (1, 2)), window), heads) for x in (q, k, v))
            if cosine:
                q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            scores = q @ k.transpose(-1, -2) * scale[:, None, None] + bias
            if shift:
                region = torch.zeros(1, h, w, 1)
                for i, rows in enumerate((slice(-window), slice(-window, -shift), slice(-shift, None))):
                    for j, columns in enumerate((slice(-window), slice(-window, -shift), slice(-shift, None))):
                        region[:, rows, columns] = 3 * i + j
                region = windows(region, window)  # (windows, window^2, 1)
                mask = (region != region.transpose(1, 2)).double() * apart
                scores = scores + mask.repeat(b, 1, 1)[:, None]
            y = (scores.softmax(-1) @ v).transpose(1, 2)  # (B * windows, window^2, heads, d)
            y = y.reshape(b, h // window, w // window, window, window, c).transpose(2, 3).reshape(shape)
            return y.roll((shift, shift), (1, 2))

        f.tensors |= {f"{name}.{key}": value for key, value in x.items()}
        f.tensors[f"{name}.y"] = run(**{key: value.double() for key, value in x.items()})
        f.meta[name] = {"heads": heads, "window": window, "shift": shift, "cosine": cosine, "apart": apart}

    add("plain", (1, 8, 8, 60), 2, 8)
    add("shifted", (1, 16, 8, 20), 1, 8, shift=4, apart=-2.0)
    add("cosine", (1, 8, 8, 30), 1, 8, shift=4, cosine=True, apart=-2.0)
    add("far_apart", (2, 8, 12, 15), 3, 4, shift=2, apart=-100.0)
    add("odd_shift", (2, 6, 9, 22), 2, 3, shift=1, cosine=True, apart=-1.0)
    add("wide_head", (1, 5, 5, 40), 1, 5)
    f.write()


def group_norm():
    f = OpFile("group_norm", 4)

    def add(name, shape, groups, eps, silu, offset=0.0):
        image = len(shape) == 4  # (B, C, H, W); else (B, T, C)
        c = shape[1] if image else shape[-1]
        inputs = {"x": f.rand(*shape) * 1.5 + offset, "w": 1 + f.rand(c, scale=0.3), "b": f.rand(c)}

        def run(x, w, b):
            x = x if image else x.transpose(1, 2)
            y = F.group_norm(x, groups, w, b, eps)
            y = F.silu(y) if silu else y
            return y if image else y.transpose(1, 2)

        f.case(name, run, inputs, images=("x", "y") if image else (), groups=groups, eps=eps, silu=silu)

    add("g32_c64", (2, 64, 5, 3), 32, 1e-5, False)
    add("g32_c64_silu", (2, 64, 5, 3), 32, 1e-5, True)
    add("g32_c32_silu", (2, 32, 9, 7), 32, 1e-6, True)
    add("g32_c96", (1, 96, 4, 5), 32, 1e-6, False)
    add("g5_c40_silu", (2, 40, 9, 7), 5, 1e-5, True)
    add("g1_c24", (2, 24, 3, 4), 1, 1e-5, False)
    add("g4_tokens", (2, 21, 24), 4, 1e-6, False)
    add("g8_offset", (2, 32, 6, 6), 8, 1e-5, False, offset=30.0)
    f.write()


def layer_norm():
    f = OpFile("layer_norm", 5)

    def add(name, shape, eps, offset=0.0):
        c = shape[-1]
        inputs = {"x": f.rand(*shape) * 2 + offset, "w": 1 + f.rand(c, scale=0.3), "b": f.rand(c)}
        f.case(name, lambda x, w, b: F.layer_norm(x, (c,), w, b, eps), inputs, eps=eps)

    add("c64", (2, 7, 64), 1e-5)
    add("c40", (13, 40), 1e-5)
    add("c129", (3, 129), 1e-6)
    add("c24_offset", (2, 3, 5, 24), 1e-5, offset=30.0)
    f.write()


def unary():
    f = OpFile("unary", 6)
    for name, fn in [*ACTIVATIONS.items(), ("softmax", lambda x: x.softmax(-1))]:
        if name != "none":
            x = torch.cat([f.rand(6, 38, scale=3.0), torch.linspace(-30, 30, 38)[None]])
            f.case(name, lambda x, fn=fn: fn(x), {"x": x})
            f.case(f"{name}_3d", lambda x, fn=fn: fn(x), {"x": f.rand(2, 3, 16)})
    f.case("softmax_large", lambda x: x.softmax(-1), {"x": f.rand(3, 77, scale=60.0)})
    f.case("scale", lambda x: x * -0.37, {"x": f.rand(5, 13)}, factor=-0.37)
    f.case("mean", lambda x: x.mean(), {"x": f.rand(5, 13)})
    f.case("sum", lambda x: x.sum(), {"x": f.rand(5, 13)})
    f.case("relu", lambda x: F.relu(x), {"x": f.rand(6, 38)})
    f.case("leaky_relu", lambda x: F.leaky_relu(x, 0.2), {"x": f.rand(6, 38)}, slope=0.2)
    f.write()


def shape_ops():
    f = OpFile("shape", 7)
    table, ids = f.rand(11, 24), torch.tensor([3, 0, 10, 3, 3, 7])
    f.case("embedding", lambda table: F.embedding(ids, table), {"table": table})
    f.tensors["embedding.ids"] = ids
    for name, shape in [("upsample", (2, 24, 3, 5)), ("upsample_one", (1, 4, 1, 1))]:
        f.case(name, lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), {"x": f.rand(*shape)}, ("x", "y"))
    f.case("concat", lambda a, b: torch.cat([a, b], -1), {"a": f.rand(2, 3, 5, 8), "b": f.rand(2, 3, 5, 13)})
    f.case("concat3", lambda a, b, c: torch.cat([a, b, c], -1), {k: f.rand(4, n) for k, n in zip("abc", (3, 1, 9))})
    f.case("cat_batch", lambda a, b: torch.cat([a, b]), {"a": f.rand(2, 3, 5), "b": f.rand(1, 3, 5)})
    f.case("slice_batch", lambda x: x[1:3], {"x": f.rand(5, 3, 4)}, start=1, len=2)
    f.write()


def binary():
    f = OpFile("binary", 8)
    pair = lambda *shape: {"a": f.rand(*shape), "b": f.rand(*shape)}  # noqa: E731
    f.case("add", lambda a, b: a + b, pair(3, 17))
    f.case("mul", lambda a, b: a * b, pair(3, 17))
    f.case("mse", lambda a, b: F.mse_loss(a, b), pair(2, 5, 7))
    f.case("add_self", lambda x: x * x + x, {"x": f.rand(3, 17)})
    factors = (0.5, -2.0, 1.25)
    f.case("lincomb", lambda a, b, c: factors[0] * a + factors[1] * b + factors[2] * c,
           {k: f.rand(3, 17) for k in "abc"}, factors=factors)
    f.write()


def timestep_embedding():
    """diffusers' own f32 values: sin and cos of large arguments depend on its order of operations."""
    f = OpFile("timestep_embedding", 9)
    t = torch.tensor([0.0, 1.0, 2.5, 251.0, 512.0, 981.0, 999.0])
    for dim in (32, 256, 320):
        for flip in (False, True):
            for shift in (0, 1):
                name = f"d{dim}_flip{int(flip)}_shift{shift}"
                y = get_timestep_embedding(t, dim, flip_sin_to_cos=flip, downscale_freq_shift=shift)
                f.tensors |= {f"{name}.t": t, f"{name}.y": y}
                f.meta[name] = {"dim": dim, "flip_sin_to_cos": flip, "downscale_freq_shift": shift}
    f.write()


if __name__ == "__main__":
    for make in (linear, conv2d, attention, window_attention, group_norm, layer_norm, unary, shape_ops, binary,
                 timestep_embedding):
        make()
