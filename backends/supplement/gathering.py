"""What a report says of a decoder: every number from what the page or `evaluate` asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from backends.supplement import scores
from backends.supplement.content import (
    Block,
    Facts,
    Part,
    Picture,
    Pictures,
    Report,
    Table,
    Words,
    joined,
    percent,
    table_of,
)
from explorer.brain.snapshot import snapshot, vertex_colours
from explorer.decoding import decoded_space, undecoded, unexplained
from explorer.drawing import whose_pictures
from explorer.evidence import controls, standing
from explorer.figures import installed_versions
from explorer.metrics import written
from explorer.notebook.study import Study, choose
from explorer.page.about import REPEAT_SPLIT
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.notebook.maps import BrainMap
    from explorer.workbench import Workbench

VIEWS = ("lateral", "medial", "ventral", "posterior")
EXAMPLES = 5  # test images from the best decoded to the worst
PARCELS = 15  # rows of the table of parcels
NOT_THE_BRAIN = (
    "Importance and lesions describe what this decoder uses, not what the brain uses: a parcel "
    "without weight may hold the same information as one that the decoder chose."
)
OTHERS = (
    "A rate depends on the images that are told apart and on how many repeats are averaged: it is "
    "comparable only to one of the same test images, pool and repeats."
)
LOOKS = (
    "That a picture looks right says little about the brain: the generator draws likely pictures "
    "whatever it is given. The controls show how much of it comes without this brain."
)
Say = Callable[[str], object]


@dataclass(frozen=True)
class Asked:
    """What a report is of.

    ``mapper`` and ``generator``: "" takes the first that fits. ``withheld``: the sentence in the
    place of pictures of the study, "" where they are shown. ``critique``: whether the critics'
    tests are made. ``command``: what makes the report again.
    """

    dataset: str
    subjects: tuple[str, ...]
    mapper: str = ""
    generator: str = ""
    permutations: int = 1000
    critique: bool = True
    withheld: str = ""
    command: str = ""


def gather(bench: Workbench, asked: Asked, say: Say = print) -> Report:
    """Return the report of one mapper for one or several subjects; `UserError` if there is none.

    Parameters
    ----------
    bench
        Where the data and the models are.
    asked
        What the report is of.
    say
        Told what is being computed.
    """
    people = asked.subjects or tuple(bench.catalogue.subjects(asked.dataset))
    studies = [
        choose(bench, None, subject, asked.mapper, asked.generator, asked.dataset)
        for subject in people
    ]
    first = studies[0]
    if reason := undecoded(bench, first.request):
        raise UserError(reason)
    lacking = [s.subject for s in studies if s.mapper != first.mapper]
    if lacking:
        raise UserError(
            f"{first.mapper} is not on offer for {joined(lacking)}; name a mapper that all have, "
            "or other subjects."
        )
    say(f"{first.mapper}: measuring {joined(people)}")
    table, notes, definitions = scores.scores_of(bench, first, people)
    parts = [
        Part("Summary", tuple(_summary(studies, table))),
        Part("Data", tuple(_data(studies))),
        Part("Decoder", tuple(_decoder(first))),
        Part("How good it is", tuple(scores.tables(table, notes, definitions))),
    ]
    limits: list[str] = []
    for study in studies:
        say(f"{study.subject}: examples, map and controls")
        parts += [
            Part(f"Examples, {study.subject}", tuple(_examples(study, asked.withheld))),
            Part(f"What it rests on, {study.subject}", tuple(_rests(study, asked))),
            Part(f"Controls, {study.subject}", tuple(_controls(study, asked, say))),
        ]
        limits += _limits(study)
    parts.append(Part("Limits", tuple(Words(text) for text in dict.fromkeys(limits))))
    parts.append(Part("How to make it again", tuple(_again(first, asked))))
    known = bench.catalogue.dataset(asked.dataset)
    return Report(
        f"{first.mapper} on {known.title}",
        f"Report of a decoder of images from fMRI · {joined(people)}",
        tuple(parts),
        f"{'Simulated data. ' * known.simulated}{known.title}, {joined(people)}, mapper "
        f"{first.mapper}. Made with Afterimage.",
        {"licence": known.licence, "citation": known.citation},
    )


# ------------------------------------------------------------------------------------------- parts


def _summary(studies: Sequence[Study], table: pd.DataFrame) -> Iterator[Block]:
    known = studies[0].bench.catalogue.dataset(studies[0].name)
    if known.simulated:
        yield Words(f"These data are simulated: no brain was measured. {known.note}", "warning")
    for study in studies:
        rows = table[(table["subject"] == study.subject) & (table["mapper"] == study.mapper)]
        own = rows.drop_duplicates("score").set_index("score")
        if "two-way" not in own.index:
            continue
        row = own.loc["two-way"]
        told = (
            f"{study.subject}: {study.mapper} tells the shown image from another in "
            f"{percent(row['value'], 2)} of cases (95\N{NO-BREAK SPACE}% interval "
            f"{percent(row['low'], 2)} to {percent(row['high'], 2)} over images, chance "
            f"{percent(row['chance'], 0)}, N = {int(row['N'])} test images, {row['betas']})"
        )
        if "top-1" in own.index:
            top = own.loc["top-1"]
            told += (
                f"; it finds it first among {int(top['gallery'])} in {percent(top['value'])} "
                f"(chance {percent(top['chance'])})"
            )
        yield Words(f"{told}.")


def _data(studies: Sequence[Study]) -> Iterator[Block]:
    first = studies[0]
    known = first.bench.catalogue.dataset(first.name)
    trials = first.bench.catalogue.trials(first.name, first.subject)
    unit = "repeats" if known.split_unit == "repeat" else "images"
    yield Facts(
        (
            ("Study", known.title),
            ("Source", known.citation),
            ("Licence", known.licence),
            ("Passing on", "allowed" if known.redistributable else "the pictures may not be"),
            ("Measured", "no: simulated" if known.simulated else "yes"),
            ("Note", known.note),
            ("Betas", first.unit),
            ("Split", trials.split or f"the data set's own, by {unit}"),
            ("Made by", trials.split_by or getattr(known, "split_by", "")),
        )
    )
    if known.split_unit == "repeat":
        yield Words(f"Test trials {REPEAT_SPLIT}", "warning")
    rows = []
    for study in studies:
        loaded = study.bench.catalogue.trials(study.name, study.subject)
        repeats = study.trials["repeats"]
        span = f"{repeats.min()} to {repeats.max()}" if repeats.nunique() > 1 else repeats.iloc[0]
        counts = len(loaded.rows("train")), len(loaded.stimuli("train")), len(study)
        rows.append(
            (
                study.subject,
                *(f"{n:,}" for n in (study.voxels.n_voxels, *counts)),
                str(span),
                study.voxels.hash,
            )
        )
    columns = ("subject", "voxels", "training trials", "training images", "test images")
    yield Table("Subjects", (*columns, "repeats of each", "voxel hash"), tuple(rows), (0, 6))
    yield from (Words(text, "note") for text in getattr(known, "remarks", list)())


def _decoder(study: Study) -> Iterator[Block]:
    bench, request = study.bench, study.request
    offer = bench.catalogue.offer(study.name, study.subject, study.mapper)
    space = decoded_space(bench, request)
    shape = " × ".join(map(str, space.shape))
    facts = [("Mapper", study.mapper), ("Target", f"{space.name} ({shape} values)")]
    if card := offer.card:
        settings = ", ".join(f"{key} {value}" for key, value in card.settings.items())
        facts += [
            ("Kind", card.cls),
            ("Trained on", f"{card.dataset}, {joined(card.subjects)}"),
            ("Normalisation", card.normalisation),
            ("Settings", settings),
            ("Training", f"{card.seconds:.0f} s on {card.device}" if card.device else ""),
            ("Command", card.command),
            ("Licence of weights", card.licence),
        ]
    elif offer.published is None:
        facts.append(("Kind", "ridge, fitted on the spot"))
    if study.generator:
        cls = bench.catalogue.generator_class(study.generator)
        scales = ", ".join(f"{scale:g}" for scale in request.scales) if cls.guided else "none"
        facts += [
            ("Generator", f"{study.generator} ({cls.provenance} pictures)"),
            ("Sampling", f"{request.steps} steps, seed {request.seed}, guidance scales {scales}"),
            ("Its training", whose_pictures(bench, study.generator, study.name)),
        ]
    hashes = bench.checkpoint_hashes(request)
    facts.append(("Weights", ", ".join(f"{name} {digest}" for name, digest in hashes.items())))
    yield Facts(tuple(facts))


def _examples(study: Study, withheld: str) -> Iterator[Block]:
    """Yield trials from the best decoded to the worst: a rule chose them, nobody's eye."""
    if not study.generator:
        yield Words("No generator here draws from what this mapper gives.")
        return
    found = study.decodings().sort_values("margin", ascending=False)
    chosen = found.index[np.unique(np.linspace(0, len(found) - 1, EXAMPLES).astype(int))]
    made = study.bench.catalogue.generator_class(study.generator).provenance
    shown, drawn, scale = [], [], 0.0
    for stimulus in chosen:
        trial, row = study.trial(str(stimulus)), found.loc[stimulus]
        place = f"rank {row['rank']:g} of {len(found)}"
        shown.append(Picture(str(stimulus), _study_picture(study, str(stimulus), withheld)))
        one = controls.at_scale(study.bench, trial.request)
        frame = controls.own_picture(study.bench, one)
        scale = frame.scale
        lines = tuple(f"{name} {written(value)}" for name, value in frame.scores.items())
        hidden = withheld and made != "generated"
        drawn.append(Picture(place, None if hidden else frame.image, lines))
    yield Words(
        f"{len(chosen)} of {len(found)} test images, evenly spaced from the best decoded to the "
        "worst by retrieval margin; no picture was chosen by eye."
    )
    hidden = f": {withheld[:1].lower()}{withheld[1:]}" if withheld else ""
    yield Pictures(f"Shown{hidden}", tuple(shown), keep=True)
    told = f" at guidance scale {scale:g}" if _guided(study) else ""
    yield Pictures(f"{made.capitalize()}{told}, each below what was shown", tuple(drawn))


