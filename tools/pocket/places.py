"""Scenes by water, above the clouds and indoors. Each: (rng, time) → (canvas, where feet stand, or None where things float)."""
import numpy as np

from paint import S, COLUMNS, ROWS, blend, cloud, disc, fill_below, glow, gradient, jitter, lit, mix, moon, noise, pen, ridge, sky, stars, texture


def water(rng, image, top, bottom, near, far, glint):
    """A sea from row top to row bottom, with waves that grow towards us."""
    fill_below(image, np.full(S, top), far, near, bottom - top)
    draw = pen(image)
    for _ in range(70):
        t = rng.uniform(0, 1) ** 1.4
        x, y, w = rng.uniform(-10, S), top + 2 + t * (bottom - top - 2), 5 + 30 * t
        colour = glint if rng.random() < 0.55 else mix(near, (0, 20, 60), 0.35)
        draw.arc((x - w, y - 2 - 3 * t, x + w, y + 2 + 4 * t), 200, 340, fill=colour + (150,), width=1 + int(2.5 * t))


SEAS = [((20, 110, 180), (96, 190, 222)), ((16, 128, 160), (120, 210, 214)), ((30, 84, 160), (110, 170, 224))]


def sea_colours(rng, time):
    near, far = (jitter(rng, c, 10) for c in SEAS[rng.integers(3)])
    if time == "sunset":
        return mix(lit(near, time), (120, 60, 110), 0.4), mix(lit(far, time), (255, 150, 100), 0.6), (255, 214, 150)
    if time == "night":
        return mix(lit(near, time), (8, 14, 50), 0.4), lit(far, time), (170, 190, 240)
    return near, far, (240, 250, 255)


def palm(rng, image, x, base, height, lean, time):
    """A palm: a bent trunk and seven leaves."""
    draw = pen(image)
    trunk = [(x + lean * t * t, base - height * t) for t in np.linspace(0, 1, 12)]
    draw.line(trunk, fill=lit((130, 92, 60), time), width=int(height * 0.06) + 2, joint="curve")
    cx, cy = trunk[-1]
    for angle in np.linspace(-0.35, 3.5, 7) + rng.uniform(-0.15, 0.15, 7):
        reach = height * rng.uniform(0.34, 0.46)
        up, out = np.sin(angle), np.cos(angle)
        tip = (cx + out * reach, cy - up * reach * 0.5 + reach * 0.35)
        mid = (cx + out * reach * 0.55, cy - up * reach * 0.55 - reach * 0.06)
        low = (cx + out * reach * 0.5, cy - up * reach * 0.3 + reach * 0.14)
        draw.polygon([(cx, cy - 3), mid, tip, low, (cx, cy + 3)], fill=lit(jitter(rng, (58, 146, 70), 22), time))


def beach(rng, time):
    horizon = rng.uniform(0.36, 0.48) * S
    image = sky(rng, time, horizon)
    near, far, glint = sea_colours(rng, time)
    shore = ridge(rng, horizon + rng.uniform(0.16, 0.24) * S, 7, 2)
    water(rng, image, horizon, shore.max() + 6, mix(near, far, 0.4), near, glint)
    sand = jitter(rng, ((240, 214, 160), (248, 226, 180), (232, 204, 150))[rng.integers(3)], 8)
    foam = {"day": (255, 255, 255), "sunset": (255, 226, 206), "night": (150, 170, 220)}[time]
    fill_below(image, shore - 3, foam, foam)
    fill_below(image, shore + 3, lit(mix(sand, (150, 110, 70), 0.4), time), lit(sand, time), 16)
    fill_below(image, shore + 14, lit(mix(sand, (255, 250, 230), 0.2), time), lit(mix(sand, (200, 150, 90), 0.35), time))
    texture(rng, image, shore + 14, 7, 40)
    draw = pen(image)
    for _ in range(rng.integers(3, 9)):  # shells and pebbles
        x, y = rng.uniform(0, S), rng.uniform(shore.max() + 22, S)
        draw.ellipse((x - 3, y - 2, x + 3, y + 2), fill=lit(jitter(rng, (236, 190, 170), 30), time))
    side = rng.random()
    if side < 0.6:
        left = side < 0.3
        palm(rng, image, (0.06 if left else 0.94) * S + rng.uniform(-10, 10), shore.max() + 30, rng.uniform(0.5, 0.68) * S,
             rng.uniform(8, 34) * (1 if left else -1), time)
    elif side < 0.85:  # a parasol
        x, y = rng.choice([0.12, 0.88]) * S, shore.max() + 34
        c = lit(jitter(rng, ((232, 72, 72), (60, 140, 210), (250, 180, 50))[rng.integers(3)], 16), time)
        draw.line((x, y, x, y - 66), fill=lit((240, 236, 226), time), width=4)
        for i, part in enumerate(((-34, -12), (-12, 12), (12, 34))):
            draw.polygon([(x + part[0], y - 56), (x, y - 84), (x + part[1], y - 56)], fill=c if i != 1 else lit((255, 250, 240), time))
    return image, rng.uniform(0.87, 0.94) * S


