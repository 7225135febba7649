"""Finished pictures: what decides each, where it is kept, and which of a request are there.

In memory while the server runs, and in a `Store` on disk where there is one. Nothing is computed
here, and no model is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.choosing import can_sample, uses_betas
from explorer.decoding import trial_hash
from explorer.protocols import Condition, Neighbour
from explorer.request import Request
from explorer.store import Finished

if TYPE_CHECKING:
    from explorer.workbench import Workbench

TYPICAL_SCALE = 2.0  # samples are drawn, and comparisons begin, at the scale nearest to this
SIMILARITY = "pocket-clip"  # the embedder whose cosine is a score under each picture


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture uint8 (H, W, 3) of a sweep on its way; ``scores`` once ``done``, empty before.

    ``index`` points into the request's scales, ``row`` into its values, ``step`` is 1-based.
    ``note`` and ``neighbours`` as in `Step`.
    """

    index: int
    scale: float
    step: int
    steps: int
    image: np.ndarray
    done: bool
    scores: Mapping[str, float]
    note: str = ""
    neighbours: tuple[Neighbour, ...] = ()
    row: int = 0


@dataclass(frozen=True)
class Decided:
    """All that decides one picture and its scores.

    ``request``: of one scale, without what the picture does not depend on. ``weights``: hashes of
    the models. ``data``: a hash of betas and shown image, "" where the picture stays in memory.
    ``condition``: a hash of what it was drawn from instead of the trial. ``sample``: which one of
    the mapper's density, -1 for none. ``renewals``: how often data were read anew before, as a
    picture that was begun earlier is of other data.
    """

    request: Request
    weights: tuple[tuple[str, str], ...]
    data: str = ""
    condition: str = ""
    sample: int = -1
    renewals: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON."""
        told = asdict(self) | {"weights": dict(self.weights)}
        del told["renewals"]  # of this process alone
        return told


def keep(bench: Workbench, decided: Decided, picture: Finished) -> None:
    """Keep a finished picture in memory, and in the store where there is one."""
    bench.caches.pictures.put(decided, picture)
    if bench.store is not None and decided.data and decided.renewals == bench.renewals:
        bench.store.put(decided.to_dict(), picture)


def kept(bench: Workbench, decided: Decided) -> Finished | None:
    """Return a picture that is finished, and keep it in memory; None where it is not."""
    found = looked_up(bench, decided)
    if found is not None and bench.caches.pictures.peek(decided) is None:
        bench.caches.pictures.put(decided, found)
    return found


def looked_up(bench: Workbench, decided: Decided) -> Finished | None:
    """Return a picture that is finished, from memory or a store, without bringing it to memory."""
    found = bench.caches.pictures.peek(decided)
    for store in bench.stores if found is None and decided.data else ():
        if (found := store.get(decided.to_dict())) is not None:
            break
    return found


def finished_pictures(bench: Workbench, request: Request) -> list[Frame]:
    """Return the pictures of a request that are there already; nothing is computed."""
    steps, found = request.steps, []
    for number, row in enumerate(request.rows()):
        for i, decided in enumerate(decided_pictures(bench, row)):
            if picture := kept(bench, decided):
                frame = Frame(i, row.scales[i], steps, steps, picture.image, True, *picture[1:])
                found.append(replace(frame, row=number))
    return found


def finished_samples(bench: Workbench, request: Request) -> list[Frame]:
    """Return the pictures of `samples` that are there already, from the first on."""
    found = [kept(bench, decided) for decided in decided_samples(bench, request)]
    there = found[: found.index(None)] if None in found else found
    scale, steps = sampled_scale(request), request.steps
    return [
        Frame(i, scale, steps, steps, one.image, True, one.scores) for i, one in enumerate(there)
    ]


def is_drawn(bench: Workbench, request: Request) -> bool:
    """Return whether all pictures of a request, and its samples, are there already."""
    guided = bench.catalogue.generator_class(request.generator).guided
    pictures = len(request.rows()) * (len(request.scales) if guided else 1)
    if len(finished_pictures(bench, request)) < pictures:
        return False
    return len(finished_samples(bench, request)) == len(decided_samples(bench, request))


def sampled_scale(request: Request) -> float:
    """Return the guidance scale, of a request's, at which samples are drawn."""
    return min(request.scales, key=lambda scale: abs(scale - TYPICAL_SCALE))


def decided_pictures(bench: Workbench, request: Request) -> list[Decided]:
    """Return what decides each picture of a row, one a scale; the other scales do not."""
    cls = bench.catalogue.generator_class(request.generator)
    scales = request.scales if cls.guided else request.scales[:1]
    weights = bench.checkpoint_hashes(request)
    data = trial_hash(bench, request) if cls.provenance == "generated" else ""
    if data:
        weights["scores"] = bench.models.embedder_hash(SIMILARITY)
    plain = replace(request, options=telling_options(bench, request), samples=1)
    if not uses_betas(bench.catalogue, request):
        plain = replace(plain, rois=(), roi_atlas="")
    known = tuple(sorted(weights.items()))
    return [
        Decided(
            replace(plain, scales=(scale if cls.guided else 1.0,)),
            known,
            data,
            renewals=bench.renewals,
        )
        for scale in scales
    ]


def decided_samples(bench: Workbench, request: Request) -> list[Decided]:
    """Return what decides each sample of the mapper's density, [] for none."""
    if request.samples == 1 or not can_sample(bench.catalogue, request):
        return []
    one = replace(request, scales=(sampled_scale(request),), axis="", values=())
    (decided,) = decided_pictures(bench, one)
    return [replace(decided, sample=i) for i in range(request.samples)]


def telling_options(bench: Workbench, request: Request) -> tuple[tuple[str, float], ...]:
    """Return a request's options without those at their default, in a fixed order."""
    usual = {o.name: o.default for o in bench.catalogue.generator_class(request.generator).options}
    return tuple(sorted((k, v) for k, v in request.options if v != usual.get(k)))


def condition_hash(condition: Condition) -> str:
    """Return a short hash of what a picture is drawn from, beside the request."""
    digest = hashlib.sha256(repr(condition.stimulus).encode())
    tensors = [("embedding", condition.embeddings), ("null", condition.nulls)]
    arrays = {f"{kind} {s.name}": z.numpy() for kind, of in tensors for s, z in of.items()}
    arrays |= {"betas": condition.betas, "voxels": condition.voxels}
    for name in sorted(arrays):
        digest.update(name.encode())
        if arrays[name] is not None:
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
