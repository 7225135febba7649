"""What settings are made of: light, sky, hills, clouds and trees.

The pen measures in image widths; (0, 0) is the upper left corner of the image, (1, 1) the lower
right one.
"""

import numpy as np
from PIL import Image

from backends.simulation.pen import CREAM, Colour, Pen, mix, pale, pick

LIGHTS: tuple[str, ...] = ("day", "dusk", "night")
# Factor per colour channel that each light leaves of a painted surface (our choice, by eye).
TINTS: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "dusk": (0.98, 0.80, 0.74),
    "night": (0.42, 0.51, 0.80),
}
# Colours of the sky from its top to the horizon.
SKIES: dict[str, tuple[tuple[Colour, Colour], ...]] = {
    "day": (
        ((96, 172, 232), (214, 238, 246)),
        ((122, 190, 228), (250, 240, 220)),
        ((88, 186, 214), (206, 240, 232)),
    ),
    "dusk": (
        ((104, 84, 150), (255, 178, 120)),
        ((214, 110, 120), (255, 212, 140)),
        ((84, 110, 166), (250, 170, 150)),
    ),
    "night": (
        ((20, 26, 66), (66, 86, 140)),
        ((26, 22, 60), (92, 78, 138)),
        ((12, 34, 70), (50, 104, 136)),
    ),
}


def fade(pen: Pen, y0: float, y1: float, top: Colour, base: Colour, glow: bool = False) -> None:
    """Fill the band from y0 to y1 with a vertical gradient."""
    width = pen.image.width
    first, last = round(y0 * width), round(y1 * width)
    ends = np.array([pen.paint(top, glow), pen.paint(base, glow)], float)
    share = np.linspace(0, 1, last - first)[:, None, None]
    column = (ends[0] * (1 - share) + ends[1] * share).astype(np.uint8)
    pen.image.paste(Image.fromarray(column).resize((width, last - first)), (0, first))


def ridge(
    pen: Pen, rng: np.random.Generator, y: float, height: float, colour: Colour, waves: float = 1.5
) -> None:
    """Fill everything under a soft line of hills around y."""
    along = np.linspace(0, 1, 40)
    line = np.zeros(40)
    for k in (1.0, 2.3):
        line += np.sin(2 * np.pi * (waves * k * along * rng.uniform(0.7, 1.2) + rng.random())) / k
    upper = np.stack([along, y - height * line / 2], axis=1)
    pen.poly(np.concatenate([upper, [(1.0, 1.0), (0.0, 1.0)]]), colour)


def cloud(pen: Pen, rng: np.random.Generator, x: float, y: float, w: float, light: str) -> None:
    """Draw a cloud of soft balls with a flat base, `w` wide."""
    colour = {"day": (255, 255, 255), "dusk": (255, 206, 186), "night": (84, 92, 146)}[light]
    for dx, r in ((-0.32, 0.15), (-0.1, 0.24), (0.14, 0.2), (0.34, 0.13)):
        r *= rng.uniform(0.85, 1.15)
        pen.ell(x + dx * w, y - r * w * 0.55, r * w, r * w * 0.8, colour, glow=True)
    pen.draw.rounded_rectangle(
        pen.place([(x - 0.48 * w, y - 0.13 * w), (x + 0.48 * w, y + 0.05 * w)]),
        radius=0.09 * w * pen.scale,
        fill=colour,
    )


def disc(pen: Pen, x: float, y: float, r: float, colour: Colour) -> None:
    """Draw the sun or the moon within a soft halo."""
    for k, opacity in ((2.3, 34), (1.8, 44), (1.4, 60)):
        pen.ell(x, y, r * k, r * k, (*colour, opacity), glow=True)
    pen.ell(x, y, r, r, pale(colour, 0.4), glow=True)


def stars(pen: Pen, rng: np.random.Generator, n: int, base: float) -> None:
    """Scatter n stars above `base`; one in eight is large and has four points."""
    for i, (x, y, r) in enumerate(rng.random((n, 3)).tolist()):
        y, r = y * base, 0.0025 + 0.004 * r**2
        pen.ell(x, y, r, r, (255, 250, 224), glow=True)
        if i % 8 == 0:
            a, b = 0.021, 0.004
            pen.poly(
                [(x, y - a), (x + b, y - b), (x + a, y), (x + b, y + b),
                 (x, y + a), (x - b, y + b), (x - a, y), (x - b, y - b)],
                (255, 246, 206), glow=True,
            )  # fmt: skip


def sky(pen: Pen, rng: np.random.Generator, light: str, base: float) -> None:
    """Fill the sky down to `base`: gradient, sun or moon, clouds or stars."""
    top, low = pick(rng, SKIES[light])
    fade(pen, 0, base, top, low, glow=True)
    x = rng.uniform(0.1, 0.9)
    if light == "night":
        stars(pen, rng, 26, base * 0.9)
        disc(pen, x, rng.uniform(0.09, 0.2), rng.uniform(0.04, 0.06), (250, 240, 206))
    elif light == "dusk":
        disc(pen, x, base - rng.uniform(0.03, 0.12), rng.uniform(0.07, 0.1), (255, 214, 120))
    elif rng.random() < 0.7:
        disc(pen, x, rng.uniform(0.08, 0.18), rng.uniform(0.05, 0.08), (255, 232, 140))
    for _ in range(rng.integers(1, 4)):
        w = rng.uniform(0.16, 0.32)
        cloud(pen, rng, rng.uniform(0, 1), rng.uniform(0.08, base * 0.7), w, light)


def fir(pen: Pen, x: float, base: float, h: float, colour: Colour, snow: bool = False) -> None:
    """Draw a fir tree of three tiers, `h` high."""
    pen.box(x - 0.03 * h, base - 0.2 * h, x + 0.03 * h, base, (92, 64, 50))
    for i, (low, half) in enumerate(((0.1, 0.26), (0.36, 0.21), (0.6, 0.15))):
        tip = base - h * (low + 0.4)
        half *= h
        pen.poly([(x - half, base - low * h), (x, tip), (x + half, base - low * h)],
                 mix(colour, CREAM, 0.05 * i))  # fmt: skip
        if snow:
            mid = base - h * (low + 0.22)
            pen.poly([(x - half * 0.45, mid), (x, tip), (x + half * 0.45, mid)], (244, 248, 255))


def tree(pen: Pen, x: float, base: float, h: float, colour: Colour) -> None:
    """Draw a round leafy tree, `h` high."""
    pen.box(x - 0.05 * h, base - 0.5 * h, x + 0.05 * h, base, (112, 78, 56))
    for dx, dy, r in ((-0.17, 0.52, 0.22), (0.18, 0.54, 0.21), (0.0, 0.74, 0.26)):
        pen.ell(x + dx * h, base - dy * h, r * h, r * h, colour)
    pen.ell(x - 0.06 * h, base - 0.78 * h, 0.13 * h, 0.11 * h, pale(colour, 0.18))
