"""Decoding a request: its betas, the embedding a mapper makes of them, and where that lies.

Functions of a `Workbench`, which keeps what was loaded; an answer depends on the request alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import metrics, stopping
from explorer.answers import made_and_remembered, packed, recalled, subject_hash, unpacked
from explorer.brain import importance
from explorer.choosing import check_request, space_names
from explorer.models import no_embedder
from explorer.request import Request
from explorer.types import EmbeddingSpace, UserError
from explorer.writing import or_none

if TYPE_CHECKING:
    from explorer.workbench import Workbench

NEIGHBOURS = 5


@dataclass(frozen=True, eq=False)
class Decoding:
    """Where one trial's decoded embedding lies among the test stimuli of its subject.

    ``similarity`` to the shown image's embedding: cosine where the space has unit norm, else
    Pearson correlation over its values. ``rank`` is 1-based among the ``n`` test stimuli (chance
    (n + 1) / 2; a tie takes the middle, rounded up). ``margin``: the importance target "retrieval
    margin". ``neighbours``: the five most similar test stimuli, best first, with their similarity.
    ``average_of``: how many trials were averaged.
    """

    space: EmbeddingSpace
    embedding: np.ndarray
    similarity: float
    rank: int
    n: int
    margin: float
    neighbours: tuple[tuple[str, float], ...]
    average_of: int


def request_betas(bench: Workbench, request: Request) -> np.ndarray:
    """Return the betas float32 (V,) of a request: of one trial, or averaged over trials."""
    trials = bench.catalogue.trials(request.dataset, request.subject)
    betas = trials.average(request.stimulus, request.repeats)
    if bad := int((~np.isfinite(betas)).sum()):
        raise UserError(
            f"{bad} of the {betas.size} betas of {request.dataset}/{request.subject} for "
            f"{request.stimulus} are not finite; leave those voxels or trials out of the data."
        )
    return betas


def trial_hash(bench: Workbench, request: Request) -> str:
    """Return a hash of a trial's betas and picture: names alone may mean another study's.

    "" without a store, and where there are no betas or there is no picture.
    """
    if not bench.stores:
        return ""
    place = request.dataset, request.subject, request.stimulus

    def make() -> str:
        voxels = bench.catalogue.trials(*place[:2]).subject.voxels
        try:
            betas = request_betas(bench, request)
            shown = bench.catalogue.image(request.dataset, request.stimulus)
        except UserError:
            return ""
        digest = hashlib.sha256(f"{voxels.hash} {betas.shape} {shown.shape}".encode())
        for part in (betas.astype(np.float32), shown):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    return bench.caches.answers.get(("drawn from", *place, request.repeats), make)


def decided_answer(bench: Workbench, request: Request, what: str, *more: object) -> dict[str, Any]:
    """Return all that decides an answer about a decoded trial, see `explorer.answers`.

    {} where that cannot be told without a model: of a mapper that is fitted now or looks up what
    others predicted, of captions, and of a trial without a picture.
    """
    offer = bench.catalogue.offer(request.dataset, request.subject, request.mapper)
    space = decoded_space(bench, request)
    embedder = bench.catalogue.embedder_name(space)
    if offer.folder is None or not embedder or not (data := trial_hash(bench, request)):
        return {}
    weights = {
        "mapper": bench.models.mapper_hash(request.dataset, request.subject, request.mapper),
        "embedder": bench.models.embedder_hash(embedder),
    }
    return {
        "answer": what,
        "request": asdict(deciding(replace(request, space=space.name, generator=""))),
        "more": list(more),
        "weights": weights,
        "data": data,
        "subject": subject_hash(bench, request.dataset, request.subject),
    }


def card_identification(bench: Workbench, request: Request) -> dict[str, Any] | None:
    """Return what a mapper's card says of its two-way identification for this subject.

    Keys "two-way identification" (0 to 1), "chance" and "N" test images; None where the card
    has no such figure.
    """
    offer = bench.catalogue.offer(request.dataset, request.subject, request.mapper)
    tested = dict(offer.card.metrics).get("test", {}) if offer.card else {}
    of_subject = tested.get(request.subject, tested)  # of several subjects, each has its own
    found = of_subject.get(decoded_space(bench, request).name, {})
    figures = ("two-way identification", "chance", "N")
    return None if any(found.get(name) is None for name in figures) else found


def undecoded(bench: Workbench, request: Request) -> str:
    """Return why a request has no rank and neighbours, in one sentence; "" where it has."""
    if not request.mapper:
        return (
            f"There is no mapper for {request.dataset}/{request.subject}: nothing is decoded "
            "here, the published pictures are shown as they are."
        )
    space = decoded_space(bench, request)
    if why := bench.catalogue.without_picture(request.dataset, request.stimulus):
        shown = list(bench.catalogue.gallery(request.dataset, request.subject).index)
        if not bench.models.is_embedded(request.dataset, shown, space):
            return why
    if bench.catalogue.embedder_name(space):
        return ""
    if not bench.catalogue.captions_embedder_name(space):
        return no_embedder(space)
    gallery = bench.catalogue.gallery(request.dataset, request.subject)
    if (gallery["caption"].fillna("").str.strip() != "").all():
        return ""
    return (
        f"{space.name} is made of captions, and not all test images of {request.dataset} "
        "have one, so what is decoded cannot be compared with what was shown; choose another "
        "mapper."
    )


def uncomputed(bench: Workbench, request: Request) -> str:
    """Return why no betas but the trial's own can be decoded, "" where any can."""
    if not request.mapper:
        return "There is no mapper here, so no betas can be decoded."
    if bench.catalogue.offer(request.dataset, request.subject, request.mapper).published is None:
        return ""
    return (
        f"{request.mapper} was published: its embeddings are looked up, not computed from "
        "betas, so no other betas can be put in."
    )


