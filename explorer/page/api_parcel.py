"""The named endpoints about single parcels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from explorer.evidence import drivers, lesions
from explorer.evidence.steps import DEFINITIONS, Difference, step_differences, when
from explorer.page import links
from explorer.page.endpoint import (
    AtlasName,
    Dataset,
    Endpoints,
    Generator,
    Link,
    Mapper,
    Png,
    Repeat,
    Said,
    Scale,
    Seed,
    Steps,
    Subject,
    Trial,
    add,
    endpoint,
)
from explorer.page.pictures import data_uri
from explorer.page.turns import Turns
from explorer.request import View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints below to the page being built, as `api.register` does."""
    endpoints = Parcels(workbench, turns)
    add("drivers", endpoints.drivers, model)
    add("steps", endpoints.steps, model)


Parcel = Annotated[str, Said("A parcel of the atlas that holds voxels.", "fusiform L")]


class Driver(TypedDict):
    """One image of a ranking."""

    stimulus: Annotated[str, Said("Its name.", "test-0001")]
    value: Annotated[float, Said("In the ranking's `unit`.", 0.82)]
    z: Annotated[float, Said("The value over the images of this ranking.", 2.4)]
    repeats: Annotated[int, Said("Trials that were averaged, 0 for a prediction.", 3)]


DRIVER = {"stimulus": "test-0001", "value": 0.82, "z": 2.4, "repeats": 3}


class Ranking(TypedDict):
    """Images of one split by one value of the parcel."""

    name: Annotated[str, Said("Which value.", drivers.MEASURED)]
    split: Annotated[str, Said("Of `test` or `train` images.", "test")]
    unit: Annotated[str, Said("What a value of 1 means.", "z-score within run")]
    definition: Annotated[str, Said("What the value is.", "Mean of the betas over its voxels.")]
    sentence: Annotated[str, Said("How many images, and what limits it.", "500 test images.")]
    reason: Annotated[str, Said("Why there is none, else empty.", "")]
    n: Annotated[int, Said("How many images are ranked.", 500)]
    highest: Annotated[list[Driver], Said("From the highest down.", [DRIVER])]
    lowest: Annotated[list[Driver], Said("From the lowest up.", [DRIVER])]


class Driven(TypedDict):
    """What drives a parcel."""

    link: Link
    parcel: Parcel
    rankings: Annotated[
        list[Ranking],
        Said(
            "By measured and predicted response, and by weight in the decoder.",
            [{"name": drivers.MEASURED, "split": "test", "n": 500, "highest": [DRIVER]}],
        ),
    ]


class Stepped(TypedDict):
    """Both clean estimates after one step."""

    step: Annotated[int, Said("Which step, from 1.", 12)]
    latents: Annotated[float | None, Said(DEFINITIONS["latents"], 0.2)]
    pixels: Annotated[float | None, Said(DEFINITIONS["pixels"], 0.1)]
    similarity: Annotated[float | None, Said(DEFINITIONS["similarity"], 0.9)]
    to_shown: Annotated[
        list[float | None],
        Said("Pocket-clip similarity of both to the shown image, intact first.", [0.8, 0.7]),
    ]
    intact: Png
    lesioned: Png


class StepByStep(TypedDict):
    """How a picture with and without a parcel differs at each step."""

    link: Link
    sentence: Annotated[str, Said("When it matters.", "It grows most in step 3.")]
    steps: Annotated[list[Stepped], Said("One entry a step.", [{"step": 1, "pixels": 0.1}])]


class Parcels(Endpoints):
    """The endpoints about parcels; what their arguments and answers mean stands in the types."""

    @endpoint
    def drivers(
        self,
        parcel: Parcel,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        atlas: AtlasName = "",
        n: Annotated[
            int, Said("How many images at either end; 0 gives all, in `highest`.", 8)
        ] = 8,
    ) -> Driven:
        """Rank test and training images by a parcel's response and its weight in the decoder."""
        if n < 0:
            raise UserError(f"n counts images and is 0 or more, found {n}.")
        request = self.anyone(dataset, subject, mapper)
        with self.in_turn("drivers"):
            found = list(drivers.drivers(self.workbench, request, parcel, atlas))
        view = View(panel="drivers", parcel=parcel, atlas=atlas)
        rankings = [_ranking(one, n) for one in found]
        return {"link": links.query(request, view), "parcel": parcel, "rankings": rankings}

    @endpoint
    def steps(
        self,
        trial: Trial,
        parcels: Annotated[
            str,
            Said(
                "Whose betas are replaced by their training mean, parcels parted by semicolons.",
                "fusiform L; fusiform R",
            ),
        ],
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        atlas: AtlasName = "",
        scale: Scale = 2.0,
        steps: Steps = 0,
        seed: Seed = 0,
        repeat: Repeat = 0,
    ) -> StepByStep:
        """Draw a picture with and without some parcels' betas and compare them step by step."""
        wanted = {"scales": (scale,), "seed": seed, **({"steps": steps} if steps else {})}
        request = self.request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        how, bench = lesions.Lesion(links.parse_names(parcels)), self.workbench
        with self.in_turn("steps"):
            self.afford([replace(request, seed=(seed + i) % 2**31) for i in range(3)])
            found = list(step_differences(bench, request, how, atlas))
        view = View(atlas=atlas, panel="steps", parcels=how.parcels)
        return {
            "link": links.query(request, view),
            "sentence": when(found, request.steps),
            "steps": [_stepped(one) for one in found],
        }


def _stepped(one: Difference) -> dict[str, Any]:
    numbers = {name: getattr(one, name) for name in ("step", "latents", "pixels", "similarity")}
    pictures = {"intact": one.intact, "lesioned": one.lesioned}
    return {
        **numbers,
        "to_shown": list(one.to_shown),
        **{name: data_uri(image, form="png") for name, image in pictures.items()},
    }


def _ranking(found: drivers.Ranking, n: int) -> dict[str, Any]:
    table = found.table
    return {
        "name": found.name,
        "split": found.split,
        "unit": found.unit,
        "definition": found.definition,
        "sentence": found.sentence,
        "reason": found.reason,
        "n": len(table),
        "highest": _rows(table.head(n) if n else table),
        "lowest": _rows(table.tail(n)[::-1] if n else table.head(0)),
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table[["stimulus", "value", "z", "repeats"]].to_dict("records")
