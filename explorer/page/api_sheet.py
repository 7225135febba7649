"""The named endpoint of all trials at once: what each test trial scores, sorted and filtered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from explorer.evidence import sheet as sheets
from explorer.page import links
from explorer.page.endpoint import (
    Dataset,
    Endpoints,
    Generator,
    Link,
    Mapper,
    Numbers,
    Repeat,
    Said,
    Scale,
    Seed,
    Steps,
    Subject,
    add,
    endpoint,
)
from explorer.page.turns import Turns
from explorer.request import View
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench


def register(workbench: Workbench, model: dict[str, Any], turns: Turns) -> None:
    """Add the endpoint below to the page being built, as `api.register` does."""
    add("sheet", Sheets(workbench, turns).sheet, model)


class SheetScore(TypedDict):
    """What trials can be sorted by."""

    score: Annotated[str, Said("The score, as `sort` takes it.", "rank")]
    title: Annotated[str, Said("Its title.", "Rank of the true image")]
    sentence: Annotated[str, Said("Its definition.", "The place of the shown image.")]
    better: Annotated[str, Said("Which end is better.", "lower")]
    chance: Annotated[float | None, Said("What guessing gives, null where unknown.", 150.5)]
    chance_of: Annotated[str, Said("How that was found.", "the mean rank of guessing")]
    n: Annotated[int, Said("How many of the listed trials have a value.", 300)]


class SheetRow(TypedDict):
    """One test trial."""

    trial: Annotated[str, Said("The test stimulus, the `trial` of other endpoints.", "test-0001")]
    number: Annotated[int, Said("Its number on the page, from 1.", 1)]
    caption: Annotated[str, Said("What it shows, in words.", "a red bus on a street")]
    category: Annotated[str, Said("Its category, empty where there is none.", "vehicle")]
    drawn: Annotated[bool, Said("Whether its picture at this scale is there.", True)]
    end: Annotated[str, Said("By the sorted score `best` or `worst`, else empty.", "best")]
    scores: Annotated[Numbers, Said("Its scores by name.", {"rank": 1.0, "PixCorr": 0.31})]


class AllTrials(TypedDict):
    """All test trials that fit, best first."""

    link: Link
    sort: Annotated[str, Said("The score that they are sorted by.", "rank")]
    scale: Annotated[float, Said("The guidance scale of their pictures.", 2.0)]
    scores: Annotated[
        list[SheetScore], Said("What each score means.", [{"score": "rank", "chance": 150.5}])
    ]
    rows: Annotated[
        list[SheetRow], Said("The trials, those without a value last.", [{"trial": "test-0001"}])
    ]
    trials: Annotated[int, Said("How many test trials there are in all.", 300)]
    lacking: Annotated[int, Said("How many have no picture at this scale yet.", 241)]
    notes: Annotated[list[str], Said("What must be said beside it.", [])]


class Sheets(Endpoints):
    """The endpoint's method; its annotations are what the page's API says of it."""

    @endpoint
    def sheet(
        self,
        dataset: Dataset = "",
        subject: Subject = "",
        mapper: Mapper = "",
        generator: Generator = "",
        scale: Scale = 2.0,
        steps: Steps = 0,
        seed: Seed = 0,
        repeat: Repeat = 0,
        sort: Annotated[
            str, Said("A score of the answer's `scores`; empty takes the rank.", "PixCorr")
        ] = "",
        worst_first: Annotated[int, Said("With 1 the worst comes first.", 0)] = 0,
        category: Annotated[str, Said("Trials of this category only; empty is all.", "bus")] = "",
        text: Annotated[
            str, Said("Trials whose caption or name has all these words; empty is all.", "red bus")
        ] = "",
    ) -> AllTrials:
        """List all test trials with their scores, sorted; pictures that are there, none drawn."""
        bench = self.workbench
        anyone = self.anyone(dataset, subject, mapper, generator)
        wanted = {"scales": (scale,), "seed": seed, **({"steps": steps} if steps else {})}
        place = anyone.dataset, anyone.subject, anyone.mapper, anyone.generator
        request = self.request(anyone.stimulus, *place, repeat, **wanted)
        found = sheets.begin(bench, request)
        scale = found.scale
        known = {tile.category for tile in found.tiles if tile.category}
        if category and category not in known:
            offered = ", ".join(sorted(known)) or "none here"
            raise UserError(f"The categories are {offered}; found {links.short(category)}.")
        with self.in_turn("sheet"):
            found = sheets.with_chance(bench, sheets.ranked(bench, found))
        if not found.scores:
            raise UserError(
                f"Nothing of {request.dataset}/{request.subject} has a score here: "
                f"{' '.join(found.notes)}"
            )
        names = [score.key for score in found.scores]
        usual = sheets.RANK if sheets.RANK in names else names[0]
        score = found.score(sort or usual)
        tiles = sheets.matching(found.tiles, category, text)
        best, worst = sheets.extremes(tiles, score, scale)
        ends = dict.fromkeys(worst, "worst") | dict.fromkeys(best, "best")
        return {
            "link": links.query(replace(found.request, scales=(scale,)), View(panel="sheet")),
            "sort": score.key,
            "scale": scale,
            "scores": [_meaning(one, tiles, scale) for one in found.scores],
            "rows": [
                {
                    "trial": tile.stimulus,
                    "number": tile.number,
                    "caption": tile.caption,
                    "category": tile.category,
                    "drawn": scale in dict(tile.pictures),
                    "end": ends.get(tile.stimulus, ""),
                    "scores": {one.key: tile.value(one, scale) for one in found.scores},
                }
                for tile in sheets.ordered(tiles, score, scale, not worst_first)
            ],
            "trials": len(found.tiles),
            "lacking": len(found.lacking(scale)),
            "notes": list(found.notes),
        }


def _meaning(score: sheets.Score, tiles: list[sheets.Tile], scale: float) -> SheetScore:
    values = [tile.value(score, scale) for tile in tiles]
    return {
        "score": score.key,
        "title": score.title,
        "sentence": f"{score.sentence}.",
        "better": score.better,
        "chance": score.chance_at(scale),
        "chance_of": score.chance_of,
        "n": sum(value == value for value in values),
    }