def unexplained(bench: Workbench, request: Request) -> str:
    """Return why a request has no importance, in one sentence; "" where it has."""
    if reason := undecoded(bench, request):
        return reason
    if bench.catalogue.offer(request.dataset, request.subject, request.mapper).published is None:
        return ""
    return (
        f"{request.mapper} was published: its embeddings are looked up, not computed from "
        "betas, so there is no gradient and no importance of parcels."
    )


def decode(bench: Workbench, request: Request) -> Decoding:
    """Return the decoded embedding of a request and where it lies among the test stimuli.

    A request without a generator is decoded into the mapper's first target.
    """
    check_request(bench.catalogue, request, pictures=False)
    if reason := undecoded(bench, request):
        raise UserError(reason)

    def make() -> Decoding:
        return made_and_remembered(
            bench, lambda: _decided(bench, request), lambda: _decode(bench, request), _written
        )

    known = _recalled(bench, request)
    return known or bench.caches.maps.get(_decoding_key(bench, request), make)


def is_decoded(bench: Workbench, request: Request) -> bool:
    """Return whether `decode` answers at once, from what is kept."""
    if not request.mapper or undecoded(bench, request):
        return True  # there is nothing to decode
    return _recalled(bench, request) is not None


def _recalled(bench: Workbench, request: Request) -> Decoding | None:
    """Return what was decoded before, from memory or a store."""
    key = _decoding_key(bench, request)
    known = bench.caches.maps.peek(key)
    if known is None and bench.stores:
        space = decoded_space(bench, request)
        known = recalled(bench, _decided(bench, request), lambda kept: _read(kept, space))
        if known is not None:
            bench.caches.maps.put(key, known)
    return known


def _decided(bench: Workbench, request: Request) -> dict[str, Any]:
    return decided_answer(bench, request, "decoding") if bench.stores else {}


def _written(decoding: Decoding) -> dict[str, Any]:
    """Return a decoding as plain values, for `_read`."""
    plain = {name: getattr(decoding, name) for name in ("rank", "n", "average_of")}
    return {
        **plain,
        "embedding": packed(decoding.embedding),
        "similarity": decoding.similarity,
        "margin": or_none(decoding.margin),
        "neighbours": [list(one) for one in decoding.neighbours],
    }


def _read(kept: dict[str, Any], space: EmbeddingSpace) -> Decoding:
    margin = kept["margin"]
    return Decoding(
        space=space,
        embedding=unpacked(kept["embedding"]).reshape(space.shape),
        similarity=float(kept["similarity"]),
        rank=int(kept["rank"]),
        n=int(kept["n"]),
        margin=float("nan") if margin is None else float(margin),
        neighbours=tuple((str(name), float(value)) for name, value in kept["neighbours"]),
        average_of=int(kept["average_of"]),
    )


def _decoding_key(bench: Workbench, request: Request) -> tuple:
    return "decoding", deciding(replace(request, space=decoded_space(bench, request).name))


