"""The named endpoints of scores: against the guidance scale, and of mappers over test images."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import numpy as np

from explorer.evidence import curves, evaluation
from explorer.metrics import evenly
from explorer.page import links
from explorer.page.endpoint import (
    Dataset,
    Endpoints,
    Generator,
    Link,
    Mapper,
    Repeat,
    Said,
    Scales,
    Steps,
    Subject,
    Trial,
    add,
    endpoint,
)
from explorer.page.pictures import data_uri
from explorer.page.turns import Turns
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoints below to the page being built, as `api.register` does."""
    endpoints = Scores(workbench, turns)
    add("curve", endpoints.curve, model)
    add("evaluation", endpoints.evaluation, model)


class Score(TypedDict):
    """A score at every scale, in the order of `scales`."""

    score: Annotated[str, Said("Which score.", "PixCorr")]
    mean: Annotated[list[float | None], Said("Mean over seeds.", [0.05, 0.31])]
    low: Annotated[list[float | None], Said("The lowest seed.", [0.02, 0.28])]
    high: Annotated[list[float | None], Said("The highest seed.", [0.09, 0.33])]
    test: Annotated[
        list[float | None] | None, Said("Mean over test images, null without.", [0.03, 0.27])
    ]
    test_low: Annotated[
        list[float | None] | None, Said("Lower end of its 95 % interval.", [0.01, 0.24])
    ]
    test_high: Annotated[
        list[float | None] | None, Said("Upper end of its 95 % interval.", [0.05, 0.3])
    ]
    chance: Annotated[list[float | None] | None, Said("What guessing gives.", [0.01, 0.02])]


class ScaleCurve(TypedDict):
    """Scores of a trial against the guidance scale."""

    link: Link
    scales: Annotated[list[float], Said("The guidance scales.", [0, 2])]
    seeds: Annotated[list[int], Said("The seeds that were drawn.", [0, 1, 2])]
    images: Annotated[
        list[str],
        Said("The first seed's pictures, a PNG a scale.", ["data:image/png;base64,iVBORw0KGgo="]),
    ]
    sample: Annotated[int, Said("How many test images are behind the curve.", 24)]
    remark: Annotated[str, Said("What the means leave out, empty for nothing.", "")]
    scores: Annotated[
        list[Score],
        Said("One entry a score.", [{"score": "PixCorr", "mean": [0.05, 0.31], "test": None}]),
    ]


class ScoreMeaning(TypedDict):
    """What a score means."""

    score: Annotated[str, Said("The score.", "two_way")]
    title: Annotated[str, Said("Its title.", "Two-way identification")]
    sentence: Annotated[str, Said("Its definition.", "How often the shown image is nearer.")]
    better: Annotated[str, Said("Which end is better.", "higher")]
    by_trial: Annotated[bool, Said("Whether each test image has a value.", True)]


class Measured(TypedDict):
    """One number of an evaluation."""

    target: Annotated[str, Said("The target space.", "pocket-clip/image")]
    mapper: Annotated[str, Said("The mapper.", "ridge")]
    betas: Annotated[
        str, Said("Which betas: `averaged`, `single`, `shuffled` or `ceiling`.", "averaged")
    ]
    subject: Annotated[str, Said("The subject, or a mean.", "subj01")]
    score: Annotated[str, Said("The score.", "two_way")]
    value: Annotated[float | None, Said("The number.", 0.93)]
    low: Annotated[float | None, Said("Lower end of its 95 % interval.", 0.92)]
    high: Annotated[float | None, Said("Upper end of its 95 % interval.", 0.94)]
    chance: Annotated[float | None, Said("What guessing gives, null where unknown.", 0.5)]
    n: Annotated[int, Said("How many test images.", 500)]
    gallery: Annotated[int, Said("Among how many images.", 500)]


class TrialValue(TypedDict):
    """The value of one test image."""

    target: Annotated[str, Said("The target space.", "pocket-clip/image")]
    mapper: Annotated[str, Said("The mapper.", "ridge")]
    subject: Annotated[str, Said("The subject.", "subj01")]
    score: Annotated[str, Said("The score.", "two_way")]
    stimulus: Annotated[str, Said("The test stimulus.", "test-0001")]
    value: Annotated[float | None, Said("Its value.", 0.98)]


class Evaluated(TypedDict):
    """How mappers fare over the test images."""

    dataset: Annotated[str, Said("The data set.", "simulated")]
    targets: Annotated[list[str], Said("All targets.", ["pocket-clip/image"])]
    mappers: Annotated[list[str], Said("All mappers.", ["ridge", "mlp"])]
    subjects: Annotated[list[str], Said("All subjects, and their means.", ["subj01"])]
    scores: Annotated[
        list[ScoreMeaning],
        Said("What each score means.", [{"score": "two_way", "title": "Two-way identification"}]),
    ]
    rows: Annotated[
        list[Measured],
        Said("The numbers that were asked for.", [{"mapper": "ridge", "value": 0.93, "n": 500}]),
    ]
    trials: Annotated[
        list[TrialValue],
        Said(
            "Where score and mapper are named: the value of each test image, averaged repeats.",
            [{"mapper": "ridge", "stimulus": "test-0001", "value": 0.98}],
        ),
    ]
    notes: Annotated[
        list[str],
        Said("What could not be measured, and which weights are others by now.", []),
    ]


