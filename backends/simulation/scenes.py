"""Seeded illustrations of one kind of thing in one place, with every cause written down.

A `Scene` says what is shown; `render` paints it, `object_mask` says where the objects are and
`caption` puts it in words. Nothing else enters the picture, so a simulated brain can be driven
by the same facts that a decoder is later asked for.
"""

from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from backends.simulation.objects import OBJECT_PAINTERS
from backends.simulation.pen import COLOURS, CREAM, INK, Pen, mix
from backends.simulation.scenery import LIGHTS, TINTS
from backends.simulation.settings import SETTING_PAINTERS
from backends.simulation.unseen import UNSEEN_OBJECTS, UNSEEN_SETTINGS

SUPERCATEGORIES: tuple[str, ...] = ("face", "animal", "building", "food", "vehicle", "tool")
# Four categories each, in the order in which objects.py paints them.
CATEGORIES: dict[str, str] = {
    name: SUPERCATEGORIES[i // 4] for i, name in enumerate(OBJECT_PAINTERS)
}
SETTINGS: tuple[str, ...] = tuple(SETTING_PAINTERS)
# What can be painted besides, and `sample_scenes` never draws.
UNSEEN_CATEGORIES: dict[str, str] = {name: kind for name, (kind, _) in UNSEEN_OBJECTS.items()}
_OBJECTS = OBJECT_PAINTERS | {name: painter for name, (_, painter) in UNSEEN_OBJECTS.items()}
_SETTINGS = SETTING_PAINTERS | UNSEEN_SETTINGS

# Smallest and largest size of one object for 1, 2 and 3 of them: large enough for a small
# network, small enough for all to fit (our choice).
SIZES: dict[int, tuple[float, float]] = {1: (0.42, 0.68), 2: (0.32, 0.42), 3: (0.27, 0.32)}
COUNT_SHARES: tuple[float, float, float] = (0.70, 0.18, 0.12)
# Offsets of the objects from the group's centre, in object sizes.
LAYOUTS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.0, 0.0),),
    2: ((-0.53, -0.03), (0.53, 0.03)),
    3: ((0.0, -0.46), (-0.6, 0.44), (0.6, 0.44)),
}
MARGIN = 0.02  # of the image width, kept free at every edge
GROUND = 0.64  # objects stand at or below this height, where every setting has ground
SUPERSAMPLING = 4  # Pillow draws hard edges; four times the pixels and a box filter soften them
SCENES_PER_SEED = 2**20  # times 2**31 seeds stays below 2**53, so tables keep it exactly
TILTS = {"tool": 24.0, "food": 8.0}  # largest tilt in degrees; everything else stands upright


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    Parameters
    ----------
    setting
        One of `SETTINGS`, or of `unseen.UNSEEN_SETTINGS`.
    category
        One of `CATEGORIES`, or of `UNSEEN_CATEGORIES`.
    colour
        One of `COLOURS`; tints the object's main part (hat and shirt of a face).
    size
        Longer side of one object, as a fraction of the image width, in (0, 1).
    count
        Number of objects, 1 to 3, all of the same category and colour.
    x, y
        Centre of the group as fractions of the image; (0, 0) is the upper left corner.
    light
        One of `LIGHTS`.
    seed
        Non-negative; drives every detail that is not named above.
    """

    setting: str
    category: str
    colour: str
    size: float
    count: int
    x: float
    y: float
    light: str
    seed: int

    def __post_init__(self) -> None:
        """Refuse a scene that cannot be painted."""
        for field, allowed in (
            ("setting", tuple(_SETTINGS)),
            ("category", tuple(_OBJECTS)),
            ("colour", tuple(COLOURS)),
            ("light", LIGHTS),
            ("count", tuple(LAYOUTS)),
        ):
            if getattr(self, field) not in allowed:
                given = getattr(self, field)
                raise ValueError(f"Unknown {field}={given!r}; choose one of {allowed}.")
        if not 0 < self.size < 1:
            raise ValueError(f"size={self.size} must lie between 0 and 1 (of the image width).")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")
        half_width, half_height = group_extent(self.count, self.size)
        for axis, half in (("x", half_width), ("y", half_height)):
            low, high = half, 1 - half
            value = getattr(self, axis)
            if not low <= value <= high:
                raise ValueError(
                    f"{axis}={value} would put {self.count} object(s) of size {self.size} partly "
                    f"outside the image; choose {axis} between {low:.3f} and {high:.3f} "
                    f"or a smaller size."
                )

    @property
    def supercategory(self) -> str:
        """The super-category, one of `SUPERCATEGORIES`."""
        return (CATEGORIES | UNSEEN_CATEGORIES)[self.category]

    @property
    def caption(self) -> str:
        """One English phrase that names colour, category and setting, and often more."""
        return _caption(self, np.random.default_rng(self.seed).spawn(3)[2])

    def attributes(self) -> dict[str, str | int | float]:
        """Return plain values, one table row."""
        row = asdict(self)
        return {**row, "supercategory": self.supercategory, "caption": self.caption}


def group_extent(count: int, size: float) -> tuple[float, float]:
    """Half width and half height of a group of objects, as fractions of the image."""
    reach = np.abs(np.array(LAYOUTS[count])).max(axis=0) * size + size / 2
    return float(reach[0]), float(reach[1])


def sample_scenes(n: int, seed: int) -> list[Scene]:
    """Draw scenes whose categories, and independently settings and colours, are balanced.

    Parameters
    ----------
    n
        Number of scenes, 1 to 2**20.
    seed
        0 to 2**31 - 1. Scenes drawn with different seeds are never the same.

    Returns
    -------
    list of Scene
        Category counts differ by at most one, and so do those of settings and of colours.
    """
    if not 1 <= n <= SCENES_PER_SEED:
        raise ValueError(f"n={n} scenes asked for; choose n between 1 and {SCENES_PER_SEED}.")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed={seed} must lie between 0 and {2**31 - 1}.")
    rng = np.random.default_rng(seed)

    def balanced(names: tuple[str, ...]) -> list[str]:
        # The order is shuffled first, so that the names left over by n % len differ by seed.
        return rng.permutation(np.resize(rng.permutation(names), n)).tolist()

    categories, settings = balanced(tuple(CATEGORIES)), balanced(SETTINGS)
    colours = balanced(tuple(COLOURS))
    scenes = []
    for i, (category, setting, colour) in enumerate(
        zip(categories, settings, colours, strict=True)
    ):
        count = int(rng.choice((1, 2, 3), p=COUNT_SHARES))
        size = round(float(rng.uniform(*SIZES[count])), 3)
        half_width, half_height = group_extent(count, size)
        left, right = half_width + MARGIN, 1 - half_width - MARGIN
        low = max(half_height + MARGIN, GROUND - half_height)
        x, y = rng.uniform(left, right), rng.uniform(low, 1 - half_height - MARGIN)
        # A night sky by daylight would contradict its name.
        light = "night" if setting == "night sky" else str(rng.choice(LIGHTS, p=(0.5, 0.25, 0.25)))
        own = seed * SCENES_PER_SEED + i
        scenes.append(
            Scene(setting, category, colour, size, count, float(x), float(y), light, own)
        )
    return scenes


def background(scene: Scene, size: int = 128) -> np.ndarray:
    """Paint the scene without its objects: uint8, shape (size, size, 3)."""
    return np.asarray(_paint_background(scene, size))


def object_mask(scene: Scene, size: int = 128) -> np.ndarray:
    """Share of every pixel that the objects cover: float32, shape (size, size), in [0, 1]."""
    return np.asarray(_paint_objects(scene, size)[0].getchannel("A"), np.float32) / 255


def render(scene: Scene, size: int = 128) -> np.ndarray:
    """Paint the scene.

    Parameters
    ----------
    scene
        What to show.
    size
        Side of the image in pixels, at least 16.

    Returns
    -------
    numpy.ndarray
        uint8 RGB, shape (size, size, 3); the same scene and size give the same bytes.
    """
    return laid_over(background(scene, size), *_paint_objects(scene, size), scene.light)


def render_pair(scene: Scene, other: Scene, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Paint the objects of two scenes in the first one's setting.

    Returns the picture, as `render` gives it, and the share of every pixel that objects cover, as
    `object_mask` does.
    """
    layer, boxes = _paint_objects(scene, size)
    second, more = _paint_objects(other, size)
    layer = Image.alpha_composite(layer, second)
    cover = np.asarray(layer.getchannel("A"), np.float32) / 255
    return laid_over(background(scene, size), layer, boxes + more, scene.light), cover