def sea(rng, time):
    horizon = rng.uniform(0.42, 0.54) * S
    image = sky(rng, time, horizon)
    near, far, glint = sea_colours(rng, time)
    if rng.random() < 0.35:  # an island
        x = rng.choice([rng.uniform(0, 0.25), rng.uniform(0.75, 1)]) * S
        hill = horizon - 26 * np.exp(-(((np.arange(S) - x) / 40) ** 2)) + 1
        fill_below(image, hill, mix(lit((90, 140, 110), time), far, 0.4), lit((80, 120, 100), time))
    water(rng, image, horizon, S, near, far, glint)
    if time != "day":  # the light's path
        x = rng.uniform(0.3, 0.7) * S
        draw = pen(image)
        for t in np.linspace(0, 1, 26):
            y, w = horizon + 2 + t * (S - horizon), 8 + 26 * t * rng.uniform(0.5, 1)
            dx = rng.uniform(-6, 6)
            draw.ellipse((x + dx - w, y - 1.5, x + dx + w, y + 1.5), fill=glint + (120,))
    for i in range(3):  # swell in front
        line = ridge(rng, horizon + (0.2 + 0.13 * i) * S, 5, 3)
        c = mix(near, far, 0.3 - 0.1 * i)
        strip = np.where(np.abs(ROWS - line[None]) < 1.6, 0.6, 0) + 0.25 * np.clip(1 - (ROWS - line[None]) / 16, 0, 1) * (ROWS > line[None])
        blend(image, strip, mix(c, glint, 0.7))
    return image, rng.uniform(0.78, 0.86) * S


def under_water(rng, time):
    top, low = (((64, 190, 224), (8, 62, 132)), ((70, 206, 206), (6, 84, 120)), ((52, 150, 226), (14, 40, 120)))[rng.integers(3)]
    image = gradient([(0, jitter(rng, top, 10)), (1, jitter(rng, low, 8))])
    slope = rng.uniform(-0.6, 0.6)
    rays = np.clip(np.sin((COLUMNS + slope * ROWS) / rng.uniform(12, 22) + rng.uniform(0, 6)), 0, 1) * np.clip(1 - ROWS / (0.75 * S), 0, 1)
    blend(image, rays * 0.3, (214, 250, 255))
    far = mix(top, low, 0.65)
    fill_below(image, ridge(rng, 0.74 * S, 18), far, low)
    sand = ridge(rng, 0.86 * S, 7)
    fill_below(image, sand, mix((226, 208, 160), low, 0.35), mix((180, 160, 130), low, 0.5))
    draw = pen(image)
    for _ in range(rng.integers(4, 9)):  # weeds
        x, h = rng.choice([rng.uniform(0, 0.28), rng.uniform(0.72, 1)]) * S, rng.uniform(40, 120)
        c = mix(jitter(rng, ((40, 150, 90), (90, 160, 60), (30, 120, 110))[rng.integers(3)], 20), low, 0.15)
        phase = rng.uniform(0, 6)
        path = [(x + 7 * np.sin(t * 6 + phase), sand[int(x) % S] + 8 - h * t) for t in np.linspace(0, 1, 14)]
        draw.line(path, fill=c, width=6, joint="curve")
    for _ in range(rng.integers(1, 4)):  # corals
        x = rng.choice([rng.uniform(0, 0.3), rng.uniform(0.7, 1)]) * S
        c = mix(jitter(rng, ((240, 100, 110), (250, 150, 80), (220, 110, 200))[rng.integers(3)], 16), low, 0.15)
        y = sand[int(x) % S] + 8
        for a in np.linspace(-0.9, 0.9, 5):
            tip = (x + np.sin(a) * 30, y - np.cos(a) * 34)
            draw.line((x, y, *tip), fill=c, width=7)
            disc(image, *tip, 5, c)
    for _ in range(rng.integers(8, 20)):  # bubbles
        x, y, r = rng.uniform(0, S), rng.uniform(0, 0.85) * S, rng.uniform(2, 7)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(220, 248, 255, 60), outline=(235, 252, 255, 200), width=1)
        disc(image, x - r * 0.35, y - r * 0.35, r * 0.25, (255, 255, 255, 230))
    return image, None


