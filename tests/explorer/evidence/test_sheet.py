"""All trials at once: order with ties and what has no value, filters, marks, and what is drawn."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from explorer.decoding import decode
from explorer.drawing import reconstruct
from explorer.evidence import sheet as sheets
from explorer.evidence.sheet import PICTURE, Score, Tile, extremes, matching, ordered
from explorer.evidence.sheet_view import ASSETS, SCRIPTS, STYLES, fragment, name_of, payload
from explorer.request import Request
from explorer.store import Store
from explorer.types import UserError

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", (0.0, 2.0), steps=4)
NAN = math.nan
HIGH, LOW = Score("a", "A", "", "higher"), Score("a", "A", "", "lower")


def tiles(*values: float, score: str = "a") -> list[Tile]:
    """Return a tile a value, t1 on; NaN gives none at all."""
    found = enumerate(values, 1)
    return [Tile(f"t{i}", i, "", "", scores={} if math.isnan(v) else {score: v}) for i, v in found]


def names(found: list[Tile]) -> list[str]:
    return [tile.stimulus for tile in found]


def test_equals_keep_the_order_of_the_data_set_and_what_has_no_value_is_last_either_way() -> None:
    given = tiles(2.0, NAN, 5.0, 2.0, -1.0)
    assert names(ordered(given, HIGH, 1.0)) == ["t3", "t1", "t4", "t5", "t2"]
    assert names(ordered(given, HIGH, 1.0, best_first=False)) == ["t5", "t1", "t4", "t3", "t2"]
    assert names(ordered(given, LOW, 1.0)) == ["t5", "t1", "t4", "t3", "t2"]
    infinite = [replace(given[0], scores={"a": NAN}), *given[1:]]
    assert names(ordered(infinite, HIGH, 1.0))[-2:] == ["t1", "t2"]


def test_a_score_of_pictures_is_that_of_the_scale() -> None:
    one = Tile("t1", 1, "", "", pictures={1.0: {"a": 0.1}, 2.0: {"a": 0.9}})
    other = Tile("t2", 2, "", "", pictures={1.0: {"a": 0.5}})
    score = Score("a", "A", "", "higher", PICTURE)
    assert names(ordered([one, other], score, 1.0)) == ["t2", "t1"]
    assert names(ordered([one, other], score, 2.0)) == ["t1", "t2"]
    assert math.isnan(other.value(score, 2.0))


def test_all_that_share_an_end_are_marked_and_none_where_all_are_equal() -> None:
    given = tiles(1.0, 3.0, NAN, 3.0, 2.0)
    assert extremes(given, HIGH, 1.0) == ({"t2", "t4"}, {"t1"})
    assert extremes(given, LOW, 1.0) == ({"t1"}, {"t2", "t4"})
    assert extremes(tiles(1.0, 1.0, NAN), HIGH, 1.0) == (set(), set())
    assert extremes(tiles(NAN), HIGH, 1.0) == (set(), set())


def test_a_filter_takes_a_category_and_every_word_whatever_its_case_and_accents() -> None:
    shown = [
        Tile("nsd-1", 1, "Two Cafés in the Rain", "place"),
        Tile("nsd-2", 2, "rain on a bus", "vehicle"),
        Tile("x-3", 3, "", ""),
    ]
    assert names(matching(shown, text="rain CAFES")) == ["nsd-1"]
    assert names(matching(shown, text="  rain ")) == ["nsd-1", "nsd-2"]
    assert names(matching(shown, "vehicle", "rain")) == ["nsd-2"]
    assert names(matching(shown, text="x-3")) == ["x-3"]
    assert matching(shown, "place", "bus") == [] and len(matching(shown)) == 3


def test_nothing_is_drawn_or_loaded_to_begin_and_what_is_finished_is_found(
    workbench: Any, fakes: SimpleNamespace
) -> None:
    list(reconstruct(workbench, replace(REQUEST, scales=(2.0,))))
    painted = fakes.Generator.painted
    sheet = sheets.begin(workbench, REQUEST)
    assert sheet.scale == 2.0 and len(sheet.tiles) == 10
    there = [tile.stimulus for tile in sheet.tiles if dict(tile.pictures)]
    assert there == ["test-04"] and len(sheet.lacking(2.0)) == 9
    assert [score.key for score in sheet.scores] == ["PixCorr", "SSIM", "pocket-clip"]
    assert fakes.Generator.painted == painted


def test_ranks_are_those_of_each_trials_own_page(workbench: Any) -> None:
    sheet = sheets.ranked(workbench, sheets.begin(workbench, REQUEST))
    rank, similarity = sheet.score("rank"), sheet.score("similarity")
    for tile in sheet.tiles:
        own = decode(workbench, replace(REQUEST, stimulus=tile.stimulus))
        assert tile.value(rank, 2.0) == own.rank
        assert tile.value(similarity, 2.0) == pytest.approx(own.similarity)
    assert rank.better == "lower" and rank.chance_at(2.0) == 5.5
    assert similarity.chance_at(2.0) < np.mean([t.value(similarity, 2.0) for t in sheet.tiles])
    with pytest.raises(UserError, match="can be sorted by PixCorr, .*rank.*found 'speed'"):
        sheet.score("speed")


def test_the_rest_is_drawn_as_each_page_draws_it_and_chance_is_measured(
    workbench: Any, fakes: SimpleNamespace
) -> None:
    list(reconstruct(workbench, replace(REQUEST, scales=(2.0,))))
    sheet, painted = sheets.begin(workbench, REQUEST), fakes.Generator.painted
    steps = list(sheets.draw(workbench, sheet, 2.0, most=3))
    assert [(done, of) for _, done, of in steps] == [(1, 3), (2, 3), (3, 3)]
    assert fakes.Generator.painted == painted + 3
    drawn = steps[-1][0]
    assert len(drawn.lacking(2.0)) == 6 and len(drawn.lacking(0.0)) == 10
    one = next(t for t in drawn.tiles if t.stimulus == "test-01")
    (frame,) = (
        f
        for f in reconstruct(workbench, replace(REQUEST, stimulus="test-01", scales=(2.0,)))
        if f.done
    )
    assert one.pictures[2.0] == frame.scores and fakes.Generator.painted == painted + 3
    known = sheets.with_chance(workbench, drawn)
    score = known.score("pocket-clip")
    assert math.isnan(score.chance_at(0.0))  # of which no picture is there
    assert score.chance_at(2.0) < max(t.value(score, 2.0) for t in known.tiles if t.pictures)


def test_a_trial_that_cannot_be_drawn_says_why_and_the_others_are_drawn(
    workbench: Any, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fakes.Generator.sweep

    def failing(self: Any, condition: Any, *args: Any, **options: Any) -> Any:
        if len(seen) == 1 and not seen.append(1):
            raise UserError("No paint is left.")
        seen.append(1)
        return sweep(self, condition, *args, **options)

    seen: list[int] = []
    monkeypatch.setattr(fakes.Generator, "sweep", failing)
    sheet = sheets.begin(workbench, replace(REQUEST, seed=5))
    *_, (drawn, _, _) = sheets.draw(workbench, sheet, 2.0, most=4)
    whys = [tile.why for tile in drawn.tiles]
    assert whys[:4] == ["", "No paint is left.", "", ""] and len(drawn.lacking(2.0)) == 6


def test_a_store_keeps_what_the_sheet_shows_without_bringing_pictures_to_memory(
    make_workbench: Any, tmp_path: Any
) -> None:
    first = make_workbench(store=Store(tmp_path))
    list(sheets.draw(first, sheets.begin(first, REQUEST), 2.0, most=2))
    again = make_workbench(store=Store(tmp_path))
    sheet = sheets.begin(again, REQUEST)
    assert len(sheet.lacking(2.0)) == 8 and len(again.caches.pictures) == 0
    packed = sheets.thumbnail(again, REQUEST, "test-02", 2.0)
    assert packed[8:12] == b"WEBP" and sheets.thumbnail(again, REQUEST, "test-09", 2.0) is None
    ships = make_workbench(shipped=Store(tmp_path, read_only=True))
    assert len(sheets.begin(ships, REQUEST).lacking(2.0)) == 8


def test_captions_leave_neither_the_payload_nor_the_page(workbench: Any) -> None:
    told = payload(workbench, sheets.begin(workbench, REQUEST))
    assert told["simulated"] and told["scale"] == "2" and name_of(7.5) == "7.5"
    evil = told | {"notes": ["</script><script>alert(1)</script><!-- \u2028"]}
    text = fragment(evil, "all")
    inside = re.search(r'id="all-data">(.*)</script>\n<script>showSheet', text, re.S).group(1)
    assert "<" not in inside and "\u2028" not in inside
    assert json.loads(inside) == evil
    bold = next(one for one in json.loads(inside)["trials"] if one["number"] == 3)
    assert bold["caption"] == "<b>bold</b> ${alert(1)} {{value}}"
    assert all((ASSETS / name).is_file() for name in (*SCRIPTS, *STYLES))


def test_without_pictures_categories_and_a_generator_the_ranks_are_there(
    make_workbench: Any, fakes: SimpleNamespace
) -> None:
    class Bare(fakes.Study):
        def __init__(self, path: Any = None, name: str = "fake") -> None:
            super().__init__(path, name)
            self.stimuli = self.stimuli[["caption"]].assign(caption="", category="", source="made")

    bench = make_workbench(datasets={"fake": Bare})
    sheet = sheets.ranked(bench, sheets.begin(bench, replace(REQUEST, generator="")))
    assert [score.key for score in sheet.scores] == ["rank", "similarity"]
    told = payload(bench, sheet)
    assert told["categories"] == [] and told["scales"] == [] and told["lacking"] == {}
    assert "nothing is drawn" in told["notes"][0]
    assert all(one["scores"]["rank"] >= 1 for one in told["trials"])


def test_a_trial_without_the_repeat_has_no_place_in_the_ranks(workbench: Any) -> None:
    sheet = sheets.begin(workbench, replace(REQUEST, repeats=(5,)))
    assert all(tile.why == "It has no such repeat." for tile in sheet.tiles)
    assert sheet.notes == ("10 of 10 test images have no such repeat.",)
    assert sheet.lacking(2.0) == []
    with pytest.raises(UserError, match="no test stimulus with these repeats"):
        sheets.ranked(workbench, sheet)