def laid_over(
    ground: np.ndarray, layer: Image.Image, boxes: list[tuple[float, float, float]], light: str
) -> np.ndarray:
    """Lay objects (RGBA, size x size) over a background uint8 (size, size, 3), shadow and rim too.

    ``boxes``: centre and side of each object, as fractions of the image.
    """
    canvas, size = ground.astype(np.float32), len(ground)
    alpha = layer.getchannel("A")
    cover = np.asarray(alpha, np.float32)[..., None] / 255  # (size, size, 1)
    night = light == "night"

    shadow = Image.new("L", (size, size))
    pen = ImageDraw.Draw(shadow)
    for x, y, side in boxes:
        foot = (y + 0.47 * side) * size
        middle, wide, high = (x + 0.05 * side) * size, 0.47 * side * size, 0.075 * side * size
        pen.ellipse((middle - wide, foot - high, middle + wide, foot + high), fill=255)
    shadow = shadow.filter(ImageFilter.GaussianBlur(0.014 * size))
    canvas *= 1 - (0.45 if night else 0.38) * np.asarray(shadow, np.float32)[..., None] / 255

    # A thin rim, dark on bright ground and bright on dark ground, sets every object off.
    halo = np.asarray(alpha.filter(ImageFilter.GaussianBlur(0.011 * size)), np.float32) / 255
    halo = np.clip(2.2 * halo, 0, 1)[..., None]
    brightness = float((canvas.mean(axis=2, keepdims=True) * halo).sum() / (halo.sum() + 1e-6))
    rim = np.array(INK if brightness > 112 else CREAM, np.float32)
    canvas += (rim - canvas) * halo * (0.55 if brightness > 112 else 0.62)

    # Light from the upper left: the blurred outline, shifted both ways, shades the edges.
    soft = np.asarray(alpha.filter(ImageFilter.GaussianBlur(0.022 * size)), np.float32) / 255
    step = max(1, round(0.018 * size))
    slope = np.roll(soft, (-step, -step), (0, 1)) - np.roll(soft, (step, step), (0, 1))
    tint = np.array(TINTS[light], np.float32) ** (0.22 if night else 0.4)
    paint = np.asarray(layer.convert("RGB"), np.float32) * tint * (1 + 0.3 * slope[..., None])
    canvas += (paint - canvas) * cover
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _paint_background(scene: Scene, size: int) -> Image.Image:
    if size < 16:
        raise ValueError(f"size={size} pixels is too small to show a scene; use at least 16.")
    rng = np.random.default_rng(scene.seed).spawn(3)[0]
    width = SUPERSAMPLING * size
    image = Image.new("RGB", (width, width))
    pen = Pen(image, scale=width, tint=TINTS[scene.light])
    _SETTINGS[scene.setting](pen, rng, scene.light)
    return image.reduce(SUPERSAMPLING)


