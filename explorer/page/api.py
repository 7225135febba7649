"""The named endpoints: the same answers as the page, typed, for scripts and other programs.

Here are those about one trial and its pictures, and what the page gives away as files.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict
from urllib.parse import parse_qsl

from explorer.decoding import decode, is_decoded, undecoded
from explorer.drawing import draw_samples, reconstruct, whose_pictures
from explorer.finished import is_drawn
from explorer.page import api_maps, choices, export, links
from explorer.page.endpoint import (
    Dataset,
    Endpoints,
    Generator,
    Link,
    Mapper,
    Numbers,
    Repeat,
    Said,
    Scales,
    Seed,
    Steps,
    Subject,
    Trial,
    add,
    endpoint,
)
from explorer.page.pictures import data_uri, shown_uri
from explorer.page.turns import PICTURES, Turns
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.finished import Frame
    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints of trials and of maps to the page being built.

    ``model``: the settings of endpoints that ask models; ``turns``: the page's queue at them.
    """
    endpoints = Pictures(workbench, turns)
    add("trials", endpoints.trials, {})
    for name in ("reconstruct", "figure", "table", "record"):
        add(name, getattr(endpoints, name), model)
    api_maps.register(workbench, model, turns)


class TrialRow(TypedDict):
    """One test stimulus."""

    stimulus: Annotated[str, Said("Its name, the `trial` of other endpoints.", "test-0001")]
    number: Annotated[int, Said("Its number on the page, from 1.", 1)]
    caption: Annotated[str, Said("What it shows, in words.", "a red bus on a street")]
    category: Annotated[str, Said("Its category, empty where there is none.", "vehicle")]
    repeats: Annotated[int, Said("How many test trials showed it.", 3)]


class TrialList(TypedDict):
    """What can be asked for."""

    dataset: Annotated[str, Said("The data set that is listed.", "simulated")]
    subject: Annotated[str, Said("The subject who is listed.", "subj01")]
    datasets: Annotated[list[str], Said("All data sets.", ["simulated"])]
    subjects: Annotated[list[str], Said("All subjects of the data set.", ["subj01", "subj02"])]
    mappers: Annotated[
        dict[str, list[str]],
        Said("The mappers of the subject, each with the generators that fit.",
             {"ridge": ["pocket-diffusion"]}),
    ]  # fmt: skip
    trials: Annotated[
        list[TrialRow],
        Said(
            "The test stimuli in the order of the data set.",
            [
                {
                    "stimulus": "test-0001",
                    "number": 1,
                    "caption": "a red bus on a street",
                    "category": "vehicle",
                    "repeats": 3,
                }
            ],
        ),
    ]


class Picture(TypedDict):
    """A finished picture; in a sweep with rows also the value of the axis, under its name."""

    scale: Annotated[float, Said("Its guidance scale.", 2.0)]
    provenance: Annotated[
        str, Said("How it was made: `generated`, `retrieved` or `published`.", "generated")
    ]
    image: Annotated[str, Said("It as a PNG data address.", "data:image/png;base64,iVBORw0KGgo=")]
    scores: Annotated[
        Numbers, Said("Scores against the shown image, by name.", {"PixCorr": 0.31, "SSIM": 0.4})
    ]
    note: NotRequired[Annotated[str, Said("What must be said beside it.", "A training image.")]]
    neighbours: NotRequired[
        Annotated[
            list[list[Any]],
            Said("Picture, label and similarity of what it rests on.", [["img-7", "dog", 0.62]]),
        ]
    ]


EXAMPLE_PICTURE = {
    "scale": 2.0,
    "provenance": "generated",
    "image": "data:image/png;base64,iVBORw0KGgo=",
    "scores": {"PixCorr": 0.31, "SSIM": 0.4},
}


class Retrieval(TypedDict):
    """Where the decoded embedding lies among the test images."""

    space: Annotated[str, Said("The target that was decoded.", "pocket-clip/image")]
    rank: Annotated[float, Said("Rank of the shown image, 1 is best.", 1)]
    n: Annotated[int, Said("How many test images are ranked.", 500)]
    chance: Annotated[float, Said("The mean rank of guessing.", 250.5)]
    similarity: Annotated[
        float | None,
        Said("Of decoded and shown: cosine, or correlation without a unit norm.", 0.71),
    ]
    margin: Annotated[float | None, Said("The retrieval margin in nats.", 2.3)]
    neighbours: Annotated[
        list[list[Any]],
        Said("The nearest test images, each with its similarity.", [["test-0001", 0.71]]),
    ]


