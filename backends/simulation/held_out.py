"""Pictures that differ in kind from everything trained on: what they show, and what cortex reads.

Four sets, each with its name in the column ``test_set``:

- "new categories": objects that no training picture shows (`unseen.UNSEEN_OBJECTS`), in known
  settings;
- "new settings": known objects in places that no training picture shows;
- "new combinations": two different known things side by side, and known things high above the
  ground, neither of which `scenes.sample_scenes` ever draws;
- "OOD line drawings", "OOD silhouettes", "OOD textures", "OOD other palettes": out of the
  distribution of painted scenes.

What is assumed of cortex: groups that are measured (energy, opponent colours, layout, shape, the
objects' colour) follow from the picture that is shown. Of the named ones, a new category still
has its super-category, and no category channel answers to it; a new setting has no channel
either. The response to two things is the mean of the responses to each (MacEvoy & Epstein 2009).
A line drawing keeps object and setting (Walther et al. 2011) and has no named colour or light; a
silhouette keeps the object alone; another palette takes only the name of the colour away; a
texture shows no object, and every named group is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from backends.simulation.features import (
    N_FEATURES,
    named_groups,
    picture_features,
)
from backends.simulation.pen import COLOURS, CREAM, INK, STEEL
from backends.simulation.scenes import (
    CATEGORIES,
    LAYOUTS,
    MARGIN,
    SIZES,
    UNSEEN_CATEGORIES,
    Scene,
    group_extent,
    object_mask,
    render,
    render_pair,
    sample_scenes,
)
from backends.simulation.unseen import UNSEEN_SETTINGS

SETS = ("new categories", "new settings", "new combinations")
STYLES = ("OOD line drawings", "OOD silhouettes", "OOD textures", "OOD other palettes")
SIDE = 128
TEXTURES = ("grating", "checks", "plaid", "clouds", "dots")
# Which named groups a style leaves silent.
SILENT: dict[str, tuple[str, ...]] = {
    "OOD line drawings": ("colour", "light"),
    "OOD silhouettes": ("colour", "light", "setting"),
    "OOD other palettes": ("colour",),
}


@dataclass(frozen=True)
class Shown:
    """What one picture of a held-out set shows.

    ``scene`` is None for a texture, ``other`` is the second thing of a pair, drawn in the first
    one's setting; ``seed`` drives what a texture looks like.
    """

    test_set: str
    scene: Scene | None
    other: Scene | None = None
    seed: int = 0

    def attributes(self) -> dict[str, str | int | float]:
        """Return one table row, as `Scene.attributes` does, with ``test_set`` and ``beside``."""
        if self.scene is None:
            blank = dict.fromkeys(_COLUMNS, "")
            row = blank | {"caption": f"a texture of {texture_name(self.seed)}", "seed": self.seed}
        else:
            row = self.scene.attributes()
            caption = str(row["caption"])
            if self.other is not None:
                row["caption"] = f"{thing(self.scene)} and {thing(self.other)}"
                row["count"] = 2
            elif self.test_set in STYLES:
                row["caption"] = f"{_MANNER[self.test_set]} {caption}"
        beside = "" if self.other is None else self.other.category
        return {**row, "beside": beside, "test_set": self.test_set}


def thing(scene: Scene) -> str:
    """Return one of a scene's objects in words, with its colour."""
    if scene.supercategory == "face":
        return (
            f"{'an' if scene.category[0] in 'aeiou' else 'a'} {scene.category} in {scene.colour}"
        )
    article = "an" if scene.colour[0] in "aeiou" else "a"
    if scene.category == "pizza":
        return f"a pizza on {article} {scene.colour} plate"
    pair = "pair of " if scene.category == "scissors" else ""
    return f"{article} {scene.colour} {pair}{scene.category}"


_COLUMNS = tuple(
    asdict(Scene("sea", "dog", "red", 0.3, 1, 0.5, 0.5, "day", 0)) | {"supercategory": ""}
)
_MANNER = {
    "OOD line drawings": "a line drawing of",
    "OOD silhouettes": "the silhouette of",
    "OOD other palettes": "in other colours,",
}