def _paint_objects(
    scene: Scene, size: int
) -> tuple[Image.Image, list[tuple[float, float, float]]]:
    """Return the objects on a clear RGBA layer, and the centre and side of each box."""
    if size < 16:
        raise ValueError(f"size={size} pixels is too small to show a scene; use at least 16.")
    rng = np.random.default_rng(scene.seed).spawn(3)[1]
    width = SUPERSAMPLING * size
    layer = Image.new("RGBA", (width, width))
    steepest = TILTS.get(scene.supercategory, 2.0)
    colour = mix(COLOURS[scene.colour], tuple(rng.integers(40, 216, 3).tolist()), 0.07)
    if scene.colour == "white":  # painters choose a second colour for exactly this white
        colour = COLOURS["white"]
    flip = bool(rng.random() < 0.5)
    boxes = []
    for dx, dy in LAYOUTS[scene.count]:
        x, y = scene.x + dx * scene.size, scene.y + dy * scene.size
        angle = float(rng.uniform(-steepest, steepest))
        half = scene.size / 2 * 0.96
        pen = Pen(layer, (x * width, y * width), half * width, flip, angle)
        _OBJECTS[scene.category](pen, colour, rng)
        boxes.append((x, y, scene.size))
    return layer.reduce(SUPERSAMPLING), boxes


