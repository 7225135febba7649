"""The evidence below a trial without a browser: what is sent when, and what stands for nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from explorer.drawing import seconds_needed
from explorer.evidence import critics, evaluation
from explorer.page import export, lab_tables, links
from explorer.page import lab as lab_module
from explorer.page.lab import Lab, decided_by
from explorer.page.session import Session
from explorer.page.turns import Budget, Turns
from explorer.records import from_record
from explorer.request import PANELS, Request, View
from explorer.types import UserError
from tests.explorer.page.visits import click

REQUEST = Request("fake", "sub-01", "test-04", "linear", "painter", steps=4)


@pytest.fixture
def lab(workbench: Any) -> Lab:
    """Return the section's handlers; components are their own names."""
    return Lab(
        workbench, SimpleNamespace(lab="lab", masthead="masthead", notices="notices"), Turns()
    )


def opened(lab: Lab, request: Request = REQUEST, view: View | None = None) -> Session:
    """Return a session whose browser has the section."""
    session = Session()
    session.request, session.view = request, view or View()
    lab.renew(session)
    return session


def work(lab: Lab, session: Session) -> list[dict[str, Any]]:
    return [part["lab"] for part in lab.work(session)]


def test_nothing_is_computed_before_a_view_is_opened(lab: Lab, fakes: SimpleNamespace) -> None:
    session, painted = opened(lab), fakes.Generator.painted
    assert session.lab.shown["state"] == "off"
    assert work(lab, session) == []
    assert fakes.Generator.painted == painted


