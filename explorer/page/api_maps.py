"""The named endpoints of maps: importance, attention, what is known of voxels, and statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from explorer.brain.maps import is_mapped, map_names, map_of_voxels, parcel_importance
from explorer.decoding import decode
from explorer.evidence import forecast, group, statistics
from explorer.evidence.attention import WINDOW, attention_of
from explorer.evidence.inference import PERMUTATIONS
from explorer.figures import heat_overlay
from explorer.page import links
from explorer.page.endpoint import (
    AtlasName,
    Dataset,
    Endpoints,
    Generator,
    Link,
    Mapper,
    Measure,
    Method,
    Repeat,
    Said,
    Subject,
    Target,
    Trial,
    add,
    endpoint,
    repeats,
)
from explorer.page.pictures import data_uri
from explorer.page.turns import MAPS_LESS, STATISTICS_LESS, Turns
from explorer.request import IMPORTANCE, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

MOST_PERMUTATIONS = 10_000  # some minutes; our choice


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints below to the page being built, as `api.register` does."""
    endpoints = Maps(workbench, turns)
    for name in ("importance", "attention", "map", "statistics"):
        add(name, getattr(endpoints, name), model)


ParcelKey = Annotated[str, Said("The parcel's key, by which others are asked.", "fusiform L")]
ParcelName = Annotated[str, Said("Its name without the hemisphere.", "fusiform")]
Hemisphere = Annotated[str, Said("Its side: `L`, `R`, or empty for both.", "L")]
Voxels = Annotated[int, Said("How many voxels it has.", 214)]
Small = Annotated[bool, Said("Whether it has so few voxels that chance may speak.", False)]
AtlasUsed = Annotated[str, Said("The atlas whose parcels these are.", "Desikan-Killiany")]
MethodUsed = Annotated[str, Said("As asked.", "gradient")]
TargetUsed = Annotated[str, Said("As asked.", "retrieval margin")]
PARCEL = {"parcel": "fusiform L", "name": "fusiform", "hemisphere": "L", "voxels": 214}


class WeighedParcel(TypedDict):
    """How much one parcel weighs; null for a parcel without voxels."""

    parcel: ParcelKey
    name: ParcelName
    hemisphere: Hemisphere
    voxels: Voxels
    small: Small
    share: Annotated[float | None, Said("Its share of all importance, 0 to 1.", 0.08)]
    mean: Annotated[float | None, Said("Mean importance of its voxels.", 0.002)]
    enrichment: Annotated[float | None, Said("Its share over its share of voxels.", 1.7)]
    signed: Annotated[float | None, Said("The sum with its sign.", 0.4)]


class Importance(TypedDict):
    """How much each parcel weighs."""

    atlas: AtlasUsed
    method: MethodUsed
    target: TargetUsed
    n_voxels: Annotated[int, Said("How many voxels are mapped.", 4000)]
    flat: Annotated[bool, Said("Whether the gradient is zero, so that nothing weighs.", False)]
    limits: Annotated[
        dict[str, list[float]],
        Said("Colour limits of each measure, the same for all trials.", {"enrichment": [0, 2.4]}),
    ]
    parcels: Annotated[
        list[WeighedParcel],
        Said(
            "The parcels, those of no parcel last.",
            [{**PARCEL, "small": False, "share": 0.08, "mean": 0.002, "enrichment": 1.7}],
        ),
    ]


class Attention(TypedDict):
    """Where in the shown image a decoding rests."""

    link: Link
    method: Annotated[str, Said("How it is found.", "occlusion")]
    space: Annotated[str, Said("The target in which images are compared.", "pocket-clip/image")]
    similarity: Annotated[
        float | None,
        Said(
            "Of the image to what was decoded: cosine, or correlation where the space has no unit "
            "norm.",
            0.71,
        ),
    ]
    cells: Annotated[
        list[list[float]],
        Said(
            "Rows from the top: how much the similarity falls when windows around a cell are "
            "hidden behind the mean colour.",
            [[0.01, 0.02], [0.0, 0.03]],
        ),
    ]
    window: Annotated[int, Said("Cells on a side of such a window.", 2)]
    overlay: Annotated[
        str, Said("It to lay over the image, a PNG.", "data:image/png;base64,iVBORw0KGgo=")
    ]


class KnownParcel(TypedDict):
    """What is known of one parcel's voxels."""

    parcel: ParcelKey
    name: ParcelName
    hemisphere: Hemisphere
    voxels: Voxels
    known: Annotated[int | None, Said("How many of them have a value.", 210)]
    mean: Annotated[float | None, Said("The mean of those.", 31.5)]
    r_ceiling: Annotated[
        float | None, Said("Where betas are predicted: what noise leaves to a perfect model.", 0.6)
    ]
    r_trial: Annotated[
        float | None,
        Said("Correlation of measured and predicted betas over its voxels, this trial.", 0.4),
    ]


