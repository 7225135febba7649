"""A parcel against the steps of a picture: when, on the way from noise, its betas matter.

The same picture is drawn twice from the same noise, with and without a lesion, and both are
compared after every step by their clean estimates: what each picture would be if all noise that is
left were taken at once. One trial, one seed: it is about this picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics, stopping
from explorer.drawing import condition_of
from explorer.evidence.controls import at_scale
from explorer.evidence.lesions import Lesion, lesioned_betas, require_lesions
from explorer.finished import SIMILARITY
from explorer.metrics import written
from explorer.protocols import Condition
from explorer.request import Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

SAME = 1e-6  # a difference below this is rounding
DEFINITIONS = {
    "latents": "Distance of the two clean estimates before decoding, over the length of the "
    "intact one: 0 for no difference.",
    "pixels": "One less PixCorr of the two clean estimates: 0 for no difference, 1 for unrelated.",
    "similarity": "Cosine of the two clean estimates in pocket-clip: 1 for no difference.",
}


@dataclass(frozen=True, eq=False)
class Difference:
    """Two clean estimates after one step, uint8 (H, W, 3), and how far apart they are.

    ``step`` is 1-based. ``latents``, ``pixels``, ``similarity`` as in `DEFINITIONS`, NaN where
    there is none; ``to_shown``: pocket-clip similarity of intact and lesioned to the shown image.
    """

    step: int
    intact: np.ndarray
    lesioned: np.ndarray
    latents: float
    pixels: float
    similarity: float
    to_shown: tuple[float, float]


def step_differences(
    bench: Workbench, request: Request, how: Lesion, atlas: str = "", scale: float | None = None
) -> Iterator[Difference]:
    """Return an iterator over the steps of a picture with and without a lesion.

    At one guidance scale (default `sampled_scale`), the request's seed, steps and options; a
    generator with candidates draws one. A generator that does not show every step gives those it
    shows. What cannot be drawn raises `UserError` here.
    """
    require_lesions(bench, request)
    one = at_scale(bench, request, scale)
    if bench.catalogue.generator_class(one.generator).provenance != "generated":
        raise UserError(f"{one.generator} draws nothing, so there are no steps; choose another.")
    betas = lesioned_betas(bench, one, how, atlas)
    conditions = [condition_of(bench, one), condition_of(bench, one, betas)]
    return _differences(bench, one, conditions)


def _differences(
    bench: Workbench, request: Request, conditions: Sequence[Condition]
) -> Iterator[Difference]:
    look = _eyes(bench)
    shown = None
    if look and not bench.catalogue.without_picture(request.dataset, request.stimulus):
        shown = look([bench.catalogue.image(request.dataset, request.stimulus)])
    for step, images, latents in _moments(bench, request, conditions):
        seen = look(list(images)) if look else None
        unknown = float("nan")
        yield Difference(
            step,
            *images,
            _apart(*latents) if latents is not None else unknown,
            1 - metrics.pixcorr(*images),
            unknown if seen is None else metrics.cosine(seen[0], seen[1]),
            (unknown, unknown)
            if seen is None or shown is None
            else tuple(metrics.cosine(shown[0], z) for z in seen),
        )


def _moments(
    bench: Workbench, request: Request, conditions: Sequence[Condition]
) -> Iterator[tuple[int, Sequence[np.ndarray], np.ndarray | None]]:
    """Yield step, both clean estimates, and both latents or None."""
    generator = bench.models.generator(request.generator)
    given = request.scales[0], request.seed, request.steps
    if hasattr(generator, "moments"):
        for moment in generator.moments(conditions, *given, **dict(request.options)):
            yield moment.step, moment.images, moment.latents
        return
    sweeps = [
        generator.sweep(c, [given[0]], request.steps, request.seed, **dict(request.options))
        for c in conditions
    ]
    for pair in stopping.steps(zip(*sweeps, strict=True)):
        yield pair[0].step, [step.image for step in pair], None


def _eyes(bench: Workbench) -> Callable[[list[np.ndarray]], np.ndarray] | None:
    """Return what embeds pictures in pocket-clip; None where it has no weights."""
    if SIMILARITY not in bench.catalogue.embedders:
        return None
    try:
        embedder = bench.models.embedder(SIMILARITY)
    except UserError:
        return None
    return lambda images: embedder.embed(images, embedder.spaces[0])


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance of b from a over the length of a."""
    length = float(np.linalg.norm(a))
    return float(np.linalg.norm(b - a)) / length if length > 0 else float("nan")


def when(differences: Sequence[Difference], steps: int) -> str:
    """Return at which step the lesion matters, in one sentence about this trial and seed.

    By the distance of latents, or of pixels where there are none. The step at which it grows
    most, and the first after which half of the final difference is there and stays.
    """
    known = np.array([one.latents for one in differences])
    name = "latents"
    if not np.isfinite(known).all():
        known, name = np.array([one.pixels for one in differences]), "pixels"
    if not len(known) or not np.isfinite(known).all():
        return "The pictures are flat, so they cannot be compared."
    if known.max() < SAME:
        return "Both pictures are the same at every step: the parcel's betas change nothing here."
    number = [one.step for one in differences]
    rises = np.diff(known, prepend=0.0)
    most = number[int(rises.argmax())]
    below = np.flatnonzero(known < known[-1] / 2)
    half = number[int(below[-1]) + 1] if len(below) else number[0]
    told = (
        f"In this trial at this seed the difference grows most in step {most} of {steps}, and "
        f"half of what it is at the end ({written(float(known[-1]), 2)}, by {name}) is there "
        f"after step {half}"
    )
    if known.max() > 1.05 * known[-1]:
        told += f"; it was largest, {written(float(known.max()), 2)}, after step "
        told += str(number[int(known.argmax())])
    if number != list(range(1, steps + 1)):
        told += f"; the generator shows {len(number)} of its {steps} steps"
    return told + "."