def test_stop_ends_a_picture_at_its_next_step(
    lab: Lab, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, steps, sweep = opened(lab), [], fakes.Generator.sweep
    seconds_needed(lab.workbench, REQUEST)  # a step was timed before, by the pictures above

    def stopped(self: Any, *args: Any, **options: Any) -> Any:
        for step in sweep(self, *args, **options):
            steps.append(step.step)
            if len(steps) == 2:
                lab.stop(session)
            yield step

    monkeypatch.setattr(fakes.Generator, "sweep", stopped)
    lab.choose(session, click(panel="controls"))
    assert [part["state"] for part in work(lab, session)] == ["running"]
    assert (steps, session.lab.shown["state"]) == ([1, 2], "stopped")
    assert lab.turns._holder is None


def test_controls_come_one_by_one_and_say_what_is_lacking(lab: Lab) -> None:
    session = opened(lab)
    sent = lab.choose(session, click(panel="controls"))
    assert "panel=controls" in sent["masthead"]["link"]
    assert sent["lab"]["state"] == "waiting" and sent["lab"]["content"] is None
    parts = work(lab, session)
    done = [sum(card["state"] != "empty" for card in part["content"]["cards"]) for part in parts]
    assert done == [*range(1, 12), 11]
    assert parts[-1]["state"] == "done"
    cards = {card["name"]: card for card in parts[-1]["content"]["cards"]}
    assert [name for name, _ in cards["true embedding"]["scores"]] == [
        *("PixCorr", "SSIM", "pocket-clip")
    ]
    assert cards["true embedding"]["rank"] == "1 of 10"
    assert cards["repeat 3 alone"]["state"] == "none"
    assert "has no repeat 3 of test-04" in cards["repeat 3 alone"]["reason"]
    assert "is measured, so nobody knows" in cards["noiseless response"]["reason"]
    assert 0 <= cards["no brain"]["identified"] <= 1
    assert work(lab, session) == []  # nothing more is wanted


def test_a_lesion_begins_with_the_parcel_that_matters_most(lab: Lab) -> None:
    session = opened(lab, view=View(panel="lesion"))
    parts = work(lab, session)
    content = parts[-1]["content"]
    rows = {row["parcel"]: row for row in content["rows"]}
    best = max((r for r in rows.values() if r["parcel"] != "(unassigned)"),
               key=lambda row: abs(row["effect"]))  # fmt: skip
    assert content["unchosen"] and content["chosen"] == [best["parcel"]]
    assert content["chosen"][0].split()[0] in ("pericalcarine", "fusiform")
    assert [p["label"] for p in content["pictures"]] == ["Intact", "Lesioned", "Difference"]
    assert len({p["src"] for p in content["pictures"]}) == 3
    assert content["scatter"]["mean"]["n"] == content["scatter"]["mean"]["of"] == 10
    assert len(content["scatter"]["trial"]["points"]) == 8


def test_a_record_holds_what_is_open_in_numbers(lab: Lab) -> None:
    session = opened(lab)
    assert lab.told(session) is None
    lab.choose(session, click(panel="lesion", lesion="fusiform L"))
    work(lab, session)
    made = export.make(lab.workbench, REQUEST, session.view, "json", lab.told(session))
    record = json.loads(made.content)
    assert record["view"]["parcels"] == ["fusiform L"]
    assert record["evidence"]["lesion"]["rows"][0][0] == "Rank of the shown image"
    assert len(record["evidence"]["rows"]) == 8
    assert "data:image" not in made.content.decode()
    request, view = from_record(links.parse_record(made.content.decode()))
    assert (request, view) == (REQUEST, session.view)


def test_gain_one_leaves_picture_and_numbers_as_they_are(lab: Lab) -> None:
    view = View(panel="lesion", parcels=("fusiform L", "fusiform R"), gain=1.0)
    session = opened(lab, view=view)
    content = work(lab, session)[-1]["content"]
    intact, lesioned, _ = content["pictures"]
    assert intact["src"] == lesioned["src"]
    rows = content["lesion"]["rows"]
    assert [row[1] for row in rows[:3]] == [row[2] for row in rows[:3]]
    assert rows[3][2] == "0.000"
    assert content["labels"] == ["fusiform, left", "fusiform, right"]


def test_a_swap_takes_the_betas_of_a_trial_that_is_chosen(lab: Lab) -> None:
    session = opened(lab, view=View(panel="lesion", parcels=("fusiform L",)))
    sent = lab.choose(session, click(fill="another trial"))
    assert sent["lab"]["settings"]["stimuli"][0] == "test-01"
    lab.choose(session, click(donor="test-09"))
    content = work(lab, session)[-1]["content"]
    assert content["lesion"]["donor"]["number"] == 9
    assert "when test-09 was shown" in content["lesion"]["sentence"]
    told = lab.choose(session, click(donor="test-04"))  # the trial itself
    assert "left out" in told["notices"]["notices"][0]
    assert session.view.donor == "test-09"


def test_only_what_a_view_is_of_makes_it_new(lab: Lab) -> None:
    session = opened(lab, view=View(panel="controls"))
    work(lab, session)
    session.view = replace(session.view, camera="ventral")
    assert lab.renew(session) == {}
    session.request = replace(session.request, stimulus="test-05")
    sent = lab.renew(session)["lab"]
    assert sent["state"] == "waiting" and sent["content"] is None
    assert decided_by(REQUEST, View(panel="lesion")) != decided_by(
        REQUEST, View(panel="lesion", gain=1.5)
    )


def test_work_ends_when_another_trial_is_chosen_and_when_it_is_stopped(lab: Lab) -> None:
    session = opened(lab, view=View(panel="controls"))
    running = lab.work(session)
    next(running)
    session.request = replace(session.request, stimulus="test-05")
    lab.renew(session)
    assert list(running) == []
    running = lab.work(session)
    next(running)
    next(running)
    assert lab.stop(session)["lab"]["state"] == "stopped"
    assert list(running) == []
    kept = session.lab.shown["content"]["cards"]
    assert sum(card["state"] == "done" for card in kept) >= 2
    assert lab.again(session)["lab"]["state"] == "waiting"
    assert work(lab, session)[-1]["state"] == "done"


def test_where_nothing_is_decoded_a_lesion_says_why(lab: Lab) -> None:
    session = opened(lab, replace(REQUEST, mapper=""), View(panel="lesion"))
    sent = work(lab, session)
    assert [part["state"] for part in sent] == ["none"]
    assert "There is no mapper" in sent[0]["sentence"]


def test_a_study_without_atlas_is_lesioned_as_one_group(
    make_workbench: Any, fakes: SimpleNamespace
) -> None:
    class Bare(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            voxels = replace(trials.subject.voxels, parcellations={}, projection=None)
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    ui = SimpleNamespace(lab="lab", masthead="masthead", notices="notices")
    lab = Lab(make_workbench(datasets={"fake": Bare}), ui, Turns())
    session = opened(lab, view=View(panel="lesion"))
    content = work(lab, session)[-1]["content"]
    assert content["labels"] == ["voxels in no parcel"]
    assert "no atlas divides them" in content["lesion"]["warning"]
    assert content["scatter"]["trial"]["correlation"] == "–"


def test_with_one_test_image_each_view_gives_what_it_can(alone: tuple[Any, Request]) -> None:
    bench, request = alone
    lab = Lab(bench, SimpleNamespace(lab="lab", masthead="masthead", notices="notices"), Turns())
    last = {name: work(lab, opened(lab, request, View(panel=name)))[-1] for name in PANELS if name}
    cards = {card["name"]: card for card in last["controls"]["content"]["cards"]}
    assert "no other test image" in cards["another trial's brain"]["reason"]
    assert "shown once" in cards["average over repeats"]["reason"]
    lesion = last["lesion"]["content"]
    assert "There is one test image" in lesion["alone"] and lesion["scatter"]["trial"] is None
    assert lesion["rows"][0]["effect"] is None and len(lesion["pictures"]) == 3
    assert lesion["lesion"]["rows"][1][1] == "–"  # no margin
    assert last["compare"]["state"] == "done"
    assert all(
        "at least 2 test stimuli" in r["reason"] for r in last["compare"]["content"]["tests"]
    )
    assert "at least 2 of them" in last["curve"]["content"]["reason"]
    assert "at least 2 of them" in last["statistics"]["sentence"]


# -------------------------------------------------------------- two sides, curves, all test images


def test_two_sides_of_a_trial_and_their_difference_over_the_test_images(lab: Lab) -> None:
    session = opened(lab, view=View(panel="compare"))
    offered = session.lab.shown["settings"]["offered"]
    assert [group["sides"] for group in offered] == [
        [],
        ["generator:unguided"],
        ["subject:sub-02"],
    ]
    content = work(lab, session)[-1]["content"]
    assert content["b"]["label"] == "unguided"
    assert content["a"]["src"] == content["b"]["src"]  # both fakes paint alike
    tests = {(row.get("of"), row["metric"]): row for row in content["tests"]}
    two_way = tests["embeddings", "two-way identification"]
    assert two_way["difference"] == 0 and two_way["better"] == ""  # the same mapper
    assert (two_way["chance"], two_way["n"]) == (0.5, 10)
    assert tests["pictures", "identification"]["n"] == 10
    assert content["maps"]["rows"] and content["maps"]["reason"] == ""
    assert all(row["a"] == row["b"] for row in content["maps"]["rows"])
    assert [side["label"] for side in content["subjects"]] == ["sub-01", "sub-02"]
    assert content["subjects"][0]["src"] and "no mapper" in content["subjects"][1]["reason"]


def test_a_subject_without_the_mapper_cannot_be_the_other_side(lab: Lab) -> None:
    session = opened(lab, view=View(panel="compare", against="subject:sub-02"))
    assert work(lab, session)[-1]["sentence"].startswith("sub-02 has no mapper linear")


def test_nothing_to_compare_with_is_a_sentence(make_workbench: Any, fakes: Any) -> None:
    class Alone(fakes.Study):
        def subjects(self) -> list[str]:
            return ["sub-01"]

    bench = make_workbench(datasets={"fake": Alone}, generators={"painter": fakes.Generator})
    lab = Lab(bench, SimpleNamespace(lab="lab", masthead="masthead", notices="notices"), Turns())
    session = opened(lab, view=View(panel="compare"))
    assert "There is nothing to compare this with" in work(lab, session)[-1]["sentence"]


def test_the_curve_has_seeds_and_the_test_images_behind_it(lab: Lab) -> None:
    session = opened(lab, replace(REQUEST, scales=(0, 2)), View(panel="curve"))
    parts = [part for part in work(lab, session) if part["content"]]
    assert [part["content"]["seeds"] for part in parts[:3]] == [1, 2, 3]
    content = parts[-1]["content"]
    assert content["scales"] == ["0", "2"] and len(content["images"]) == 2
    assert content["behind"] == 10
    found = content["scores"]["identification"]
    assert found["chance"] == [0.5, 0.5]
    assert all(low <= mean <= high for low, mean, high in
               zip(found["low"], found["mean"], found["high"], strict=True))  # fmt: skip
    assert found["test"][1] > found["test"][0]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"generator": "unguided"}, "unguided has no guidance"),
        ({"scales": (2.0,)}, "takes at least 2 of them"),
    ],
)
def test_a_curve_that_cannot_be_says_why(lab: Lab, changed: Any, sentence: str) -> None:
    session = opened(lab, replace(REQUEST, **changed), View(panel="curve"))
    assert sentence in work(lab, session)[-1]["sentence"]


