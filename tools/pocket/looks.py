"""What becomes of finished pictures, on the GPU: the styles of styles.py, nearly, and what people's files have gone through.

Pictures are (B, 3, H, W) in 0…1."""
import numpy as np
import torch
import torch.nn.functional as F

STYLE_NAMES = ("", "pixel art", "watercolour", "pencil sketch", "oil painting")


def grey(x):
    return (x * torch.tensor([0.299, 0.587, 0.114], device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blur(x, sigma):
    """A Gaussian blur; sigma in pixels, a number or one for each picture."""
    sigma = torch.as_tensor(sigma, device=x.device, dtype=torch.float32).expand(len(x)).clamp(min=0.05)
    radius = 6
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float32)
    kernel = torch.exp(-(at[None] ** 2) / (2 * sigma[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    b, c, h, w = x.shape
    weights = kernel.repeat_interleave(c, 0)
    x = F.pad(x, (radius,) * 4, mode="replicate").reshape(1, b * c, h + 2 * radius, w + 2 * radius)
    x = F.conv2d(x, weights[:, None, :, None], groups=b * c)
    x = F.conv2d(x, weights[:, None, None, :], groups=b * c)
    return x.reshape(b, c, h, w)


def saturate(x, amount):
    g = grey(x)
    return (g + (x - g) * amount).clamp(0, 1)


def kuwahara(x, radius=2):
    n = radius + 1
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    mean = F.avg_pool2d(padded, n, 1)
    spread = (F.avg_pool2d(padded**2, n, 1) - mean**2).sum(1, keepdim=True)
    h, w = x.shape[2:]
    corners = [(y, z) for y in (0, radius) for z in (0, radius)]
    means = torch.stack([mean[:, :, y : y + h, z : z + w] for y, z in corners])
    spreads = torch.stack([spread[:, :, y : y + h, z : z + w] for y, z in corners])
    best = spreads.argmin(0, keepdim=True).expand(-1, -1, 3, -1, -1)
    return means.gather(0, best)[0]


def pixel_art(x, noise):
    small = saturate(F.avg_pool2d(x, 4), 1.2) * 1.1
    levels = 7.0
    small = (small.clamp(0, 1) * levels).round() / levels  # the palette of the generator is finer where a picture needs that
    return F.interpolate(small, size=x.shape[2:], mode="nearest")


def oil_painting(x, noise):
    painted = kuwahara(saturate(blur(x, 0.5), 1.25))
    g = grey(painted)
    emboss = F.pad(g, (0, 1, 0, 1), mode="replicate")[:, :, 1:, 1:] - F.pad(g, (1, 0, 1, 0), mode="replicate")[:, :, :-1, :-1]
    at = torch.arange(x.shape[3], device=x.device) * 1.6
    weave = 3 / 255 * torch.sin(at)[None, :] * torch.sin(at)[:, None]
    return painted + weave + 0.9 * emboss


def watercolour(x, noise):
    wash = 1 - (1 - blur(kuwahara(x), 0.8)) * 0.84
    blots = F.interpolate(noise, size=x.shape[2:], mode="bicubic", align_corners=False)
    wash = wash + (blots - 0.5) * 0.14
    g = blur(grey(x), 1.2)
    wash = wash - ((blur(g, 2.0) - g) * 2).clamp(0, 0.3)
    at = torch.linspace(-1, 1, x.shape[3], device=x.device).abs()
    border = ((torch.maximum(at[None, :], at[:, None]) - 0.82 + 0.1 * (blots - 0.5) - 0.1) * 12).clamp(0, 1)
    paper = torch.tensor([0.98, 0.965, 0.93], device=x.device).view(1, 3, 1, 1)
    return wash * (1 - border) + paper * border


def pencil_sketch(x, noise):
    g = grey(x)
    flat = g.flatten(1)
    low, high = flat.quantile(0.01, 1), flat.quantile(0.99, 1)
    g = ((g - low.view(-1, 1, 1, 1)) / (high - low).view(-1, 1, 1, 1).clamp(min=0.05)).clamp(0, 1)
    lines = (g / (1 - blur(1 - g, 3.0)).clamp(min=24 / 255)).clamp(0, 1)
    at = torch.arange(x.shape[3], device=x.device)
    hatch = 0.5 + 0.5 * torch.sin((at[None, :] + at[:, None]) * 1.15)
    value = (lines**1.6 * (1 - (1 - g) * 0.3 * (0.55 + 0.6 * hatch))).clamp(0, 1)
    paper, lead = (torch.tensor(c, device=x.device).view(1, 3, 1, 1) / 255 for c in ((250, 247, 240), (52, 52, 60)))
    return value * paper + (1 - value) * lead


PAINTERS = (None, pixel_art, watercolour, pencil_sketch, oil_painting)


def style(x, styles, generator):
    """Each picture in its style; styles: (B,), numbers as in STYLE_NAMES."""
    out = x.clone()
    for i, painter in enumerate(PAINTERS):
        chosen = np.flatnonzero(styles == i)
        if painter is None or not len(chosen):
            continue
        at = torch.from_numpy(chosen).to(x.device)
        noise = torch.rand(len(chosen), 1, 10, 10, generator=generator, device=x.device)
        out[at] = painter(x[at], noise).clamp(0, 1)
    return out


LUMINANCE = torch.tensor([[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
                          [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
                          [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]], dtype=torch.float32)
TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def jpeg(x, quality):
    """What JPEG of a quality (B,) leaves of pictures whose sides are multiples of 16; colour at half the size."""
    device = x.device
    k = torch.arange(8, device=device, dtype=torch.float32)
    basis = torch.cos((2 * k[None, :] + 1) * k[:, None] * torch.pi / 16) * 0.5
    basis[0] *= 0.5**0.5
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    table = LUMINANCE.to(device)
    fine = (table * scale[:, None, None]).round().clamp(1, 255)
    coarse = ((table * 1.25 + 5).clamp(max=99) * scale[:, None, None]).round().clamp(1, 255)

    def plane(p, quant):
        b, h, w = p.shape
        blocks = p.reshape(b, h // 8, 8, w // 8, 8).permute(0, 1, 3, 2, 4)
        spectrum = basis @ blocks @ basis.T
        quant = quant[:, None, None]
        spectrum = (spectrum / quant).round() * quant
        return (basis.T @ spectrum @ basis).permute(0, 1, 3, 2, 4).reshape(b, h, w)

    ycc = torch.einsum("ij,bjhw->bihw", TO_YCC.to(device), x * 255)
    y = plane(ycc[:, 0] - 128, fine) + 128
    half = F.avg_pool2d(ycc[:, 1:], 2)
    colour = torch.stack([plane(half[:, i], coarse) for i in range(2)], 1)
    colour = F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(TO_YCC).to(device), torch.cat([y[:, None], colour], 1))
    return (rgb / 255).clamp(0, 1)


def shrink(x, which, factor=4):
    """Pictures a quarter as large, rounded to 8 bits. which: 0 is the area's mean, 1 bilinear, more are bicubic."""
    size = tuple(s // factor for s in x.shape[2:])
    if which == 0:
        small = F.avg_pool2d(x, factor)
    elif which == 1:
        small = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    else:
        small = F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
    return (small.clamp(0, 1) * 255).round() / 255


def worn(x, generator):
    """Small pictures as people have them: soft, noisy, through JPEG. Sides: multiples of 16."""
    b, device = len(x), x.device

    def chance(p):
        return (torch.rand(b, generator=generator, device=device) < p)[:, None, None, None]

    sigma = torch.rand(b, generator=generator, device=device) * 0.8
    x = torch.where(chance(0.4), blur(x, sigma), x)
    noise = torch.randn(x.shape, generator=generator, device=device) * (torch.rand(b, 1, 1, 1, generator=generator, device=device) * 0.025)
    x = torch.where(chance(0.4), (x + noise).clamp(0, 1), x)
    quality = 35 + torch.rand(b, generator=generator, device=device) * 60
    return torch.where(chance(0.7), jpeg(x, quality), x)
