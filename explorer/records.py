"""Provenance: a request and its view as a JSON record, with results, and back."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from explorer.choosing import check_request
from explorer.decoding import decode, undecoded
from explorer.drawing import whose_pictures
from explorer.evidence.attention import attention_of
from explorer.finished import finished_pictures, finished_samples
from explorer.identity import Identity, file_hash, trace, within
from explorer.request import Request, View
from explorer.types import UserError
from explorer.writing import or_none

if TYPE_CHECKING:
    from explorer.finished import Frame
    from explorer.workbench import Workbench

FORMAT = 1
LIBRARIES = ("torch", "diffusers", "open_clip_torch", "numpy", "gradio")


def make_record(workbench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return what makes a view again, ready for JSON: choices, weights, data, versions, results.

    Scores are those of the pictures that are finished by now; a number that is not finite is None.
    """
    check_request(workbench.catalogue, request)
    dataset = workbench.catalogue.dataset(request.dataset)
    voxels = workbench.catalogue.trials(request.dataset, request.subject).subject.voxels
    return {
        "afterimage": FORMAT,
        "request": asdict(request),
        "view": asdict(view),
        "checkpoints": workbench.checkpoint_hashes(request, view),
        "versions": _versions(),
        "data": {
            "title": dataset.title,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "simulated": dataset.simulated,
            "split_unit": dataset.split_unit,
            "voxels": voxels.n_voxels,
            "voxel_hash": voxels.hash,
        },
        "identity": identify(workbench, request).to_dict(),
        "mapper": _mapper(workbench, request),
        "decoding": _decoding(workbench, request),
        "attention": _attention(workbench, request, view),
        "provenance": workbench.catalogue.generator_class(request.generator).provenance,
        "trained_on": whose_pictures(workbench, request.generator, request.dataset),
        "scores": [_scores(frame, request) for frame in finished_pictures(workbench, request)],
        "notes": [
            _note(frame, request) for frame in finished_pictures(workbench, request) if frame.note
        ],
        "samples": [_scores(frame) for frame in finished_samples(workbench, request)],
    }


def identify(workbench: Workbench, request: Request) -> Identity:
    """Return where the betas and the picture of the shown trial come from.

    Files are told from the study's own folder on.
    """
    catalogue = workbench.catalogue
    dataset = catalogue.dataset(request.dataset)
    trials = catalogue.trials(request.dataset, request.subject)
    found = trace(dataset, trials, request.stimulus, "test", request.repeats, file_hash)
    return within(found, getattr(dataset, "path", None) or ".")


def _scores(frame: Frame, request: Request | None = None) -> dict[str, float | None]:
    return _place(frame, request) | {name: or_none(v) for name, v in frame.scores.items()}


def _note(frame: Frame, request: Request) -> dict[str, Any]:
    near = [[n.picture, n.label, or_none(n.similarity)] for n in frame.neighbours]
    return _place(frame, request) | {"note": frame.note, "neighbours": near}


def _place(frame: Frame, request: Request | None) -> dict[str, Any]:
    """Return where a picture lies in its sweep: its scale, and what the row varies."""
    row = {request.axis: request.values[frame.row]} if request and request.axis else {}
    return {"scale": frame.scale} | row


def _mapper(workbench: Workbench, request: Request) -> dict[str, Any] | None:
    """Return how the mapper decodes as its card says, and which published file it was."""
    if not request.mapper:
        return None
    card = workbench.catalogue.offer(request.dataset, request.subject, request.mapper).card
    if card is None:
        return None
    told = {
        key: card.settings[key] for key in ("architecture", "published") if key in card.settings
    }
    return {"class": card.cls, **told}


def _decoding(workbench: Workbench, request: Request) -> dict[str, Any] | None:
    if undecoded(workbench, request):
        return None
    decoding = decode(workbench, request)
    return {
        "space": decoding.space.name,
        "similarity": or_none(decoding.similarity),
        "rank": decoding.rank,
        "of": decoding.n,
        "chance_rank": (decoding.n + 1) / 2,
        "margin": or_none(decoding.margin),
        "neighbours": [[name, or_none(value)] for name, value in decoding.neighbours],
        "average_of": decoding.average_of,
    }


def _attention(workbench: Workbench, request: Request, view: View) -> dict[str, Any] | None:
    if view.attention == "off" or undecoded(workbench, request):
        return None
    found = attention_of(workbench, request)
    return {
        "method": view.attention,
        "similarity": found.similarity,
        "cells": [[float(f"{v:.4g}") for v in row] for row in found.cells],
    }


def from_record(values: Any) -> tuple[Request, View]:
    """Return the request and view that `make_record` wrote; anything else raises `UserError`."""
    if not isinstance(values, Mapping) or values.get("afterimage") != FORMAT:
        raise UserError(
            f'This is no record of Afterimage: it lacks "afterimage": {FORMAT}; choose a .json '
            "file that was exported here."
        )
    return _read(values, "request", Request), _read(values, "view", View)


def changes(workbench: Workbench, values: Mapping[str, Any]) -> list[str]:
    """Return why a record may come out otherwise here, one sentence each; [] if it will not."""
    request, view = from_record(values)
    check_request(workbench.catalogue, request)
    now = workbench.checkpoint_hashes(request, view)
    voxels = workbench.catalogue.trials(request.dataset, request.subject).subject.voxels
    now = {f"weights of the {kind}": digest for kind, digest in now.items()}
    now["voxels"] = voxels.hash
    then = {f"weights of the {k}": v for k, v in dict(values.get("checkpoints", {})).items()}
    then["voxels"] = dict(values.get("data", {})).get("voxel_hash")
    return [
        f"The {what} are others than the record's (hash {now[what]}, not {then.get(what)})."
        for what in now
        if now[what] != then.get(what)
    ]


def _read(values: Mapping[str, Any], key: str, cls: type) -> Any:
    """Build one of the two dataclasses of a record."""
    found, known = values.get(key), {field.name for field in fields(cls)}
    if not isinstance(found, Mapping) or not set(found) <= known:
        raise UserError(
            f"The record's {key!r} holds fields among {', '.join(sorted(known))} and no others; "
            "export it again."
        )
    try:
        return cls(**found)
    except (TypeError, ValueError) as error:
        raise UserError(f"The record's {key!r} is damaged ({error}); export it again.") from error


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
