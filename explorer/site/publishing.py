"""A study as a folder of plain files: every trial of a plan, its maps, evidence and tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from explorer.drawing import seconds_needed, whose_pictures
from explorer.figures import installed_versions
from explorer.images import SMALL
from explorer.page import about, links, trial
from explorer.page.lab_pairs import curve_view
from explorer.page.pictures import handed_out
from explorer.request import Request, View
from explorer.site import group as groups_
from explorer.site.folder import new_site
from explorer.site.index import (
    finished_sheet,
    packed,
    plain_name,
    scores_csv,
    shown_thumb,
    trials_csv,
    write_thumbs,
)
from explorer.site.pages import write_page
from explorer.site.plan import FIRST, Group, Plan, groups
from explorer.site.scripts import DATA, pooled, write_script
from explorer.site.trials import (
    Maps,
    controls_of,
    evidence,
    numbered,
    parcel_table,
    trial_value,
    views,
)
from explorer.writing import csv_text, write_whole

if TYPE_CHECKING:
    from explorer.workbench import Workbench

TABLES = "tables"
ABOUT = (
    "What this decoder makes of every test trial, at each guidance scale. A good picture can come "
    "from the generator alone: the controls of a trial, chance, and N beside every score say how "
    "much is the brain's. Maps of importance are for this decoder, not for the brain."
)
Tell = Callable[[str, int, int], object]
"""Is told what is done, how many of them, and of how many."""


@dataclass
class _Work:
    """One site while it is written."""

    bench: Workbench
    plan: Plan
    site: Path
    tell: Tell
    surfaces: groups_.Surfaces
    tables: list[dict[str, str]] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)


def publish(
    bench: Workbench,
    plan: Plan,
    out: Path,
    *,
    command: str = "",
    tell: Tell | None = None,
    say: Callable[[str], object] | None = None,
) -> Path:
    """Write the site of a plan into ``out`` and return its ``index.html``.

    Pictures come from the bench's store where it has them, and are kept there, so that a site
    that was cut off goes on from them. ``command``: what made it, for its provenance.
    """
    every = groups(bench, plan)
    told = {"command": command, "made": time.strftime("%Y-%m-%d"), **_provenance(bench, every)}
    with new_site(out, told, say) as site, handed_out(plan.withheld, plan.quality):
        surfaces = groups_.Surfaces(site)
        work = _Work(bench, plan, site, tell or (lambda *_: None), surfaces)
        offered = [_group(work, group) for group in every]
        lines = _lines(work, every[0].first, told)
        study = bench.catalogue.dataset(plan.dataset)
        value = {
            "title": study.title,
            "simulated": bool(study.simulated),
            "note": study.note,
            "lines": lines,
            "about": ABOUT,
            "groups": offered,
            "keys": links.VIEW_KEYS,
            "view": asdict(View()),
            "tables": work.tables,
            "withheld": plan.withheld,
        }
        write_script(site, "site", value)
        write_page(site, study.title, lines, f"{DATA}/{every[0].name}/index.js")
    return out / "index.html"


def seconds_expected(bench: Workbench, plan: Plan) -> float:
    """Return about how long the pictures of a plan take that are not there yet."""
    seconds = 0.0
    for group in groups(bench, plan):
        drawn = [trial.drawn_request(request, bench) for request in group.requests]
        seconds += sum(seconds_needed(bench, request) for request in drawn)
        one = replace(drawn[0], scales=drawn[0].scales[:1], seed=drawn[0].seed + 1)
        seconds += 7 * seconds_needed(bench, one) * len(group.some(plan.controls))
        sweep = replace(drawn[0], seed=drawn[0].seed + 1)
        seconds += 2 * seconds_needed(bench, sweep) * len(group.some(plan.curves))
    return seconds


# --------------------------------------------------------------------------------- what is written


def _group(work: _Work, group: Group) -> dict[str, Any]:
    """Write all of one subject and mapper; return what the pickers need."""
    bench, plan, first = work.bench, work.plan, group.first
    maps = Maps(views(bench, first, plan.methods))
    atlases = [view.atlas for view in maps.views if view.method == plan.methods[0]]
    parcels = {a: work.surfaces.add(bench, first.dataset, first.subject, a) for a in atlases}
    with_controls, with_curves = group.some(plan.controls), group.some(plan.curves)
    thumbs, numbers, scores = _thumb_names(work, group), [], {}
    who = f"{first.subject}, {first.mapper or 'no mapper'}"
    for place, request in enumerate(group.requests):
        numbers.append(_trial(work, group, request, maps, thumbs, scores))
        work.tell(f"{who}: trials", place + 1, len(group.requests))
    for told, places, show in (
        ("controls", with_controls, controls_of),
        ("curve", with_curves, lambda *asked: evidence("curve", curve_view, *asked)),
    ):
        for done, place in enumerate(places, 1):
            value = show(bench, group.requests[place], maps.views[0])
            write_script(work.site, f"{group.name}/{told}-{numbers[place]}", pooled(value))
            work.tell(f"{who}: trials with {told}", done, len(places))
    sheet = finished_sheet(bench, group, scores)
    index = packed(bench, group, sheet, bool(plan.withheld))
    write_script(work.site, f"{group.name}/index", index)
    statistics = {a: groups_.statistics(bench, first, a) for a in atlases}
    over = {"statistics": statistics, "evaluation": groups_.evaluated(bench, first)}
    write_script(work.site, f"{group.name}/over", over)
    others = groups_.other_maps(bench, group, atlases)
    names = {key: f"{group.name}/map-{i}" for i, key in enumerate(others)}
    for key, name in names.items():
        write_script(work.site, name, others[key])
    named = {a: work.named.get(f"{group.name}|{a}", "") for a in atlases}
    write_script(
        work.site, f"{group.name}/maps", {"bases": maps.bases, "others": names, "named": named}
    )
    _tables(work, group, sheet, over)
    return {
        "name": group.name,
        "subject": first.subject,
        "mapper": first.mapper,
        "atlases": atlases,
        "methods": list(plan.methods),
        "parcels": parcels,
        "controls": [numbers[i] for i in with_controls],
        "curves": [numbers[i] for i in with_curves],
        "shows": list(dict.fromkeys(key.split("|")[1] for key in others)),
    }


def _thumb_names(work: _Work, group: Group) -> dict[str, str]:
    """Return stimulus -> the file of the thumbnail of what was shown, where there is one."""
    if work.plan.withheld:
        return {}
    catalogue, first = work.bench.catalogue, group.first
    numbers = catalogue.gallery(first.dataset, first.subject)["number"]
    return {
        request.stimulus: shown_thumb(group, int(numbers[request.stimulus]))
        for request in group.requests
        if not catalogue.without_picture(first.dataset, request.stimulus)
    }


def _trial(
    work: _Work,
    group: Group,
    request: Request,
    maps: Maps,
    thumbs: dict[str, str],
    scores: dict[str, Any],
) -> int:
    """Write a trial's script and thumbnails, add its ``scores``; return the trial's number."""
    bench, withheld = work.bench, bool(work.plan.withheld)
    gallery = bench.catalogue.gallery(request.dataset, request.subject)
    number = int(gallery.loc[request.stimulus, "number"])
    tables = {v.atlas: parcel_table(bench, request, v) for v in maps.first_of_each_atlas()}
    csv = {}
    for atlas, table in tables.items():
        changing = numbered(table)
        csv[atlas] = csv_text(table.loc[:, changing], float_format="%.6g")
        # the browser puts both together, line by line
        named = table.loc[:, ~changing].replace(r"\s+", " ", regex=True)
        work.named[f"{group.name}|{atlas}"] = csv_text(named)
    shown, frames = trial_value(bench, request)
    for near in (shown["decoding"] or {}).get("neighbours", ()):
        near["src"] = thumbs.get(near["stimulus"], near["src"])
    value = {
        "trial": shown,
        "maps": maps.of(bench, request),
        "repeats": int(gallery.loc[request.stimulus, "repeats"]),
        "csv": csv,
    }
    write_script(work.site, f"{group.name}/trial-{number}", pooled(value))
    scores[request.stimulus] = {f.scale: dict(f.scores) for f in frames if not f.row}
    lacks = withheld or bench.catalogue.without_picture(request.dataset, request.stimulus)
    truth = None if lacks else bench.catalogue.image(request.dataset, request.stimulus)
    made = bench.catalogue.generator_class(request.generator).provenance
    drawn = frames if made == "generated" or not withheld else ()
    write_thumbs(work.site, group, number, truth, drawn)
    return number


def _tables(work: _Work, group: Group, sheet: Any, over: dict[str, Any]) -> None:
    """Write a group's tables as CSV."""
    stem = f"{group.first.subject}-{group.first.mapper or 'none'}"
    written = {
        "every score of every trial": ("trials", trials_csv(sheet)),
        "means, chance, N and definitions": ("scores", scores_csv(sheet, sheet.scales)),
    }
    for atlas, measures in over["statistics"].items():
        rows = [
            {"measure": measure, **row}
            for measure, value in measures.items()
            for row in (value["content"] or {}).get("rows", [])
        ]
        if rows:
            what = f"statistics of every parcel, {atlas}" if atlas else "statistics"
            written[what] = (f"statistics-{plain_name(atlas)}", csv_text(pd.DataFrame(rows)))
    # the evaluation is of all mappers and subjects at once
    content = over["evaluation"]["content"] if group.name == FIRST else None
    for target in (content or {}).get("targets", []):
        name = f"evaluation-{plain_name(target['name'])}"
        written[f"evaluation of every mapper, {target['name']}"] = (
            name,
            csv_text(pd.DataFrame(target["rows"])),
        )
    for what, (name, text) in written.items():
        own = name if name.startswith("evaluation") else f"{plain_name(stem)}-{name}"
        path = f"{TABLES}/{own}.csv"
        write_whole(work.site / path, text.encode("utf-8"))
        whose = "" if what.startswith("evaluation") else group.name
        work.tables.append({"group": whose, "text": what, "path": path})


