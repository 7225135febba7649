"""The 24 things a scene can show, and the pen that draws them.

Every painter draws one object in a box that reaches from -1 to 1 in both directions (y points
down, the object stands at about y = 0.95), so that size, place, tilt and mirroring are the
pen's business and a painter is a short list of chunky shapes.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

INK: Colour = (44, 40, 62)
CREAM: Colour = (255, 248, 232)
STEEL: Colour = (176, 186, 202)
WOOD: Colour = (176, 122, 74)
GLASS: Colour = (190, 226, 242)
# Our choice: as far apart in hue as eight friendly paints can be.
COLOURS: dict[str, Colour] = {
    "red": (214, 52, 56),
    "orange": (240, 136, 44),
    "yellow": (248, 206, 64),
    "green": (72, 164, 88),
    "blue": (58, 112, 206),
    "purple": (134, 84, 184),
    "pink": (242, 142, 178),
    "white": (246, 244, 240),
}
SKINS: tuple[Colour, ...] = ((250, 214, 186), (236, 188, 150), (198, 142, 104), (140, 94, 68))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; `share` in [0, 1] is the part of the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def dark(colour: Colour, share: float = 0.3) -> Colour:
    """Blend towards ink."""
    return mix(colour, INK, share)


def pale(colour: Colour, share: float = 0.4) -> Colour:
    """Blend towards white."""
    return mix(colour, (255, 255, 255), share)


class Pen:
    """Draws on one Pillow image in its own coordinates.

    Parameters
    ----------
    image
        Image in mode RGB (colours may carry alpha and are blended) or RGBA (they replace).
    centre
        Where the pen's (0, 0) lies, in pixels.
    scale
        Pixels per unit.
    flip
        Mirror left and right.
    angle
        Clockwise tilt in degrees.
    tint
        Factor in [0, 1] per channel on every colour without `glow`: the light of the scene.
    """

    def __init__(
        self,
        image: Image.Image,
        centre: tuple[float, float] = (0.0, 0.0),
        scale: float = 1.0,
        flip: bool = False,
        angle: float = 0.0,
        tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image, "RGBA")
        self.centre, self.scale, self.tint = np.array(centre, float), scale, tint
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        mirror = -1.0 if flip else 1.0
        self.matrix = scale * np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        self.upright = angle == 0.0

    def paint(self, colour: Sequence[int], glow: bool = False) -> tuple[int, ...]:
        """Return the colour under the light of the scene; a fourth entry is its opacity."""
        if glow:
            return tuple(colour)
        lit = (round(c * t) for c, t in zip(colour[:3], self.tint, strict=True))
        return (*lit, *colour[3:])

    def place(self, points: Points | np.ndarray) -> list[float]:
        """Turn points, shape (n, 2), in the pen's units into a flat list of pixels."""
        return (np.asarray(points, float) @ self.matrix.T + self.centre).ravel().tolist()

    def poly(self, points: Points | np.ndarray, colour: Sequence[int], glow: bool = False) -> None:
        """Fill a polygon."""
        self.draw.polygon(self.place(points), fill=self.paint(colour, glow))

    def ell(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Sequence[int],
        tilt: float = 0.0,
        glow: bool = False,
    ) -> None:
        """Fill an ellipse with the given centre and radii; `tilt` in degrees."""
        if self.upright and tilt == 0.0:
            (px, py), a, b = self.place([(x, y)]), rx * self.scale, ry * self.scale
            self.draw.ellipse((px - a, py - b, px + a, py + b), fill=self.paint(colour, glow))
        else:
            self.poly(arc(x, y, rx, ry, tilt=tilt), colour, glow)

    def dome(self, x: float, base: float, rx: float, height: float, colour: Sequence[int]) -> None:
        """Fill the upper half of an ellipse standing on `base` (the lower for height < 0)."""
        self.poly(arc(x, base, rx, height, 180, 360), colour)

    def blob(self, points: Points, colour: Sequence[int]) -> None:
        """Fill a closed soft curve through the points."""
        self.poly(curve(points), colour)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: Sequence[int], r: float = 0.0
    ) -> None:
        """Fill a rectangle whose corners are rounded with radius `r`."""
        if r == 0.0:
            self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)
            return
        corners = ((x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90))
        corners += ((x0 + r, y0 + r, 180),)
        self.poly(np.concatenate([arc(x, y, r, r, a, a + 90, 6) for x, y, a in corners]), colour)

    def line(
        self, points: Points | np.ndarray, width: float, colour: Sequence[int], glow: bool = False
    ) -> None:
        """Draw a thick line with round ends."""
        flat, fill = self.place(points), self.paint(colour, glow)
        self.draw.line(flat, fill=fill, width=max(1, round(width * self.scale)), joint="curve")
        if len(fill) == 3:  # a see-through cap would show as a darker disc on the line
            half = width * self.scale / 2
            for px, py in (flat[:2], flat[-2:]):
                self.draw.ellipse((px - half, py - half, px + half, py + half), fill=fill)

    def ring(
        self, x: float, y: float, rx: float, ry: float, width: float, colour: Sequence[int]
    ) -> None:
        """Draw an open ring; the radii reach to the middle of the band."""
        self.line(arc(x, y, rx, ry, 0, 372, 40), width, colour)