class KnownMap(TypedDict):
    """A map of a subject's voxels."""

    map: Annotated[str, Said("The map that is shown.", "noise ceiling")]
    title: Annotated[str, Said("Its title with the unit.", "noise ceiling, % of variance")]
    sentence: Annotated[str, Said("How an encoding model was made, else empty.", "")]
    maps: Annotated[list[str], Said("All maps of this subject.", ["noise ceiling", "ncsnr"])]
    trial: Annotated[str, Said("The trial whose betas they are.", "test-0001")]
    atlas: AtlasUsed
    parcels: Annotated[
        list[KnownParcel],
        Said("The parcels, those of no parcel last.", [{**PARCEL, "known": 210, "mean": 31.5}]),
    ]


class TestedParcel(TypedDict):
    """One parcel over all test images; null where there is nothing to say."""

    parcel: ParcelKey
    name: ParcelName
    hemisphere: Hemisphere
    voxels: NotRequired[Voxels]
    small: NotRequired[Small]
    subjects: NotRequired[
        Annotated[int, Said("Of a group: subjects with 10 or more voxels there.", 4)]
    ]
    value: Annotated[float | None, Said("The measure, mean over test images.", 1.7)]
    low: Annotated[float | None, Said("Lower end of its 95 % interval.", 1.5)]
    high: Annotated[float | None, Said("Upper end of its 95 % interval.", 1.9)]
    evidence: NotRequired[
        Annotated[float | None, Said("Evidence in SDs of its null distribution.", 6.2)]
    ]
    p_evidence: NotRequired[Annotated[float | None, Said("Its p.", 0.001)]]
    q_evidence: NotRequired[Annotated[float | None, Said("Its q over the parcels.", 0.004)]]
    p_place: NotRequired[Annotated[float | None, Said("The p of its place, by rotations.", 0.02)]]
    q_place: NotRequired[Annotated[float | None, Said("Its q over the parcels.", 0.1)]]
    turns: NotRequired[Annotated[float | None, Said("How many rotations p_place has.", 998)]]
    randomised: NotRequired[
        Annotated[float | None, Said("The measure for shuffled weights.", 1.0)]
    ]
    ceiling: NotRequired[Annotated[float | None, Said("Mean noise ceiling, % of variance.", 31.5)]]
    per_ceiling: NotRequired[
        Annotated[float | None, Said("The measure over the ceiling's share of 1.", 5.4)]
    ]
    found: NotRequired[
        Annotated[float | None, Said("Of a group: in how many q_evidence is at most 0.05.", 3)]
    ]
    p: NotRequired[Annotated[float | None, Said("Of a group: t test over subjects.", 0.01)]]
    q: NotRequired[Annotated[float | None, Said("Its q over the parcels.", 0.03)]]


class Statistics(TypedDict):
    """A map over all test images."""

    link: Link
    people: Annotated[str, Said("Whose map: `subject` or `group`.", "subject")]
    subjects: Annotated[list[str], Said("Whose map it is.", ["subj01"])]
    atlas: AtlasUsed
    method: MethodUsed
    target: TargetUsed
    measure: Annotated[str, Said("As asked.", "enrichment")]
    permutations: Annotated[int, Said("Draws of every null distribution.", 1000)]
    stimuli: Annotated[int, Said("How many test images it is over, of the first subject.", 500)]
    identification: Annotated[
        list[float | None],
        Said(
            "Two-way identification of the first subject and its 95 % interval, chance 0.5.",
            [0.93, 0.92, 0.94],
        ),
    ]
    banner: Annotated[str, Said("Why the map must not be interpreted, empty where it may be.", "")]
    notes: Annotated[
        list[str],
        Said("What else must be known, a sentence each.", ["There is one repeat of each image."]),
    ]
    parcels: Annotated[
        list[TestedParcel],
        Said("The parcels, those of no parcel last.", [{**PARCEL, "value": 1.7, "low": 1.5}]),
    ]


