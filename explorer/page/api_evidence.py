"""The named endpoints of evidence: controls, lesions and comparisons of a trial."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import numpy as np

from explorer.decoding import unexplained
from explorer.evidence import comparison, controls, lesions
from explorer.page import api_scores, links
from explorer.page.api import EXAMPLE_PICTURE, Picture, picture_of
from explorer.page.endpoint import (
    AtlasName,
    Dataset,
    Endpoints,
    Generator,
    Link,
    Mapper,
    Numbers,
    Png,
    Repeat,
    Said,
    Scale,
    Seed,
    Subject,
    Trial,
    add,
    endpoint,
)
from explorer.page.pictures import data_uri
from explorer.page.turns import Turns
from explorer.request import Request, View

if TYPE_CHECKING:
    from explorer.evidence.standing import Place
    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints below to the page being built, as `api.register` does."""
    endpoints = Evidence(workbench, turns)
    for name in ("controls", "lesion", "compare"):
        add(name, getattr(endpoints, name), model)
    api_scores.register(workbench, model, turns)


class Lies(TypedDict):
    """Where an embedding lies among the test images; null where one image leaves no rank."""

    similarity: Annotated[float | None, Said("To the shown image.", 0.71)]
    rank: Annotated[float | None, Said("Of the shown image, 1 is best.", 1)]
    n: Annotated[int, Said("How many test images there are.", 500)]
    identification: Annotated[
        float | None, Said("Share of the others that are less similar, chance 0.5.", 0.98)
    ]
    margin: Annotated[float | None, Said("Retrieval margin in nats, null for pictures.", 2.3)]


LIES = {"similarity": 0.71, "rank": 1, "n": 500, "identification": 0.98, "margin": 2.3}
Decoded = Annotated[Lies | None, Said("Where the embedding lies among the test images.", LIES)]
Drawn = Annotated[Lies | None, Said("Where the picture lies among the test images.", LIES)]


class Control(TypedDict):
    """One control; without a picture it says why in ``reason``."""

    name: Annotated[str, Said("Which control.", "true embedding")]
    sentence: Annotated[str, Said("What it shows.", "The picture of a perfect decoder.")]
    reason: NotRequired[Annotated[str, Said("Why it cannot be had.", "There is one repeat.")]]
    image: NotRequired[Png]
    scores: NotRequired[
        Annotated[Numbers, Said("Against the shown image.", {"PixCorr": 0.31, "SSIM": 0.4})]
    ]
    note: NotRequired[Annotated[str, Said("What must be said beside it.", "")]]
    stimulus: NotRequired[
        Annotated[str, Said("Whose brain, or which training image.", "test-0002")]
    ]
    similarity: NotRequired[Annotated[float | None, Said("Of the nearest training image.", 0.66)]]
    decoded: NotRequired[Decoded]
    drawn: NotRequired[Drawn]


class Controls(TypedDict):
    """What a picture is held against."""

    link: Link
    controls: Annotated[
        list[Control],
        Said("One entry a control.", [{"name": "no brain", "sentence": "Noise alone decides."}]),
    ]


class LesionImages(TypedDict):
    """Both pictures and what changed."""

    intact: Annotated[Picture, Said("Without the lesion.", EXAMPLE_PICTURE)]
    lesioned: Annotated[Picture, Said("With it.", EXAMPLE_PICTURE)]
    difference: Annotated[
        str,
        Said("A PNG, grey where nothing changed.", "data:image/png;base64,iVBORw0KGgo="),
    ]


class Effect(TypedDict):
    """What one parcel's lesion does alone; null for a parcel without voxels."""

    parcel: Annotated[str, Said("The parcel.", "fusiform L")]
    voxels: Annotated[int, Said("How many voxels it has.", 214)]
    small: Annotated[bool, Said("Whether it has so few that chance may speak.", False)]
    effect: Annotated[float | None, Said("By how much the retrieval margin falls, nats.", 0.8)]
    shift: Annotated[float | None, Said("Distance of the two embeddings, 1 - cosine.", 0.05)]
    rank: Annotated[float | None, Said("Rank of the shown image after it.", 2)]


