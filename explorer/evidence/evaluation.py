"""The tables of ``python -m backends evaluate --out FOLDER``, read back to be looked at.

A folder holds three files: ``mappers.csv`` (one number a row), ``trials.parquet`` (one row a
mapper, subject, target and test stimulus, decoded from averaged repeats, one column a score) and
``mappers.json`` (what the scores mean, which rows are the ceiling, whose weights were measured).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import guard, read_json, reason
from explorer.types import UserError
from explorer.writing import unquoted

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

FORMAT = 1
TABLE, TRIALS, MEANING = "mappers.csv", "trials.parquet", "mappers.json"
MISSES = "pictures-near-misses.csv"  # of evaluate --images, where it was written there too
NEARLY = "a CLIP tells them from 95 % of the other images, and they show something else"
TOLD = 5  # near misses in a note
COLUMNS = (
    *("dataset", "target", "mapper", "betas", "subject", "score", "value", "low", "high"),
    *("chance", "undefined", "N", "gallery", "split"),
)
TEXTS = (*COLUMNS[:6], "split")
OWN = "the data set's own"  # split
KEYS = ("target", "mapper", "subject", "stimulus")  # of a row of trials, before its scores
ROLES = ("averaged", "single", "shuffled", "ceiling")
FOLDER = "evaluation"  # among the checkpoints, with one folder a data set


@dataclass(frozen=True)
class Definition:
    """What a score is: its title, the sentence that defines it, which end is ``better``.

    ``by_trial`` says that it is a mean over test stimuli, so that each stimulus has a value.
    """

    title: str
    sentence: str
    better: str
    by_trial: bool


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All mappers of one data set, measured on its test images.

    ``table``: one number a row. ``dataset``, ``target`` (a space, or several joined by " + "),
    ``mapper``, ``betas`` (one of the values of ``betas``), ``subject`` (a name, or "mean of n"),
    ``score`` (a key of ``scores``), ``value``, ``low`` and ``high`` (95 % bootstrap over stimuli,
    NaN where there is none), ``chance`` (NaN where only the shuffled rows can tell),
    ``undefined`` (how many of the predictions were not finite; NaN in tables from before that was
    counted), ``N`` stimuli, the size of the ``gallery``, and the name of the ``split``.

    ``trials``: ``target``, ``mapper``, ``subject``, ``stimulus`` and one column for each score
    with ``by_trial``; of averaged repeats. ``scores``: in the order of the table. ``betas``: role
    ("averaged", "single", "shuffled", "ceiling") -> how the table calls it. ``weights``: mapper ->
    subject -> hash of the weights that were measured. ``notes``: what could not be measured.
    """

    folder: Path
    dataset: str
    table: pd.DataFrame
    trials: pd.DataFrame
    scores: Mapping[str, Definition]
    betas: Mapping[str, str]
    weights: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...]

    @property
    def targets(self) -> list[str]:
        """The targets, as they come in the table."""
        return list(dict.fromkeys(self.table["target"]))

    def mappers(self, target: str) -> list[str]:
        """Return the mappers of a target, as they come in the table."""
        return list(dict.fromkeys(self.table["mapper"][self.table["target"] == target]))

    def subjects(self, target: str) -> list[str]:
        """Return the subjects of a target, without their mean."""
        return list(dict.fromkeys(self.trials["subject"][self.trials["target"] == target]))

    def rows(self, target: str, score: str, betas: str = "averaged") -> pd.DataFrame:
        """Return the rows of a target and score for one role of betas, in the table's order."""
        self._known(target, score)
        wanted = {"target": target, "score": score, "betas": self.betas[betas]}
        keep = (self.table[list(wanted)] == list(wanted.values())).all(axis=1)
        return self.table[keep].reset_index(drop=True)

    def distribution(self, target: str, score: str, mapper: str, subject: str) -> pd.Series:
        """Return stimulus -> score of one mapper and subject, as they come in the data set."""
        self._known(target, score)
        if not self.scores[score].by_trial:
            raise UserError(
                f"{self.scores[score].title} is of all test images together and has no value for "
                "one of them; choose another score."
            )
        wanted = {"target": target, "mapper": mapper, "subject": subject}
        keep = (self.trials[list(wanted)] == list(wanted.values())).all(axis=1)
        if not keep.any():
            raise UserError(
                f"{self.folder} has no trials of {mapper} for {subject} and {target}; choose "
                "what is in its table."
            )
        return self.trials[keep].set_index("stimulus")[score]

    def outdated(self, workbench: Workbench) -> list[str]:
        """Return a sentence for every mapper whose weights are others than those measured."""
        sentences = []
        for mapper, by_subject in self.weights.items():
            other = [
                subject
                for subject, measured in by_subject.items()
                if weights_of(workbench, self.dataset, subject, mapper) != measured
            ]
            if other:
                sentences.append(
                    f"The table was made with other weights of {mapper} than are here for "
                    f"{', '.join(other)}; run python -m backends evaluate --dataset "
                    f"{self.dataset}=PATH --out {self.folder}"
                )
        return sentences

    def _known(self, target: str, score: str) -> None:
        for what, asked, known in (
            ("target", target, self.targets),
            ("score", score, list(self.scores)),
        ):
            if asked not in known:
                raise UserError(
                    f"The evaluation in {self.folder} has no {what} {asked!r}; choose one of "
                    f"{', '.join(known)}."
                )


def weights_of(workbench: Workbench, dataset: str, subject: str, mapper: str) -> str:
    """Return the hash of a mapper's weights, "none" where it is not on offer."""
    if subject not in workbench.catalogue.subjects(dataset):
        return "none"
    if mapper not in workbench.catalogue.mapper_names(dataset, subject):
        return "none"
    return workbench.models.mapper_hash(dataset, subject, mapper)