class Reconstruction(TypedDict):
    """A trial decoded and drawn."""

    link: Link
    caption: Annotated[str, Said("What was shown, in words.", "a red bus on a street")]
    truth: Annotated[str, Said("What was shown.", "data:image/png;base64,iVBORw0KGgo=")]
    images: Annotated[
        list[Picture],
        Said("A picture for each scale, row by row; with rows also the value of the axis.",
             [EXAMPLE_PICTURE]),
    ]  # fmt: skip
    samples: Annotated[
        list[Picture], Said("Samples of the mapper's density, where asked.", [EXAMPLE_PICTURE])
    ]
    retrieval: Annotated[
        Retrieval | None,
        Said(
            "Where what was decoded lies among the test images; null where published pictures "
            "are shown without a mapper.",
            {
                "space": "pocket-clip/image",
                "rank": 1,
                "n": 500,
                "chance": 250.5,
                "similarity": 0.71,
                "margin": 2.3,
                "neighbours": [["test-0001", 0.71]],
            },
        ),
    ]
    trained_on: Annotated[
        str,
        Said(
            "Whose pictures the generator was trained on, in a sentence; empty where they are "
            "the data set's own.",
            "",
        ),
    ]
    checkpoints: Annotated[
        dict[str, str],
        Said("A hash of the weights behind it.", {"mapper": "0f3a", "generator": "9bc2"}),
    ]


class Figure(TypedDict):
    """A trial as a figure."""

    link: Link
    name: Annotated[str, Said("A name for the file.", "afterimage_simulated_subj01_test-0001.png")]
    figure: Annotated[
        str, Said("The file as a data address.", "data:image/png;base64,iVBORw0KGgo=")
    ]


class Table(TypedDict):
    """A map's parcels as a table."""

    link: Link
    name: Annotated[str, Said("A name for the file.", "afterimage_simulated_subj01_test-0001.csv")]
    csv: Annotated[
        str, Said("The table as CSV, one row a parcel.", "parcel,name,hemisphere,voxels,...")
    ]


class Record(TypedDict):
    """A trial as a record."""

    link: Link
    name: Annotated[
        str, Said("A name for the file.", "afterimage_simulated_subj01_test-0001.json")
    ]
    record: Annotated[
        dict[str, Any],
        Said(
            "The record: request, view, weights, versions, data, decoding and scores. The page "
            "opens it again.",
            {"afterimage": 1, "request": {"dataset": "simulated", "stimulus": "test-0001"}},
        ),
    ]


Shown = Annotated[
    str,
    Said(
        "What to show: the `link` of another answer, or the page's address. It names a trial; "
        "what else it leaves out takes the page's default.",
        "trial=test-0001&scales=0,2&show=importance&map=gradient",
    ),
]