def test_statistics_of_a_subject_tell_progress_and_find_what_was_planted(lab: Lab) -> None:
    session = opened(lab, view=View(panel="statistics"))
    assert session.lab.shown["settings"]["offered"][1] == ["group", "All 2 subjects"]
    parts = work(lab, session)
    assert parts[-1]["state"] == "done"
    content = parts[-1]["content"]
    rows = {row["parcel"]: row for row in content["rows"]}
    assert rows["fusiform L"]["q_evidence"] <= 0.05
    assert rows["fusiform L"]["evidence"] > rows["precentral L"]["evidence"]
    assert rows["fusiform L"]["low"] <= rows["fusiform L"]["value"] <= rows["fusiform L"]["high"]
    assert {"value", "evidence", "randomised"} <= set(content["maps"])
    assert content["banner"] == "" and "test images" in content["summary"]
    session.request = replace(session.request, stimulus="test-05")
    assert lab.renew(session) == {}  # it is of no trial
    session.view = replace(session.view, people="group")
    lab.renew(session)
    group = work(lab, session)[-1]["content"]
    assert any("sub-02" in text for name, text in group["facts"] if name == "Left out")
    assert {row["subjects"] for row in group["rows"]} == {1}


def test_statistics_stop_when_nobody_waits_for_them(lab: Lab) -> None:
    session = opened(lab, view=View(panel="statistics"))
    running = lab.work(session)
    next(running)
    lab.stop(session)
    assert list(running) == []
    assert session.lab.shown["state"] == "stopped"