# -------------------------------------------------------------------------------------- provenance


def _provenance(bench: Workbench, every: list[Group]) -> dict[str, Any]:
    first = every[0].first
    study = bench.catalogue.dataset(first.dataset)
    hashes = {
        f"{one.first.subject}, {one.first.mapper}": bench.checkpoint_hashes(one.first)
        for one in every
    }
    return {
        "data": study.title,
        "licence": study.licence,
        "citation": study.citation,
        "simulated": bool(study.simulated),
        "checkpoints": hashes,
        "versions": installed_versions(),
        "generator": first.generator,
        "steps": first.steps,
        "seed": first.seed,
        "scales": list(first.scales),
    }


def _lines(work: _Work, request: Request, told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what stands at the foot of every view: whose data, how made, what is left out."""
    lines = list(about.footer(work.bench, request)["lines"])
    if whose := whose_pictures(work.bench, request.generator, request.dataset):
        lines.append(("Generator", whose))
    hashes = "; ".join(
        f"{who}: " + ", ".join(f"{k} {v[:8]}" for k, v in found.items())
        for who, found in told["checkpoints"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines.append(("Weights", hashes))
    made = f"{told['made']} with Afterimage ({versions})"
    lines.append(("Made", f"{made}: {told['command']}" if told["command"] else made))
    lines.append(
        ("Pictures", f"WebP at quality {work.plan.quality} of 100; thumbnails at {SMALL}.")
    )
    lines.append(("Left out", " ".join(_left_out(work, request))))
    return lines


def _left_out(work: _Work, request: Request) -> Iterator[str]:
    plan, n = work.plan, work.bench.catalogue.gallery(request.dataset, request.subject)
    if plan.withheld:
        yield f"{plan.withheld.rstrip('.')}."
    if plan.limit is not None and plan.limit < len(n):
        yield f"All but {plan.limit} of {len(n)} test trials."
    shown = len(n) if plan.limit is None else min(plan.limit, len(n))
    for what, count in (("controls", plan.controls), ("sweep curves", plan.curves)):
        if not count:
            yield f"All {what}."
        elif count < shown:
            yield f"The {what} of all but {count} of {shown} trials, evenly spaced."
    yield (
        "What is computed when it is asked for, as lesions, comparisons, drivers, attention and "
        "the betas of a trial: python app.py shows those."
    )


def size_of(site: Path) -> int:
    """Return the bytes of all files of a site."""
    return sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