def night_sky(rng, time):
    top, low = (((6, 8, 38), (44, 52, 124)), ((10, 4, 44), (84, 52, 130)), ((2, 16, 44), (26, 84, 124)))[rng.integers(3)]
    image = gradient([(0, jitter(rng, top, 6)), (1, jitter(rng, low, 8))])
    if rng.random() < 0.4:  # the milky way
        line = ridge(rng, rng.uniform(0.3, 0.6) * S, 50, 1)
        band = np.exp(-(((ROWS - line[None]) / 40) ** 2)) * (0.35 + 0.65 * noise(rng, 6, 3))
        blend(image, band * 0.4, (170, 170, 230))
    stars(rng, image, S, int(rng.integers(90, 150)))
    corner = rng.choice([0.14, 0.86]) * S + rng.uniform(-8, 8)
    moon(rng, image, corner, rng.uniform(0.12, 0.24) * S, rng.uniform(17, 28))
    for _ in range(rng.integers(2, 5)):
        cloud(rng, image, rng.uniform(0, S), rng.uniform(0.82, 1.02) * S, rng.uniform(80, 130), (92, 98, 162), 190)
    return image, None


def space(rng, time):
    base = jitter(rng, ((8, 6, 22), (14, 4, 34), (2, 10, 26))[rng.integers(3)], 4)
    image = gradient([(0, base), (1, mix(base, (30, 20, 60), 0.5))])
    for colour in rng.permutation([(150, 50, 190), (30, 110, 220), (230, 70, 140), (30, 180, 170)])[:2]:  # nebulae
        blend(image, np.clip(noise(rng, 3, 4) - 0.45, 0, 1) * 1.3, colour)
    stars(rng, image, S, int(rng.integers(90, 160)))
    places = rng.permutation([(0.15, 0.2), (0.85, 0.2), (0.14, 0.84), (0.86, 0.84)])[: rng.integers(1, 3)]
    for px, py in places:
        planet(rng, image, px * S + rng.uniform(-10, 10), py * S + rng.uniform(-10, 10), rng.uniform(16, 38))
    return image, None


def planet(rng, image, x, y, r):
    """A striped ball in the light from the left, perhaps with a ring."""
    c = jitter(rng, ((226, 140, 90), (110, 170, 230), (214, 190, 140), (190, 110, 200), (120, 200, 150))[rng.integers(5)], 16)
    distance = np.hypot(COLUMNS - x, ROWS - y)
    ball = np.clip(r - distance + 0.5, 0, 1)
    bands = 0.5 + 0.5 * np.sin((ROWS - y) / r * rng.uniform(5, 9) + 0.6 * np.sin((COLUMNS - x) / r * 2))
    blend(image, ball, c)
    blend(image, ball * bands * 0.4, mix(c, (255, 250, 235), 0.6))
    blend(image, ball * np.clip(np.hypot(COLUMNS - x + 0.5 * r, ROWS - y + 0.5 * r) / r - 0.75, 0, 0.8), (6, 4, 20))
    if rng.random() < 0.45:
        u, v = (COLUMNS - x) + 0.25 * (ROWS - y), (ROWS - y) * 3.4 - 0.5 * (COLUMNS - x)
        ring = np.clip(1 - np.abs(np.hypot(u, v) / r - 1.65) / 0.2, 0, 1) * ((v > 0) | (distance > r))
        blend(image, ring * 0.8, mix(c, (255, 240, 220), 0.5))


def on_the_moon(rng, time):
    horizon = rng.uniform(0.48, 0.6) * S
    image = gradient([(0, (6, 6, 16)), (1, (22, 22, 44))])
    stars(rng, image, horizon, 80)
    x, y, r = rng.choice([0.18, 0.82]) * S, rng.uniform(0.16, 0.26) * S, rng.uniform(22, 32)
    glow(image, x, y, r * 2.2, (90, 150, 255), 0.5)
    ball = np.clip(r - np.hypot(COLUMNS - x, ROWS - y) + 0.5, 0, 1)
    land = noise(rng, 8, 2)
    blend(image, ball, (46, 116, 214))
    blend(image, ball * (land > 0.56), (88, 170, 90))
    blend(image, ball * (noise(rng, 10, 2) > 0.68) * 0.85, (250, 252, 255))
    blend(image, ball * np.clip(np.hypot(COLUMNS - x + 0.5 * r, ROWS - y + 0.5 * r) / r - 0.8, 0, 0.75), (4, 4, 20))
    grey = jitter(rng, (176, 176, 184), 10)
    fill_below(image, ridge(rng, horizon - 10, 12), mix(grey, (60, 60, 74), 0.5), mix(grey, (60, 60, 74), 0.6))
    line = ridge(rng, horizon + 6, 6)
    fill_below(image, line, mix(grey, (255, 255, 255), 0.2), mix(grey, (70, 70, 84), 0.5))
    texture(rng, image, line, 8, 30)
    draw = pen(image)
    for t in np.sort(rng.uniform(0.05, 1, 14)):
        cx, cy, w = rng.uniform(0, S), horizon + 14 + t * (S - horizon - 16), 6 + 26 * t * rng.uniform(0.4, 1)
        draw.ellipse((cx - w, cy - w * 0.32, cx + w, cy + w * 0.32), fill=mix(grey, (255, 255, 255), 0.3))
        draw.ellipse((cx - w * 0.92, cy - w * 0.3, cx + w * 0.92, cy + w * 0.22), fill=mix(grey, (50, 50, 64), 0.5))
    return image, rng.uniform(0.86, 0.93) * S


