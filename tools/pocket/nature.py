"""Scenes on land: forest, autumn park, meadow, snow, mountains, desert, rain. Each: (rng, time) → (canvas, where feet stand)."""
import numpy as np

from paint import COLUMNS, ROWS, S, blend, cloud, disc, fill_below, gradient, jitter, lit, mix, pen, ridge, sky, texture


def pine(image, x, base, height, colour, snow=None):
    """A fir of four tiers, its right half in the shade."""
    draw = pen(image)
    width = height * 0.5
    draw.rectangle((x - height * 0.035, base - height * 0.15, x + height * 0.035, base), fill=mix(colour, (70, 45, 30), 0.7))
    for i in range(4):
        y0 = base - height * (0.1 + 0.21 * i)
        y1 = y0 - height * 0.36
        w = width * (0.5 - 0.105 * i)
        draw.polygon([(x - w, y0), (x, y1), (x + w, y0)], fill=colour)
        draw.polygon([(x, y0), (x, y1), (x + w, y0)], fill=mix(colour, (0, 10, 30), 0.28))
        if snow:
            draw.polygon([(x - w * 0.55, y0 - (y0 - y1) * 0.45), (x, y1), (x + w * 0.55, y0 - (y0 - y1) * 0.45),
                          (x, y0 - (y0 - y1) * 0.3)], fill=snow)


def tree(rng, image, x, base, height, colour):
    """A round tree: a trunk and lit heaps of leaves."""
    draw = pen(image)
    w = height * 0.06
    draw.polygon([(x - w, base), (x - w * 0.6, base - height * 0.5), (x + w * 0.6, base - height * 0.5), (x + w, base)],
                 fill=mix(colour, (60, 38, 26), 0.75))
    heaps = [(rng.uniform(-0.24, 0.24), rng.uniform(0.45, 0.85), rng.uniform(0.14, 0.21)) for _ in range(8)]
    for shift, shade in ((0.02, mix(colour, (10, 20, 50), 0.4)), (0, colour)):
        for dx, dy, r in heaps:
            disc(image, x + (dx + shift) * height, base - (dy - shift) * height, r * height, shade)
    for dx, dy, r in heaps[:5]:
        disc(image, x + (dx - 0.05) * height, base - (dy + 0.05) * height, r * height * 0.5, mix(colour, (255, 250, 190), 0.22))


def grass(rng, image, line, colour, count=60):
    """Blades of grass, longer in front."""
    draw = pen(image)
    for _ in range(count):
        x = rng.uniform(0, S)
        y = rng.uniform(line[int(x)] + 6, S + 6)
        h = 3 + 9 * (y - line[int(x)]) / (S - line.min())
        lean = rng.uniform(-3, 3)
        c = mix(colour, (230, 240, 120) if rng.random() < 0.5 else (10, 40, 30), rng.uniform(0.1, 0.35))
        draw.polygon([(x - 1.5, y), (x + lean, y - h), (x + 1.5, y)], fill=c + (200,))


def forest(rng, time):
    horizon = rng.uniform(0.5, 0.62) * S
    image = sky(rng, time, horizon, clouds=False)
    mist = lit((196, 222, 206), time)
    green = jitter(rng, ((38, 104, 60), (54, 120, 52), (30, 96, 80))[rng.integers(3)], 14)
    firs = rng.random() < 0.55
    for depth in range(3):
        t = depth / 2
        colour = mix(mix(lit(green, time), mist, 0.62), lit(green, time), t)
        base = horizon + t * 0.16 * S
        fill_below(image, ridge(rng, base - 4, 3), mix(colour, mist, 0.2), colour)
        for x in np.linspace(-10, S + 10, 9 - 2 * depth) + rng.uniform(-9, 9, 9 - 2 * depth):
            if depth == 2 and abs(x - S / 2) < 55:
                continue
            height = (0.42 + 0.2 * t) * S * rng.uniform(0.75, 1.15)
            if firs:
                pine(image, x, base + 3, height, jitter(rng, colour, 8))
            else:
                tree(rng, image, x, base + 3, height * 0.85, jitter(rng, colour, 8))
    line = ridge(rng, horizon + 0.15 * S, 4)
    ground = lit(jitter(rng, (98, 138, 62), 14), time)
    fill_below(image, line, ground, mix(ground, (24, 40, 20), 0.45))
    if time == "day" and rng.random() < 0.5:  # sunbeams
        slope = rng.uniform(0.3, 0.7)
        beams = np.clip(np.sin((COLUMNS + slope * ROWS) / rng.uniform(11, 17)), 0, 1) * np.clip(1 - ROWS / (0.9 * S), 0, 1)
        blend(image, beams * 0.22, (255, 250, 190))
    grass(rng, image, line, ground, 70)
    return image, rng.uniform(0.86, 0.93) * S