class Lesioned(TypedDict):
    """What a lesion changes."""

    link: Link
    voxels: Annotated[int, Said("How many voxels are changed.", 430)]
    shift: Annotated[float, Said("Distance between the two embeddings, 1 - cosine.", 0.08)]
    intact: Annotated[Lies, Said("Where the embedding lies without the lesion.", LIES)]
    lesioned: Annotated[Lies, Said("Where it lies with it.", LIES)]
    sentence: Annotated[str, Said("What the replacement means.", "The average response.")]
    donor: Annotated[str, Said("Whose betas were put in, empty for nobody's.", "test-0002")]
    warning: Annotated[str, Said("What must be known of these parcels, or empty.", "")]
    images: Annotated[
        LesionImages | None,
        Said(
            "The pictures, null without a generator.",
            {"intact": EXAMPLE_PICTURE, "lesioned": EXAMPLE_PICTURE},
        ),
    ]
    effects: Annotated[
        list[Effect],
        Said(
            "Each parcel's lesion alone, by the same fill.",
            [{"parcel": "fusiform L", "voxels": 214, "small": False, "effect": 0.8}],
        ),
    ]


class Side(Picture):
    """One side of a comparison: a picture, and where it and what was decoded lie."""

    link: Link
    decoded: Decoded
    drawn: Drawn


class Paired(TypedDict):
    """A metric of both sides over the test images."""

    metric: Annotated[str, Said("As asked.", "two-way identification")]
    a: Annotated[float | None, Said("Mean of side a.", 0.93)]
    b: Annotated[float | None, Said("Mean of side b.", 0.95)]
    difference: Annotated[float | None, Said("The value of b less that of a.", 0.02)]
    interval: Annotated[list[float | None], Said("The 95 % interval over stimuli.", [0.01, 0.03])]
    better: Annotated[str, Said("Which side: `a`, `b`, or empty where that cannot be said.", "b")]
    chance: Annotated[float | None, Said("What guessing gives, null where unknown.", 0.5)]
    n: Annotated[int, Said("Test images compared.", 500)]
    of: Annotated[int, Said("Test images there are.", 500)]
    sentence: Annotated[str, Said("It in words.", "b is better by 0.02.")]
    undefined: Annotated[int, Said("Test images left out because a side has no value there.", 0)]


class ParcelPair(TypedDict):
    """One parcel of both sides' maps."""

    parcel: Annotated[str, Said("The parcel.", "fusiform L")]
    a: Annotated[float | None, Said("The measure of side a.", 1.7)]
    b: Annotated[float | None, Said("The measure of side b.", 1.4)]
    difference: Annotated[float | None, Said("The value of b less that of a.", -0.3)]


class Comparison(TypedDict):
    """Two sides of one trial."""

    a: Annotated[Side, Said("Side a.", {**EXAMPLE_PICTURE, "decoded": LIES, "drawn": LIES})]
    b: Annotated[Side, Said("Side b.", {**EXAMPLE_PICTURE, "decoded": LIES, "drawn": LIES})]
    difference: Annotated[
        str,
        Said("A PNG, grey where nothing differs.", "data:image/png;base64,iVBORw0KGgo="),
    ]
    sentence: Annotated[str, Said("What may be compared.", "Both read the same betas.")]
    paired: Annotated[
        Paired | None,
        Said(
            "Over the test images; null where a side decodes nothing.",
            {"metric": "two-way identification", "a": 0.93, "b": 0.95, "difference": 0.02},
        ),
    ]
    parcels: Annotated[
        list[ParcelPair] | None,
        Said(
            "Both maps; null where a side decodes nothing.",
            [{"parcel": "fusiform L", "a": 1.7, "b": 1.4, "difference": -0.3}],
        ),
    ]