def windows(rng, draw, box, time, wall):
    """Rows of windows on a wall; at night many are lit."""
    x0, y0, x1, y1 = box
    share = {"day": 0.0, "sunset": 0.35, "night": 0.55}[time]
    step = rng.uniform(10, 14)
    for y in np.arange(y0 + 7, min(y1, S) - 5, step):
        for x in np.arange(x0 + 5, x1 - 6, step * 0.8):
            glass = (255, 220, 120) if rng.random() < share else mix(wall, (150, 196, 226) if time == "day" else (14, 18, 40), 0.6)
            draw.rectangle((x, y, x + step * 0.4, y + step * 0.52), fill=jitter(rng, glass, 10))


def city(rng, time):
    horizon = rng.uniform(0.64, 0.72) * S
    image = sky(rng, time, horizon)
    haze = {"day": (196, 214, 232), "sunset": (226, 130, 120), "night": (44, 48, 100)}[time]
    draw = pen(image)
    for depth in range(2):
        x = -rng.uniform(0, 20)
        while x < S:
            w = rng.uniform(26, 46)
            h = rng.uniform(0.2, 0.5) * S * (1.1 - 0.2 * depth)
            wall = jitter(rng, ((182, 96, 76), (208, 184, 150), (120, 140, 166), (160, 150, 150), (96, 124, 140), (220, 150, 110))[rng.integers(6)], 14)
            wall = mix(haze, lit(wall, time), 0.3 + 0.6 * depth)
            box = (x, horizon - h, x + w - (0 if depth else 1), S)
            draw.rectangle(box, fill=wall)
            draw.rectangle((x + w * 0.82, horizon - h, x + w, S), fill=mix(wall, (10, 10, 40), 0.22))
            if rng.random() < 0.3:
                draw.rectangle((x + w * 0.4, horizon - h - 16, x + w * 0.46, horizon - h), fill=wall)
            if depth:
                windows(rng, draw, (x, horizon - h, x + w * 0.84, horizon), time, wall)
            elif time != "day":
                windows(rng, draw, (x, horizon - h, x + w, horizon), time, wall)
            x += w + (rng.uniform(0, 10) if depth else 0)
    walk, road = lit((196, 192, 186), time), lit((92, 94, 104), time)
    fill_below(image, np.full(S, horizon), walk, mix(walk, (60, 60, 80), 0.2), 14)
    fill_below(image, np.full(S, horizon + 13), mix(road, (0, 0, 0), 0.25), road, 20)
    if rng.random() < 0.7:
        y = horizon + 0.16 * S
        for x in np.arange(rng.uniform(-40, 0), S, 52):
            draw.polygon([(x, y), (x + 28, y), (x + 24, y + 6), (x - 5, y + 6)], fill=lit((240, 236, 214), time))
    for x in (rng.uniform(0.03, 0.16) * S, rng.uniform(0.84, 0.97) * S):
        if rng.random() < 0.6:  # a street lamp
            draw.line((x, horizon + 8, x, horizon - 66), fill=lit((60, 64, 74), time), width=4)
            disc(image, x, horizon - 70, 6, (255, 240, 180) if time != "day" else (230, 232, 236))
            if time != "day":
                glow(image, x, horizon - 70, 40, (255, 220, 140), 0.6)
    return image, rng.uniform(0.88, 0.95) * S