class Maps(Endpoints):
    """The endpoints of maps; what their arguments and answers mean stands in the types."""

    @endpoint
    def importance(
        self,
        trial: Trial,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        repeat: Repeat = 0,
        method: Method = "gradient",
        target: Target = "retrieval margin",
        atlas: AtlasName = "",
    ) -> Importance:
        """Say how much each parcel weighs in the decoding of one test trial."""
        request = self.request(trial, dataset, subject, mapper, "", repeat)
        view = View(method=method, target=target, atlas=atlas)
        there = is_mapped(self.workbench, request, view)
        with self.in_turn("maps", there):
            if not there:
                self._gallery(request)
                self.spend(
                    forecast.seconds_of_importance(self.workbench, request, view), MAPS_LESS
                )
            found = parcel_importance(self.workbench, request, view)
        return {
            "atlas": found.atlas,
            "method": found.method,
            "target": found.target,
            "n_voxels": int(found.n_voxels),
            "flat": bool(found.flat),
            "limits": {name: list(map(float, pair)) for name, pair in found.limits.items()},
            "parcels": _parcels(found.table, WeighedParcel),
        }

    @endpoint
    def attention(
        self,
        trial: Trial,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        repeat: Repeat = 0,
    ) -> Attention:
        """Say where in the shown image the decoding of one test trial rests, by occlusion."""
        request = self.request(trial, dataset, subject, mapper, generator, repeat)
        view = View(attention="occlusion")
        with self.in_turn("attention"):
            self._gallery(request)
            self.spend(forecast.seconds_of_attention(self.workbench, request), MAPS_LESS)
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

    @endpoint
    def map(
        self,
        show: Annotated[
            str,
            Said(
                "One of the answer's `maps`; empty takes the first. Betas are those of a trial as "
                "measured, and as an encoding model predicts them from the shown image; `encoding "
                "accuracy` is their correlation over the test images.",
                "noise ceiling",
            ),
        ] = "",
        dataset: Dataset = "",
        subject: Subject = "",
        atlas: AtlasName = "",
        trial: Annotated[
            str, Said("A test stimulus that /trials lists; empty takes the first.", "test-0001")
        ] = "",
        repeat: Repeat = 0,
    ) -> KnownMap:
        """Say what is known of the voxels, such as noise ceiling or predicted betas, by parcel."""
        request = self.anyone(dataset, subject)
        place = request.dataset, request.subject
        names = map_names(self.workbench, *place)[1:]
        stimulus = trial or str(self.workbench.catalogue.gallery(*place).index[0])
        view = View(shows=show or names[0], atlas=atlas)
        if view.shows == IMPORTANCE:
            raise UserError("Importance is of a trial; ask /importance for it.")
        request = replace(request, stimulus=stimulus, repeats=repeats(repeat))
        there = is_mapped(self.workbench, request, view)
        with self.in_turn("maps", there):
            if not there:
                self.spend(forecast.seconds_of_prediction(self.workbench, request), MAPS_LESS)
            shown = map_of_voxels(self.workbench, request, view)
        absent = dict.fromkeys(("known", "mean", "r_ceiling", "r_trial"))
        return {
            "map": shown.name,
            "title": shown.title,
            "sentence": shown.sentence,
            "maps": names,
            "trial": stimulus,
            "atlas": shown.atlas,
            "parcels": [absent | row for row in _parcels(shown.table, KnownParcel)],
        }

    @endpoint
    def statistics(
        self,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        people: Annotated[
            str,
            Said(
                "Whose map: `subject`, or `group` for all subjects that have the mapper.", "group"
            ),
        ] = "subject",
        method: Method = "gradient",
        target: Target = "retrieval margin",
        measure: Measure = "enrichment",
        atlas: AtlasName = "",
        repeat: Repeat = 0,
        permutations: Annotated[
            int, Said("Draws of every null distribution; more takes longer.", 1000)
        ] = PERMUTATIONS,
    ) -> Statistics:
        """Map importance over all test images, with intervals, p and q of every parcel."""
        if not 1 <= permutations <= MOST_PERMUTATIONS:
            raise UserError(
                f"The number of permutations lies between 1 and {MOST_PERMUTATIONS}, found "
                f"{permutations}."
            )
        chosen = {"method": method, "target": target, "measure": measure, "atlas": atlas}
        view = View(**chosen, people=people, panel="statistics")
        first = self.anyone(dataset, subject, mapper)
        request = self.request(
            *(first.stimulus, first.dataset, first.subject, first.mapper, "", repeat)
        )
        over = group if people == "group" else statistics
        make = group.group_map if people == "group" else statistics.subject_map
        asked = self.workbench, request, view
        with self.in_turn("statistics"):
            self._gallery(request)
            self.spend(over.seconds_needed(*asked, permutations=permutations), STATISTICS_LESS)
            found = make(*asked, permutations=permutations)
        maps = found.subjects if isinstance(found, group.GroupMap) else (found,)
        notes = (
            (found.sentence, found.agreement.sentence, *found.left_out)
            if isinstance(found, group.GroupMap)
            else (found.randomised.sentence, found.repeats.sentence, found.seeds.sentence)
        )
        return {
            "link": links.query(request, view),
            "people": people,
            "subjects": [one.subject for one in maps],
            "atlas": found.atlas,
            "method": found.method,
            "target": found.target,
            "measure": found.measure,
            "permutations": permutations,
            "stimuli": maps[0].stimuli,
            "identification": list(maps[0].identification),
            "banner": found.banner,
            "notes": [*notes, *(note for one in maps for note in one.notes)],
            "parcels": _parcels(found.table, TestedParcel),
        }

    def _gallery(self, request: Request) -> None:
        """Refuse the first question about a study whose test images take long to embed."""
        self.spend(forecast.seconds_of_gallery(self.workbench, request), MAPS_LESS)


def _parcels(table: pd.DataFrame, kind: Any) -> list[dict[str, Any]]:
    """Return a table's rows with the columns that their kind names, as far as there are any."""
    columns = [name for name in kind.__annotations__ if name in table]
    return table[columns].to_dict("records")