class Evidence(Endpoints):
    """The endpoints of evidence; what their arguments and answers mean stands in the types."""

    @endpoint
    def controls(
        self,
        trial: Trial,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        scale: Scale = 2.0,
        seed: Seed = 0,
        repeat: Repeat = 0,
        names: Annotated[
            str,
            Said(
                "Which controls, parted by semicolons; empty draws all.",
                "true embedding; no brain",
            ),
        ] = "",
    ) -> Controls:
        """Draw what a trial's picture is to be held against: other brains, or none at all."""
        wanted = {"scales": (scale,), "seed": seed}
        request = self.request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        chosen = links.parse_names(names) or controls.CONTROLS
        with self.in_turn("controls"):
            self.afford([request] * len(chosen))
            found = list(controls.controls(self.workbench, request, chosen))
        return {
            "link": links.query(request, View(panel="controls")),
            "controls": [_control(one) for one in found],
        }

    @endpoint
    def lesion(
        self,
        trial: Trial,
        parcels: Annotated[
            str, Said("Whose betas, parcels parted by semicolons.", "fusiform L; fusiform R")
        ],
        gain: Annotated[
            float,
            Said(
                "At 0 their betas are replaced, 1 changes nothing, 2 doubles what sets "
                "them apart from `fill`.",
                0.0,
            ),
        ] = 0.0,
        fill: Annotated[
            str,
            Said(
                "What replaces them: `training mean`, `zero`, `another trial` or `matched noise`.",
                "zero",
            ),
        ] = lesions.TRAINING_MEAN,
        donor: Annotated[
            str,
            Said(
                "The test stimulus of `another trial`; empty lets the seed choose one.",
                "test-0002",
            ),
        ] = "",
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        atlas: AtlasName = "",
        scale: Scale = 2.0,
        seed: Seed = 0,
        repeat: Repeat = 0,
    ) -> Lesioned:
        """Replace the betas of some parcels and say what changes, and what each does alone."""
        wanted = {"scales": (scale,), "seed": seed}
        request = self.request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        how, bench = lesions.Lesion(links.parse_names(parcels), gain, fill, donor), self.workbench
        with self.in_turn("lesion"):
            self.afford([request] * 2 if request.generator else ())
            found = lesions.lesion(bench, request, how, atlas)
            images = self._lesion_images(request, how, atlas) if request.generator else None
            effects = lesions.lesion_effects(bench, request, atlas, fill).table
        chosen = {"parcels": how.parcels, "gain": how.gain, "fill": fill, "donor": donor}
        columns = list(Effect.__annotations__)
        return {
            "link": links.query(request, View(atlas=atlas, panel="lesion", **chosen)),
            "voxels": found.voxels,
            "shift": found.shift,
            "intact": asdict(found.intact),
            "lesioned": asdict(found.lesioned),
            "sentence": found.sentence,
            "donor": found.donor,
            "warning": found.warning,
            "images": images,
            "effects": effects[columns].to_dict("records"),
        }

    @endpoint
    def compare(
        self,
        trial: Trial,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        other_subject: Annotated[
            str, Said("The subject of side b; empty takes that of side a.", "subj02")
        ] = "",
        other_mapper: Annotated[
            str, Said("The mapper of side b; empty takes that of side a.", "mlp")
        ] = "",
        other_generator: Annotated[
            str, Said("The generator of side b; empty takes that of side a.", "gallery")
        ] = "",
        scale: Scale = 2.0,
        seed: Seed = 0,
        repeat: Repeat = 0,
        metric: Annotated[
            str,
            Said(
                "Of what is decoded, over the test images: `two-way identification`, `retrieval "
                "rank` or `similarity`.",
                "similarity",
            ),
        ] = comparison.TWO_WAY,
        measure: Annotated[
            str, Said("Of the parcel maps: `enrichment` or `share`.", "share")
        ] = "enrichment",
    ) -> Comparison:
        """Put two mappers, generators or subjects side by side on one trial and over all."""
        wanted = {"scales": (scale,), "seed": seed}
        a = self.request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        other = {"subject": other_subject, "mapper": other_mapper, "generator": other_generator}
        b = replace(a, **{key: value for key, value in other.items() if value})
        bench, view = self.workbench, View(measure=measure)
        with self.in_turn("compare"):
            self.afford((a, b))
            pair = comparison.compare(bench, a, b)
            decoded = not any(unexplained(bench, request) for request in (a, b))
            paired = comparison.paired_difference(bench, a, b, metric) if decoded else None
            maps = comparison.compare_maps(bench, a, b, view).table if decoded else None
        columns = list(ParcelPair.__annotations__)
        return {
            "a": self._side(pair.a),
            "b": self._side(pair.b),
            "difference": data_uri(pair.difference, form="png"),
            "sentence": pair.sentence,
            "paired": None if paired is None else asdict(paired),
            "parcels": None if maps is None else maps[columns].to_dict("records"),
        }

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


def _control(one: controls.Control) -> dict[str, Any]:
    told = {"name": one.name, "sentence": one.sentence}
    if one.reason:
        return told | {"reason": one.reason}
    return told | {
        "image": data_uri(np.asarray(one.image), form="png"),
        "scores": dict(one.scores),
        "note": one.note,
        "stimulus": one.stimulus,
        "similarity": one.similarity,
        "decoded": _place(one.decoded),
        "drawn": _place(one.drawn),
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else asdict(place)