class Pictures(Endpoints):
    """The endpoints of trials; what their arguments and answers mean stands in the types."""

    @endpoint
    def trials(self, dataset: Dataset = "", subject: Subject = "") -> TrialList:
        """List what can be asked for: the test trials of one subject, and who else there is."""
        catalogue, request = self.workbench.catalogue, self.anyone(dataset, subject)
        place = request.dataset, request.subject
        gallery = catalogue.gallery(*place).reset_index(names="stimulus")
        return {
            "dataset": request.dataset,
            "subject": request.subject,
            "datasets": catalogue.dataset_names(),
            "subjects": catalogue.subjects(request.dataset),
            "mappers": {
                m: catalogue.generator_names(*place, m) for m in catalogue.mapper_names(*place)
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

    @endpoint
    def reconstruct(
        self,
        trial: Trial,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        scales: Scales = "0; 1; 2; 4; 8",
        steps: Steps = 0,
        seed: Seed = 0,
        repeat: Repeat = 0,
        samples: Annotated[
            int,
            Said(
                "Above 1: so many samples from the mapper's density are drawn too, for mappers "
                "that give one, from the same noise and at the guidance scale nearest to 2.",
                4,
            ),
        ] = 1,
        space: Annotated[
            str,
            Said(
                "Which of the mapper's targets is decoded; empty takes the first that the "
                "generator draws from.",
                "pocket-clip/image",
            ),
        ] = "",
        options: Annotated[
            str,
            Said(
                "The generator's own options, name=value parted by semicolons.",
                "feature_kappa=0.3; candidates=4",
            ),
        ] = "",
        axis: Annotated[
            str,
            Said("What varies from row to row, `seed` or an option; empty draws one row.", "seed"),
        ] = "",
        values: Annotated[
            str, Said("The axis' values, numbers parted by semicolons, a row each.", "0; 1; 2")
        ] = "",
        rois: Annotated[
            str,
            Said(
                "Parcels whose betas guide, where an option asks for betas, parted by "
                "semicolons; empty takes all voxels.",
                "fusiform L; fusiform R",
            ),
        ] = "",
        roi_atlas: Annotated[
            str, Said("Their atlas; empty takes the subject's first.", "Desikan-Killiany")
        ] = "",
    ) -> Reconstruction:
        """Decode one test trial and draw it at several guidance scales."""
        wanted = {"scales": links.parse_scales(scales), "seed": seed}
        wanted |= {"samples": samples, "space": space}
        if options:
            wanted["options"] = _options(options)
        if axis or values:
            numbers = links.parse_numbers(values, f"Values of {axis or 'an axis'}", "0; 1; 2")
            wanted |= {"axis": axis, "values": numbers}
        wanted |= {"rois": links.parse_names(rois), "roi_atlas": roi_atlas}
        if steps:
            wanted["steps"] = steps
        request = self.request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        bench = self.workbench
        there = is_decoded(bench, request) and is_drawn(bench, request)
        with self.in_turn(PICTURES, there):
            self.afford(() if there else (request,))
            decoding = None if undecoded(bench, request) else decode(bench, request)
            finished = self._drawn(request)
            sampled = draw_samples(bench, request)
            weights = bench.checkpoint_hashes(request)
        finished.sort(key=lambda frame: (frame.row, frame.index))
        made = bench.catalogue.generator_class(request.generator).provenance
        gallery = bench.catalogue.gallery(request.dataset, request.subject)
        return {
            "link": links.query(request, View()),
            "caption": str(gallery.loc[request.stimulus, "caption"]),
            "truth": shown_uri(bench.catalogue, request.dataset, request.stimulus, form="png"),
            "images": [picture_of(frame, made, request) for frame in finished],
            "samples": [picture_of(frame, made) for frame in sampled],
            "retrieval": None
            if decoding is None
            else {
                "space": decoding.space.name,
                "rank": decoding.rank,
                "n": decoding.n,
                "chance": (decoding.n + 1) / 2,
                "similarity": decoding.similarity,
                "margin": decoding.margin,
                "neighbours": decoding.neighbours,
            },
            "trained_on": whose_pictures(bench, request.generator, request.dataset),
            "checkpoints": weights,
        }

    def _drawn(self, request: Request) -> list[Frame]:
        with contextlib.closing(reconstruct(self.workbench, request)) as frames:
            return [frame for frame in frames if frame.done]

    @endpoint
    def figure(
        self,
        link: Shown,
        form: Annotated[str, Said("Its format: `png`, `svg` or `pdf`.", "svg")] = "png",
    ) -> Figure:
        """Draw the figure of what a link shows: the trial, its pictures, its map in print."""
        if form not in export.FIGURES:
            raise UserError(
                f"A figure is one of {', '.join(export.FIGURES)}, found {links.short(form)}."
            )
        address, file = self._file(link, form, drawn=True)
        data = base64.b64encode(file.content).decode("ascii")
        return {
            "link": address,
            "name": file.name,
            "figure": f"data:{file.mime};base64,{data}",
        }

    @endpoint
    def table(self, link: Shown) -> Table:
        """Return the table of the map that a link shows, one row a parcel, as CSV."""
        address, file = self._file(link, "csv", drawn=False)
        return {"link": address, "name": file.name, "csv": file.content.decode("utf-8")}

    @endpoint
    def record(self, link: Shown) -> Record:
        """Return the record of what a link shows: choices, weights, data, versions, scores."""
        address, file = self._file(link, "json", drawn=True)
        return {"link": address, "name": file.name, "record": json.loads(file.content)}

    def _file(self, link: str, form: str, drawn: bool) -> tuple[str, export.File]:
        """Return the whole link and a file of what it shows, its pictures drawn if wanted."""
        wanted = dict(parse_qsl(link.partition("?")[2] or link))
        if "trial" not in wanted:
            raise UserError(
                f"A link names what it shows, such as trial=NAME; found {links.short(link)}."
            )
        settled = choices.settle(wanted, self.workbench)
        if settled.notices:
            raise UserError(" ".join(settled.notices))
        request, view = settled.request, settled.view
        there = export.is_there(self.workbench, request, view, form)
        with self.in_turn(PICTURES, there and not drawn):
            if drawn:
                self.afford((request,))
                self._drawn(request)  # what is finished is kept, and what is kept is shown
                draw_samples(self.workbench, request)
            file = export.make(self.workbench, request, view, form)
        return links.query(request, view), file


def _options(text: str) -> tuple[tuple[str, float], ...]:
    """Read a generator's options; `check_request` says which there are."""
    found = []
    for key, value in links.parse_options(text).items():
        name = key.removeprefix(links.OPTION)
        found.append((name, links.parse_numbers(value, f"Values of {name}", "0.5")[0]))
    return tuple(found)


def picture_of(frame: Frame, made: str, request: Request | None = None) -> dict[str, Any]:
    """Return a finished picture as a `Picture`; ``made``: its provenance."""
    near = [[n.picture, n.label, n.similarity] for n in frame.neighbours]
    return {
        "scale": frame.scale,
        **({request.axis: request.values[frame.row]} if request and request.axis else {}),
        "provenance": made,
        "image": data_uri(frame.image, form="png"),
        "scores": dict(frame.scores),
        **({"note": frame.note} if frame.note else {}),
        **({"neighbours": near} if near else {}),
    }