class Scores(Endpoints):
    """The endpoints of scores; what their arguments and answers mean stands in the types."""

    @endpoint
    def curve(
        self,
        trial: Trial,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        scales: Scales = "0; 1; 2; 4; 8",
        steps: Steps = 0,
        seed: Annotated[int, Said("The first seed; the others follow it.", 7)] = 0,
        repeat: Repeat = 0,
        seeds: Annotated[int, Said("How many seeds, 1 to 16.", 3)] = curves.SEEDS,
        sample: Annotated[
            int,
            Said(
                "Over how many test images, evenly spaced, the mean behind the curve and chance "
                "are drawn; 0 draws none. Each takes as long as one seed.",
                24,
            ),
        ] = 0,
    ) -> ScaleCurve:
        """Draw a test trial at every guidance scale from several seeds and score each picture."""
        wanted = {"scales": links.parse_scales(scales), "seed": seed}
        wanted |= {"steps": steps} if steps else {}
        request = self.request(trial, dataset, subject, mapper, generator, repeat, **wanted)
        if sample < 0:
            raise UserError(f"sample is 0 or a number of test images, found {sample}.")
        drawn = curves.curve(self.workbench, request, seeds)
        behind = curves.background(self.workbench, request, sample) if sample else ()
        with self.in_turn("curve"):  # what comes last is over all seeds and the whole sample
            self.afford(self._sweeps(request, seeds, sample))
            found = deque(drawn, maxlen=1)[0]
            over = next(iter(deque(behind, maxlen=1)), None)
        return {
            "link": links.query(request, View(panel="curve")),
            "scales": found.scales,
            "seeds": found.seeds,
            "images": [data_uri(image, form="png") for image in found.images],
            "sample": over.n if over else 0,
            "remark": " ".join(filter(None, (found.remark, over.remark if over else ""))),
            "scores": [_score(name, found, over) for name in found.values],
        }

    def _sweeps(self, request: Request, seeds: int, sample: int) -> list[Request]:
        """Return the sweeps of a curve: one a seed, and one a test image behind it."""
        shown = self.workbench.catalogue.gallery(request.dataset, request.subject).index
        return [
            *(replace(request, seed=request.seed + i) for i in range(seeds)),
            *(replace(request, stimulus=shown[i]) for i in evenly(len(shown), sample)),
        ]

    @endpoint
    def evaluation(
        self,
        dataset: Dataset = "",
        target: Annotated[
            str, Said("Only this target; empty takes all.", "pocket-clip/image")
        ] = "",
        mapper: Annotated[str, Said("Only this mapper; empty takes all.", "ridge")] = "",
        subject: Annotated[
            str, Said("Only this subject, or the mean; empty takes all.", "subj01")
        ] = "",
        score: Annotated[str, Said("Only this score; empty takes all.", "two_way")] = "",
        betas: Annotated[
            str,
            Said(
                "Only these: `averaged` repeats, `single` ones, `shuffled` trials or the "
                "`ceiling`; empty takes all.",
                "averaged",
            ),
        ] = "",
    ) -> Evaluated:
        """Return how mappers fare over the test images, as it was measured before."""
        first = self.anyone(dataset, "").dataset
        found = evaluation.find_evaluation(self.workbench, first)
        if found is None:
            raise UserError(
                f"The mappers of {first} have not been measured here: run python -m backends "
                f"evaluate --dataset {first}=PATH --out FOLDER; then start with --evaluation "
                "FOLDER."
            )
        roles = {name: role for role, name in found.betas.items()}
        table = found.table.assign(betas=found.table["betas"].map(roles))
        chosen = {"target": target, "mapper": mapper, "subject": subject}
        rows = _only(table, {**chosen, "score": score, "betas": betas})
        trials = []
        if score and mapper and found.scores[score].by_trial and betas in ("", "averaged"):
            of_mean = subject not in ("", *found.trials["subject"])
            one_by_one = _only(found.trials, chosen | ({"subject": ""} if of_mean else {}))
            trials = [
                {**{key: row[key] for key in evaluation.KEYS}, "score": score, "value": row[score]}
                for row in one_by_one.to_dict("records")
            ]
        with self.in_turn("evaluation"):  # weights are read to be told from those measured
            notes = [*found.outdated(self.workbench), *found.notes]
        return {
            "dataset": found.dataset,
            "targets": found.targets,
            "mappers": list(dict.fromkeys(table["mapper"])),
            "subjects": list(dict.fromkeys(table["subject"])),
            "scores": [
                {
                    "score": name,
                    "title": one.title,
                    "sentence": one.sentence,
                    "better": one.better,
                    "by_trial": one.by_trial,
                }
                for name, one in found.scores.items()
            ],
            "rows": rows.rename(columns={"N": "n"})[list(Measured.__annotations__)].to_dict(
                "records"
            ),
            "trials": trials,
            "notes": notes,
        }


def _score(name: str, found: curves.Curve, over: curves.Background | None) -> dict[str, Any]:
    """Return one score of a curve as a `Score`."""
    rows = found.values[name]
    interval = over.interval[name] if over else None
    return {
        "score": name,
        "mean": found.mean(name),
        "low": np.fmin.reduce(rows, axis=0),  # fmin passes over NaN
        "high": np.fmax.reduce(rows, axis=0),
        "test": over.mean[name] if over else None,
        "test_low": interval[:, 0] if interval is not None else None,
        "test_high": interval[:, 1] if interval is not None else None,
        "chance": over.chance.get(name) if over else None,
    }


def _only(table: pd.DataFrame, wanted: dict[str, str]) -> pd.DataFrame:
    """Return the rows with the wanted values, "" for any; what no row has raises `UserError`."""
    for column, value in wanted.items():
        if value:
            known: Sequence[str] = list(dict.fromkeys(table[column]))
            if value not in known:
                raise UserError(
                    f"The evaluation has no {column} {value!r} with the rest that is asked; "
                    f"choose one of {', '.join(known)}."
                )
            table = table[table[column] == value]
    return table