def test_work_that_fails_elsewhere_fails_here() -> None:
    def work_(tell: Any) -> None:
        tell(0.5, "half")
        raise UserError("there is no other half")

    following = lab_tables.followed(work_)
    with pytest.raises(UserError, match="there is no other half"):
        list(following)


def test_without_an_evaluation_the_command_that_makes_one_is_named(lab: Lab) -> None:
    session = opened(lab, view=View(panel="evaluation"))
    sentence = work(lab, session)[-1]["sentence"]
    assert "python -m backends evaluate --dataset fake=PATH --out FOLDER" in sentence


def test_the_critics_tests_come_one_by_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critics.critique, "CLUSTERS", 4)
    session = opened(lab, view=View(panel="critique"))
    parts = work(lab, session)
    counts = [len(p["content"]["findings"]) for p in parts if p["content"]]
    assert counts == sorted(counts) and counts[0] == 1 and parts[-1]["state"] == "done"
    told = parts[-1]["content"]
    assert told["who"] == "linear on sub-01"
    names = [one["name"] for one in told["findings"]]
    assert names[0] == "generalisation" and "category-only decoder" in names
    bars = told["findings"][0]
    assert bars["columns"][:3] == ["of", "value", "low"]
    assert bars["curve"] == [] and bars["unit"] == "%"
    assert told["findings"][-1]["curve"] == ["k", "line"]
    assert all(0 <= row[1] <= 1 for row in bars["rows"])
    json.dumps(told, allow_nan=False)


def test_the_critics_tests_are_forecast(workbench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critics.critique, "CLUSTERS", 4)
    for name in ("gallery", "embedding", "decoding", "references", "ridge"):
        pace = (lambda *given: 0.0) if name != "decoding" else (lambda *given: float(given[-1]))
        monkeypatch.setattr(critics, f"seconds_of_{name}", pace)
    ui = SimpleNamespace(lab="lab", masthead="masthead", notices="notices")
    trials = workbench.catalogue.trials("fake", "sub-01")
    decoded = len(trials.rows("train")) + critics.BOTTLENECKS * 10  # a second each
    poor = Lab(workbench, ui, Turns(Budget(decoded - 1)))
    shown = work(poor, opened(poor, view=View(panel="critique")))[-1]
    assert shown["state"] == "none" and "more than the" in shown["sentence"]
    rich = Lab(workbench, ui, Turns(Budget(decoded + 1)))
    assert work(rich, opened(rich, view=View(panel="critique")))[-1]["state"] == "done"