def _decode(bench: Workbench, request: Request) -> Decoding:
    space = decoded_space(bench, request)
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    index = stimuli.index(request.stimulus)
    gallery = bench.models.embed(request.dataset, stimuli, space)
    embedding = decoded_embeddings(bench, request)[space]
    similarity = similarities(embedding[None], gallery, space)[0]
    best = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
    trials = bench.catalogue.trials(request.dataset, request.subject)
    return Decoding(
        space=space,
        embedding=embedding,
        similarity=float(similarity[index]),
        rank=int(np.ceil(metrics.retrieval_rank(similarity, index))),
        n=len(stimuli),
        margin=float(retrieval_margins(bench, request, embedding[None])[0]),
        neighbours=tuple((stimuli[i], float(similarity[i])) for i in best),
        average_of=len(trials.rows("test", request.stimulus, request.repeats)),
    )


def decoded_space(bench: Workbench, request: Request) -> EmbeddingSpace:
    """Return the space that rank and importance are about: what the generator draws from."""
    targets = bench.catalogue.offer(request.dataset, request.subject, request.mapper).targets
    place = request.dataset, request.subject, request.mapper
    names = (
        [request.space]
        if request.space
        else space_names(bench.catalogue, *place, request.generator)
    )
    return next((space for space in targets if space.name in names[:1]), targets[0])


def decode_betas(
    bench: Workbench, request: Request, betas: np.ndarray
) -> dict[EmbeddingSpace, np.ndarray]:
    """Return what the request's mapper makes of betas (n, V): raw (n, ...) by space."""
    if reason := uncomputed(bench, request):
        raise UserError(reason)
    mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
    stopping.look()
    return mapper.decode(betas, request.subject)


def retrieval_margins(
    bench: Workbench, request: Request, embeddings: np.ndarray, shown: Sequence[str] = ()
) -> np.ndarray:
    """Return the retrieval margin float64 (n,) of raw embeddings (n, ...) of `space`.

    Of the request's stimulus, or of ``shown``, one a row. NaN with a gallery of one image.
    """
    stimuli = list(bench.catalogue.gallery(request.dataset, request.subject).index)
    if len(stimuli) < 2:
        return np.full(len(embeddings), np.nan)
    import torch

    space = decoded_space(bench, request)
    rows = [stimuli.index(stimulus) for stimulus in shown or [request.stimulus]]
    gallery = bench.models.embed(request.dataset, stimuli, space)
    target = margin_target(gallery, rows, space, temperature(bench, request))
    return target(torch.from_numpy(np.asarray(embeddings, np.float32))).double().numpy()


def decoded_embeddings(bench: Workbench, request: Request) -> dict[EmbeddingSpace, np.ndarray]:
    """Return what a request's mapper decodes from its betas, raw (...) by space."""
    mapper = bench.models.mapper(request.dataset, request.subject, request.mapper)
    if (
        bench.catalogue.offer(request.dataset, request.subject, request.mapper).published
        is not None
    ):
        return mapper.lookup(request.stimulus)
    decoded = mapper.decode(request_betas(bench, request)[None], request.subject)
    return {space: rows[0] for space, rows in decoded.items()}


def temperature(bench: Workbench, request: Request) -> float:
    """Return the temperature of a request's retrieval margin, as its mapper's card says."""
    return float(bench.models.card(request).settings.get("temperature", importance.TEMPERATURE))


def deciding(request: Request) -> Request:
    """Return a request without what decides pictures alone, not what their embedding rests on."""
    plain = replace(request, axis="", values=(), rois=(), roi_atlas="")
    return replace(plain, scales=(1.0,), steps=1, seed=0, options=(), samples=1)


def similarities(
    predictions: np.ndarray, gallery: np.ndarray, space: EmbeddingSpace
) -> np.ndarray:
    """Return float64 (n, N): predictions (n, ...) against gallery (N, ...).

    Cosine where the space has unit norm, else Pearson correlation over an embedding's values.
    """
    flat = [np.reshape(x, (len(x), -1)).astype(np.float64) for x in (predictions, gallery)]
    if not space.unit_norm:
        flat = [rows - rows.mean(axis=1, keepdims=True) for rows in flat]
    return metrics.cosine_matrix(*flat)


def margin_target(
    gallery: np.ndarray, rows: Sequence[int], space: EmbeddingSpace, temperature: float
) -> importance.Target:
    """Return the retrieval margin over the similarity that ranks are made of."""
    if space.unit_norm:
        return importance.retrieval_margin(gallery, rows, temperature)
    flat = gallery.reshape(len(gallery), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)  # cosine of centred values: correlation
    margin = importance.retrieval_margin(centred, rows, temperature)

    def target(prediction: Any) -> Any:
        values = prediction.flatten(1)
        return margin(values - values.mean(dim=1, keepdim=True))

    return target