# What is coloured, where it is not the whole thing; the plural adds an s to both garments.
_CLOTHES = {
    "man": ("shirt and hat", "hat and shirt"),
    "woman": ("dress", "dress and hair band"),
    "child": ("cap", "cap and shirt"),
    "old man": ("jumper", "cardigan"),
}
_PLURALS = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "old man": "old men",
    "church": "churches",
    "wrench": "wrenches",
    "scissors": "pairs of scissors",
    "ice cream": "ice creams",
    "fish": "fish",
}
_PLACES = {
    "sea": ("by the sea", "on a beach by the sea", "on the sand in front of the sea"),
    "city street": ("on a city street", "in a city street", "on a city street lined with houses"),
    "forest": ("in a forest", "in a quiet forest", "in a forest clearing"),
    "room": ("in a room", "in a cosy room", "in a room with a rug"),
    "desert": ("in the desert", "among the dunes of a desert", "in a desert with cacti"),
    "night sky": ("under a night sky", "under a starry night sky", "beneath the night sky"),
    "snowy mountains": (
        "in front of snowy mountains",
        "in the snow below snowy mountains",
        "among snowy mountains",
    ),
    "meadow": ("in a meadow", "in a green meadow", "in a meadow full of flowers"),
    "sea floor": ("on the sea floor", "under water", "among weeds on the sea floor"),
    "lunar plain": ("on the moon", "on the moon below the earth", "among craters on the moon"),
    "stage": ("on a stage", "on a theatre stage", "on a stage between curtains"),
    "playing field": ("on a playing field", "in a stadium", "on a lawn in a stadium"),
}
_HOURS = {
    "day": ("", "", "by day", "in daylight"),
    "dusk": ("at dusk", "at dusk", "in warm evening light"),
    "night": ("at night", "at night", "by moonlight"),
}


def _article(phrase: str) -> str:
    return "an " if phrase[0] in "aeiou" else "a "


def _caption(scene: Scene, rng: np.random.Generator) -> str:
    def pick(choices: tuple[str, ...]) -> str:
        return choices[rng.integers(len(choices))]

    one = scene.count == 1
    noun = scene.category if one else _PLURALS.get(scene.category, scene.category + "s")
    if one and noun == "scissors":
        noun = "pair of scissors"
    small, large = SIZES[scene.count]
    share = (scene.size - small) / (large - small)
    word = "small" if share < 0.25 else "large" if share > 0.75 else ""
    if word and rng.random() < 0.35:
        word = ""
    worn = scene.supercategory == "face" or scene.category == "pizza"
    # Size is the picture's, not the person's: "a small man" would say something else.
    adjectives = [] if scene.supercategory == "face" else [word]
    if not worn:
        adjectives.append(scene.colour)
    phrase = " ".join(filter(None, [*adjectives, noun]))
    if one:
        phrase = _article(phrase) + phrase
    else:
        phrase = ("two ", "three ")[scene.count - 2] + phrase
    if scene.category == "pizza":
        plate = f"{_article(scene.colour)}{scene.colour} plate"
        phrase += f" on {plate}" if one else f" on {scene.colour} plates"
    elif worn:
        clothes = pick(_CLOTHES[scene.category])
        article = _article(scene.colour) if one else ""
        if not one:
            several = (w + ("es" if w.endswith("s") else "s") for w in clothes.split(" and "))
            clothes = " and ".join(several)
        phrase += f" in {article}{scene.colour} {clothes}"
    if rng.random() < 0.6:
        if scene.x < 0.42:
            phrase += " on the left"
        elif scene.x > 0.58:
            phrase += " on the right"
    hour = "" if scene.setting == "night sky" else pick(_HOURS[scene.light])
    parts = [phrase, pick(_PLACES[scene.setting]), hour]
    if scene.setting == "room":
        parts[2] = hour.replace("by moonlight", "at night")
    return " ".join(filter(None, parts))
