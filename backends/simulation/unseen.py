"""Things and places that no picture of a training set shows: eight objects, four settings.

`scenes.sample_scenes` never draws them, so neither the study's training pictures nor those that
the pocket models learned from hold one. The painters keep to the frames of `objects` and
`settings`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backends.simulation.pen import (
    COLOURS,
    CREAM,
    INK,
    STEEL,
    WOOD,
    Colour,
    Pen,
    arc,
    dark,
    mix,
    pale,
    pick,
)
from backends.simulation.scenery import fade, ridge, stars

# --------------------------------------------------------------------------------- objects


def fish(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a fish from the side, with fins and scales."""
    fin = dark(c, 0.4)
    pen.poly([(0.5, 0.0), (0.98, -0.52), (0.86, 0.0), (0.98, 0.52)], fin)
    pen.poly([(-0.3, -0.4), (0.06, -0.86), (0.34, -0.3)], fin)
    pen.poly([(-0.16, 0.4), (0.1, 0.84), (0.3, 0.3)], fin)
    pen.blob([(-0.96, 0.02), (-0.66, -0.36), (-0.1, -0.52), (0.4, -0.3), (0.68, 0.0),
              (0.4, 0.32), (-0.1, 0.52), (-0.66, 0.38)], c)  # fmt: skip
    for x in (-0.2, 0.04, 0.28):
        for y in (-0.18, 0.04, 0.24):
            pen.line(arc(x, y, 0.1, 0.1, -80, 80, 8), 0.035, fin)
    pen.line(arc(-0.62, 0.02, 0.22, 0.36, -60, 60, 10), 0.05, fin)
    pen.ell(-0.68, -0.1, 0.1, 0.1, CREAM)
    pen.ell(-0.7, -0.1, 0.055, 0.055, INK)
    pen.ell(-0.9, 0.1, 0.06, 0.03, INK)