def autumn(rng, time):
    horizon = rng.uniform(0.5, 0.6) * S
    image = sky(rng, time, horizon)
    colours = [(226, 110, 32), (238, 164, 40), (196, 62, 38), (214, 138, 30), (176, 84, 40)]
    haze = lit((236, 200, 150), time)
    line = ridge(rng, horizon, 5)
    fill_below(image, line, lit((206, 172, 88), time), lit((150, 104, 52), time))
    for depth in range(2):
        count = 7 - 2 * depth
        for x in np.linspace(0, S, count) + rng.uniform(-14, 14, count):
            if depth and abs(x - S / 2) < 60:
                continue
            leaves = jitter(rng, colours[rng.integers(5)], 14)
            c = mix(mix(lit(leaves, time), leaves, 0.3), haze, 0.35 * (1 - depth))
            tree(rng, image, x, horizon + 6 + 22 * depth, (0.4 + 0.16 * depth) * S * rng.uniform(0.8, 1.1), c)
    draw = pen(image)
    if rng.random() < 0.5:  # a path
        x = rng.uniform(0.35, 0.65) * S
        draw.polygon([(x - 6, horizon + 14), (x + 6, horizon + 14), (S * 0.85, S), (S * 0.15, S)], fill=lit((214, 190, 150), time) + (200,))
    for _ in range(130):  # fallen leaves
        x, t = rng.uniform(0, S), rng.uniform(0.05, 1) ** 1.3
        y, r = horizon + 20 + t * (S - horizon - 20), 1.5 + 3.5 * t
        draw.ellipse((x - r, y - r * 0.5, x + r, y + r * 0.5), fill=lit(jitter(rng, colours[rng.integers(5)], 20), time) + (220,))
    return image, rng.uniform(0.86, 0.93) * S


def flower(draw, x, y, r, colour, heart):
    for a in np.arange(5) * 1.2566:
        dx, dy = np.cos(a) * r * 0.62, np.sin(a) * r * 0.5
        draw.ellipse((x + dx - r * 0.5, y + dy - r * 0.42, x + dx + r * 0.5, y + dy + r * 0.42), fill=colour)
    draw.ellipse((x - r * 0.32, y - r * 0.28, x + r * 0.32, y + r * 0.28), fill=heart)


def meadow(rng, time):
    horizon = rng.uniform(0.42, 0.55) * S
    image = sky(rng, time, horizon)
    green = jitter(rng, ((112, 176, 62), (92, 164, 74), (136, 184, 70))[rng.integers(3)], 10)
    haze = lit((190, 214, 226), time)
    for i in range(3):
        c = mix(haze, lit(green, time), 0.35 + 0.32 * i)
        line = ridge(rng, horizon + 9 * i, 12 - 3 * i)
        fill_below(image, line, c, mix(c, lit((40, 96, 40), time), 0.5))
    if rng.random() < 0.5:
        tree(rng, image, rng.choice([0.12, 0.88]) * S, horizon + 24, 0.36 * S, lit((70, 140, 60), time))
    grass(rng, image, line, lit(green, time), 80)
    draw = pen(image)
    kinds = [(236, 70, 80), (250, 200, 60), (250, 250, 250), (230, 120, 190), (150, 100, 220), (250, 140, 50), (90, 130, 240)]
    chosen = [kinds[i] for i in rng.choice(7, rng.integers(2, 5), replace=False)]
    for t in np.sort(rng.uniform(0.1, 1.0, 75)):
        x, y = rng.uniform(0, S), horizon + 14 + t * (S - horizon - 8)
        flower(draw, x, y, 1.6 + 7 * t * t, lit(jitter(rng, chosen[rng.integers(len(chosen))], 14), time), lit((250, 214, 70), time))
    return image, rng.uniform(0.86, 0.93) * S


