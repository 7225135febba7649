"""About how long maps will take, from a small part of the work that is timed beforehand.

Rather too long than too short: few rows take more time each than many. Paces are kept beside
those of pictures, and what is kept already costs nothing. All but `seconds_of_gallery` time models
that need the embedded test images, so that one is asked first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, stopping
from explorer.brain.importance import SMALL
from explorer.brain.maps import attribute_voxels, limit_rows
from explorer.decoding import deciding, decode_betas, decoded_space, undecoded
from explorer.evidence.attention import PICTURES, is_attended
from explorer.evidence.inference import evidence_test, turns
from explorer.evidence.map_parts import sibling_names
from explorer.request import Request, View
from explorer.types import EmbeddingSpace, Parcellation

if TYPE_CHECKING:
    from explorer.workbench import Workbench

ROWS = 4  # trials or pictures that are timed
DRAWS = 4  # permutations or rotations that are timed
SQUARE = 512  # of the product that a fit is measured by
REFERENCES, REFERENCE_SIDE = 7, 11  # pictures a test image, and SSIM's window
SETTING_UP = 5.0  # seconds: what took longer is not timed again


def seconds_of_importance(bench: Workbench, request: Request, view: View) -> float:
    """Return about how long the importance of a trial takes, with the limits of its colours."""
    if undecoded(bench, request):
        return 0.0
    return (1 + limit_rows(bench, request, view)) * _attributing(bench, request, view)


def seconds_of_attention(bench: Workbench, request: Request) -> float:
    """Return about how long hiding every window of the shown image takes."""
    if undecoded(bench, request) or is_attended(bench, request):
        return 0.0
    return PICTURES * _embedding(bench, request, decoded_space(bench, request))


def seconds_of_prediction(bench: Workbench, request: Request) -> float:
    """Return about how long the pictures take that an encoding model predicts betas from."""
    if bench.catalogue.encoder_offer(request.dataset, request.subject) is None:
        return 0.0
    spaces = bench.models.encoder(request.dataset, request.subject).spaces
    return sum(_seconds_in(bench, request, space) for space in spaces)


def seconds_of_gallery(bench: Workbench, request: Request) -> float:
    """Return about how long embedding the test images for a decoding takes, 0 where done."""
    if undecoded(bench, request):
        return 0.0
    return _seconds_in(bench, request, decoded_space(bench, request))


def _seconds_in(bench: Workbench, request: Request, space: EmbeddingSpace) -> float:
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    if bench.models.is_embedded(request.dataset, stimuli, space):
        return 0.0
    return len(stimuli) * _embedding(bench, request, space)


def seconds_of_parts(
    bench: Workbench, request: Request, view: View, parcellation: Parcellation, permutations: int
) -> float:
    """Return about how long `map_parts.measure_parts` takes; parameters as there."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    n = len(bench.catalogue.gallery(request.dataset, request.subject))
    single = set(trials.table["repeat"].iloc[trials.rows("test")])
    wanted = [r for r in single if not request.repeats or r in request.repeats]
    maps = 2 + (len(wanted) if len(wanted) > 1 else 0) + len(sibling_names(bench, request))
    parcels = int((parcellation.masks().sum(axis=1) >= SMALL).sum())
    voxels, rng = trials.subject.voxels, np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(n), (DRAWS, 1)), axis=1)
    flat = np.ones((n, 1))
    values = rng.standard_normal((2, parcels))

    def timed(what: str, work: Callable[[], Any], size: int) -> float:
        return _pace(bench, (what, size), work) / DRAWS

    exchanging = timed("evidence", lambda: evidence_test(flat, flat, orders), n)
    turning = timed("turn", lambda: turns(voxels, DRAWS, 0), voxels.n_voxels)
    comparing = timed("rank", lambda: [metrics.spearman(*values) for _ in range(DRAWS)], parcels)
    return (
        maps * n * _attributing(bench, request, view)
        + (parcels + 1) * n * _decoding(bench, request)
        + permutations * (parcels * exchanging + turning + comparing)
    )


def seconds_of_embedding(
    bench: Workbench, request: Request, space: EmbeddingSpace, images: int
) -> float:
    """Return about how long embedding so many images takes."""
    return images * _embedding(bench, request, space) if images else 0.0


def seconds_of_decoding(bench: Workbench, request: Request, trials: int) -> float:
    """Return about how long decoding so many trials takes."""
    return trials * _decoding(bench, request)


def seconds_of_references(bench: Workbench, request: Request, images: int) -> float:
    """Return about how long `rewards.rewards` takes for so many test images."""
    image = bench.catalogue.image(request.dataset, request.stimulus)
    several = np.tile(image, (1, 1, 1))

    def work() -> None:
        metrics.pixcorr(image, several)
        metrics.ssim(image, several)

    if min(image.shape[:2]) < REFERENCE_SIDE:
        return 0.0
    return REFERENCES * images * _pace(bench, ("references", image.shape), work)


def seconds_of_ridge(bench: Workbench, trials: int, voxels: int) -> float:
    """Return about how long fitting a ridge takes: its products, and its decomposition.

    The smaller of trials and voxels is decomposed; per number of its cube that takes some forty
    times the time of a product's (measured for 400 to 4,800 trials).
    """
    rng = np.random.default_rng(0)
    some = rng.standard_normal((SQUARE, SQUARE)).astype(np.float32)
    each = _pace(bench, ("product", SQUARE), lambda: some @ some) / (2 * SQUARE**3)
    small, large = sorted((trials, voxels))
    return each * (2 * small**2 * large + 40 * small**3)


def _attributing(bench: Workbench, request: Request, view: View) -> float:
    """Return the seconds that the importance of one trial takes."""
    betas, shown = _some(bench, request)
    key = "attribute", *_place(bench, request), view.method, view.target
    work = lambda: attribute_voxels(bench, request, view, betas, shown)  # noqa: E731
    return _pace(bench, key, work) / len(shown)


def _decoding(bench: Workbench, request: Request) -> float:
    """Return the seconds that decoding one trial takes."""
    betas, shown = _some(bench, request)
    key = "decode", *_place(bench, request)
    return _pace(bench, key, lambda: decode_betas(bench, request, betas)) / len(shown)


def _embedding(bench: Workbench, request: Request, space: EmbeddingSpace) -> float:
    """Return the seconds that embedding one image takes, 0 for spaces of captions."""
    name = bench.catalogue.embedder_name(space)
    if not name:
        return 0.0
    embedder = bench.models.embedder(name)
    images = [bench.catalogue.image(request.dataset, request.stimulus)] * ROWS
    return _pace(bench, ("embed", name), lambda: embedder.embed(images, space)) / ROWS


def _some(bench: Workbench, request: Request) -> tuple[np.ndarray, list[str]]:
    """Return the betas of a trial several times (they decide no pace), and what was shown."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    betas = np.nan_to_num(trials.average(request.stimulus, request.repeats))
    return np.tile(betas, (ROWS, 1)), [request.stimulus] * ROWS


def _place(bench: Workbench, request: Request) -> tuple:
    plain = deciding(request)
    return plain.dataset, plain.subject, plain.mapper, decoded_space(bench, request).name


def _pace(bench: Workbench, key: tuple, work: Callable[[], Any]) -> float:
    """Return the seconds that work takes, timed once for a key; the first time sets things up."""
    if key not in bench.caches.paces:
        took = SETTING_UP
        for _ in range(2):
            stopping.look()
            began = stopping.clock()
            work()
            took = stopping.clock() - began
            if took >= SETTING_UP:
                break
        bench.caches.paces[key] = took
    return bench.caches.paces[key]