def sample_held_out(n: int, seed: int) -> list[Shown]:
    """Draw n pictures of each of `SETS`, and a third as many of each of `STYLES`.

    Parameters
    ----------
    n
        Of each set, at least 1.
    seed
        As `sample_scenes` takes it; no scene of another seed is drawn here.
    """
    each = -(-n // 3)
    made = iter(sample_scenes(5 * n + 4 * each, seed))
    rng = np.random.default_rng((seed, 6))
    unseen, places = list(UNSEEN_CATEGORIES), list(UNSEEN_SETTINGS)
    shown = [
        Shown(SETS[0], replace(next(made), category=unseen[i % len(unseen)])) for i in range(n)
    ]
    for i in range(n):
        scene = next(made)
        if scene.setting == "night sky":  # whose light is always night's
            scene = replace(scene, light=("day", "dusk", "night")[i % 3])
        shown.append(Shown(SETS[1], replace(scene, setting=places[i % len(places)])))
    for i in range(n):
        first, second = next(made), next(made)
        shown.append(_pair(first, second, rng) if i % 2 else _lifted(first, rng))
    for style in STYLES:
        for _ in range(each):
            scene = next(made)
            texture = style == "OOD textures"
            shown.append(Shown(style, None if texture else scene, seed=scene.seed))
    return shown


def _lifted(scene: Scene, rng: np.random.Generator) -> Shown:
    """Put a scene's objects above where anything stands in `sample_scenes`."""
    count = 1 if scene.count == 3 else scene.count  # three of them reach the ground anyway
    size = round(float(rng.uniform(SIZES[count][0], min(SIZES[count][1], 0.5))), 3)
    wide, high = group_extent(count, size)
    x = float(rng.uniform(wide + MARGIN, 1 - wide - MARGIN))
    y = float(high + MARGIN + rng.uniform(0, 0.06))
    return Shown(SETS[2], replace(scene, count=count, size=size, x=x, y=y))


def _pair(first: Scene, second: Scene, rng: np.random.Generator) -> Shown:
    """Put two scenes' things side by side, of different super-categories."""
    if second.supercategory == first.supercategory:
        others = [c for c, kind in CATEGORIES.items() if kind != first.supercategory]
        second = replace(second, category=others[int(rng.integers(len(others)))])
    size = round(float(rng.uniform(*SIZES[2])), 3)
    wide, high = group_extent(2, size)
    x = float(rng.uniform(wide + MARGIN, 1 - wide - MARGIN))
    y = float(rng.uniform(0.66, 1 - high - MARGIN))
    places = [(x + dx * size, y + dy * size) for dx, dy in LAYOUTS[2]]
    half = size / 2
    one, two = (
        replace(s, count=1, size=size, x=min(max(px, half), 1 - half), y=py)
        for s, (px, py) in zip((first, second), places, strict=True)
    )
    return Shown(SETS[2], one, two)


# --------------------------------------------------------------------------------------- pictures


def picture(shown: Shown) -> np.ndarray:
    """Return what is shown, uint8 RGB (128, 128, 3)."""
    return _painted(shown)[0]


def held_out_features(
    shown: Sequence[Shown], progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Return float16 (n, N_FEATURES), as `features.features` does for scenes."""
    rows = np.empty((len(shown), N_FEATURES), np.float16)
    for i, one in enumerate(shown):
        image, mask = _painted(one)
        rows[i] = picture_features(image, mask, _named(one))
        if progress and (i % 50 == 49 or i + 1 == len(shown)):
            progress(i + 1, len(shown))
    return rows


def _painted(shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """Return picture uint8 (128, 128, 3), and the share of each pixel that objects cover."""
    scene = shown.scene
    if scene is None:
        return texture(shown.seed), np.zeros((SIDE, SIDE), np.float32)
    if shown.other is not None:
        return render_pair(scene, shown.other)
    mask = object_mask(scene)
    if shown.test_set == "OOD silhouettes":
        return silhouette(mask, scene.seed), mask
    image = render(scene)
    if shown.test_set == "OOD line drawings":
        return line_drawing(image), mask
    if shown.test_set == "OOD other palettes":
        return other_palette(image, scene.seed), mask
    return image, mask


def _named(shown: Shown) -> dict[str, np.ndarray]:
    """Return the named groups of a picture, see the module's first lines."""
    if shown.scene is None:
        scene = Scene("sea", "dog", "red", 0.3, 1, 0.5, 0.5, "day", 0)
        return {name: np.zeros_like(row) for name, row in named_groups(scene).items()}
    named = named_groups(shown.scene)
    if shown.other is not None:
        both = named_groups(shown.other)
        named = {name: (row + both[name]) / 2 for name, row in named.items()}
        named["number"] = named_groups(replace(shown.scene, count=2, x=0.5, y=0.6))["number"]
    for name in SILENT.get(shown.test_set, ()):
        named[name] = np.zeros_like(named[name])
    return named


def line_drawing(image: np.ndarray) -> np.ndarray:
    """Return dark lines on paper where the brightness of a picture changes: uint8 (H, W, 3)."""
    grey = Image.fromarray(image).convert("L")
    fine, coarse = (
        np.asarray(grey.filter(ImageFilter.GaussianBlur(r)), np.float32) for r in (0.5, 1.1)
    )
    ink = np.clip((coarse - fine - 1.5) / 5, 0, 1)[..., None]  # the dark side of an edge
    paper, line = np.array(CREAM, np.float32), np.array(INK, np.float32)
    return np.round(paper + (line - paper) * ink).astype(np.uint8)


def silhouette(mask: np.ndarray, seed: int) -> np.ndarray:
    """Return objects in one dark colour on a plain ground: uint8 (H, W, 3)."""
    rng = np.random.default_rng((seed, 1))
    grounds = (CREAM, STEEL, (214, 206, 190), (190, 204, 196))
    ground = np.array(grounds[int(rng.integers(len(grounds)))], np.float32)
    filled = ground + (np.array(INK, np.float32) - ground) * mask[..., None]
    return np.round(filled).astype(np.uint8)


def other_palette(image: np.ndarray, seed: int) -> np.ndarray:
    """Return a picture whose channels changed places, and half of the time its negative."""
    rng = np.random.default_rng((seed, 2))
    turned = image[..., (1, 2, 0) if rng.random() < 0.5 else (2, 0, 1)]
    return np.ascontiguousarray(255 - turned if rng.random() < 0.5 else turned)


def texture_name(seed: int) -> str:
    """Return which kind of texture a seed gives, one of `TEXTURES`."""
    return TEXTURES[int(np.random.default_rng((seed, 3)).integers(len(TEXTURES)))]


def texture(seed: int) -> np.ndarray:
    """Return a pattern of two colours without an object, uint8 (128, 128, 3)."""
    kind, rng = texture_name(seed), np.random.default_rng((seed, 4))
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    angle, frequency = rng.uniform(0, np.pi), float(rng.uniform(4, 14))
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    one, two = (np.sin(2 * np.pi * frequency * a) for a in (along, across))
    if kind == "grating":
        share = (1 + one) / 2
    elif kind == "checks":
        share = (np.sign(one) * np.sign(two) + 1) / 2
    elif kind == "plaid":
        share = (2 + one + two) / 4
    elif kind == "dots":
        share = np.clip(4 * (one * two - 0.3), 0, 1)
    else:
        fine = np.fft.fftfreq(SIDE) * SIDE
        falls = 1 / np.maximum(np.hypot(fine[:, None], fine[None]), 1) ** 1.2
        noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * falls).real
        share = (noise - noise.min()) / np.ptp(noise)
    names = rng.permutation(list(COLOURS))[:2]
    first, second = (np.array(COLOURS[str(name)], np.float64) for name in names)
    return np.round(first + (second - first) * share[..., None]).astype(np.uint8)