def snow(rng, time):
    horizon = rng.uniform(0.48, 0.6) * S
    image = sky(rng, time, horizon, clouds=rng.random() < 0.5)
    white = {"day": (240, 246, 255), "sunset": (250, 214, 206), "night": (128, 150, 205)}[time]
    shade = {"day": (190, 212, 240), "sunset": (196, 150, 190), "night": (62, 82, 146)}[time]
    fill_below(image, ridge(rng, horizon - 8, 14), mix(white, shade, 0.5), shade)
    for x in np.linspace(0, S, 6) + rng.uniform(-16, 16, 6):
        pine(image, x, horizon + 8, rng.uniform(0.2, 0.34) * S, mix(lit((44, 96, 84), time), shade, 0.25), white)
    for x in (rng.uniform(-0.02, 0.14) * S, rng.uniform(0.86, 1.02) * S):
        if rng.random() < 0.65:
            pine(image, x, horizon + 40, rng.uniform(0.45, 0.62) * S, lit((40, 92, 76), time), white)
    line = ridge(rng, horizon + 14, 8)
    fill_below(image, line, white, shade)
    texture(rng, image, line, 5, 6)
    if rng.random() < 0.75:  # falling
        draw = pen(image)
        for _ in range(rng.integers(40, 90)):
            x, y, r = rng.uniform(0, S), rng.uniform(0, S), rng.uniform(1, 3)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255, 220))
    return image, rng.uniform(0.85, 0.92) * S


def peak(rng, image, x, base, height, rock, cap):
    """A mountain with a lit and a shaded side and snow on top."""
    draw = pen(image)
    w = height * rng.uniform(0.7, 0.95)
    top = (x, base - height)
    draw.polygon([(x - w, base), top, (x + w, base)], fill=rock)
    fold = [(x + rng.uniform(-0.1, 0.14) * w * t * 2, base - height * (1 - t)) for t in (0.3, 0.55, 0.8, 1.0)]
    draw.polygon([top] + fold + [(x + w, base)], fill=mix(rock, (20, 22, 60), 0.34))
    zigzag = [(x - w * 0.32, base - height * 0.68), (x - w * 0.17, base - height * 0.75), (x - w * 0.06, base - height * 0.64),
              (x + w * 0.06, base - height * 0.76), (x + w * 0.18, base - height * 0.66), (x + w * 0.32, base - height * 0.68)]
    draw.polygon([top] + zigzag, fill=cap)
    draw.polygon([top] + zigzag[3:], fill=mix(cap, (70, 90, 160), 0.3))


def mountains(rng, time):
    horizon = rng.uniform(0.55, 0.66) * S
    image = sky(rng, time, horizon)
    rock, haze = lit(jitter(rng, (112, 116, 136), 14), time), lit((176, 200, 232), time)
    cap = lit((250, 252, 255), time) if time != "night" else (150, 166, 214)
    for depth in range(2):
        for x in rng.permutation(np.linspace(0, S, 4 - depth)) + rng.uniform(-24, 24, 4 - depth):
            peak(rng, image, x, horizon + 6, (0.36 + 0.08 * depth) * S * rng.uniform(0.75, 1.15), mix(haze, rock, 0.5 + 0.5 * depth), cap)
    green = lit(jitter(rng, (104, 152, 76), 14), time)
    fill_below(image, ridge(rng, horizon, 6), mix(green, haze, 0.35), green)
    for x in np.linspace(0, S, 13) + rng.uniform(-9, 9, 13):
        pine(image, x, horizon + 10, rng.uniform(12, 26), mix(lit((40, 96, 64), time), haze, 0.15))
    line = ridge(rng, horizon + 14, 6)
    fill_below(image, line, green, mix(green, (30, 50, 30), 0.4))
    grass(rng, image, line, green, 50)
    draw = pen(image)
    for _ in range(rng.integers(2, 7)):
        x, t = rng.uniform(0, S), rng.uniform(0.2, 0.9)
        y, r = horizon + 20 + t * (S - horizon - 24), 3 + 7 * t
        draw.ellipse((x - r, y - r * 0.6, x + r, y + r * 0.6), fill=mix(rock, (0, 0, 0), 0.15))
        draw.ellipse((x - r * 0.8, y - r * 0.6, x + r * 0.5, y + r * 0.1), fill=mix(rock, (255, 255, 255), 0.25))
    return image, rng.uniform(0.86, 0.93) * S


