"""The 24 things a scene can show: buildings, food, vehicles and tools; creatures beside them.

Every painter draws one object in a box that reaches from -1 to 1 in both directions (y points
down, the object stands at about y = 0.95).
"""

from collections.abc import Callable

import numpy as np

from backends.simulation import creatures
from backends.simulation.pen import (
    COLOURS,
    CREAM,
    GLASS,
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


def _gable(pen: Pen, x: float, half: float, base: float, top: float, colour: Colour) -> None:
    pen.poly([(x - half, base), (x, top), (x + half, base)], colour)


def _arch(pen: Pen, x: float, base: float, half: float, height: float, colour: Colour) -> None:
    pen.box(x - half, base - height + half, x + half, base, colour)
    pen.ell(x, base - height + half, half, half, colour)


def _wheel(pen: Pen, x: float, y: float, r: float, hub: Colour) -> None:
    pen.ell(x, y, r, r, INK)
    pen.ell(x, y, r * 0.55, r * 0.55, hub)
    pen.ell(x, y, r * 0.18, r * 0.18, INK)


# -------------------------------------------------------------------------------- buildings


def _pane(pen: Pen, x: float, y: float, half: float, rng: np.random.Generator) -> None:
    pen.box(x - half - 0.035, y - half - 0.035, x + half + 0.035, y + half + 0.035, CREAM)
    pen.box(x - half, y - half, x + half, y + half, pick(rng, (GLASS, (255, 222, 130))))
    pen.box(x - 0.02, y - half, x + 0.02, y + half, CREAM)


def house(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a house with a wide roof, a chimney, a door and windows."""
    roof = pick(rng, ((112, 62, 58), (78, 74, 92), (92, 70, 60)))
    pen.box(0.4, -0.86, 0.62, -0.2, dark(roof, 0.2))
    pen.box(0.36, -0.92, 0.66, -0.8, roof)
    pen.box(-0.74, -0.14, 0.74, 0.95, c)
    pen.box(-0.74, 0.82, 0.74, 0.95, dark(c, 0.35))
    _gable(pen, 0, 0.98, -0.06, -0.82, roof)
    _gable(pen, 0, 0.58, -0.06, -0.58, pale(c, 0.25))
    pen.ell(0, -0.24, 0.13, 0.13, CREAM)
    pen.ell(0, -0.24, 0.09, 0.09, GLASS)
    pen.box(-0.74, -0.06, 0.74, 0.02, dark(c, 0.3))
    pen.box(-0.2, 0.3, 0.2, 0.95, CREAM)
    pen.box(-0.15, 0.35, 0.15, 0.95, pick(rng, ((130, 76, 50), (54, 88, 104))))
    pen.ell(0.09, 0.66, 0.035, 0.035, (250, 214, 100))
    for x in (-0.47, 0.47):
        _pane(pen, x, 0.38, 0.16, rng)
        pen.box(x - 0.2, 0.62, x + 0.2, 0.7, (96, 158, 84))


def church(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a church: a tower with a pointed spire and a cross, and a nave."""
    roof = pick(rng, ((76, 82, 112), (104, 66, 66), (64, 96, 96)))
    pen.box(-0.2, 0.24, 0.92, 0.95, c)
    pen.poly([(-0.3, 0.3), (-0.12, -0.16), (0.76, -0.16), (0.98, 0.3)], roof)
    pen.box(-0.7, -0.22, -0.1, 0.95, mix(c, CREAM, 0.25))
    pen.box(-0.7, 0.82, 0.92, 0.95, dark(c, 0.4))
    pen.poly([(-0.8, -0.16), (-0.4, -0.84), (0, -0.16)], roof)
    pen.box(-0.435, -1.0, -0.365, -0.74, (240, 200, 90))
    pen.box(-0.51, -0.95, -0.29, -0.88, (240, 200, 90))
    pen.ell(-0.4, 0.06, 0.17, 0.17, CREAM)
    pen.ell(-0.4, 0.06, 0.12, 0.12, pick(rng, (GLASS, (255, 214, 120))))
    _arch(pen, -0.4, 0.95, 0.17, 0.56, (110, 66, 48))
    pane = pick(rng, ((110, 170, 210), (255, 222, 130), (220, 130, 150)))
    for x in (0.12, 0.42, 0.72):
        _arch(pen, x, 0.76, 0.105, 0.38, CREAM)
        _arch(pen, x, 0.74, 0.07, 0.33, pane)


def castle(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a castle: two towers with cone roofs and flags, battlements and a gate."""
    roof = pick(rng, ((86, 78, 126), (150, 60, 66), (58, 92, 116)))
    stone = dark(c, 0.22)
    pen.box(-0.6, 0.02, 0.6, 0.95, c)
    for x in np.linspace(-0.42, 0.42, 4):
        pen.box(x - 0.09, -0.14, x + 0.09, 0.04, c)
    pen.box(-0.6, 0.12, 0.6, 0.18, stone)
    for x in (-0.7, 0.7):
        pen.box(x - 0.26, -0.26, x + 0.26, 0.95, stone)
        pen.box(x - 0.26, -0.26, x - 0.04, 0.95, mix(c, stone, 0.3))
        _gable(pen, x, 0.3, -0.24, -0.78, roof)
        pen.line([(x, -0.78), (x, -0.96)], 0.045, INK)
        pen.poly([(x, -0.98), (x + 0.22, -0.9), (x, -0.82)], (240, 190, 70))
        _arch(pen, x, 0.16, 0.075, 0.26, INK)
        _arch(pen, x, 0.6, 0.075, 0.26, INK)
    _arch(pen, 0, 0.95, 0.27, 0.62, dark(stone, 0.3))
    _arch(pen, 0, 0.95, 0.21, 0.54, (92, 58, 46))
    for x in (-0.1, 0.0, 0.1):
        pen.box(x - 0.015, 0.46, x + 0.015, 0.95, (52, 36, 36))


def lighthouse(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a striped lighthouse on a rock, its lamp lit."""
    other = CREAM if c != COLOURS["white"] else (70, 96, 140)
    pen.blob([(-0.78, 0.95), (-0.62, 0.72), (-0.3, 0.64), (0.3, 0.62), (0.66, 0.74), (0.78, 0.95)],
             (112, 108, 122))  # fmt: skip
    edges = np.linspace(-0.44, 0.84, 6)
    for i, (top, base) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        w0, w1 = 0.26 + 0.17 * (top + 0.44) / 1.28, 0.26 + 0.17 * (base + 0.44) / 1.28
        pen.poly([(-w0, top), (w0, top), (w1, base), (-w1, base)], other if i % 2 else c)
    pen.box(-0.36, -0.52, 0.36, -0.42, INK, 0.03)
    pen.box(-0.22, -0.78, 0.22, -0.5, (255, 226, 120))
    for x in (-0.2, 0.0, 0.2):
        pen.box(x - 0.025, -0.78, x + 0.025, -0.5, INK)
    pen.dome(0, -0.76, 0.29, 0.18, dark(c, 0.25))
    pen.ell(0, -0.94, 0.05, 0.05, INK)
    _arch(pen, 0, 0.84, 0.11, 0.3, (96, 62, 50))
    _arch(pen, 0, 0.02, 0.07, 0.2, INK)
    if rng.random() < 0.5:
        pen.ell(0.5, 0.86, 0.16, 0.1, (92, 90, 106))


# ------------------------------------------------------------------------------------- food


def apple(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint an apple with a stem and a leaf."""
    pen.blob([(0, -0.4), (0.4, -0.58), (0.82, -0.34), (0.86, 0.16), (0.56, 0.78), (0.22, 0.93),
              (0, 0.86), (-0.22, 0.93), (-0.56, 0.78), (-0.86, 0.16), (-0.82, -0.34),
              (-0.4, -0.58)], c)  # fmt: skip
    pen.blob([(0.6, -0.44), (0.86, 0.0), (0.56, 0.76), (0.2, 0.9), (0.56, 0.4), (0.66, 0)],
             dark(c, 0.2))  # fmt: skip
    pen.ell(0, -0.4, 0.26, 0.08, dark(c, 0.45))
    pen.line([(0, -0.38), (0.02, -0.62), (0.1, -0.86)], 0.12, (104, 66, 44))
    leaf = pick(rng, ((90, 160, 70), (60, 134, 84)))
    pen.blob([(0.08, -0.6), (0.28, -0.86), (0.64, -0.9), (0.5, -0.64)], leaf)
    pen.ell(-0.44, -0.14, 0.13, 0.24, pale(c, 0.6), 24)


def banana(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a bunch of two bananas."""

    def crescent(x: float, y: float, rx: float, ry: float, half: float) -> np.ndarray:
        swell = half * np.sqrt(np.sin(np.linspace(0.04, np.pi - 0.04, 32)))[:, None]
        middle, out = arc(x, y, rx, ry, 24, 172), arc(0, 0, 1, 1, 24, 172)
        return np.concatenate([middle + swell * out, (middle - swell * out)[::-1]])

    pen.ell(0.75, -0.46, 0.08, 0.08, (84, 62, 46))
    pen.poly(crescent(0.06, -0.82, 0.76, 0.94, 0.23), dark(c, 0.32))
    pen.ell(0.85, -0.18, 0.1, 0.1, (84, 62, 46))
    pen.poly(crescent(0.08, -0.68, 0.84, 1.26, 0.27), c)
    pen.poly(crescent(0.08, -0.7, 0.82, 1.22, 0.06), pale(c, 0.5))
    pen.line([(-0.72, -0.46), (-0.78, -0.62), (-0.7, -0.88)], 0.2, (122, 96, 50))
    for x, y in ((-0.5, 0.34), (-0.04, 0.68), (0.4, 0.56))[: rng.integers(1, 4)]:
        pen.ell(x, y, 0.07, 0.04, dark(c, 0.55), 40)


def pizza(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a whole pizza on a plate, seen from above."""
    pen.ell(0, 0, 0.97, 0.95, c)
    pen.ell(0, 0, 0.83, 0.81, dark(c, 0.22))
    pen.ell(0, 0, 0.77, 0.75, (206, 140, 72))
    pen.ell(0, 0, 0.66, 0.64, (250, 206, 96))
    start = rng.uniform(0, 60)
    for i in range(6):
        a = np.radians(start + 60 * i)
        r = 0.44 + 0.05 * (i % 2)
        x, y = r * np.cos(a), r * np.sin(a)
        pen.ell(x, y, 0.145, 0.14, (176, 48, 42))
        pen.ell(x - 0.03, y - 0.03, 0.08, 0.075, (212, 82, 62))
    pen.ell(0.02, 0.0, 0.145, 0.14, (176, 48, 42))
    for i in range(3):
        a = np.radians(start + 30 + 120 * i)
        pen.ell(0.3 * np.cos(a), 0.3 * np.sin(a), 0.12, 0.06, (84, 142, 66), start + 60 * i)


def ice_cream(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint two scoops in a waffle cone with a cherry."""
    cone = (222, 166, 96)
    pen.poly([(-0.5, 0.06), (0.5, 0.06), (0.06, 0.96), (-0.06, 0.96)], cone)
    for t in (0.2, 0.5, 0.8):
        pen.line([(-0.5 + t, 0.1), (0.46 - 0.42 * (1 - t), 0.1 + 0.78 * (1 - t))], 0.04,
                 dark(cone, 0.3))  # fmt: skip
        pen.line([(0.5 - t, 0.1), (-0.46 + 0.42 * (1 - t), 0.1 + 0.78 * (1 - t))], 0.04,
                 dark(cone, 0.3))  # fmt: skip
    pen.ell(0, -0.08, 0.58, 0.36, c)
    for x in (-0.42, -0.14, 0.14, 0.42):
        pen.ell(x, 0.14, 0.17, 0.13, c)
    top = pick(rng, (pale(c, 0.45), (128, 84, 62), CREAM)) if c != COLOURS["white"] else c
    pen.ell(0, -0.46, 0.45, 0.38, mix(top, c, 0.3))
    for x in (-0.28, 0.0, 0.28):
        pen.ell(x, -0.22, 0.17, 0.11, mix(top, c, 0.3))
    pen.ell(-0.18, -0.58, 0.12, 0.09, pale(top, 0.6), -30)
    pen.ell(0.04, -0.84, 0.13, 0.13, (206, 40, 62))
    pen.ell(0.0, -0.88, 0.04, 0.04, CREAM)
    for x, y in ((-0.3, -0.06), (0.26, -0.02), (0.02, -0.1), (-0.1, 0.1), (0.4, 0.08)):
        pen.ell(x, y, 0.05, 0.03, pick(rng, (CREAM, (255, 210, 80), (90, 60, 60))), 40)


# --------------------------------------------------------------------------------- vehicles


def car(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a small round car from the side."""
    pen.blob([(-0.68, 0.14), (-0.56, -0.3), (-0.34, -0.5), (0.14, -0.52), (0.42, -0.3),
              (0.62, 0.12), (0, 0.3)], c)  # fmt: skip
    pen.blob([(-0.98, 0.46), (-0.94, 0.14), (-0.62, 0.0), (0.5, 0.0), (0.88, 0.1), (0.98, 0.36),
              (0.94, 0.66), (0, 0.7), (-0.94, 0.66)], c)  # fmt: skip
    pen.poly([(-0.52, 0.04), (-0.4, -0.32), (-0.1, -0.36), (-0.1, 0.04)], GLASS)
    pen.poly([(-0.02, 0.04), (-0.02, -0.36), (0.16, -0.34), (0.44, 0.04)], GLASS)
    pen.poly([(-0.46, 0.04), (-0.36, -0.3), (-0.26, -0.32), (-0.38, 0.04)], pale(GLASS, 0.6))
    pen.box(-0.94, 0.42, 0.94, 0.5, pale(c, 0.5))
    pen.box(-0.06, 0.14, 0.1, 0.2, dark(c, 0.5))
    pen.box(-0.98, 0.58, 0.98, 0.68, dark(c, 0.55), 0.05)
    pen.ell(0.88, 0.28, 0.09, 0.1, (255, 240, 170))
    pen.ell(-0.91, 0.26, 0.06, 0.08, (200, 40, 50))
    hub = pick(rng, (STEEL, CREAM))
    for x in (-0.54, 0.54):
        pen.dome(x, 0.66, 0.32, 0.32, dark(c, 0.6))
        _wheel(pen, x, 0.68, 0.26, hub)


def boat(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a sailing boat."""
    pen.box(-0.045, -0.94, 0.045, 0.5, dark(WOOD, 0.3))
    pen.poly([(0.09, -0.88), (0.86, 0.26), (0.09, 0.34)], CREAM)
    pen.poly([(-0.09, -0.74), (-0.09, 0.34), (-0.72, 0.26)], pale(c, 0.35))
    pen.poly([(0.09, -0.16), (0.57, -0.16), (0.72, 0.06), (0.09, 0.06)], c)
    pen.poly([(0, -0.96), (-0.3, -0.88), (0, -0.8)], pick(rng, ((214, 60, 70), (250, 200, 80))))
    pen.poly([(-0.96, 0.42), (0.98, 0.42), (0.7, 0.86), (0.56, 0.95), (-0.56, 0.95),
              (-0.74, 0.84)], c)  # fmt: skip
    pen.box(-0.94, 0.42, 0.95, 0.53, WOOD)
    pen.poly([(-0.76, 0.8), (0.76, 0.8), (0.56, 0.95), (-0.56, 0.95)], dark(c, 0.45))
    for x in (-0.42, 0.0, 0.42):
        pen.ell(x, 0.66, 0.085, 0.085, CREAM)
        pen.ell(x, 0.66, 0.05, 0.05, (70, 96, 130))


def train(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a steam locomotive."""
    trim = pick(rng, ((246, 200, 84), (226, 226, 230)))
    pen.box(0.42, -0.72, 0.62, 0.0, INK)
    pen.poly([(0.34, -0.9), (0.7, -0.9), (0.62, -0.66), (0.42, -0.66)], INK)
    pen.dome(0.02, -0.14, 0.15, 0.26, trim)
    pen.box(-0.3, -0.2, 0.84, 0.42, c, 0.14)
    for x in (0.14, 0.5):
        pen.box(x - 0.035, -0.2, x + 0.035, 0.42, trim)
    pen.box(0.76, -0.24, 0.9, 0.44, INK, 0.05)
    pen.box(-0.88, -0.62, -0.2, 0.48, c)
    pen.box(-0.96, -0.74, -0.12, -0.58, dark(c, 0.5), 0.06)
    pen.box(-0.74, -0.46, -0.34, -0.04, CREAM)
    pen.box(-0.69, -0.41, -0.39, -0.09, GLASS)
    pen.box(-0.92, 0.38, 0.86, 0.56, dark(c, 0.55))
    pen.poly([(0.7, 0.5), (0.86, 0.5), (0.99, 0.93), (0.7, 0.93)], (90, 84, 100))
    pen.ell(0.9, -0.06, 0.08, 0.1, (255, 238, 160))
    for x, r in ((-0.58, 0.29), (0.02, 0.22), (0.48, 0.22)):
        _wheel(pen, x, 0.94 - r, r, (200, 60, 60) if c != COLOURS["red"] else STEEL)
    pen.line([(-0.58, 0.7), (0.48, 0.76)], 0.07, STEEL)


def airplane(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a round passenger aeroplane, its nose slightly up."""
    stripe = CREAM if c != COLOURS["white"] else (70, 120, 200)
    pen.poly([(0.04, -0.06), (-0.12, -0.6), (-0.3, -0.6), (-0.28, -0.06)], dark(c, 0.45))
    pen.poly([(-0.56, -0.04), (-0.82, -0.66), (-0.98, -0.66), (-0.9, 0.06)], dark(c, 0.25))
    pen.blob([(-0.96, -0.02), (-0.7, -0.2), (0.3, -0.26), (0.74, -0.18), (0.98, 0.08),
              (0.78, 0.28), (0.2, 0.36), (-0.5, 0.24), (-0.86, 0.08)], c)  # fmt: skip
    pen.poly([(-0.9, 0.02), (0.98, 0.06), (0.92, 0.18), (-0.66, 0.18)], stripe)
    pen.poly([(0.6, -0.18), (0.76, -0.14), (0.88, -0.02), (0.62, -0.02)], (72, 92, 128))
    for x in np.linspace(-0.5, 0.42, 5):
        pen.ell(x, -0.07, 0.065, 0.075, (72, 92, 128))
    pen.poly([(0.26, 0.16), (-0.04, 0.16), (-0.52, 0.74), (-0.3, 0.74)], dark(c, 0.45))
    pen.box(-0.2, 0.4, 0.14, 0.56, pick(rng, (STEEL, (120, 126, 146))), 0.07)
    pen.poly([(-0.66, 0.02), (-0.9, 0.02), (-0.98, 0.26), (-0.86, 0.26)], dark(c, 0.45))


# ------------------------------------------------------------------------------------ tools


def hammer(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a claw hammer with a coloured grip."""
    steel = pick(rng, (STEEL, (142, 150, 168)))
    pen.box(-0.11, -0.6, 0.11, 0.4, WOOD)
    pen.box(-0.17, 0.0, 0.17, 0.95, c, 0.12)
    for y in (0.3, 0.48, 0.66):
        pen.box(-0.17, y, 0.17, y + 0.07, dark(c, 0.4))
    pen.box(-0.2, -0.84, 0.3, -0.4, steel, 0.06)
    pen.box(0.26, -0.76, 0.46, -0.48, dark(steel, 0.2))
    pen.box(0.42, -0.88, 0.7, -0.36, steel, 0.07)
    pen.blob([(-0.16, -0.84), (-0.48, -0.8), (-0.74, -0.4), (-0.6, -0.36), (-0.4, -0.54),
              (-0.16, -0.5)], steel)  # fmt: skip
    pen.box(-0.14, -0.8, 0.62, -0.72, pale(steel, 0.6), 0.03)


def scissors(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint open scissors with coloured handles."""
    opening = rng.uniform(0.26, 0.36)
    for x in (-1, 1):
        steel = STEEL if x > 0 else dark(STEEL, 0.18)
        pen.poly([(-x * 0.1, 0.24), (x * 0.08, 0.16), (x * (opening + 0.14), -0.84),
                  (x * opening, -0.95), (-x * 0.1, 0.02)], steel)  # fmt: skip
        pen.line([(-x * 0.02, 0.12), (-x * 0.26, 0.38)], 0.16, dark(c, 0.15))
    for x in (-1, 1):
        pen.ring(x * 0.38, 0.62, 0.24, 0.25, 0.15, c)
    pen.ell(0, 0.1, 0.09, 0.09, INK)
    pen.ell(0, 0.1, 0.04, 0.04, CREAM)


def wrench(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint an open-ended wrench with a closed ring at the other end."""
    pen.poly([(-0.17, -0.4), (0.17, -0.4), (0.15, 0.6), (-0.15, 0.6)], c)
    pen.box(-0.06, -0.24, 0.06, 0.4, dark(c, 0.38), 0.05)
    pen.poly(
        np.concatenate([arc(0, -0.56, 0.42, 0.38, -58, 238), [(-0.2, -0.56), (0.2, -0.56)]]), c
    )
    pen.line([(-0.29, -0.84), (-0.2, -0.56), (0.2, -0.56), (0.29, -0.84)], 0.07, dark(c, 0.38))
    pen.ring(0, 0.68, 0.18, 0.18, 0.18, c)
    pen.ring(0, 0.68, 0.11, 0.11, 0.05, dark(c, 0.38))
    shine = pick(rng, (pale(c, 0.6), pale(c, 0.45)))
    pen.line(arc(0, -0.56, 0.32, 0.29, 130, 200, 10), 0.07, shine)


def saw(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a hand saw with large teeth and a coloured handle."""
    steel = pick(rng, (STEEL, (196, 204, 216)))
    teeth = [(0.98 - 0.12 * i / 2, 0.2 + (0.14 if i % 2 else 0.0)) for i in range(23)]
    pen.poly([(-0.36, -0.32), (0.98, -0.02), *teeth, (-0.36, 0.26)], steel)
    pen.poly([(-0.36, -0.32), (0.98, -0.02), (0.98, 0.04), (-0.36, -0.2)], pale(steel, 0.6))
    pen.line([(-0.42, -0.32), (-0.8, -0.3), (-0.86, 0.04), (-0.76, 0.36), (-0.42, 0.34),
              (-0.4, 0.0), (-0.42, -0.3)], 0.22, c)  # fmt: skip
    pen.line([(-0.4, -0.24), (-0.4, 0.28)], 0.2, dark(c, 0.3))
    for y in (-0.16, 0.18):
        pen.ell(-0.4, y, 0.05, 0.05, CREAM)


OBJECT_PAINTERS: dict[str, Callable[[Pen, Colour, np.random.Generator], None]] = {
    "man": creatures.man,
    "woman": creatures.woman,
    "child": creatures.child,
    "old man": creatures.old_man,
    "dog": creatures.dog,
    "cat": creatures.cat,
    "bird": creatures.bird,
    "elephant": creatures.elephant,
    "house": house,
    "church": church,
    "castle": castle,
    "lighthouse": lighthouse,
    "apple": apple,
    "banana": banana,
    "pizza": pizza,
    "ice cream": ice_cream,
    "car": car,
    "boat": boat,
    "train": train,
    "airplane": airplane,
    "hammer": hammer,
    "scissors": scissors,
    "wrench": wrench,
    "saw": saw,
}
