"""The evidence over all test images: maps with their statistics, and how mappers fare.

Values for the browser, as in `lab_trial`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import stopping
from explorer.brain.maps import parcellation_of
from explorer.decoding import decoded_space
from explorer.evidence import critics, evaluation, group, statistics
from explorer.identity import sentences
from explorer.page.lab_pairs import surface_map
from explorer.page.lab_trial import Parts, parcel_names, rounded
from explorer.records import identify
from explorer.request import Request, View
from explorer.types import UserError

if TYPE_CHECKING:
    import pandas as pd

    from explorer.workbench import Workbench

Tell = Callable[[float, str], None]
SUBJECT_NUMBERS = (
    *("value", "low", "high", "evidence", "p_evidence", "q_evidence", "p_place", "q_place"),
    *("randomised", "ceiling", "per_ceiling"),
)
GROUP_NUMBERS = ("subjects", "value", "low", "high", "found", "p", "q")


def followed(
    work: Callable[[Tell], Any],
) -> Generator[tuple[dict[str, Any], str, float], None, Any]:
    """Run work that tells its progress, yield what it tells, and return what it made.

    Closing the generator stops the work at its next step.
    """
    told: queue.SimpleQueue = queue.SimpleQueue()
    stop, made = threading.Event(), {}

    def tell(done: float, what: str) -> None:
        told.put(({}, what[:1].upper() + what[1:], min(1.0, max(0.0, done))))

    def run() -> None:
        try:
            with stopping.until(stop.is_set):
                made["result"] = work(tell)
        except stopping.StoppedError:
            pass
        except Exception as error:  # belongs to whoever follows
            made["error"] = error
        finally:
            told.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            parts = [told.get()]
            while not told.empty():
                parts.append(told.get())
            if parts[-1] is None:
                break
            yield parts[-1]
    finally:
        stop.set()
        thread.join()
    if "error" in made:
        raise made["error"]
    return made["result"]


# -------------------------------------------------------------------------------------- statistics


def statistics_settings(bench: Workbench, request: Request, view: View) -> dict[str, Any]:
    """Return whose statistics there are."""
    people = bench.catalogue.subjects(request.dataset)
    offered = [["subject", request.subject], ["group", f"All {len(people)} subjects"]]
    return {"people": view.people, "offered": offered if len(people) > 1 else offered[:1]}


def statistics_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send the map over all test images with its intervals, p and q."""
    if view.people == "group":
        found = yield from followed(
            lambda tell: group.group_map(bench, request, view, progress=tell)
        )
        yield _group(bench, request, view, found), "", 1.0
        return
    found = yield from followed(
        lambda tell: statistics.subject_map(bench, request, view, progress=tell)
    )
    yield _subject(bench, request, view, found), "", 1.0


def _subject(
    bench: Workbench, request: Request, view: View, found: statistics.SubjectMap
) -> dict[str, Any]:
    value, low, high = (100 * x for x in found.identification)
    return {
        "people": "subject",
        "banner": found.banner,
        "who": f"{found.mapper} on {found.subject}",
        "summary": (
            f"{found.found} of {found.tests} parcels carry evidence about the shown images "
            f"(q ≤ {statistics.LEVEL:g}), over {found.stimuli} test images with "
            f"{found.permutations:,} permutations. {found.mapper} tells the shown image from "
            f"another in {value:.1f} % of cases ({low:.1f} to {high:.1f} %, chance 50 %)."
        ),
        "measure": found.measure,
        "rows": _rows(bench, request, view, found.table, SUBJECT_NUMBERS),
        "maps": {
            column: _map(bench, request, view, found, column)
            for column in ("value", "evidence", "per_ceiling", "randomised")
            if found.table[column].notna().any()
        },
        "facts": [
            ["Shuffled weights", found.randomised.sentence],
            ["Repeats", found.repeats.sentence],
            ["Seeds", found.seeds.sentence],
            ["Place null", f"p (place) rests on {found.null}."],
            *([f"Note {i}", note] for i, note in enumerate(found.notes, start=1)),
        ],
    }


def _group(
    bench: Workbench, request: Request, view: View, found: group.GroupMap
) -> dict[str, Any]:
    table = found.table
    known = int((table["q"] <= statistics.LEVEL).sum())
    limits = found.limits["value"]
    kind = "diverging" if found.measure == "signed" else "sequential"
    values = {key: rounded(v) for key, v in zip(table["parcel"], table["value"], strict=True)}
    return {
        "people": "group",
        "banner": found.banner,
        "who": f"{found.mapper} on {len(found.subjects)} subjects",
        "summary": f"{known} parcels carry evidence in the group (q ≤ {statistics.LEVEL:g}). "
        f"{found.sentence}",
        "measure": found.measure,
        "rows": _rows(bench, request, view, table, GROUP_NUMBERS),
        "maps": {"value": surface_map(bench, request, view, values, kind, limits, found.measure)},
        "facts": [
            ["Agreement", found.agreement.sentence],
            *(["Left out", sentence] for sentence in found.left_out),
        ],
    }