def _rests(study: Study, asked: Asked) -> Iterator[Block]:
    if reason := unexplained(study.bench, study.request):
        yield Words(reason)
        return
    found = study.statistics(permutations=asked.permutations)
    facts = found.facts
    if facts["two-way interval"][0] <= 0.5:
        yield Words(found.notes[0], "warning")
    yield Words(
        f"Enrichment is a parcel's share of importance (gradient of the retrieval margin) over "
        f"its share of voxels; 1 is no preference. Over {facts['stimuli']} test images "
        f"{facts['parcels with evidence']} of {facts['parcels tested']} parcels of {found.atlas} "
        f"carry evidence about the shown images (q at most 0.05, {facts['permutations']:,} "
        "permutations)."
    )
    yield from _brain(found)
    columns = ["parcel", "voxels", "value", "low", "high", "evidence", "q_evidence", "q_place"]
    names = {"value": "enrichment", "low": "95 % from", "high": "to"}
    names |= {"evidence": "evidence, SD", "q_evidence": "q evidence", "q_place": "q place"}
    yield table_of(found.top[columns], "Parcels by enrichment", names, PARCELS)
    notes = found.notes[1:] if facts["two-way interval"][0] <= 0.5 else found.notes
    yield from (Words(text, "note") for text in notes)