def snail(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a snail from the side, its house in the colour."""
    skin = pick(rng, ((206, 176, 120), (186, 160, 132)))
    pen.blob([(-0.96, 0.9), (-0.9, 0.5), (-0.72, 0.34), (-0.52, 0.5), (-0.4, 0.68), (0.5, 0.7),
              (0.96, 0.94), (0, 0.95)], skin)  # fmt: skip
    for x in (-0.88, -0.66):
        pen.line([(-0.74, 0.46), (x, 0.0)], 0.06, skin)
        pen.ell(x, -0.04, 0.07, 0.07, INK)
    pen.ell(0.14, 0.12, 0.62, 0.62, c)
    for r, colour in ((0.48, dark(c, 0.35)), (0.4, c), (0.26, dark(c, 0.35)), (0.18, c)):
        pen.ell(0.14 - 0.12 * (0.48 - r), 0.16, r, r, colour)
    pen.ell(0.08, 0.16, 0.07, 0.07, dark(c, 0.5))


def windmill(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a windmill: a tower that narrows upwards, a cap and four sails."""
    pen.poly([(-0.26, -0.3), (0.26, -0.3), (0.46, 0.95), (-0.46, 0.95)], c)
    pen.poly([(0.08, -0.3), (0.26, -0.3), (0.46, 0.95), (0.18, 0.95)], dark(c, 0.2))
    pen.dome(0, -0.28, 0.32, 0.26, (112, 66, 58))
    pen.box(-0.14, 0.55, 0.14, 0.95, (92, 60, 48), 0.04)
    pen.box(-0.09, 0.08, 0.09, 0.28, (250, 226, 140))
    turn = rng.uniform(20, 70)
    for i in range(4):
        a = np.radians(turn + 90 * i)
        along, across = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
        hub = np.array([0, -0.32])
        pen.line([hub, hub + 0.66 * along], 0.06, WOOD)
        corners = [hub + s * along + t * across for s, t in
                   ((0.16, 0.02), (0.66, 0.02), (0.66, 0.2), (0.16, 0.2))]  # fmt: skip
        pen.poly(corners, CREAM)
    pen.ell(0, -0.32, 0.08, 0.08, INK)


def tent(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a ridge tent with an open entrance, a pole and ropes."""
    for x in (-1, 1):
        pen.line([(0, -0.7), (x * 0.98, 0.93)], 0.035, CREAM)
    pen.poly([(0, -0.74), (0.88, 0.95), (-0.88, 0.95)], c)
    for low, high in ((0.24, 0.44), (0.64, 0.84)):
        pen.poly([(low * 0.88, -0.74 + 1.69 * low), (high * 0.88, -0.74 + 1.69 * high),
                  (high * 0.88 - 0.2, 0.95), (low * 0.88 - 0.05, 0.95)], pale(c, 0.4))  # fmt: skip
    pen.poly([(0, -0.2), (0.36, 0.95), (-0.36, 0.95)], dark(c, 0.75))
    pen.poly([(0, -0.2), (-0.36, 0.95), (-0.56, 0.95)], pale(c, 0.25))
    pen.line([(0, -0.92), (0, 0.95)], 0.05, WOOD)
    pen.poly([(0, -0.94), (0.26, -0.84), (0, -0.74)], pick(rng, ((214, 60, 70), (250, 200, 80))))


def carrot(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a carrot that points down, with its leaves."""
    leaf = pick(rng, ((74, 150, 70), (52, 128, 84)))
    for x, y in ((-0.52, -0.82), (-0.26, -0.98), (0.0, -0.9), (0.28, -0.98), (0.52, -0.8)):
        pen.line([(0, -0.36), (x * 0.6, -0.66), (x, y)], 0.12, leaf)
        pen.ell(x, y, 0.12, 0.1, pale(leaf, 0.2))
    pen.blob([(-0.4, -0.36), (0, -0.46), (0.4, -0.36), (0.3, 0.1), (0.12, 0.7), (0, 0.97),
              (-0.12, 0.7), (-0.3, 0.1)], c)  # fmt: skip
    for y, half in ((-0.2, 0.2), (0.04, 0.16), (0.3, 0.12), (0.54, 0.07)):
        side = pick(rng, (-1, 1))
        pen.line([(side * half * 1.4, y), (side * half * 0.2, y + 0.03)], 0.05, dark(c, 0.35))


def cake(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a round cake of two layers on a stand, with candles."""
    pen.poly([(-0.2, 0.78), (0.2, 0.78), (0.36, 0.95), (-0.36, 0.95)], STEEL)
    pen.ell(0, 0.76, 0.92, 0.13, pale(STEEL, 0.3))
    for top, low, half in ((0.16, 0.72, 0.74), (-0.34, 0.2, 0.52)):
        pen.box(-half, top, half, low, pale(c, 0.3), 0.08)
        pen.box(-half, (top + low) / 2 - 0.05, half, (top + low) / 2 + 0.03, dark(c, 0.2))
        for x in np.linspace(-half + 0.1, half - 0.1, 6):
            pen.ell(x, top + 0.06, 0.12, 0.14, CREAM if c != COLOURS["white"] else (236, 150, 170))
    for x in (-0.3, 0.0, 0.3):
        pen.box(x - 0.035, -0.72, x + 0.035, -0.32, pick(rng, ((96, 150, 220), (240, 120, 140))))
        pen.ell(x, -0.82, 0.06, 0.11, (255, 206, 90))


def bicycle(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a bicycle from the side."""
    for x in (-0.58, 0.58):
        pen.ring(x, 0.5, 0.38, 0.38, 0.09, INK)
        for a in range(0, 180, 45):
            dx, dy = 0.34 * np.cos(np.radians(a)), 0.34 * np.sin(np.radians(a))
            pen.line([(x - dx, 0.5 - dy), (x + dx, 0.5 + dy)], 0.025, STEEL)
    frame = [(-0.58, 0.5), (-0.24, -0.2), (0.36, -0.2), (0.0, 0.5), (-0.58, 0.5)]
    pen.line(frame, 0.11, c)
    pen.line([(-0.3, -0.36), (0.0, 0.5)], 0.11, c)
    pen.line([(0.58, 0.5), (0.32, -0.52)], 0.11, c)
    pen.line([(0.32, -0.52), (0.52, -0.66)], 0.08, INK)
    pen.box(-0.48, -0.46, -0.12, -0.34, pick(rng, (INK, (120, 76, 50))), 0.05)
    pen.ell(0.0, 0.5, 0.12, 0.12, STEEL)


def key(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a large key that stands on its bit, the bow in the colour."""
    pen.box(-0.1, -0.2, 0.1, 0.95, STEEL, 0.04)
    for y, w in ((0.56, 0.34), (0.78, rng.uniform(0.24, 0.4))):
        pen.box(0.04, y, 0.1 + w, y + 0.13, STEEL, 0.02)
    pen.ell(0, -0.5, 0.46, 0.44, c)
    pen.ell(0, -0.5, 0.36, 0.34, dark(c, 0.25))
    pen.ell(0, -0.58, 0.19, 0.17, mix(STEEL, INK, 0.6))
    pen.box(-0.17, -0.16, 0.17, -0.04, dark(STEEL, 0.25), 0.04)


# -------------------------------------------------------------------------------- settings


def under_water(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a sea floor: rays of light, weeds, stones and bubbles."""
    top, deep = pick(rng, (((70, 190, 206), (14, 70, 116)), ((96, 206, 190), (16, 84, 110))))
    floor = rng.uniform(0.54, 0.6)
    fade(pen, 0, 1, top, deep)
    for x in rng.random(4):
        pen.poly([(x, 0), (x + 0.07, 0), (x - 0.1, floor), (x - 0.26, floor)],
                 (*pale(top, 0.4), 70))  # fmt: skip
    sand = pick(rng, ((186, 172, 128), (150, 150, 120)))
    ridge(pen, rng, floor, 0.05, mix(sand, deep, 0.45), 1.0)
    ridge(pen, rng, floor + 0.1, 0.04, mix(sand, deep, 0.2), 1.4)
    weed = pick(rng, ((40, 130, 84), (120, 60, 90)))
    for x in (*rng.uniform(0.0, 0.22, 4), *rng.uniform(0.78, 1.0, 4)):
        y, sway = floor + 0.12, rng.uniform(-0.05, 0.05)
        pen.line([(x, y), (x + sway, y - 0.14), (x - sway, y - 0.26), (x + sway, y - 0.38)],
                 0.022, weed)  # fmt: skip
    for x, y in rng.random((14, 2)):
        pen.ring(x, y * floor, 0.012, 0.012, 0.005, (*CREAM, 190))


def on_the_moon(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a grey plain with craters under a black sky, and the earth."""
    floor = rng.uniform(0.5, 0.58)
    fade(pen, 0, floor + 0.1, (6, 6, 16), (20, 20, 34), glow=True)
    stars(pen, rng, 40, floor)
    x, y, r = rng.uniform(0.12, 0.88), rng.uniform(0.12, 0.24), rng.uniform(0.06, 0.09)
    pen.ell(x, y, r, r, (70, 130, 210), glow=True)
    pen.ell(x - 0.3 * r, y - 0.2 * r, 0.45 * r, 0.35 * r, (110, 180, 110), glow=True)
    pen.ell(x + 0.3 * r, y + 0.35 * r, 0.35 * r, 0.25 * r, (240, 244, 250), glow=True)
    grey = pick(rng, ((168, 166, 170), (150, 150, 160), (178, 172, 164)))
    ridge(pen, rng, floor, 0.08, dark(grey, 0.25), 1.6)
    ridge(pen, rng, floor + 0.07, 0.03, grey, 1.0)
    for cx, t in rng.random((9, 2)):
        cy, w = floor + 0.14 + t * (0.8 - floor), 0.03 + 0.06 * t
        pen.ell(cx, cy, w, 0.4 * w, dark(grey, 0.35))
        pen.ell(cx, cy + 0.12 * w, 0.85 * w, 0.28 * w, dark(grey, 0.15))


def theatre_stage(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a stage: a back wall, curtains at both sides, boards and a cone of light."""
    cloth = pick(rng, ((150, 30, 46), (90, 40, 110), (30, 80, 90)))
    edge = rng.uniform(0.52, 0.6)
    pen.box(0, 0, 1, edge, dark(cloth, 0.72))
    pen.poly([(0.44, 0), (0.56, 0), (0.86, edge), (0.14, edge)], (255, 240, 190, 60))
    boards = pick(rng, ((170, 116, 72), (140, 96, 66)))
    pen.box(0, edge, 1, 1, boards)
    for x in np.linspace(-0.6, 1.6, 12):
        pen.line([(0.5 + 0.55 * (x - 0.5), edge), (x, 1)], 0.006, dark(boards, 0.35))
    for side in (-1, 1):
        for i in range(4):
            x = 0.5 + side * (0.5 - 0.045 * i)
            pen.box(x - 0.03, 0, x + 0.03, edge + 0.1, cloth if i % 2 else dark(cloth, 0.3))
    for x in np.linspace(0, 1, 8):
        pen.dome(x, 0.0, 0.08, -0.13, cloth)
        pen.ell(x, 0.12, 0.015, 0.02, (240, 200, 100))


def playing_field(pen: Pen, rng: np.random.Generator, light: str) -> None:
    """Paint a striped lawn with white lines, a goal, and stands full of people."""
    edge = rng.uniform(0.44, 0.52)
    seats = pick(rng, ((90, 100, 140), (120, 84, 90), (80, 110, 110)))
    pen.box(0, 0, 1, edge, seats)
    for y in np.arange(0.04, edge - 0.06, 0.06):
        pen.box(0, y + 0.04, 1, y + 0.05, dark(seats, 0.35))
        for x in np.arange(rng.uniform(0, 0.03), 1, 0.045):
            pen.ell(x, y + 0.02, 0.012, 0.016, pick(rng, ((236, 190, 160), (214, 60, 60), CREAM,
                                                          (60, 110, 190))))  # fmt: skip
    pen.box(0, edge - 0.05, 1, edge, CREAM)
    lawn = pick(rng, ((84, 160, 74), (66, 146, 86)))
    for i, y in enumerate(np.linspace(edge, 1, 7)[:-1]):
        pen.box(0, y, 1, 1, lawn if i % 2 else dark(lawn, 0.14))
    pen.line([(0, edge + 0.07), (1, edge + 0.07)], 0.01, (255, 255, 255))
    pen.line([(0.1, edge + 0.07), (-0.1, 1)], 0.012, (255, 255, 255))
    x = rng.uniform(0.35, 0.65)
    pen.line([(x - 0.2, edge + 0.06), (x - 0.2, edge - 0.14), (x + 0.2, edge - 0.14),
              (x + 0.2, edge + 0.06)], 0.014, (255, 255, 255))  # fmt: skip


# name -> super-category and painter
UNSEEN_OBJECTS: dict[str, tuple[str, Callable[[Pen, Colour, np.random.Generator], None]]] = {
    "fish": ("animal", fish),
    "snail": ("animal", snail),
    "windmill": ("building", windmill),
    "tent": ("building", tent),
    "carrot": ("food", carrot),
    "cake": ("food", cake),
    "bicycle": ("vehicle", bicycle),
    "key": ("tool", key),
}
UNSEEN_SETTINGS: dict[str, Callable[[Pen, np.random.Generator, str], None]] = {
    "sea floor": under_water,
    "lunar plain": on_the_moon,
    "stage": theatre_stage,
    "playing field": playing_field,
}