def _rows(
    bench: Workbench, request: Request, view: View, table: pd.DataFrame, columns: tuple[str, ...]
) -> list[dict[str, Any]]:
    names = parcel_names(parcellation_of(bench, request.dataset, request.subject, view.atlas))
    rows = []
    for row in table.to_dict("records"):
        if row.get("voxels", row.get("subjects")):
            rows.append(
                {
                    "parcel": row["parcel"],
                    "label": names.get(row["parcel"], row["parcel"]),
                    "small": bool(row.get("small", False)),
                    **({"voxels": int(row["voxels"])} if "voxels" in row else {}),
                    **{name: rounded(row[name]) for name in columns},
                }
            )
    return rows


def _map(
    bench: Workbench, request: Request, view: View, found: statistics.SubjectMap, column: str
) -> dict[str, Any]:
    table = found.table
    values = {
        row["parcel"]: None if row["small"] else rounded(row[column])
        for row in table.to_dict("records")
    }
    limits = found.limits[column]
    kind = "diverging" if limits[0] < 0 else "sequential"
    titles = {
        "value": found.measure,
        "evidence": "evidence, SD of its null",
        "per_ceiling": f"{found.measure} over noise ceiling",
        "randomised": f"{found.measure}, shuffled weights",
    }
    return surface_map(bench, request, view, values, kind, limits, titles[column])


# -------------------------------------------------------------------------------------- evaluation


def evaluation_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send the tables of an evaluation that was made before, and each test image's values."""
    yield {}, "Reading the evaluation", 0.0
    found = evaluation.find_evaluation(bench, request.dataset)
    if found is None:
        name = request.dataset
        raise UserError(
            f"The mappers of {name} have not been measured here: run python -m backends evaluate "
            f"--dataset {name}=PATH --out FOLDER; then start with --evaluation FOLDER."
        )
    wanted = decoded_space(bench, request).name if request.mapper else ""
    numbers = bench.catalogue.gallery(request.dataset, request.subject)["number"]
    targets = found.targets
    yield (
        {
            "targets": [_target(found, target, request, numbers) for target in targets],
            "target": next((i for i, t in enumerate(targets) if t == wanted), 0),
            "mapper": request.mapper,
            "subject": request.subject,
            "stimulus": request.stimulus,
            "scores": {
                name: {
                    "title": score.title,
                    "sentence": score.sentence,
                    "better": score.better,
                    "by_trial": score.by_trial,
                }
                for name, score in found.scores.items()
            },
            "roles": dict(found.betas),
            "notes": [*found.outdated(bench), *found.notes],
        },
        "",
        1.0,
    )


def critique_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send what each of the critics' tests finds of the mapper, one after another."""
    told: dict[str, dict[str, Any]] = {}
    who = f"{request.mapper} on {request.subject}"
    for found in critics.findings(bench, request):
        told[found.name] = {
            "name": found.name,
            "definition": found.definition,
            "sentence": found.sentence,
            "columns": list(found.table.columns),
            "rows": [[_shown(v) for v in row] for row in found.table.to_numpy(object)],
            "curve": list(found.curve),
            "unit": found.unit,
        }
        share = min(len(told) / critics.TESTS, 0.99)
        yield {"who": who, "findings": list(told.values())}, found.name, share
    yield {"who": who, "findings": list(told.values())}, "", 1.0


def _shown(value: Any) -> Any:
    """Return a cell of a table of findings for JSON: a number rounded, or a text."""
    return rounded(float(value)) if isinstance(value, int | float | np.number) else str(value)


def identity_view(bench: Workbench, request: Request, view: View) -> Parts:
    """Send where the betas and the picture of the shown trial come from."""
    found = identify(bench, request)
    yield {"rows": [list(pair) for pair in sentences(found)], "json": found.to_dict()}, "", 1.0


def _target(
    found: evaluation.Evaluation, target: str, request: Request, numbers: Mapping[str, int]
) -> dict[str, Any]:
    table = found.table[found.table["target"] == target]
    roles = {name: role for role, name in found.betas.items()}
    fields = ("value", "low", "high", "chance")
    return {
        "name": target,
        "mappers": found.mappers(target),
        "rows": [
            {
                **{name: str(row[name]) for name in ("mapper", "subject", "score")},
                "role": roles[row["betas"]],
                **{name: rounded(row[name]) for name in fields},
                "n": int(row["N"]),
                "gallery": rounded(row["gallery"]),
                "split": str(row["split"]),
            }
            for row in table.to_dict("records")
        ],
        "trials": _trials(found, target, request.subject, numbers),
    }


def _trials(
    found: evaluation.Evaluation, target: str, subject: str, numbers: Mapping[str, int]
) -> dict[str, Any]:
    """Return each test image's value by score and mapper, for one subject."""
    rows = found.trials
    rows = rows[(rows["target"] == target) & (rows["subject"] == subject)]
    stimuli = [s for s in dict.fromkeys(rows["stimulus"]) if s in numbers]
    scores = [name for name, score in found.scores.items() if score.by_trial]
    by_mapper = {
        mapper: own.set_index("stimulus").reindex(stimuli)
        for mapper, own in rows.groupby("mapper", sort=False)
    }
    return {
        "stimuli": stimuli,
        "numbers": [int(numbers[s]) for s in stimuli],
        "values": {
            score: {
                mapper: [rounded(v, 3) for v in own[score]] for mapper, own in by_mapper.items()
            }
            for score in scores
        },
    }
