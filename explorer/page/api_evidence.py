"""The named endpoints of evidence: controls, lesions and comparisons of a trial, for scripts."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from explorer.decoding import unexplained
from explorer.evidence import comparison, controls, lesions
from explorer.page import links
from explorer.page.api import Endpoints, answered, in_turn, number, picture_of
from explorer.page.pictures import data_uri
from explorer.page.turns import Turns
from explorer.request import Request, View

if TYPE_CHECKING:
    from explorer.evidence.standing import Place
    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints below to the page being built, as `api.register` does."""
    endpoints = Evidence(workbench, turns)
    gr.api(endpoints.controls, api_name="controls", **model)
    gr.api(endpoints.lesion, api_name="lesion", **model)
    gr.api(endpoints.compare, api_name="compare", **model)


class Evidence(Endpoints):
    """The endpoints over one workbench. Gradio reads types and texts from the methods."""

    @answered
    @in_turn("controls")
    def controls(
        self,
        trial: str,
        dataset: str = "",
        subject: str = "",
        mapper: str = "",
        generator: str = "",
        scale: float = 2.0,
        seed: int = 0,
        repeat: int = 0,
        names: str = "",
    ) -> dict[str, Any]:
        """Draw what a trial's picture is to be held against: other brains, or none at all.

        Parameters
        ----------
        trial, dataset, subject, mapper, generator, seed, repeat
            As for ``/reconstruct``.
        scale
            The guidance scale of all pictures.
        names
            Which controls, parted by semicolons, such as ``true embedding; no brain``; empty draws
            all.

        Returns
        -------
        dict
            ``link`` and ``controls``: a list of name, sentence (what it shows), and either reason
            (why it cannot be had) or image (PNG as a data address), scores, note, stimulus (whose
            brain, or which training image), similarity (of the nearest training image), decoded
            and drawn (where embedding and picture lie among the test images: similarity, rank, n,
            identification, margin).
        """
        request = self._one(trial, dataset, subject, mapper, generator, repeat, scale, seed)
        chosen = links.parse_names(names) or controls.CONTROLS
        return {
            "link": links.query(request, View(panel="controls")),
            "controls": [
                _control(one) for one in controls.controls(self.workbench, request, chosen)
            ],
        }

    @answered
    @in_turn("lesion")
    def lesion(
        self,
        trial: str,
        parcels: str,
        gain: float = 0.0,
        fill: str = lesions.TRAINING_MEAN,
        donor: str = "",
        dataset: str = "",
        subject: str = "",
        mapper: str = "",
        generator: str = "",
        atlas: str = "",
        scale: float = 2.0,
        seed: int = 0,
        repeat: int = 0,
    ) -> dict[str, Any]:
        """Replace the betas of some parcels and say what changes, and what each does alone.

        Parameters
        ----------
        trial, dataset, subject, mapper, generator, seed, repeat
            As for ``/reconstruct``.
        parcels
            Which, parted by semicolons, such as ``fusiform L; fusiform R``.
        gain
            0 replaces their betas, 1 changes nothing, 2 doubles what sets them apart from
            ``fill``.
        fill
            ``training mean``, ``zero``, ``another trial`` or ``matched noise``.
        donor
            The test stimulus of ``another trial``; empty lets the seed choose one.
        atlas
            Name of an atlas; empty takes the first.
        scale
            The guidance scale of both pictures.

        Returns
        -------
        dict
            ``link``, ``voxels``, ``shift`` (distance between the two embeddings, 1 - cosine),
            ``intact`` and ``lesioned`` (similarity, rank, n, identification, margin), ``sentence``
            (what the replacement means), ``donor``, ``warning``, ``images`` (intact, lesioned and
            difference, nothing without a generator) and ``effects``: for each parcel's lesion
            alone by the same fill parcel, voxels, small, effect (by how much the retrieval margin
            falls), shift and rank.
        """
        request = self._one(trial, dataset, subject, mapper, generator, repeat, scale, seed)
        how = lesions.Lesion(links.parse_names(parcels), gain, fill, donor)
        found = lesions.lesion(self.workbench, request, how, atlas)
        chosen = {"parcels": how.parcels, "gain": how.gain, "fill": fill, "donor": donor}
        view = View(atlas=atlas, panel="lesion", **chosen)
        return {
            "link": links.query(request, view),
            "voxels": found.voxels,
            "shift": found.shift,
            "intact": _place(found.intact),
            "lesioned": _place(found.lesioned),
            "sentence": found.sentence,
            "donor": found.donor,
            "warning": found.warning,
            "images": self._lesion_images(request, how, atlas) if request.generator else None,
            "effects": [
                {
                    "parcel": str(row["parcel"]),
                    "voxels": int(row["voxels"]),
                    "small": bool(row["small"]),
                    **{name: number(row[name]) for name in ("effect", "shift", "rank")},
                }
                for row in lesions.lesion_effects(
                    self.workbench, request, atlas, fill
                ).table.to_dict("records")
            ],
        }

    @answered
    @in_turn("compare")
    def compare(
        self,
        trial: str,
        dataset: str = "",
        subject: str = "",
        mapper: str = "",
        generator: str = "",
        other_subject: str = "",
        other_mapper: str = "",
        other_generator: str = "",
        scale: float = 2.0,
        seed: int = 0,
        repeat: int = 0,
        metric: str = comparison.TWO_WAY,
        measure: str = "enrichment",
    ) -> dict[str, Any]:
        """Put two mappers, generators or subjects side by side on one trial and over all of them.

        Parameters
        ----------
        trial, dataset, subject, mapper, generator, seed, repeat
            As for ``/reconstruct``: side a.
        other_subject, other_mapper, other_generator
            What differs on side b; empty takes that of side a.
        scale
            The guidance scale of both pictures.
        metric
            ``two-way identification``, ``retrieval rank`` or ``similarity`` of what is decoded,
            over the test images.
        measure
            Of the parcel maps: ``enrichment`` or ``share``.

        Returns
        -------
        dict
            ``a`` and ``b``: link, image, scores, decoded and drawn as for ``/controls``;
            ``difference`` (PNG as a data address, grey where nothing differs), ``sentence`` (what
            may be compared), ``paired`` (metric, means a and b, difference b - a, interval,
            better, chance, n, sentence) and ``parcels``: parcel, a, b, difference; the last two
            are nothing where a side decodes nothing.
        """
        a = self._one(trial, dataset, subject, mapper, generator, repeat, scale, seed)
        other = {"subject": other_subject, "mapper": other_mapper, "generator": other_generator}
        b = replace(a, **{key: value for key, value in other.items() if value})
        pair = comparison.compare(self.workbench, a, b)
        decoded = not any(unexplained(self.workbench, request) for request in (a, b))
        return {
            "a": self._side(pair.a),
            "b": self._side(pair.b),
            "difference": data_uri(pair.difference, form="png"),
            "sentence": pair.sentence,
            "paired": self._paired(a, b, metric) if decoded else None,
            "parcels": self._parcels(a, b, measure) if decoded else None,
        }

    def _one(
        self,
        trial: str,
        dataset: str,
        subject: str,
        mapper: str,
        generator: str,
        repeat: int,
        scale: float,
        seed: int,
    ) -> Request:
        """Return a checked request for one picture."""
        wanted = {"scales": (float(scale),), "seed": int(seed)}
        return self._request(trial, dataset, subject, mapper, generator, repeat, **wanted)

    def _lesion_images(self, request: Request, how: lesions.Lesion, atlas: str) -> dict[str, Any]:
        drawn = lesions.lesion_pictures(self.workbench, request, how, atlas)
        made = self.workbench.catalogue.generator_class(request.generator).provenance
        return {
            "intact": picture_of(drawn.intact, made),
            "lesioned": picture_of(drawn.lesioned, made),
            "difference": data_uri(drawn.difference, form="png"),
        }

    def _side(self, side: comparison.Side) -> dict[str, Any]:
        made = self.workbench.catalogue.generator_class(side.request.generator).provenance
        return {
            "link": links.query(side.request, View()),
            **picture_of(side.frame, made),
            "decoded": _place(side.decoded),
            "drawn": _place(side.drawn),
        }

    def _paired(self, a: Request, b: Request, metric: str) -> dict[str, Any]:
        values = asdict(comparison.paired_difference(self.workbench, a, b, metric))
        interval = [number(end) for end in values.pop("interval")]
        return {k: number(v) if isinstance(v, float) else v for k, v in values.items()} | {
            "interval": interval
        }

    def _parcels(self, a: Request, b: Request, measure: str) -> list[dict[str, Any]]:
        table = comparison.compare_maps(self.workbench, a, b, View(measure=measure)).table
        return [
            {"parcel": str(row["parcel"])}
            | {name: number(row[name]) for name in ("a", "b", "difference")}
            for row in table.to_dict("records")
        ]


def _control(one: controls.Control) -> dict[str, Any]:
    told = {"name": one.name, "sentence": one.sentence}
    if one.reason:
        return told | {"reason": one.reason}
    return told | {
        "image": data_uri(np.asarray(one.image), form="png"),
        "scores": {name: number(value) for name, value in one.scores.items()},
        "note": one.note,
        "stimulus": one.stimulus,
        "similarity": number(one.similarity),
        "decoded": _place(one.decoded),
        "drawn": _place(one.drawn),
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {name: number(v) for name, v in asdict(place).items()}
