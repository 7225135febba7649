"""A picture of one's own: the brain that is predicted for it, and what mappers decode from that.

Nobody looked at it: the betas are an encoding model's, and what is decoded from them is what two
trained models say of a picture, without any brain. Nothing here is kept in a cache or on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.brain.maps import beta_limit, parcellation_of
from explorer.brain.parcels import VoxelMap, voxel_map
from explorer.brain.predicted import PREDICTED
from explorer.choosing import fixed_scales
from explorer.decoding import decode_betas, decoded_space, similarities, uncomputed
from explorer.drawing import condition_of, likeness
from explorer.finished import sampled_scale
from explorer.request import Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

PREDICTED_ONLY = (
    "Predicted, never measured: nobody looked at this picture. The {encoder} of {subject} says "
    "which betas to expect from {spaces}, without noise, and the mappers read those. Where a "
    "mapper's target is made of the same features, a good picture says little about the brain."
)


@dataclass(frozen=True, eq=False)
class PredictedBrain:
    """Betas float32 (V,) in the data's own unit, and their map in SD of the training trials."""

    betas: np.ndarray
    shown: VoxelMap
    sentence: str


@dataclass(frozen=True, eq=False)
class OwnDecoding:
    """What one mapper decodes from predicted betas, or in ``reason`` why it does not.

    ``similarity``: of the decoded embedding to the picture's own, and ``rank`` of the picture
    among itself and the test images (``n`` in all); NaN where no embedder knows the space.
    ``image`` uint8 (H, W, 3) by ``generator`` at ``scale``, None without one; ``scores`` are
    against the picture.
    """

    mapper: str
    space: str = ""
    similarity: float = float("nan")
    rank: float = float("nan")
    n: int = 0
    generator: str = ""
    scale: float = 1.0
    provenance: str = ""
    image: np.ndarray | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def predicted_brain(
    bench: Workbench, request: Request, picture: np.ndarray, atlas: str = ""
) -> PredictedBrain:
    """Return the brain that the subject's encoding model predicts for a picture (H, W, 3)."""
    place = request.dataset, request.subject
    encoder = bench.models.encoder(*place)
    given = {space: bench.models.embed_images([picture], space) for space in encoder.spaces}
    betas = encoder.predict(given)[0]
    mean, sd = encoder.statistics()
    parcellation = parcellation_of(bench, *place, atlas)
    title = f"{PREDICTED}, SD of the training trials"
    shown = voxel_map(PREDICTED, title, (betas - mean) / sd, parcellation)
    top = beta_limit(bench, request)  # as for trials, so that colours mean the same
    told = PREDICTED_ONLY.format(
        encoder=encoder.description,
        subject=request.subject,
        spaces=" and ".join(space.name for space in encoder.spaces),
    )
    return PredictedBrain(betas, replace(shown, kind="diverging", limits=(-top, top)), told)


def own_mappers(bench: Workbench, request: Request) -> list[str]:
    """Return the mappers that decode betas, the request's own first."""
    names = bench.catalogue.mapper_names(request.dataset, request.subject)
    able = [name for name in names if not uncomputed(bench, replace(request, mapper=name))]
    return sorted(able, key=lambda name: name != request.mapper)


def own_decodings(
    bench: Workbench, request: Request, picture: np.ndarray, betas: np.ndarray
) -> Iterator[OwnDecoding]:
    """Yield what each mapper of the subject decodes from predicted betas (V,), and its picture."""
    for name in own_mappers(bench, request):
        one = _for_mapper(bench, request, name)
        try:
            yield _decoding(bench, one, picture, betas)
        except UserError as error:  # this mapper, or its generator, cannot; the others can
            yield OwnDecoding(name, reason=str(error))


def _for_mapper(bench: Workbench, request: Request, mapper: str) -> Request:
    """Return the request with a mapper, and the same generator where that draws from it."""
    one = replace(request.rows()[0], scales=(sampled_scale(request),), samples=1)
    if mapper == request.mapper and request.generator:
        return _without_lookups(bench, one)
    one = replace(one, mapper=mapper, space="")
    fitting = bench.catalogue.generator_names(one.dataset, one.subject, mapper)
    fitting = [name for name in fitting if _draws(bench, name)]
    if request.generator in fitting:
        return one
    if not fitting:
        return replace(one, generator="")
    cls = bench.catalogue.generator_class(fitting[0])
    scales = fixed_scales(bench.catalogue, fitting[0]) or one.scales
    return replace(
        one, generator=fitting[0], options=(), steps=cls.default_steps, scales=scales[:1]
    )


def _draws(bench: Workbench, generator: str) -> bool:
    """Return whether a generator draws from embeddings alone, and looks up no trial's picture."""
    cls = bench.catalogue.generator_class(generator)
    return bool(cls.accepts) and "stimulus" not in cls.needs


def _without_lookups(bench: Workbench, request: Request) -> Request:
    return request if _draws(bench, request.generator) else replace(request, generator="")


def _decoding(
    bench: Workbench, request: Request, picture: np.ndarray, betas: np.ndarray
) -> OwnDecoding:
    space = decoded_space(bench, request)
    decoded = decode_betas(bench, request, betas[None])[space]
    similarity, rank, n = float("nan"), float("nan"), 0
    if bench.catalogue.embedder_name(space):
        stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
        others = bench.models.embed(request.dataset, stimuli, space)
        gallery = np.concatenate([bench.models.embed_images([picture], space), others])
        alike = similarities(decoded, gallery, space)[0]
        similarity, n = float(alike[0]), len(gallery)
        rank = float(metrics.retrieval_rank(alike, 0))
    found = OwnDecoding(request.mapper, space.name, similarity, rank, n)
    if not request.generator:
        return replace(found, reason="No generator here draws from what this mapper gives.")
    generator = bench.models.generator(request.generator)
    condition = replace(condition_of(bench, request, betas), stimulus=None)
    (image,) = generator.generate(
        [condition], request.scales[0], [request.seed], request.steps, **dict(request.options)
    )
    return replace(
        found,
        generator=request.generator,
        scale=request.scales[0],
        provenance=bench.catalogue.generator_class(request.generator).provenance,
        image=image,
        scores=likeness(bench, picture, image),
    )