def room(rng, time):
    floor = rng.uniform(0.62, 0.72) * S
    wall = jitter(rng, ((244, 222, 190), (186, 214, 206), (226, 186, 186), (190, 200, 226), (238, 226, 160), (200, 216, 176))[rng.integers(6)], 10)
    image = gradient([(0, mix(wall, (255, 255, 255), 0.15)), (floor / S, mix(wall, (120, 90, 80), 0.15)), (1, wall)])
    draw = pen(image)
    if rng.random() < 0.5:  # striped wallpaper
        for x in np.arange(rng.uniform(-20, 0), S, 24):
            draw.rectangle((x, 0, x + 11, floor), fill=mix(wall, (255, 255, 255), 0.35) + (110,))
    wood = jitter(rng, ((176, 120, 76), (150, 98, 62), (202, 152, 104))[rng.integers(3)], 12)
    fill_below(image, np.full(S, floor), mix(wood, (40, 20, 10), 0.2), mix(wood, (255, 220, 170), 0.15))
    for x in np.linspace(-S, 2 * S, 19):
        draw.line((S / 2 + (x - S / 2) * 0.5, floor, x, S + 40), fill=mix(wood, (50, 26, 14), 0.5) + (170,), width=2)
    draw.rectangle((0, floor - 7, S, floor), fill=(250, 246, 238))
    left = rng.random() < 0.5
    x, y = (0.1 if left else 0.62) * S, 0.1 * S  # a window
    w, h = 0.28 * S, 0.36 * S
    draw.rectangle((x - 5, y - 5, x + w + 5, y + h + 5), fill=(252, 250, 244))
    view = sky(rng, "day", 0.8 * S).crop((0, 0, int(w), int(h)))
    image.paste(view, (int(x), int(y)))
    draw.line((x + w / 2, y, x + w / 2, y + h), fill=(252, 250, 244), width=4)
    draw.line((x, y + h / 2, x + w, y + h / 2), fill=(252, 250, 244), width=4)
    cloth = jitter(rng, ((206, 70, 70), (70, 110, 180), (90, 150, 110), (230, 160, 70))[rng.integers(4)], 14)
    if rng.random() < 0.6:
        draw.polygon([(x - 14, y - 8), (x + 12, y - 8), (x - 4, y + h + 14), (x - 14, y + h + 14)], fill=cloth)
        draw.polygon([(x + w + 14, y - 8), (x + w - 12, y - 8), (x + w + 4, y + h + 14), (x + w + 14, y + h + 14)], fill=cloth)
    px, py = (0.66 if left else 0.1) * S, rng.uniform(0.12, 0.2) * S  # a picture or a lamp
    if rng.random() < 0.6:
        draw.rectangle((px, py, px + 58, py + 44), fill=mix(wood, (60, 34, 16), 0.4))
        draw.rectangle((px + 5, py + 5, px + 53, py + 39), fill=jitter(rng, (214, 226, 220), 20))
        draw.polygon([(px + 5, py + 39), (px + 22, py + 17), (px + 36, py + 31), (px + 44, py + 24), (px + 53, py + 39)], fill=jitter(rng, (90, 150, 130), 30))
    else:
        lx = px + 40
        draw.line((lx, py + 30, lx, floor + 12), fill=(90, 76, 66), width=4)
        draw.polygon([(lx - 15, py), (lx + 15, py), (lx + 25, py + 34), (lx - 25, py + 34)], fill=(255, 232, 170))
        glow(image, lx, py + 26, 60, (255, 236, 170), 0.5)
    if rng.random() < 0.7:  # a rug
        draw.ellipse((0.12 * S, 0.8 * S, 0.88 * S, 1.04 * S), fill=cloth)
        draw.ellipse((0.17 * S, 0.82 * S, 0.83 * S, 1.02 * S), outline=mix(cloth, (255, 250, 230), 0.6), width=4)
    return image, rng.uniform(0.87, 0.93) * S


PLAIN = {"red": (222, 70, 66), "orange": (246, 152, 60), "yellow": (250, 218, 92), "green": (104, 186, 110), "blue": (84, 150, 226),
         "purple": (150, 104, 206), "pink": (248, 164, 194), "white": (246, 246, 248), "grey": (168, 172, 180), "black": (34, 34, 40)}


def plain(rng, colour):
    """A backdrop of a colour, lighter behind the subject."""
    c = jitter(rng, PLAIN[colour], 8)
    image = gradient([(0, c), (1, mix(c, (0, 0, 0), 0.1))])
    glow(image, S / 2, 0.42 * S, 0.8 * S, mix(c, (255, 255, 255), 0.45), 0.8)
    floor = ROWS / S > 0.8
    blend(image, floor * np.clip((ROWS / S - 0.8) * 1.2, 0, 1), mix(c, (0, 0, 0), 0.5))
    return image, rng.uniform(0.84, 0.9) * S
