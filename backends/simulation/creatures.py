"""The people and animals a scene can show: each painted in a box from -1 to 1.

As in `objects`, y points down and the painted stands at about y = 0.95.
"""

import numpy as np

from backends.simulation.pen import (
    COLOURS,
    CREAM,
    GLASS,
    INK,
    SKINS,
    STEEL,
    Colour,
    Pen,
    arc,
    curve,
    dark,
    mix,
    pale,
    pick,
)


def _eyes(pen: Pen, y: float, gap: float = 0.2, r: float = 0.07) -> None:
    for x in (-gap, gap):
        pen.ell(x, y, r, r * 1.15, INK)
        pen.ell(x + r * 0.35, y - r * 0.4, r * 0.35, r * 0.35, CREAM)


def _bust(pen: Pen, shirt: Colour, skin: Colour) -> None:
    pen.dome(0, 0.96, 0.82, 0.56, shirt)
    pen.blob([(-0.22, 0.3), (0.22, 0.3), (0.26, 0.5), (0, 0.64), (-0.26, 0.5)], dark(skin, 0.16))


# ------------------------------------------------------------------------------------ faces


def man(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a bearded man in a woollen hat and a shirt."""
    skin, hair = pick(rng, SKINS), pick(rng, ((70, 46, 34), (40, 34, 36), (150, 84, 40)))
    _bust(pen, c, skin)
    for x in (-0.52, 0.52):
        pen.ell(x, -0.08, 0.1, 0.15, dark(skin, 0.1))
    pen.ell(0, -0.08, 0.5, 0.6, skin)
    pen.blob([(-0.52, -0.12), (-0.5, 0.3), (-0.26, 0.6), (0, 0.68), (0.26, 0.6), (0.5, 0.3),
              (0.52, -0.12), (0.36, 0.1), (0, 0.14), (-0.36, 0.1)], hair)  # fmt: skip
    pen.poly(arc(0, 0.28, 0.21, 0.14, 0, 180), (236, 128, 118))
    pen.ell(0, 0.05, 0.09, 0.12, dark(skin, 0.14))
    _eyes(pen, -0.13)
    for x in (-0.2, 0.2):
        pen.box(x - 0.13, -0.29, x + 0.13, -0.23, hair)
    pen.dome(0, -0.36, 0.57, 0.56, c)
    pen.box(-0.6, -0.46, 0.6, -0.28, dark(c, 0.28), 0.08)
    pen.ell(0, -0.9, 0.1, 0.09, dark(c, 0.28))


def woman(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a woman with long hair, a hair band and a dress."""
    skin = pick(rng, SKINS)
    hair = pick(rng, ((66, 40, 36), (36, 32, 40), (232, 184, 90), (168, 78, 44)))
    pen.blob([(0, -0.95), (0.56, -0.72), (0.7, -0.1), (0.8, 0.74), (0.4, 0.86), (-0.4, 0.86),
              (-0.8, 0.74), (-0.7, -0.1), (-0.56, -0.72)], hair)  # fmt: skip
    pen.dome(0, 0.96, 0.74, 0.44, c)
    pen.blob([(-0.15, 0.3), (0.15, 0.3), (0.24, 0.56), (0, 0.76), (-0.24, 0.56)], dark(skin, 0.12))
    pen.ell(0, -0.08, 0.43, 0.55, skin)
    pen.blob([(-0.48, 0.06), (-0.46, -0.52), (0, -0.78), (0.46, -0.52), (0.48, 0.06),
              (0.34, -0.28), (0.06, -0.46), (-0.3, -0.3)], hair)  # fmt: skip
    pen.line(arc(0, -0.22, 0.53, 0.54, 200, 340), 0.15, c)
    for x in (-0.18, 0.18):
        pen.ell(x * 1.5, 0.1, 0.09, 0.07, mix(skin, (238, 100, 110), 0.45))
        pen.line(arc(x, -0.2, 0.12, 0.1, 200, 340, 8), 0.045, dark(hair, 0.3))
    _eyes(pen, -0.09, 0.18, 0.08)
    pen.ell(0, 0.09, 0.05, 0.06, dark(skin, 0.14))
    pen.poly(arc(0, 0.21, 0.17, 0.13, 0, 180), (208, 50, 70))


def child(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a freckled child with a cap and a wide smile."""
    skin = pick(rng, SKINS[:3])
    hair = pick(rng, ((238, 150, 60), (250, 206, 110), (120, 76, 44)))
    _bust(pen, c, skin)
    pen.box(-0.66, 0.78, 0.66, 0.87, CREAM if c != COLOURS["white"] else STEEL)
    for x in (-0.64, 0.64):
        pen.ell(x, 0.02, 0.14, 0.16, dark(skin, 0.1))
        pen.ell(x * 0.92, -0.22, 0.14, 0.22, hair)
    pen.ell(0, 0.02, 0.63, 0.56, skin)
    pen.poly(arc(0, 0.2, 0.3, 0.26, 0, 180), (150, 44, 56))
    pen.box(-0.25, 0.2, 0.25, 0.29, CREAM)
    for x in (-1, 1):
        for dx, dy in ((0.3, 0.08), (0.42, 0.13), (0.45, 0.01)):
            pen.ell(x * dx, dy, 0.032, 0.032, mix(skin, (168, 80, 40), 0.6))
    pen.ell(0, 0.08, 0.07, 0.06, dark(skin, 0.14))
    _eyes(pen, -0.08, 0.25, 0.1)
    pen.dome(0, -0.24, 0.64, 0.62, c)
    pen.poly(arc(0, -0.24, 0.2, 0.62, 180, 360), pale(c, 0.3))
    pen.blob([(-0.1, -0.34), (0.6, -0.34), (0.96, -0.22), (0.9, -0.14), (0.3, -0.2),
              (-0.1, -0.22)], dark(c, 0.35))  # fmt: skip
    pen.ell(0, -0.86, 0.08, 0.06, dark(c, 0.35))


def old_man(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint an old man: bald, white hair at the sides, glasses, moustache, bow tie."""
    skin, hair = pick(rng, SKINS[:3]), pick(rng, ((236, 236, 240), (206, 208, 216)))
    _bust(pen, c, skin)
    for x in (-1, 1):
        pen.blob([(x * 0.4, -0.56), (x * 0.7, -0.46), (x * 0.8, -0.12), (x * 0.64, 0.26),
                  (x * 0.4, 0.2)], hair)  # fmt: skip
    pen.ell(0, -0.17, 0.52, 0.68, skin)
    pen.ell(-0.14, -0.62, 0.2, 0.1, pale(skin, 0.4), -18)
    for x in (-0.25, 0.25):
        pen.ell(x, -0.14, 0.21, 0.2, pale(GLASS, 0.4))
        pen.ell(x, -0.12, 0.07, 0.08, INK)
        pen.ell(x + 0.025, -0.155, 0.028, 0.03, CREAM)
        pen.ring(x, -0.14, 0.21, 0.2, 0.07, INK)
        pen.line([(x - 0.13, -0.44), (x + 0.13, -0.44)], 0.08, hair)
    pen.ell(0, 0.08, 0.11, 0.13, mix(skin, (226, 110, 100), 0.35))
    for x in (-1, 1):
        pen.blob([(0, 0.16), (x * 0.3, 0.22), (x * 0.42, 0.36), (x * 0.2, 0.36), (0, 0.3)], hair)
    pen.poly(arc(0, 0.35, 0.17, 0.12, 0, 180), (196, 84, 84))
    for x in (-1, 1):
        pen.poly([(0, 0.7), (x * 0.3, 0.56), (x * 0.3, 0.84)], dark(c, 0.45))
    pen.ell(0, 0.7, 0.09, 0.09, dark(c, 0.6))


# ---------------------------------------------------------------------------------- animals


def dog(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a standing dog with a hanging ear and a collar."""
    pen.line(curve([(-0.66, 0.12), (-0.9, -0.14), (-0.84, -0.42), (-0.88, -0.1)])[:22], 0.15, c)
    for x in (-0.5, 0.36):
        pen.box(x - 0.02, 0.3, x + 0.22, 0.95, dark(c, 0.35), 0.09)
    pen.blob([(-0.76, 0.06), (-0.4, -0.1), (0.2, -0.14), (0.58, -0.1), (0.56, 0.4), (0.2, 0.48),
              (-0.3, 0.42), (-0.72, 0.5)], c)  # fmt: skip
    for x in (-0.74, 0.2):
        pen.box(x, 0.2, x + 0.25, 0.95, c, 0.1)
        pen.box(x - 0.02, 0.83, x + 0.29, 0.95, pale(c, 0.45), 0.06)
    pen.ell(-0.22, 0.12, 0.24, 0.17, dark(c, 0.35), 8)
    pen.blob([(0.16, -0.72), (0.5, -0.84), (0.72, -0.5), (0.98, -0.36), (0.94, -0.14),
              (0.62, -0.08), (0.5, 0.1), (0.14, 0.1)], c)  # fmt: skip
    pen.ell(0.8, -0.24, 0.17, 0.12, pale(c, 0.5))
    pen.ell(0.91, -0.37, 0.085, 0.075, INK)
    pen.ell(0.58, -0.52, 0.065, 0.07, INK)
    pen.blob([(0.16, -0.78), (0.36, -0.74), (0.38, -0.3), (0.24, -0.04), (0.06, -0.16)],
             dark(c, 0.45))  # fmt: skip
    pen.line([(0.16, 0.06), (0.54, 0.08)], 0.11, pick(rng, ((200, 50, 60), (50, 90, 170))))


def cat(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a sitting cat seen from the front, its tail at the side."""
    stripe = dark(c, 0.42)
    pen.line([(0.34, 0.84), (0.66, 0.82), (0.82, 0.56), (0.7, 0.3), (0.78, 0.1)], 0.17, c)
    pen.line([(0.7, 0.3), (0.78, 0.1)], 0.17, stripe)
    pen.blob([(0, -0.2), (0.36, 0.1), (0.54, 0.6), (0.46, 0.93), (0, 0.95), (-0.46, 0.93),
              (-0.54, 0.6), (-0.36, 0.1)], c)  # fmt: skip
    pen.ell(0, 0.44, 0.22, 0.32, pale(c, 0.6))
    for x in (-1, 1):
        pen.line([(x * 0.5, 0.5), (x * 0.32, 0.48)], 0.08, stripe)
        pen.line([(x * 0.5, 0.68), (x * 0.34, 0.66)], 0.08, stripe)
        pen.box(x * 0.15 - 0.12, 0.5, x * 0.15 + 0.12, 0.95, c, 0.1)
        pen.ell(x * 0.16, 0.88, 0.15, 0.08, pale(c, 0.6))
        pen.poly([(x * 0.56, -0.36), (x * 0.54, -0.96), (x * 0.08, -0.64)], c)
        pen.poly([(x * 0.47, -0.5), (x * 0.47, -0.8), (x * 0.22, -0.62)], (240, 160, 168))
    pen.ell(0, -0.32, 0.6, 0.43, c)
    for x in (-0.16, 0, 0.16):
        pen.line([(x, -0.72), (x * 0.7, -0.56)], 0.07, stripe)
    iris = pick(rng, ((126, 196, 90), (250, 206, 80), (110, 190, 220)))
    for x in (-0.26, 0.26):
        pen.ell(x, -0.36, 0.14, 0.13, iris)
        pen.ell(x, -0.36, 0.055, 0.125, INK)
        pen.ell(x * 0.4, -0.12, 0.14, 0.1, pale(c, 0.65))
    pen.poly([(-0.09, -0.22), (0.09, -0.22), (0, -0.12)], (226, 110, 124))


def bird(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a round bird with a raised tail, a wing and an orange beak."""
    beak = (246, 166, 40) if c != COLOURS["orange"] else (92, 78, 84)
    for x in (-0.12, 0.14):
        pen.line([(x, 0.6), (x, 0.9), (x + 0.16, 0.92)], 0.09, dark(beak, 0.2))
    pen.poly([(-0.4, 0.12), (-0.96, -0.3), (-0.98, -0.06), (-0.9, 0.2), (-0.46, 0.46)],
             dark(c, 0.45))  # fmt: skip
    pen.poly([(0.62, -0.56), (0.98, -0.38), (0.62, -0.24)], beak)
    pen.blob([(-0.6, 0.16), (-0.1, -0.24), (0.1, -0.72), (0.42, -0.88), (0.72, -0.66),
              (0.74, -0.3), (0.7, 0.24), (0.36, 0.64), (-0.1, 0.72), (-0.46, 0.52)],
             c)  # fmt: skip
    pen.blob([(0.68, -0.08), (0.66, 0.28), (0.36, 0.6), (0.04, 0.68), (0.2, 0.3), (0.42, 0.0)],
             pale(c, 0.65))  # fmt: skip
    pen.blob([(0.22, -0.1), (0.2, 0.28), (-0.16, 0.5), (-0.66, 0.48), (-0.4, 0.2), (-0.1, -0.1)],
             dark(c, 0.35))  # fmt: skip
    pen.line([(-0.4, 0.34), (-0.1, 0.3), (0.08, 0.1)], 0.05, pale(c, 0.3))
    pen.ell(0.46, -0.54, 0.13, 0.13, CREAM)
    pen.ell(0.49, -0.54, 0.075, 0.08, INK)
    if rng.random() < 0.5:
        pen.blob([(0.3, -0.84), (0.16, -0.98), (0.34, -0.94), (0.46, -0.86)], dark(c, 0.45))


def elephant(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint an elephant from the side with a big ear, a trunk and a tusk."""
    pen.line([(-0.84, -0.1), (-0.94, 0.3)], 0.08, dark(c, 0.35))
    for x in (-0.5, 0.12):
        pen.box(x, 0.3, x + 0.28, 0.93, dark(c, 0.4), 0.06)
    pen.blob([(-0.9, 0.1), (-0.7, -0.46), (-0.2, -0.62), (0.3, -0.56), (0.5, 0.1), (0.3, 0.46),
              (-0.3, 0.5), (-0.8, 0.46)], c)  # fmt: skip
    for x in (-0.84, -0.12):
        pen.box(x, 0.1, x + 0.33, 0.95, c, 0.08)
        for i in range(3):
            pen.ell(x + 0.07 + 0.095 * i, 0.92, 0.045, 0.035, CREAM)
    pen.line([(0.66, -0.1), (0.8, 0.3), (0.74, 0.62), (0.84, 0.74), (0.93, 0.66)], 0.2, c)
    pen.ell(0.5, -0.32, 0.4, 0.42, c)
    pen.blob([(0.52, 0.08), (0.66, 0.08), (0.76, 0.34), (0.68, 0.42)], CREAM)
    pen.ell(0.68, -0.36, 0.065, 0.07, INK)
    pen.blob([(0.36, -0.68), (0.46, -0.24), (0.3, 0.2), (-0.04, 0.24), (-0.26, -0.2),
              (-0.1, -0.64)], dark(c, 0.28))  # fmt: skip
    inner = mix(c, (240, 160, 168), 0.5)
    pen.blob([(0.26, -0.54), (0.34, -0.2), (0.2, 0.08), (0.0, 0.08), (-0.12, -0.2), (0, -0.52)],
             inner)  # fmt: skip
    if rng.random() < 0.4:
        pen.box(-0.66, -0.56, -0.2, 0.0, pick(rng, ((200, 60, 80), (60, 130, 150))), 0.08)