def arc(
    x: float,
    y: float,
    rx: float,
    ry: float,
    start: float = 0.0,
    end: float = 360.0,
    n: int = 32,
    tilt: float = 0.0,
) -> np.ndarray:
    """Trace an ellipse, shape (n, 2); angles in degrees, clockwise from the right."""
    angle = np.radians(np.linspace(start, end, n))
    offset = np.stack([rx * np.cos(angle), ry * np.sin(angle)], axis=1)
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    return offset @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def curve(points: Points, steps: int = 8) -> np.ndarray:
    """Trace a closed soft (Catmull-Rom) curve: shape (len(points) * steps, 2)."""
    p1 = np.asarray(points, float)[:, None]
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    cubic = (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    return (0.5 * (2 * p1 + (p2 - p0) * t + cubic)).reshape(-1, 2)


def _pick(rng: np.random.Generator, choices: Sequence[Colour]) -> Colour:
    return choices[rng.integers(len(choices))]


def _eyes(pen: Pen, y: float, gap: float = 0.2, r: float = 0.07) -> None:
    for x in (-gap, gap):
        pen.ell(x, y, r, r * 1.15, INK)
        pen.ell(x + r * 0.35, y - r * 0.4, r * 0.35, r * 0.35, CREAM)


def _bust(pen: Pen, shirt: Colour, skin: Colour) -> None:
    pen.dome(0, 0.96, 0.82, 0.56, shirt)
    pen.blob([(-0.22, 0.3), (0.22, 0.3), (0.26, 0.5), (0, 0.64), (-0.26, 0.5)], dark(skin, 0.16))


def _gable(pen: Pen, x: float, half: float, base: float, top: float, colour: Colour) -> None:
    pen.poly([(x - half, base), (x, top), (x + half, base)], colour)


def _arch(pen: Pen, x: float, base: float, half: float, height: float, colour: Colour) -> None:
    pen.box(x - half, base - height + half, x + half, base, colour)
    pen.ell(x, base - height + half, half, half, colour)


def _wheel(pen: Pen, x: float, y: float, r: float, hub: Colour) -> None:
    pen.ell(x, y, r, r, INK)
    pen.ell(x, y, r * 0.55, r * 0.55, hub)
    pen.ell(x, y, r * 0.18, r * 0.18, INK)


# ------------------------------------------------------------------------------------ faces


def man(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a bearded man in a woollen hat and a shirt."""
    skin, hair = _pick(rng, SKINS), _pick(rng, ((70, 46, 34), (40, 34, 36), (150, 84, 40)))
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
    skin = _pick(rng, SKINS)
    hair = _pick(rng, ((66, 40, 36), (36, 32, 40), (232, 184, 90), (168, 78, 44)))
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
    skin = _pick(rng, SKINS[:3])
    hair = _pick(rng, ((238, 150, 60), (250, 206, 110), (120, 76, 44)))
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
    skin, hair = _pick(rng, SKINS[:3]), _pick(rng, ((236, 236, 240), (206, 208, 216)))
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
    pen.line([(0.16, 0.06), (0.54, 0.08)], 0.11, _pick(rng, ((200, 50, 60), (50, 90, 170))))


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
    iris = _pick(rng, ((126, 196, 90), (250, 206, 80), (110, 190, 220)))
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
        pen.box(-0.66, -0.56, -0.2, 0.0, _pick(rng, ((200, 60, 80), (60, 130, 150))), 0.08)


# -------------------------------------------------------------------------------- buildings


def _pane(pen: Pen, x: float, y: float, half: float, rng: np.random.Generator) -> None:
    pen.box(x - half - 0.035, y - half - 0.035, x + half + 0.035, y + half + 0.035, CREAM)
    pen.box(x - half, y - half, x + half, y + half, _pick(rng, (GLASS, (255, 222, 130))))
    pen.box(x - 0.02, y - half, x + 0.02, y + half, CREAM)


def house(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a house with a wide roof, a chimney, a door and windows."""
    roof = _pick(rng, ((112, 62, 58), (78, 74, 92), (92, 70, 60)))
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
    pen.box(-0.15, 0.35, 0.15, 0.95, _pick(rng, ((130, 76, 50), (54, 88, 104))))
    pen.ell(0.09, 0.66, 0.035, 0.035, (250, 214, 100))
    for x in (-0.47, 0.47):
        _pane(pen, x, 0.38, 0.16, rng)
        pen.box(x - 0.2, 0.62, x + 0.2, 0.7, (96, 158, 84))


def church(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a church: a tower with a pointed spire and a cross, and a nave."""
    roof = _pick(rng, ((76, 82, 112), (104, 66, 66), (64, 96, 96)))
    pen.box(-0.2, 0.24, 0.92, 0.95, c)
    pen.poly([(-0.3, 0.3), (-0.12, -0.16), (0.76, -0.16), (0.98, 0.3)], roof)
    pen.box(-0.7, -0.22, -0.1, 0.95, mix(c, CREAM, 0.25))
    pen.box(-0.7, 0.82, 0.92, 0.95, dark(c, 0.4))
    pen.poly([(-0.8, -0.16), (-0.4, -0.84), (0, -0.16)], roof)
    pen.box(-0.435, -1.0, -0.365, -0.74, (240, 200, 90))
    pen.box(-0.51, -0.95, -0.29, -0.88, (240, 200, 90))
    pen.ell(-0.4, 0.06, 0.17, 0.17, CREAM)
    pen.ell(-0.4, 0.06, 0.12, 0.12, _pick(rng, (GLASS, (255, 214, 120))))
    _arch(pen, -0.4, 0.95, 0.17, 0.56, (110, 66, 48))
    pane = _pick(rng, ((110, 170, 210), (255, 222, 130), (220, 130, 150)))
    for x in (0.12, 0.42, 0.72):
        _arch(pen, x, 0.76, 0.105, 0.38, CREAM)
        _arch(pen, x, 0.74, 0.07, 0.33, pane)


def castle(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a castle: two towers with cone roofs and flags, battlements and a gate."""
    roof = _pick(rng, ((86, 78, 126), (150, 60, 66), (58, 92, 116)))
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
    leaf = _pick(rng, ((90, 160, 70), (60, 134, 84)))
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
    top = _pick(rng, (pale(c, 0.45), (128, 84, 62), CREAM)) if c != COLOURS["white"] else c
    pen.ell(0, -0.46, 0.45, 0.38, mix(top, c, 0.3))
    for x in (-0.28, 0.0, 0.28):
        pen.ell(x, -0.22, 0.17, 0.11, mix(top, c, 0.3))
    pen.ell(-0.18, -0.58, 0.12, 0.09, pale(top, 0.6), -30)
    pen.ell(0.04, -0.84, 0.13, 0.13, (206, 40, 62))
    pen.ell(0.0, -0.88, 0.04, 0.04, CREAM)
    for x, y in ((-0.3, -0.06), (0.26, -0.02), (0.02, -0.1), (-0.1, 0.1), (0.4, 0.08)):
        pen.ell(x, y, 0.05, 0.03, _pick(rng, (CREAM, (255, 210, 80), (90, 60, 60))), 40)


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
    hub = _pick(rng, (STEEL, CREAM))
    for x in (-0.54, 0.54):
        pen.dome(x, 0.66, 0.32, 0.32, dark(c, 0.6))
        _wheel(pen, x, 0.68, 0.26, hub)


def boat(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a sailing boat."""
    pen.box(-0.045, -0.94, 0.045, 0.5, dark(WOOD, 0.3))
    pen.poly([(0.09, -0.88), (0.86, 0.26), (0.09, 0.34)], CREAM)
    pen.poly([(-0.09, -0.74), (-0.09, 0.34), (-0.72, 0.26)], pale(c, 0.35))
    pen.poly([(0.09, -0.16), (0.57, -0.16), (0.72, 0.06), (0.09, 0.06)], c)
    pen.poly([(0, -0.96), (-0.3, -0.88), (0, -0.8)], _pick(rng, ((214, 60, 70), (250, 200, 80))))
    pen.poly([(-0.96, 0.42), (0.98, 0.42), (0.7, 0.86), (0.56, 0.95), (-0.56, 0.95),
              (-0.74, 0.84)], c)  # fmt: skip
    pen.box(-0.94, 0.42, 0.95, 0.53, WOOD)
    pen.poly([(-0.76, 0.8), (0.76, 0.8), (0.56, 0.95), (-0.56, 0.95)], dark(c, 0.45))
    for x in (-0.42, 0.0, 0.42):
        pen.ell(x, 0.66, 0.085, 0.085, CREAM)
        pen.ell(x, 0.66, 0.05, 0.05, (70, 96, 130))


def train(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a steam locomotive."""
    trim = _pick(rng, ((246, 200, 84), (226, 226, 230)))
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
    pen.box(-0.2, 0.4, 0.14, 0.56, _pick(rng, (STEEL, (120, 126, 146))), 0.07)
    pen.poly([(-0.66, 0.02), (-0.9, 0.02), (-0.98, 0.26), (-0.86, 0.26)], dark(c, 0.45))


# ------------------------------------------------------------------------------------ tools


def hammer(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a claw hammer with a coloured grip."""
    steel = _pick(rng, (STEEL, (142, 150, 168)))
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
    shine = _pick(rng, (pale(c, 0.6), pale(c, 0.45)))
    pen.line(arc(0, -0.56, 0.32, 0.29, 130, 200, 10), 0.07, shine)


def saw(pen: Pen, c: Colour, rng: np.random.Generator) -> None:
    """Paint a hand saw with large teeth and a coloured handle."""
    steel = _pick(rng, (STEEL, (196, 204, 216)))
    teeth = [(0.98 - 0.12 * i / 2, 0.2 + (0.14 if i % 2 else 0.0)) for i in range(23)]
    pen.poly([(-0.36, -0.32), (0.98, -0.02), *teeth, (-0.36, 0.26)], steel)
    pen.poly([(-0.36, -0.32), (0.98, -0.02), (0.98, 0.04), (-0.36, -0.2)], pale(steel, 0.6))
    pen.line([(-0.42, -0.32), (-0.8, -0.3), (-0.86, 0.04), (-0.76, 0.36), (-0.42, 0.34),
              (-0.4, 0.0), (-0.42, -0.3)], 0.22, c)  # fmt: skip
    pen.line([(-0.4, -0.24), (-0.4, 0.28)], 0.2, dark(c, 0.3))
    for y in (-0.16, 0.18):
        pen.ell(-0.4, y, 0.05, 0.05, CREAM)


OBJECT_PAINTERS: dict[str, Callable[[Pen, Colour, np.random.Generator], None]] = {
    "man": man,
    "woman": woman,
    "child": child,
    "old man": old_man,
    "dog": dog,
    "cat": cat,
    "bird": bird,
    "elephant": elephant,
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
