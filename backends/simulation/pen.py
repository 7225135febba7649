"""The pen that every scene is drawn with, and its paints.

A pen has coordinates of its own, so that size, place, tilt and mirroring are its business and a
painter is a short list of chunky shapes.
"""

from collections.abc import Sequence
from typing import Any

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


def pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    """Return one of the choices, all equally likely."""
    return choices[rng.integers(len(choices))]