def desert(rng, time):
    horizon = rng.uniform(0.48, 0.6) * S
    image = sky(rng, time, horizon, clouds=rng.random() < 0.25)
    sand = jitter(rng, ((232, 182, 104), (240, 200, 130), (222, 158, 92))[rng.integers(3)], 10)
    far = lit(mix(sand, (190, 120, 100), 0.5), time)
    if rng.random() < 0.45:  # table mountains
        draw = pen(image)
        for _ in range(rng.integers(1, 3)):
            x, w, h = rng.uniform(0.05, 0.95) * S, rng.uniform(22, 46), rng.uniform(26, 56)
            top = [(x - w, horizon + 4), (x - w * 0.7, horizon - h), (x + w * 0.6, horizon - h), (x + w, horizon + 4)]
            draw.polygon(top, fill=lit((190, 96, 66), time))
            draw.polygon([(x + w * 0.2, horizon + 4), (x + w * 0.25, horizon - h), top[2], top[3]], fill=lit((150, 70, 56), time))
    elif rng.random() < 0.4:  # pyramids
        draw = pen(image)
        for x, h in ((rng.uniform(0.1, 0.4) * S, rng.uniform(44, 66)), (rng.uniform(0.55, 0.9) * S, rng.uniform(30, 50))):
            draw.polygon([(x - h * 0.9, horizon + 4), (x, horizon - h), (x + h * 0.9, horizon + 4)], fill=lit(mix(sand, (255, 240, 200), 0.2), time))
            draw.polygon([(x + h * 0.2, horizon + 4), (x, horizon - h), (x + h * 0.9, horizon + 4)], fill=lit(mix(sand, (130, 80, 50), 0.5), time))
    for i in range(4):  # dunes, each with its crest in the light
        line = ridge(rng, horizon + i * 0.1 * S, 7 + 4 * i, 2)
        c = mix(far, lit(sand, time), min(1, 0.3 + 0.3 * i))
        fill_below(image, line, mix(c, lit((255, 244, 206), time), 0.35), mix(c, lit((170, 100, 56), time), 0.45), 0.26 * S)
    if rng.random() < 0.6:  # ripples
        waves = np.clip(np.sin(ROWS / 3.2 + 2.2 * np.sin(COLUMNS / 37 + rng.uniform(0, 6))), 0, 1)
        blend(image, 0.12 * waves * (ROWS > line[None] + 8), lit((150, 90, 50), time))
    return image, rng.uniform(0.86, 0.93) * S


def rain(rng, time):
    horizon = rng.uniform(0.52, 0.62) * S
    top, low = ((74, 86, 108), (152, 166, 182)) if time == "day" else ((20, 24, 42), (56, 66, 92))
    image = gradient([(0, jitter(rng, top, 8)), (horizon / S, jitter(rng, low, 8)), (1, low)])
    dark = mix(top, (40, 46, 62), 0.4)
    for _ in range(6):
        cloud(rng, image, rng.uniform(0, S), rng.uniform(0.02, 0.22) * S, rng.uniform(80, 140), mix(dark, low, rng.uniform(0, 0.35)), 225)
    far = mix(lit((90, 120, 110), time), low, 0.5)
    fill_below(image, ridge(rng, horizon - 10, 9), far, far)
    wet = lit(((84, 118, 88), (112, 116, 126), (104, 110, 96))[rng.integers(3)], time)
    wet = mix(wet, dark, 0.25)
    fill_below(image, ridge(rng, horizon, 3), mix(wet, low, 0.35), mix(wet, (20, 24, 34), 0.35))
    draw = pen(image)
    for _ in range(rng.integers(4, 8)):  # puddles, with rings
        x, t = rng.uniform(0, S), rng.uniform(0.15, 1)
        y, r = horizon + 14 + t * (S - horizon - 22), 12 + 24 * t
        draw.ellipse((x - r, y - r * 0.22, x + r, y + r * 0.22), fill=mix(low, (120, 150, 190), 0.4) + (200,))
        draw.ellipse((x - r * 0.4, y - r * 0.1, x + r * 0.4, y + r * 0.1), outline=(235, 242, 250, 190), width=2)
    slant = rng.uniform(-0.3, 0.3)
    for _ in range(130):
        x, y, h = rng.uniform(-20, S + 20), rng.uniform(-20, S), rng.uniform(12, 26)
        draw.line((x, y, x + slant * h, y + h), fill=(214, 228, 246, int(rng.integers(90, 190))), width=2)
    return image, rng.uniform(0.86, 0.93) * S