def test_a_panel_over_the_budget_is_refused_with_the_number(
    workbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ui = SimpleNamespace(lab="lab", masthead="masthead", notices="notices")
    monkeypatch.setattr(lab_module, "seconds_needed", lambda bench, request: 10.0)
    for panel, needed in (("controls", 100), ("curve", 270), ("compare", 500), ("lesion", 20)):
        poor = Lab(workbench, ui, Turns(Budget(needed - 1)))
        shown = work(poor, opened(poor, view=View(panel=panel)))[-1]
        assert shown["state"] == "none" and "more than the" in shown["sentence"], panel
        assert "--budget" in shown["sentence"] and shown["content"] is None
    owner = Lab(workbench, ui, Turns(Budget(1, asks=True)))  # who can stop it at any time
    assert work(owner, opened(owner, view=View(panel="lesion")))[-1]["state"] == "done"
    rich = Lab(workbench, ui, Turns(Budget(21)))
    assert work(rich, opened(rich, view=View(panel="lesion")))[-1]["state"] == "done"


def test_identity_waits_for_nobody(lab: Lab) -> None:
    held = lab.turns.ask("somebody else", "pictures")
    assert lab.turns.wait(held)
    session = opened(lab, view=View(panel="identity"))
    session.wanted = True  # the pictures above are not there yet
    told = dict(map(tuple, work(lab, session)[-1]["content"]["rows"]))
    assert told["Trial"] == "fake/sub-01, test-04" and told["its betas lie in"] == "not stated"
    lab.turns.leave(held)


def test_an_evaluation_is_shown_with_every_trial(make_workbench: Any, tmp_path: Path) -> None:
    import pandas as pd

    stimuli = [f"test-{i:02d}" for i in range(1, 11)]
    row = ["fake", "fake-clip/image", "linear", "averaged repeats", "sub-01", "top1"]
    numbers = [0.8, 0.7, 0.9, 0.1, 0, 10, 10]
    table = pd.DataFrame([[*row, *numbers, "tau"]], columns=evaluation.COLUMNS)
    table.to_csv(tmp_path / "mappers.csv", index=False)
    trials = {"target": row[1], "mapper": "linear", "subject": "sub-01", "stimulus": stimuli}
    pd.DataFrame(trials | {"top1": [1.0] * 8 + [0.0] * 2}).to_parquet(tmp_path / "trials.parquet")
    meaning = {
        "afterimage": evaluation.FORMAT,
        "dataset": "fake",
        "scores": {
            "top1": {
                "title": "top-1", "sentence": "How often.", "better": "higher", "by_trial": True
            }
        },
        "betas": {role: role for role in evaluation.ROLES} | {"averaged": "averaged repeats"},
        "weights": {},
        "notes": ["no noiseless responses"],
    }  # fmt: skip
    (tmp_path / "mappers.json").write_text(json.dumps(meaning))
    bench = make_workbench(evaluations=[tmp_path])
    lab = Lab(bench, SimpleNamespace(lab="lab", masthead="masthead", notices="notices"), Turns())
    session = opened(lab, view=View(panel="evaluation"))
    content = work(lab, session)[-1]["content"]
    (target,) = content["targets"]
    assert target["rows"][0] == {
        "mapper": "linear", "subject": "sub-01", "score": "top1", "role": "averaged", "n": 10,
        "value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.1, "gallery": 10,
            "split": "tau",
    }  # fmt: skip
    assert target["trials"]["numbers"] == list(range(1, 11))
    assert target["trials"]["values"]["top1"]["linear"] == [1.0] * 8 + [0.0] * 2
    assert content["notes"] == ["no noiseless responses"]


# ------------------------------------------------------------------------------------- the lecture


# ------------------------------------------------------------------------------------ in the link
