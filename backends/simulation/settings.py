"""The eight places a scene can be set in.

Every painter fills the whole image; its pen measures in image widths, (0, 0) is the upper left
corner and (1, 1) the lower right one. The ground begins above y = 0.6 everywhere, because
objects stand between there and the lower edge.
"""

from collections.abc import Callable

import numpy as np

from backends.simulation.pen import CREAM, INK, Pen, arc, dark, mix, pale, pick
from backends.simulation.scenery import SKIES, fade, fir, ridge, sky, stars, tree


def sea(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a beach: sea with waves and foam, sand, islands, shells and gulls."""
    horizon = rng.uniform(0.36, 0.48)
    shore = rng.uniform(0.62, 0.74)
    sky(pen, rng, light, horizon)
    if rng.random() < 0.6:
        x, w = rng.uniform(0.1, 0.9), rng.uniform(0.12, 0.3)
        pen.dome(x, horizon, w, w * 0.4, (110, 150, 140))
        pen.dome(x + w * 0.6, horizon, w * 0.7, w * 0.22, (134, 168, 150))
    deep, shallow = pick(rng, (((34, 112, 178), (92, 198, 212)),
                                ((30, 132, 160), (124, 214, 200)),
                                ((46, 96, 170), (110, 180, 226))))  # fmt: skip
    fade(pen, horizon, shore + 0.06, deep, shallow)
    for y in np.linspace(horizon + 0.03, shore - 0.05, 5):
        for x in rng.random(3):
            w = rng.uniform(0.05, 0.12)
            pen.line(arc(x, y, w, 0.008, 180, 360, 8), 0.007, (*pale(shallow, 0.5), 200))
    sand = pick(rng, ((244, 220, 168), (236, 206, 160), (250, 228, 190)))
    phase, along = rng.random(), np.linspace(0, 1, 40)
    edge = shore + 0.025 * np.sin(2 * np.pi * (1.6 * along + phase))
    for lift, colour in ((0.03, pale(shallow, 0.35)), (0.014, (255, 255, 255)),
                         (0.0, dark(sand, 0.12)), (-0.02, sand)):  # fmt: skip
        line = np.stack([along, edge - lift], axis=1)
        pen.poly(np.concatenate([line, [(1.0, 1.0), (0.0, 1.0)]]), colour)
    for x, y in rng.random((7, 2)):
        pen.ell(x, shore + 0.07 + y * (0.92 - shore), 0.012, 0.007,
                pick(rng, ((232, 150, 130), CREAM, dark(sand, 0.2))))  # fmt: skip
    for x, y in rng.random((rng.integers(0, 4), 2)) * (0.9, 0.2) + (0.05, 0.06):
        pen.line([(x - 0.03, y - 0.012), (x - 0.012, y - 0.016), (x, y), (x + 0.012, y - 0.016),
                  (x + 0.03, y - 0.012)], 0.008, (*CREAM, 230))  # fmt: skip


def city_street(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a street: two rows of houses, a pavement, a road and lamp posts."""
    kerb = rng.uniform(0.56, 0.62)
    sky(pen, rng, light, kerb)
    far = pick(rng, ((168, 184, 206), (190, 176, 200), (176, 196, 194)))
    fronts = pick(rng, (((214, 140, 116), (236, 198, 150), (150, 172, 176), (188, 110, 104)),
                         ((126, 150, 180), (206, 190, 180), (168, 132, 150), (226, 206, 170)),
                         ((202, 168, 120), (128, 160, 140), (224, 180, 150),
                          (160, 140, 130))))  # fmt: skip
    x = -0.05
    while x < 1:
        w = rng.uniform(0.09, 0.17)
        pen.box(x, rng.uniform(0.12, 0.3), x + w, kerb, far)
        x += w
    lit, unlit = (255, 224, 130), dark((150, 190, 214), 0.1 if light == "day" else 0.35)
    x, i = -rng.uniform(0, 0.12), int(rng.integers(4))
    while x < 1:
        w, top = rng.uniform(0.17, 0.27), rng.uniform(0.16, 0.36)
        front = fronts[i % 4]
        pen.box(x, top, x + w, kerb, front)
        pen.box(x - 0.006, top - 0.018, x + w + 0.006, top + 0.008, dark(front, 0.35))
        for wx in np.linspace(x + 0.04, x + w - 0.04, 3):
            for wy in np.arange(top + 0.045, kerb - 0.06, 0.08):
                glow = light != "day" and rng.random() < 0.55
                corners = [(wx - 0.018, wy), (wx + 0.018, wy), (wx + 0.018, wy + 0.045),
                           (wx - 0.018, wy + 0.045)]  # fmt: skip
                pen.poly(corners, lit if glow else unlit, glow)
        x, i = x + w, i + 1
    road = rng.uniform(0.72, 0.78)
    fade(pen, kerb, road, (206, 200, 196), (184, 178, 178))
    pen.box(0, road, 1, road + 0.014, (150, 146, 150))
    fade(pen, road + 0.014, 1, (92, 94, 108), (112, 112, 124))
    shift = rng.uniform(0, 0.25)
    for start in np.arange(-0.25, 1, 0.25):
        pen.box(start + shift, 0.885, start + shift + 0.13, 0.905, (240, 230, 200))
    for x in (rng.uniform(0.04, 0.2), rng.uniform(0.8, 0.96)):
        pen.box(x - 0.008, 0.26, x + 0.008, road, (58, 58, 74))
        pen.box(x - 0.018, road - 0.03, x + 0.018, road, (58, 58, 74))
        pen.dome(x, 0.235, 0.028, 0.02, (58, 58, 74))
        if light != "day":
            for k, opacity in ((0.09, 36), (0.055, 60)):
                pen.ell(x, 0.255, k, k, (255, 220, 130, opacity), glow=True)
        pen.ell(x, 0.255, 0.022, 0.026, (255, 240, 190), glow=True)


def forest(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a wood: rows of trees that fade into mist, a path, ferns and mushrooms."""
    top, mist = {
        "day": ((170, 214, 190), (236, 244, 208)),
        "dusk": ((186, 120, 120), (255, 206, 140)),
        "night": ((22, 46, 66), (72, 112, 124)),
    }[light]
    floor = rng.uniform(0.5, 0.58)
    fade(pen, 0, floor + 0.14, top, mist, glow=True)
    haze = {"day": mist, "dusk": (255, 214, 150), "night": (206, 236, 240)}[light]
    green = pick(rng, ((38, 96, 70), (62, 104, 52), (30, 92, 88)))
    conifers = rng.random() < 0.6
    for depth in range(3):
        shade = mix(pale(green, 0.12), haze, 0.55 - 0.24 * depth)
        n = 9 - 2 * depth
        for x in (np.arange(n) + rng.uniform(0, 1, n)) / n:
            base, h = floor + 0.02 + 0.035 * depth, rng.uniform(0.42, 0.56) + 0.06 * depth
            if conifers:
                fir(pen, x, base, h, shade)
            else:
                tree(pen, x, base, h * 0.9, shade)
        ridge(pen, rng, floor + 0.03 * depth, 0.02, mix(shade, (110, 130, 60), 0.25), 2)
    for x in (rng.uniform(-0.02, 0.08), rng.uniform(0.92, 1.02)):
        pen.poly([(x - 0.045, 0), (x + 0.045, 0), (x + 0.05, 0.66), (x + 0.09, 0.71),
                  (x - 0.09, 0.71), (x - 0.05, 0.66)], (84, 60, 50))  # fmt: skip
        pen.ell(x, -0.02, 0.22, 0.12, dark(green, 0.25))
    ground = mix(green, (140, 150, 70), 0.42)
    fade(pen, floor + 0.12, 1, ground, dark(ground, 0.3))
    if rng.random() < 0.6:
        bend = rng.uniform(0.3, 0.7)
        pen.poly([(bend - 0.04, floor + 0.12), (bend + 0.04, floor + 0.12), (0.8, 1), (0.2, 1)],
                 mix(ground, (196, 160, 110), 0.6))  # fmt: skip
    for x, y in rng.random((9, 2)):
        y = floor + 0.16 + y * (0.84 - floor)
        if rng.random() < 0.35:
            pen.box(x - 0.007, y - 0.025, x + 0.007, y, CREAM)
            pen.dome(x, y - 0.02, 0.024, 0.026, (206, 64, 56))
        else:
            for lean in (-0.03, 0.0, 0.03):
                pen.poly([(x - 0.01, y), (x + lean, y - 0.05), (x + 0.01, y)], pale(ground, 0.16))


def room(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a living room: papered wall, window, pictures, floor, rug and a plant."""
    wall, board = pick(rng, (((232, 208, 188), (196, 150, 120)),
                              ((176, 204, 200), (236, 236, 226)),
                              ((226, 192, 196), (246, 236, 228)),
                              ((238, 220, 168), (190, 140, 96)),
                              ((160, 176, 206), (232, 234, 240))))  # fmt: skip
    base = rng.uniform(0.54, 0.6)
    fade(pen, 0, base, pale(wall, 0.12), wall)
    if rng.random() < 0.6:
        for x in np.arange(rng.uniform(0, 0.06), 1, 0.1):
            pen.box(x, 0, x + 0.045, base, dark(wall, 0.06))
    pen.box(0, base - 0.035, 1, base, board)
    left = rng.random() < 0.5
    x, w, h = (0.22 if left else 0.78) + rng.uniform(-0.06, 0.06), rng.uniform(0.13, 0.17), 0.17
    y = rng.uniform(0.24, 0.28)
    pen.box(x - w - 0.02, y - h - 0.02, x + w + 0.02, y + h + 0.02, CREAM)
    top, low = pick(rng, SKIES[light])
    for upper, shade in ((y - h, mix(top, low, 0.4)), (y - h * 0.2, mix(top, low, 0.8))):
        pen.poly([(x - w, upper), (x + w, upper), (x + w, y + h), (x - w, y + h)], shade, True)
    pen.ell(x + w * 0.4, y - h * 0.45, 0.035, 0.035, (255, 240, 180), glow=True)
    pen.dome(x - w * 0.2, y + h, w * 0.8, h * 0.5, (120, 168, 110))
    pen.box(x - 0.009, y - h, x + 0.009, y + h, CREAM)
    pen.box(x - w, y - 0.009, x + w, y + 0.009, CREAM)
    cloth = pick(rng, ((206, 96, 84), (92, 128, 150), (230, 176, 90), (140, 110, 150)))
    for side in (-1, 1):
        pen.poly([(x + side * (w + 0.05), 0.02), (x + side * w * 0.45, 0.02),
                  (x + side * (w * 0.8), 0.3), (x + side * (w + 0.01), base - 0.07),
                  (x + side * (w + 0.07), base - 0.07)], cloth)  # fmt: skip
    pen.box(x - w - 0.08, 0.015, x + w + 0.08, 0.035, (110, 76, 56))
    lamp = 0.5 + rng.uniform(-0.04, 0.04)
    if light != "day":
        for r, opacity in ((0.34, 16), (0.24, 26), (0.15, 44)):
            pen.ell(lamp, 0.15, r, r, (255, 206, 120, opacity), glow=True)
    pen.line([(lamp, 0.0), (lamp, 0.08)], 0.01, (70, 60, 66))
    pen.ell(lamp, 0.145, 0.03, 0.03, (255, 240, 190), glow=True)
    pen.dome(lamp, 0.145, 0.075, 0.075, cloth)
    px = 1 - x + rng.uniform(-0.06, 0.06)
    for i in range(rng.integers(1, 3)):
        cx, cy, s = px + 0.2 * i * (-1 if left else 1) - 0.08, 0.2 + 0.06 * i, 0.09 - 0.02 * i
        pen.box(cx - s, cy - s, cx + s, cy + s, (128, 90, 62))
        pen.box(cx - s + 0.016, cy - s + 0.016, cx + s - 0.016, cy + s - 0.016, CREAM)
        pen.ell(cx, cy, s * 0.5, s * 0.5, pick(rng, (cloth, (110, 160, 150), (236, 180, 90))))
        pen.dome(cx, cy + s * 0.72, s * 0.66, s * 0.5, (96, 120, 140))
    floor = pick(rng, ((186, 134, 92), (160, 112, 80), (206, 164, 120)))
    fade(pen, base, 1, floor, dark(floor, 0.18))
    for y in (base + 0.06, base + 0.15, base + 0.27):
        pen.box(0, y, 1, y + 0.006, dark(floor, 0.22))
    rug = pick(rng, ((190, 80, 80), (80, 120, 150), (224, 190, 130), (120, 140, 110)))
    rx, ry = rng.uniform(0.4, 0.6), rng.uniform(0.8, 0.86)
    pen.ell(rx, ry, 0.42, 0.12, rug)
    pen.ell(rx, ry, 0.36, 0.098, pale(rug, 0.45))
    pen.ell(rx, ry, 0.33, 0.088, rug)
    corner = 0.94 if left else 0.06
    for lean in (-0.1, -0.05, 0.0, 0.05, 0.1):
        pen.blob([(corner, base + 0.0), (corner + lean * 0.9 - 0.02, base - 0.12),
                  (corner + lean * 1.2, base - 0.22), (corner + lean * 0.7 + 0.03, base - 0.1)],
                 (76, 140, 88))  # fmt: skip
    low, high = base + 0.1, base - 0.02
    pen.poly([(corner - 0.06, high), (corner + 0.06, high), (corner + 0.045, low),
              (corner - 0.045, low)], (208, 116, 80))  # fmt: skip


def desert(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a desert: table mountains, dunes and cacti."""
    horizon = rng.uniform(0.42, 0.52)
    sky(pen, rng, light, horizon + 0.06)
    sand = pick(rng, ((238, 182, 108), (226, 150, 96), (244, 204, 140)))
    for _ in range(rng.integers(1, 4)):
        x, w, h = rng.uniform(0, 1), rng.uniform(0.08, 0.18), rng.uniform(0.07, 0.16)
        rock = mix((184, 96, 76), sand, 0.3)
        foot, top = horizon + 0.08, horizon - h
        pen.poly([(x - w, foot), (x - w * 0.7, top), (x + w * 0.7, top), (x + w, foot)], rock)
        pen.poly([(x + w * 0.25, foot), (x + w * 0.3, top), (x + w * 0.7, top), (x + w, foot)],
                 dark(rock, 0.18))  # fmt: skip
    for i, y in enumerate((0.0, 0.08, 0.2, 0.34)):
        colour = mix(pale(sand, 0.25), dark(sand, 0.16), i / 3)
        ridge(pen, rng, horizon + y + 0.02, 0.05 + 0.015 * i, colour, 1.2)
    green = pick(rng, ((74, 138, 84), (92, 150, 110), (60, 120, 92)))
    for x in rng.permutation((0.07, 0.24, 0.8, 0.93))[: rng.integers(2, 5)]:
        x, base, h = x + rng.uniform(-0.04, 0.04), rng.uniform(0.58, 0.74), rng.uniform(0.2, 0.32)
        t = 0.15 * h
        pen.line([(x, base), (x, base - h)], t * 1.3, green)
        for side, low in ((-1, 0.35), (1, 0.5)):
            arm = [(x, base - low * h), (x + side * 0.3 * h, base - low * h),
                   (x + side * 0.3 * h, base - (low + 0.3) * h)]  # fmt: skip
            pen.line(arm, t, green)
        pen.line([(x - t * 0.2, base), (x - t * 0.2, base - h)], t * 0.25, pale(green, 0.3))
    for x, y in rng.random((6, 2)):
        pen.dome(x, 0.72 + 0.26 * y, 0.022, 0.018, dark(sand, 0.35))


def night_sky(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a great starry sky with a milky way or northern lights and a crescent moon."""
    top, low = pick(rng, (((10, 10, 44), (70, 58, 130)), ((8, 16, 52), (40, 92, 134)),
                           ((24, 8, 48), (126, 66, 128))))  # fmt: skip
    ground = rng.uniform(0.55, 0.6)
    fade(pen, 0, ground + 0.06, top, low, glow=True)
    lean, start = rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.7)
    if rng.random() < 0.5:
        for w in np.linspace(0.26, 0.04, 7):
            pen.poly([(start - w, 0), (start + w, 0), (start + lean + w, 0.7),
                      (start + lean - w, 0.7)], (190, 170, 240, 13), glow=True)  # fmt: skip
    else:
        aurora, along = pick(rng, ((96, 240, 180), (120, 220, 240))), np.linspace(0, 1, 30)
        for i in range(4):
            y = 0.2 + 0.05 * i + 0.07 * np.sin(2 * np.pi * (along * 1.3 + start)) + lean * 0.1
            band = np.concatenate([np.stack([along, y], 1),
                                   np.stack([along, y + 0.17 - 0.03 * i], 1)[::-1]])  # fmt: skip
            pen.poly(band, (*aurora, 30), glow=True)
    stars(pen, rng, 90, ground)
    x, y, r = rng.uniform(0.12, 0.88), rng.uniform(0.1, 0.2), rng.uniform(0.06, 0.085)
    pen.ell(x, y, r * 1.7, r * 1.7, (250, 240, 206, 30), glow=True)
    inner = arc(x + 0.5 * r, y, r * 0.87, r * 0.87, 276, 84)
    pen.poly(np.concatenate([arc(x, y, r, r, 60, 300), inner]), (255, 246, 208), glow=True)
    hill = mix(low, (20, 24, 60), 0.45)
    for i in range(3):
        colour = mix(pale(hill, 0.1), (14, 18, 48), i / 3.5)
        height = ground + 0.01 + 0.1 * i
        pen.tint = (1.0, 1.0, 1.0)  # its colours are night colours already
        ridge(pen, rng, height, 0.07, colour, 1.3)
        if i == 1:
            for fx in rng.random(rng.integers(0, 7)):
                fir(pen, fx, height + 0.03, rng.uniform(0.1, 0.17), dark(colour, 0.3))


def snowy_mountains(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint white peaks above a snow field with firs."""
    base = rng.uniform(0.5, 0.57)
    sky(pen, rng, light, base)
    rock = pick(rng, ((108, 126, 164), (126, 120, 156), (96, 132, 150)))
    for depth, n in ((0, 3), (1, 2)):
        for i in range(n):
            x = (i + rng.uniform(0.2, 0.8)) / n
            top = rng.uniform(0.1, 0.24) + 0.1 * depth
            w = rng.uniform(0.26, 0.36)
            face = pale(rock, 0.3 - 0.25 * depth)
            drop = base + 0.04 - top
            pen.poly([(x - w, base + 0.04), (x, top), (x + w, base + 0.04)], face)
            pen.poly([(x, top), (x + w, base + 0.04), (x + 0.1 * w, base + 0.04)], dark(face, 0.2))
            cap = 0.42
            pen.poly([(x, top), (x + cap * w, top + cap * drop), (x + 0.2 * w, top + 0.3 * drop),
                      (x + 0.04 * w, top + 0.46 * drop), (x - 0.16 * w, top + 0.32 * drop),
                      (x - cap * w, top + cap * drop)], (248, 250, 255))  # fmt: skip
            pen.poly([(x, top), (x + cap * w, top + cap * drop), (x + 0.2 * w, top + 0.3 * drop),
                      (x + 0.06 * w, top + 0.4 * drop)], (208, 220, 240))  # fmt: skip
    ridge(pen, rng, base + 0.03, 0.03, (216, 228, 244), 1.4)
    green = pick(rng, ((56, 106, 96), (44, 90, 104)))
    for x in rng.random(rng.integers(5, 10)):
        fir(pen, x, base + rng.uniform(0.03, 0.08), rng.uniform(0.12, 0.24), green, snow=True)
    ridge(pen, rng, base + 0.09, 0.03, (232, 240, 250), 1.2)
    ridge(pen, rng, base + 0.25, 0.05, (246, 249, 255), 1.0)
    if rng.random() < 0.4:
        for x, y in rng.random((34, 2)):
            pen.ell(x, y, 0.006, 0.006, (255, 255, 255), glow=True)


def meadow(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint green hills with trees, a fence and flowers."""
    horizon = rng.uniform(0.4, 0.5)
    sky(pen, rng, light, horizon + 0.08)
    green = pick(rng, ((124, 190, 84), (150, 196, 80), (96, 178, 104)))
    ridge(pen, rng, horizon, 0.1, mix(green, (140, 180, 200), 0.45), 1.0)
    ridge(pen, rng, horizon + 0.07, 0.07, mix(green, (150, 190, 150), 0.25), 1.3)
    for x in rng.random(rng.integers(1, 5)):
        tree(pen, x, horizon + 0.1, rng.uniform(0.14, 0.26), dark(green, 0.3))
    ridge(pen, rng, horizon + 0.12, 0.03, green, 1.2)
    if rng.random() < 0.45:
        y = horizon + 0.15
        for x in np.arange(rng.uniform(0, 0.1), 1, 0.11):
            pen.box(x - 0.011, y - 0.09, x + 0.011, y + 0.01, CREAM)
        for dy in (-0.07, -0.035):
            pen.box(0, y + dy, 1, y + dy + 0.015, CREAM)
    ridge(pen, rng, horizon + 0.28, 0.05, pale(green, 0.12), 1.0)
    petals = pick(rng, (((255, 255, 255), (250, 210, 80)), ((228, 70, 80), (255, 180, 190)),
                         ((150, 110, 200), (250, 250, 255)),
                         ((255, 200, 70), (240, 120, 80))))  # fmt: skip
    for i, (x, t) in enumerate(rng.random((30, 2))):
        y = horizon + 0.18 + t * (0.8 - horizon)
        r = 0.006 + 0.009 * t
        pen.line([(x, y), (x, y + 3 * r)], r * 0.7, dark(green, 0.3))
        pen.ell(x, y, r, r, petals[i % 2])
        pen.ell(x, y, r * 0.4, r * 0.4, mix(petals[(i + 1) % 2], INK, 0.1))


SETTING_PAINTERS: dict[str, Callable[[Pen, np.random.Generator, str], None]] = {
    "sea": sea,
    "city street": city_street,
    "forest": forest,
    "room": room,
    "desert": desert,
    "night sky": night_sky,
    "snowy mountains": snowy_mountains,
    "meadow": meadow,
}
