"""The named endpoints: the same answers as the page, typed, for scripts and other programs."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from explorer.brain.maps import is_mapped, map_names, map_of_voxels, parcel_importance
from explorer.choosing import check_request, default_request
from explorer.decoding import decode, is_decoded, undecoded
from explorer.drawing import draw_samples, is_drawn, reconstruct, whose_pictures
from explorer.evidence.attention import WINDOW, attention_of
from explorer.figures import heat_overlay
from explorer.page import links
from explorer.page.pictures import data_uri
from explorer.page.turns import Turns
from explorer.request import IMPORTANCE, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.drawing import Frame
    from explorer.workbench import Workbench

PROGRAM = "a program"  # the visitor that asks endpoints


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints below to the page being built, each by the name of its method.

    ``model``: the settings of endpoints that ask models; ``turns``: the page's queue at them.
    """
    endpoints = Endpoints(workbench, turns)
    gr.api(endpoints.trials, api_name="trials")
    gr.api(endpoints.reconstruct, api_name="reconstruct", **model)
    gr.api(endpoints.importance, api_name="importance", **model)
    gr.api(endpoints.attention, api_name="attention", **model)
    gr.api(endpoints.map, api_name="map", **model)


def answered(endpoint: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Send a `UserError` of an endpoint to its caller as the sentence that it is."""

    @functools.wraps(endpoint)
    def guarded(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return endpoint(*args, **kwargs)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return guarded


def in_turn(kind: str) -> Callable[..., Callable[..., dict[str, Any]]]:
    """Let an endpoint hold the models from its first to its last line; ``kind`` names the work."""

    def wrap(endpoint: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(endpoint)
        def held(self: Endpoints, *args: Any, **kwargs: Any) -> dict[str, Any]:
            with self.turns.held(PROGRAM, kind):
                return endpoint(self, *args, **kwargs)

        return held

    return wrap


class Endpoints:
    """The endpoints over one workbench. Gradio reads types and texts from the methods."""

    def __init__(self, workbench: Workbench, turns: Turns | None = None) -> None:
        self.workbench, self.turns = workbench, turns or Turns()

    @answered
    def trials(self, dataset: str = "", subject: str = "") -> dict[str, Any]:
        """List what can be asked for: the test trials of one subject, and who else there is.

        Parameters
        ----------
        dataset, subject
            Names; empty takes the first. The answer's ``datasets`` and
            ``subjects`` list them all.

        Returns
        -------
        dict
            ``dataset``, ``subject``, ``datasets``, ``subjects``, ``mappers`` (name -> generators
            that fit) and ``trials``: a list of stimulus, number (1-based), caption, category,
            repeats.
        """
        request = default_request(
            self.workbench.catalogue, dataset or None, subject or None, seed=0
        )
        place = request.dataset, request.subject
        gallery = self.workbench.catalogue.gallery(*place).reset_index(names="stimulus")
        return {
            "dataset": request.dataset,
            "subject": request.subject,
            "datasets": self.workbench.catalogue.dataset_names(),
            "subjects": self.workbench.catalogue.subjects(request.dataset),
            "mappers": {
                m: self.workbench.catalogue.generator_names(*place, m)
                for m in self.workbench.catalogue.mapper_names(*place)
            },
            "trials": [
                {
                    "stimulus": str(row["stimulus"]),
                    "number": int(row["number"]),
                    "caption": str(row["caption"]),
                    "category": str(row["category"]),
                    "repeats": int(row["repeats"]),
                }
                for row in gallery.to_dict("records")
            ],
        }

    @answered
    def reconstruct(
        self,
        trial: str,
        dataset: str = "",
        subject: str = "",
        mapper: str = "",
        generator: str = "",
        scales: str = "0, 1, 2, 4, 8",
        steps: int = 0,
        seed: int = 0,
        repeat: int = 0,
        samples: int = 1,
        space: str = "",
        options: str = "",
        axis: str = "",
        values: str = "",
        rois: str = "",
        roi_atlas: str = "",
    ) -> dict[str, Any]:
        """Decode one test trial and draw it at several guidance scales.

        Parameters
        ----------
        trial
            A stimulus that ``/trials`` lists.
        dataset, subject, mapper, generator
            Names; empty takes the first that fits.
        scales
            Guidance scales, numbers parted by commas; 0 is the generator without the brain.
        steps
            Sampling steps; 0 takes the generator's own default.
        seed
            Decides the noise that every image starts from.
        repeat
            Which repeat of the trial, from 1; 0 decodes the average of all.
        samples
            Above 1: so many samples from the mapper's density are drawn too, for mappers that
            give one, from the same noise and at the guidance scale nearest to 2.
        space
            Which of the mapper's targets is decoded; empty takes the first that the generator
            draws from.
        options
            The generator's own options, such as ``feature_kappa=0.3, candidates=4``.
        axis, values
            What varies from row to row, ``seed`` or an option, and its values as numbers parted by
            commas; empty draws one row.
        rois, roi_atlas
            Parcels whose betas guide, where an option asks for betas, parted by semicolons, and
            their atlas; empty takes all voxels, and the first atlas.

        Returns
        -------
        dict
            ``link`` (the query string of the page that shows the same), ``caption``, ``truth``
            (PNG as a data address), ``images``: a list of scale, image (as truth), provenance
            (generated, retrieved or published), scores, the value of the axis, and a note and
            neighbours (picture, label, similarity) where they must stand beside it;
            ``samples``, such a list; ``retrieval``: rank, n, chance, similarity, margin, space,
            neighbours, or nothing where published pictures are shown without a mapper;
            ``trained_on``: a sentence, empty where the generator was trained on the data set's
            own pictures; ``checkpoints``.
        """
        wanted = {"scales": links.parse_scales(scales), "seed": int(seed)}
        wanted |= {"samples": int(samples), "space": space}
        if options:
            wanted["options"] = _options(options)
        if axis or values:
            numbers = links.parse_numbers(values, f"Values of {axis or 'an axis'}", "0, 1, 2")
            wanted |= {"axis": axis, "values": numbers}
        wanted |= {"rois": links.parse_names(rois), "roi_atlas": roi_atlas}
        if steps:
            wanted["steps"] = int(steps)
        request = self._request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        there = is_decoded(self.workbench, request) and is_drawn(self.workbench, request)
        with self._in_turn("pictures", there):
            why = undecoded(self.workbench, request)
            decoding = None if why else decode(self.workbench, request)
            finished = sorted(
                (frame for frame in reconstruct(self.workbench, request) if frame.done),
                key=lambda f: (f.row, f.index),
            )
            samples_ = draw_samples(self.workbench, request)
        made = self.workbench.catalogue.generator_class(request.generator).provenance
        gallery = self.workbench.catalogue.gallery(request.dataset, request.subject)
        return {
            "link": links.query(request, View()),
            "caption": str(gallery.loc[request.stimulus, "caption"]),
            "truth": data_uri(
                self.workbench.catalogue.image(request.dataset, request.stimulus), form="png"
            ),
            "images": [picture_of(frame, made, request) for frame in finished],
            "samples": [picture_of(frame, made) for frame in samples_],
            "retrieval": None
            if decoding is None
            else {
                "space": decoding.space.name,
                "rank": decoding.rank,
                "n": decoding.n,
                "chance": (decoding.n + 1) / 2,
                "similarity": number(decoding.similarity),
                "margin": number(decoding.margin),
                "neighbours": [[name, number(value)] for name, value in decoding.neighbours],
            },
            "trained_on": whose_pictures(self.workbench, request.generator, request.dataset),
            "checkpoints": self.workbench.checkpoint_hashes(request),
        }

    @answered
    def importance(
        self,
        trial: str,
        dataset: str = "",
        subject: str = "",
        mapper: str = "",
        repeat: int = 0,
        method: str = "gradient",
        target: str = "retrieval margin",
        atlas: str = "",
    ) -> dict[str, Any]:
        """Say how much each parcel weighs in the decoding of one test trial.

        Parameters
        ----------
        trial, dataset, subject, mapper, repeat
            As for ``/reconstruct``.
        method
            ``gradient``, ``gradient x input`` or ``integrated gradients``.
        target
            What is explained: ``retrieval margin``, ``fixed direction``, or for mappers that give
            a density ``log-likelihood`` of the shown image's embedding.
        atlas
            Name of an atlas; empty takes the first.

        Returns
        -------
        dict
            ``atlas``, ``method``, ``target``, ``n_voxels``, ``flat`` (a gradient of zero),
            ``limits`` (colour limits per measure, the same for all trials) and ``parcels``: a
            list of parcel, name, hemisphere, voxels, share, mean, enrichment, signed, small.
        """
        request = self._request(trial, dataset, subject, mapper, "", repeat)
        view = View(method=method, target=target, atlas=atlas)
        with self._in_turn("maps", is_mapped(self.workbench, request, view)):
            parcel_map = parcel_importance(self.workbench, request, view)
        return {
            "atlas": parcel_map.atlas,
            "method": parcel_map.method,
            "target": parcel_map.target,
            "n_voxels": int(parcel_map.n_voxels),
            "flat": bool(parcel_map.flat),
            "limits": {name: list(map(float, pair)) for name, pair in parcel_map.limits.items()},
            "parcels": [
                {
                    **{name: str(row[name]) for name in ("parcel", "name", "hemisphere")},
                    **{n: number(row[n]) for n in ("share", "mean", "enrichment", "signed")},
                    "voxels": int(row["voxels"]),
                    "small": bool(row["small"]),
                }
                for row in parcel_map.table.to_dict("records")
            ],
        }

    @answered
    def attention(
        self,
        trial: str,
        dataset: str = "",
        subject: str = "",
        mapper: str = "",
        generator: str = "",
        repeat: int = 0,
    ) -> dict[str, Any]:
        """Say where in the shown image the decoding of one test trial rests, by occlusion.

        Parameters
        ----------
        trial, dataset, subject, mapper, generator, repeat
            As for ``/reconstruct``.

        Returns
        -------
        dict
            ``link``, ``method``, ``space``, ``similarity`` (of the image to what was decoded:
            cosine, or correlation where the space has no unit norm), ``cells`` (rows from the top:
            how much the similarity falls when windows of ``window`` x ``window`` cells around it
            are hidden behind the mean colour) and ``overlay``, PNG as a data address.
        """
        request = self._request(trial, dataset, subject, mapper, generator, repeat)
        view = View(attention="occlusion")
        with self._in_turn("attention"):
            found = attention_of(self.workbench, request)
            space = decode(self.workbench, request).space.name
        height, width = self.workbench.catalogue.image(request.dataset, request.stimulus).shape[:2]
        return {
            "link": links.query(request, view),
            "method": view.attention,
            "space": space,
            "similarity": found.similarity,
            "cells": found.cells.tolist(),
            "window": WINDOW,
            "overlay": data_uri(heat_overlay(found.cells, height, width), form="png"),
        }

    @answered
    def map(
        self,
        show: str = "",
        dataset: str = "",
        subject: str = "",
        atlas: str = "",
        trial: str = "",
        repeat: int = 0,
    ) -> dict[str, Any]:
        """Say what is known of the voxels, such as noise ceiling or predicted betas, by parcel.

        Parameters
        ----------
        show
            A name among the answer's ``maps``; empty takes the first. Betas are those of a trial
            as measured, and as an encoding model predicts them from the shown image; "encoding
            accuracy" is their correlation over the test images.
        dataset, subject
            Names; empty takes the first.
        atlas
            Name of an atlas; empty takes the first.
        trial
            A stimulus that ``/trials`` lists; empty takes the first.
        repeat
            Which repeat of the trial, from 1; 0 takes the average of all.

        Returns
        -------
        dict
            ``map``, ``title``, ``sentence`` (how an encoding model was made, else empty), ``maps``
            (the names of all), ``trial``, ``atlas`` and ``parcels``: a list of parcel, name,
            hemisphere, voxels, known (voxels that have a value), their mean, and where betas are
            predicted ``r_trial`` (correlation of measured and predicted betas over the parcel's
            voxels, this trial alone) and ``r_ceiling`` (what noise leaves to a perfect model).
        """
        request = default_request(
            self.workbench.catalogue, dataset or None, subject or None, seed=0
        )
        place = request.dataset, request.subject
        names = map_names(self.workbench, *place)[1:]
        stimulus = trial or str(self.workbench.catalogue.gallery(*place).index[0])
        view = View(shows=show or names[0], atlas=atlas)
        if view.shows == IMPORTANCE:
            raise UserError("Importance is of a trial; ask /importance for it.")
        repeats = (int(repeat) - 1,) if repeat else ()
        request = replace(request, stimulus=stimulus, repeats=repeats)
        with self._in_turn("maps", is_mapped(self.workbench, request, view)):
            shown = map_of_voxels(self.workbench, request, view)
        columns = ("mean", "r_ceiling", "r_trial")
        return {
            "map": shown.name,
            "title": shown.title,
            "sentence": shown.sentence,
            "maps": names,
            "trial": stimulus,
            "atlas": shown.atlas,
            "parcels": [
                {
                    **{name: str(row[name]) for name in ("parcel", "name", "hemisphere")},
                    "voxels": int(row["voxels"]),
                    "known": int(row["known"]) if "known" in row else None,
                    **{n: number(row[n]) if n in row else None for n in columns},
                }
                for row in shown.table.to_dict("records")
            ],
        }

    @contextlib.contextmanager
    def _in_turn(self, kind: str, there: bool = False) -> Iterator[None]:
        """Hold the models while the block runs; what is ``there`` already waits for nobody."""
        with contextlib.nullcontext() if there else self.turns.held(PROGRAM, kind):
            yield

    def _request(
        self,
        trial: str,
        dataset: str,
        subject: str,
        mapper: str,
        generator: str,
        repeat: int,
        **wanted: Any,
    ) -> Request:
        """Return a checked request; names that are empty take the first that fits."""
        named = {"mapper": mapper, "generator": generator}
        request = default_request(
            self.workbench.catalogue,
            dataset or None,
            subject or None,
            seed=0,
            **{key: value for key, value in named.items() if value},
        )
        repeats = (int(repeat) - 1,) if repeat else ()
        request = replace(request, stimulus=trial, repeats=repeats, **wanted)
        check_request(self.workbench.catalogue, request)
        return request


def _options(text: str) -> tuple[tuple[str, float], ...]:
    """Read a generator's options; `Catalogue.check` says which there are."""
    found = []
    for key, value in links.parse_options(text).items():
        name = key.removeprefix(links.OPTION)
        found.append((name, links.parse_numbers(value, f"Values of {name}", "0.5")[0]))
    return tuple(found)


def picture_of(frame: Frame, made: str, request: Request | None = None) -> dict[str, Any]:
    """Return a finished picture ready for JSON; ``made``: its provenance."""
    near = [[n.picture, n.label, number(n.similarity)] for n in frame.neighbours]
    return {
        "scale": frame.scale,
        **({request.axis: request.values[frame.row]} if request and request.axis else {}),
        "provenance": made,
        "image": data_uri(frame.image, form="png"),
        "scores": {name: number(value) for name, value in frame.scores.items()},
        **({"note": frame.note} if frame.note else {}),
        **({"neighbours": near} if near else {}),
    }


def number(value: float) -> float | None:
    """Return a number ready for JSON, None where it is not finite."""
    return float(value) if math.isfinite(value) else None  # JSON has no NaN
