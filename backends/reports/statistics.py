"""Whether the statistics of maps can be believed, measured on the study whose truth is known.

Under a null the stimulus labels of the whole study are permuted, training images among themselves
and test images among themselves, and ridge is trained anew with the penalty that the shipped one
has. Then betas and labels have nothing to do with each other, every parcel's null hypothesis is
true, and every discovery is a false one. On the truth, informative parcels are to be found and
control parcels are not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.simulation.cortex import easier
from backends.training.counted import count
from backends.training.decomposition import Decomposition, decompose
from explorer.brain import importance
from explorer.brain.maps import parcel_importance, parcellation_of
from explorer.evidence import inference, statistics
from explorer.request import METHODS, Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

DATASET, MAPPER = "simulated", "ridge"
STUDIES = 50  # permuted studies a subject: with four, the error of a share of 5 % is 1.5 %
Row = dict[str, Any]
Say = Callable[[str], None]


def measure(
    *,
    checkpoints: Path,
    limit: int | None = None,
    device: str = "auto",
    progress: Say | None = None,
) -> dict[str, pd.DataFrame]:
    """Return all figures as tables by title; about ten minutes on one core.

    Parameters
    ----------
    checkpoints
        The folder of trained weights.
    limit
        How many times the labels of each subject are permuted, 50 by default.
    device
        A torch device, or "auto".
    progress
        Called with one sentence now and then.
    """
    import pandas as pd

    from backends import DATASETS, EMBEDDERS, GENERATORS, MAPPERS
    from explorer.workbench import Workbench

    say = progress or (lambda sentence: None)
    bench = Workbench(
        DATASETS, EMBEDDERS, MAPPERS, GENERATORS, checkpoints=checkpoints, device=device
    )
    subjects = easier(bench.catalogue.subjects(DATASET))
    goals = training_goals(bench, subjects[0], say)
    null = pd.concat(
        [null_tests(bench, subject, goals, limit or STUDIES, say) for subject in subjects]
    )
    truth, maps = [], []
    for mapper in bench.catalogue.mapper_names(DATASET, subjects[0]):
        for subject in subjects:
            say(f"{mapper}, {subject}")
            maps.append(statistics.subject_map(bench, ask(bench, subject, mapper), View()))
            truth.append(
                on_truth(maps[-1], bench.catalogue.dataset(DATASET).truth(subject).parcels)
            )
    exact = [completeness(bench, subjects[0], name) for name in
             bench.catalogue.mapper_names(DATASET, subjects[0])]  # fmt: skip
    return {
        "Under the null: permuted labels": pd.DataFrame(under_null(null)),
        "On the truth": pd.DataFrame(truth),
        "Shuffled weights and repeats": pd.DataFrame([controls(one) for one in maps]),
        "Integrated gradients": pd.DataFrame(exact),
    }


def ask(bench: Workbench, subject: str, mapper: str) -> Request:
    """Return a request for a subject's first test image."""
    stimulus = bench.catalogue.gallery(DATASET, subject).index[0]
    return Request(DATASET, subject, stimulus, mapper, "pocket-diffusion")


# --------------------------------------------------------------------------------------- the null


def training_goals(bench: Workbench, subject: str, say: Say) -> dict[str, np.ndarray]:
    """Return the embedding of every training stimulus in ridge's target space."""
    from backends.embedders.store import embed_stimuli

    space = bench.catalogue.offer(DATASET, subject, MAPPER).targets[0]
    embedder = bench.models.embedder(bench.catalogue.embedder_name(space))
    stimuli = bench.catalogue.trials(DATASET, subject).stimuli("train")
    say(f"{len(stimuli)} training pictures to embed")
    return embed_stimuli(bench.catalogue.dataset(DATASET), stimuli, embedder, space, say)