def find_evaluation(workbench: Workbench, dataset: str) -> Evaluation | None:
    """Return the evaluation of a data set: from a folder that was given, else one that ships.

    None where there is none; a folder that cannot be read raises `UserError`.
    """
    shipped = workbench.catalogue.checkpoints / FOLDER / dataset
    for folder in (*workbench.evaluations, shipped):
        if folder == shipped and not (folder / TABLE).exists():
            continue
        found = read_evaluation(folder)
        if found.dataset == dataset:
            return found
    return None


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read a folder of ``python -m backends evaluate --out``; `UserError` if it cannot be."""
    import pandas as pd

    folder = Path(folder)
    lacking = [name for name in (TABLE, TRIALS, MEANING) if not (folder / name).is_file()]
    if lacking:
        raise UserError(
            f"{folder} has no {lacking[0]}, so it is no folder of python -m backends evaluate "
            "--out FOLDER; give such a folder, or make it again."
        )
    meaning = _meaning(folder / MEANING)
    try:
        table = pd.read_csv(folder / TABLE, dtype={name: str for name in TEXTS})
        if "split" not in table:  # of a version that knew no other
            table["split"] = OWN
        for name in TEXTS:
            table[name] = table[name].map(unquoted) if name in table else None
        trials = pd.read_parquet(folder / TRIALS)
    except Exception as error:  # pyarrow's have no class in common
        raise UserError(f"{folder} cannot be read ({reason(error)}); make it again.") from error
    by_trial = [name for name, score in meaning["scores"].items() if score.by_trial]
    if "undefined" not in table:  # of a version that did not count
        table["undefined"] = float("nan")
    _require(folder / TABLE, table, COLUMNS)
    _require(folder / TRIALS, trials, (*KEYS, *by_trial))
    for column, known in (
        ("score", list(meaning["scores"])),
        ("betas", list(meaning["betas"].values())),
        ("dataset", [meaning["dataset"]]),
    ):
        other = sorted(set(table[column]) - set(known))
        if other:
            raise UserError(
                f"{folder / TABLE} has the {column} {other[0]!r}, {MEANING} knows "
                f"{', '.join(known)}; both must come from one run, make them again."
            )
    with guard(folder, "tables of an evaluation", "make them again"):
        _require_whole(folder / TABLE, table, trials, meaning)
    meaning["notes"] += _near_misses(folder / MISSES)
    return Evaluation(folder=folder, table=table, trials=trials, **meaning)


def _near_misses(path: Path) -> tuple[str, ...]:
    """Return a note about the pictures that look right and are not; () without such a table."""
    import pandas as pd

    if not path.is_file():
        return ()
    with guard(path, "a table", "make it again with python -m backends evaluate --images FOLDER"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    lacking = [name for name in ("subject", "stimulus") if name not in table]
    if lacking:
        raise UserError(
            f"{path} lacks the column {lacking[0]!r}; make it again with python -m backends "
            "evaluate --images FOLDER"
        )
    if not len(table):
        return (f"Near misses among the pictures ({NEARLY}): none.",)
    first = table[["stimulus", "subject"]].map(unquoted).drop_duplicates().head(TOLD)
    named = ", ".join(f"{s} ({who})" for s, who in first.itertuples(index=False))
    return (f"Near misses among the pictures ({NEARLY}): {len(table)}, first {named}.",)


def _require(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table]
    if missing or not len(table):
        raise UserError(
            f"{path} {f'lacks the column {missing[0]!r}' if missing else 'has no row'}; make it "
            "again with python -m backends evaluate --out FOLDER"
        )
    odd = [c for c in table if c not in (*TEXTS, *KEYS) and table[c].dtype.kind not in "fiu"]
    if odd:
        raise UserError(f"{path} has no numbers in its column {odd[0]!r}; make it again.")


def _require_whole(
    path: Path, table: pd.DataFrame, trials: pd.DataFrame, meaning: Mapping[str, Any]
) -> None:
    """Refuse a table that was cut: every mapper and subject has a row for each score."""
    cut = not path.read_bytes().endswith(b"\n")
    key = list(COLUMNS[:5])
    cut |= bool(table[key].isna().any(axis=None) or table["value"].isna().all())
    scores = table.groupby(key)["score"].agg(set)
    cut |= any(found != set(meaning["scores"]) for found in scores)
    own = ["target", "mapper", "subject"]
    measured = set(map(tuple, trials[own].drop_duplicates().to_numpy()))
    cut |= not measured <= set(map(tuple, table[own].drop_duplicates().to_numpy()))
    if cut:
        raise UserError(
            f"{path} is cut short: rows of some mapper, subject or score are not in it; copy it "
            "again, or make it again with python -m backends evaluate --out FOLDER"
        )


def _meaning(path: Path) -> dict[str, Any]:
    values = read_json(path, "make it again")
    if not isinstance(values, dict) or values.get("afterimage") != FORMAT:
        found = values.get("afterimage") if isinstance(values, dict) else type(values).__name__
        raise UserError(
            f"{path} is of format {found!r}, this version reads {FORMAT}; make it again with "
            "python -m backends evaluate --out FOLDER"
        )
    try:
        scores = {name: Definition(**score) for name, score in values["scores"].items()}
        betas = {role: str(values["betas"][role]) for role in ROLES}
        return {
            "dataset": str(values["dataset"]),
            "scores": scores,
            "betas": betas,
            "weights": {name: dict(of) for name, of in values["weights"].items()},
            "notes": tuple(map(str, values["notes"])),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} lacks or misnames a part ({error}); make it again.") from error