def _brain(found: BrainMap) -> Iterator[Block]:
    try:
        values = found.vertices()
    except UserError as error:
        yield Words(str(error), "note")
        return
    low, high = found.columns["value"]
    image = snapshot(vertex_colours(values, "sequential", (low, high)), VIEWS, height=260)
    caption = (
        f"Mean enrichment on fsaverage5 ({', '.join(VIEWS)}); pale yellow {low:g} to dark red "
        f"{high:.2f}, grey: no voxels"
    )
    yield Pictures(caption, (Picture("", image),), wide=True)


def _controls(study: Study, asked: Asked, say: Say) -> Iterator[Block]:
    if study.generator:
        found = study.decodings().sort_values("margin", ascending=False)
        middle = str(found.index[len(found) // 2])
        trial = study.trial(middle)
        yield Words(
            f"The same generator, scale and seed, given something else than this brain: {middle}, "
            "the test image in the middle by retrieval margin."
        )
        made = study.bench.catalogue.generator_class(study.generator).provenance
        pictures = [Picture("shown", _study_picture(study, middle, asked.withheld))]
        lacking = []
        for one in trial.controls().all:
            if one.image is None:
                lacking.append(f"{one.name}: {one.reason}")
                continue
            lines = [f"{name} {written(value)}" for name, value in one.scores.items()]
            if one.decoded is not None and np.isfinite(one.decoded.rank):
                lines.append(f"rank {one.decoded.rank:g} of {one.decoded.n}")
            own = one.name == controls.NEAREST or made != "generated"
            hidden = asked.withheld and own
            pictures.append(Picture(one.name, None if hidden else one.image, tuple(lines)))
        yield Pictures("Controls of one trial", tuple(pictures))
        yield from (Words(text, "note") for text in lacking)
    if not asked.critique:
        yield Words("The critics' tests were left out (--without-critique).", "note")
        return
    say(f"{study.subject}: the critics' tests")
    try:
        tests = study.critique()
    except UserError as error:
        yield Words(f"The critics' tests cannot be made: {error}", "note")
        return
    rows = tuple((one.name, one.sentence, one.definition) for one in tests.values())
    columns = ("test", "finding", "definition")
    caption = "Is it decoding? The critics' tests over all test images"
    yield Table(caption, columns, rows, (0, 1, 2))


def _limits(study: Study) -> Iterator[str]:
    known = study.bench.catalogue.dataset(study.name)
    if known.simulated:
        yield "The data are simulated: nothing here is a result about people."
    if known.split_unit == "repeat":
        yield f"Test trials {REPEAT_SPLIT}"
    if left := study.decodings().attrs["left out"]:
        yield f"{study.subject}: {left}"
    try:
        yield f"{study.subject}: {standing.collapse(study.bench, study.request).sentence}"
    except UserError as error:
        yield f"{study.subject}: {error}"
    if told := whose_pictures(study.bench, study.generator, study.name):
        yield told
    yield NOT_THE_BRAIN
    yield OTHERS
    if study.generator:
        yield LOOKS


def _again(study: Study, asked: Asked) -> Iterator[Block]:
    versions = ", ".join(f"{name} {one}" for name, one in installed_versions().items())
    yield Facts(
        (
            ("Command", asked.command),
            ("Libraries", versions),
            ("Seed", str(study.request.seed)),
        )
    )
    yield Words(
        "Every number is what the page and python -m backends evaluate give for the same weights "
        "and data; the hashes above name both.",
        "note",
    )


def _study_picture(study: Study, stimulus: str, withheld: str) -> np.ndarray | None:
    hidden = withheld or study.bench.catalogue.without_picture(study.name, stimulus)
    return None if hidden else study.picture(stimulus)


def _guided(study: Study) -> bool:
    return bool(study.bench.catalogue.generator_class(study.generator).guided)


def described(asked: Asked) -> Asked:
    """Return what was asked with the command that makes it again, without anybody's paths."""
    words = ["python -m backends report", "--dataset", asked.dataset]
    words += [word for subject in asked.subjects for word in ("--subject", subject)]
    words += ["--mapper", asked.mapper] if asked.mapper else []
    words += ["--generator", asked.generator] if asked.generator else []
    words += ["--permutations", str(asked.permutations)]
    words += [] if asked.critique else ["--without-critique"]
    words += ["--without-pictures"] if asked.withheld else []
    return replace(asked, command=" ".join([*words, "--out report.html"]))