def null_tests(
    bench: Workbench,
    subject: str,
    goals: dict[str, np.ndarray],
    studies: int,
    say: Say,
) -> pd.DataFrame:
    """Return one row a permuted study and parcel: p_evidence, q_evidence, p_place, q_place."""
    import pandas as pd
    import torch

    trials, space = (
        bench.catalogue.trials(DATASET, subject),
        bench.catalogue.offer(DATASET, subject, MAPPER).targets[0],
    )
    mapper = copy.deepcopy(bench.models.mapper(DATASET, subject, MAPPER)).cpu()
    tested = list(bench.catalogue.gallery(DATASET, subject).index)
    betas = np.stack([trials.average(stimulus) for stimulus in tested])
    shown = bench.models.embed(DATASET, tested, space)
    parcellation = parcellation_of(bench, DATASET, subject)
    masks, kept = parcellation.masks()[:-1], []
    masks = masks[masks.sum(axis=1) >= importance.SMALL]
    sources = inference.turns(trials.subject.voxels, inference.PERMUTATIONS, 0)
    say(f"{subject}: training trials")
    parts, rows = training_voxels(mapper, trials)
    names = trials.table["stimulus"].iloc[rows].to_numpy()
    stimuli = sorted(set(names))
    penalty = mapper.card.metrics["cross-validation"][space.name]["alpha"][1]  # the median
    alpha = torch.full((space.size,), penalty)
    everything = np.ones(len(masks), dtype=bool)
    for study in range(studies):
        say(count(subject, study, studies, "permuted studies"))
        rng = np.random.default_rng(study)
        other = dict(zip(stimuli, rng.permutation(stimuli), strict=True))
        goal = torch.from_numpy(
            np.stack([goals[other[name]] for name in names]).astype(np.float32)
        )
        order = rng.permutation(len(tested))
        weight, intercept = mapper.weights(subject, space)
        with torch.no_grad():
            weight.copy_(parts.weight(parts.project(goal), alpha))
            intercept.copy_(goal.mean(0) - parts.voxel_mean @ weight)
        _, p_evidence = inference.parcel_evidence(
            lambda some: mapper.decode(some, subject)[space],
            betas,
            mapper.statistics(subject)[0].numpy(),
            masks,
            shown[order],
            seed=study,
        )
        margin = importance.retrieval_margin(shown, order)
        attribution = importance.attribute(mapper, betas, subject, margin, space=space)
        p_place, _ = inference.place_test(importance.mean_map(attribution), masks, sources)
        kept.append(
            pd.DataFrame(
                {
                    "subject": subject,
                    "study": study,
                    "p_evidence": p_evidence,
                    "q_evidence": inference.discoveries(p_evidence, everything),
                    "p_place": p_place,
                    "q_place": inference.discoveries(p_place, everything),
                }
            )
        )
    return pd.concat(kept)


def training_voxels(mapper: Any, trials: Any) -> tuple[Decomposition, np.ndarray]:
    """Return the standardised training trials, taken apart, and their rows."""
    import torch

    rows = trials.rows("train")
    betas = torch.from_numpy(np.asarray(trials.betas[rows], np.float32))
    return decompose(mapper.standardise(betas, trials.subject.name)), rows


def under_null(tests: pd.DataFrame) -> list[Row]:
    """Return one line a test: whether p is uniform, and how often BH finds what is not there."""
    from scipy.stats import kstest

    lines = []
    for name in ("evidence", "place"):
        p, studies = tests[f"p_{name}"].dropna(), tests.groupby(["subject", "study"])
        false = studies[f"q_{name}"].min() <= statistics.LEVEL
        error = 1.96 * np.sqrt(statistics.LEVEL * (1 - statistics.LEVEL) / len(false))
        lines.append(
            {
                "test": name,
                "parcel tests": len(p),
                "KS p": float(kstest(p, "uniform").pvalue),
                "p at most 0.05": float((p <= 0.05).mean()),
                "studies": len(false),
                "false discovery rate of BH at 5 %": float(false.mean()),
                "at most": statistics.LEVEL + error,
            }
        )
    return lines


# -------------------------------------------------------------------------------------- the truth


def on_truth(found: statistics.SubjectMap, truth: pd.DataFrame) -> Row:
    """Return one line: which informative parcels and which controls each test finds."""
    table = found.table.set_index("parcel").loc[truth.index]
    informative = (truth["role"] == "informative").to_numpy()
    line: Row = {"mapper": found.mapper, "subject": found.subject}
    for name in ("evidence", "place"):
        hits = (table[f"q_{name}"] <= statistics.LEVEL).to_numpy()
        line[f"{name}: power"] = float(hits[informative].mean())
        line[f"{name}: controls found"] = float(hits[~informative].mean())
        line[f"{name}: false among found"] = (
            float((hits & ~informative).sum() / hits.sum()) if hits.any() else 0.0
        )
    return line | {"informative": int(informative.sum()), "controls": int((~informative).sum())}


def controls(found: statistics.SubjectMap) -> Row:
    """Return one line: the map of shuffled weights, and of single repeats."""
    random = found.randomised
    return {
        "mapper": found.mapper,
        "subject": found.subject,
        "correlation with shuffled weights": random.correlation,
        "95 % of permutations": (random.low, random.high),
        "within": "yes" if random.within else "NO",
        "correlation of repeats": found.repeats.value,
        "two-way identification": found.identification[0],
        "banner": found.banner or "none",
    }


def completeness(bench: Workbench, subject: str, mapper: str, trials: int = 20) -> Row:
    """Return one line: how exact integrated gradients are in some trials."""
    stimuli: Sequence[str] = list(bench.catalogue.gallery(DATASET, subject).index)[:trials]
    request = ask(bench, subject, mapper)
    errors = [
        parcel_importance(
            bench,
            Request(DATASET, subject, stimulus, mapper, request.generator),
            View(method=METHODS[2]),
        ).completeness
        for stimulus in stimuli
    ]
    if any(error is None for error in errors):
        raise UserError(f"{mapper} has no completeness error.")
    return {
        "mapper": mapper,
        "largest completeness error, relative": float(max(errors)),
        "median": float(np.median(errors)),
        "trials": len(errors),
    }
