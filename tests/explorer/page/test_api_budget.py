"""A program cannot ask for more than one request may compute, and waits for its turn."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from explorer import page
from explorer.page.api import Pictures
from explorer.page.api_evidence import Evidence
from explorer.page.api_maps import Maps
from explorer.page.api_parcel import Parcels
from explorer.page.api_scores import Scores
from explorer.page.turns import Budget, Turns

TRIAL = {"trial": "test-04"}
LINK = {"link": "trial=test-04"}


@pytest.mark.parametrize(
    ("kind", "name", "asked", "minutes"),
    [
        (Pictures, "reconstruct", TRIAL, 5),
        (Pictures, "figure", LINK, 5),
        (Pictures, "record", LINK, 5),
        (Scores, "curve", {**TRIAL, "seeds": 2, "sample": 4}, 30),
        (Evidence, "controls", {**TRIAL, "names": "no brain; true embedding"}, 10),
        (Evidence, "lesion", {**TRIAL, "parcels": "fusiform L"}, 10),
        (Evidence, "compare", {**TRIAL, "other_generator": "unguided"}, 10),
        (Parcels, "steps", {**TRIAL, "parcels": "fusiform L"}, 15),
    ],
)
def test_what_is_over_the_budget_is_refused_with_the_number(
    workbench: Any,
    fakes: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    name: str,
    asked: dict[str, Any],
    minutes: int,
) -> None:
    monkeypatch.setattr("explorer.page.endpoint.seconds_needed", lambda bench, request: 300.0)
    painted = fakes.Generator.painted
    endpoints = kind(workbench, Turns(Budget(60.0, asks=True)))
    told = f"would compute for about {minutes} min, more than the 60 s"
    with pytest.raises(gr.Error, match=told):
        getattr(endpoints, name)(**asked)
    assert fakes.Generator.painted == painted


@pytest.mark.parametrize(
    ("name", "asked", "timed", "less"),
    [
        ("statistics", {}, "statistics.seconds_of_parts", "fewer permutations or another method"),
        ("importance", TRIAL, "forecast.seconds_of_importance", "choose another method"),
        ("attention", TRIAL, "forecast.seconds_of_attention", "a larger budget"),
        ("importance", TRIAL, "forecast.seconds_of_gallery", "a larger budget"),
    ],
)
def test_maps_over_the_budget_are_refused_with_what_to_ask_instead(
    workbench: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    asked: dict[str, Any],
    timed: str,
    less: str,
) -> None:
    monkeypatch.setattr(f"explorer.evidence.{timed}", lambda *about: 1800.0)
    endpoints = Maps(workbench, Turns(Budget(600.0, asks=True)))
    with pytest.raises(gr.Error, match=f"about 30 min, more than the 10 min.*{less}"):
        getattr(endpoints, name)(**asked)


def test_a_group_costs_as_much_as_its_subjects(
    workbench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "explorer.evidence.statistics.seconds_of_parts"
    monkeypatch.setattr(told, lambda *about: 1800.0)
    endpoints = Maps(workbench, Turns(Budget(600.0)))
    have = [
        subject
        for subject in workbench.catalogue.subjects("fake")
        if "linear" in workbench.catalogue.mapper_names("fake", subject)
    ]
    with pytest.raises(gr.Error, match=f"for about {30 * len(have)} min"):
        endpoints.statistics(mapper="linear", people="group")


def test_what_is_kept_costs_nothing_and_waits_for_nobody(workbench: Any) -> None:
    turns, done = Turns(Budget(60.0)), []
    endpoints = Pictures(workbench, turns)
    first = endpoints.reconstruct("test-04")
    turns.budget = Budget(0.0)
    again = threading.Thread(
        target=lambda: done.append(endpoints.reconstruct("test-04")), daemon=True
    )
    with turns.held("somebody", "controls"):
        again.start()
        again.join(20)
        assert done == [first]


def test_what_needs_a_model_waits_for_its_turn(workbench: Any) -> None:
    turns, done = Turns(), []
    endpoints = Maps(workbench, turns)
    thread = threading.Thread(
        target=lambda: done.append(endpoints.importance("test-05")), daemon=True
    )
    with turns.held("somebody", "controls"):
        thread.start()
        thread.join(0.3)
        assert not done
    thread.join(60)
    assert done[0]["atlas"] == "Desikan-Killiany"


def test_the_page_gives_its_budget_and_its_queue_to_every_endpoint(workbench: Any) -> None:
    budget = Budget(7.0)
    public = [
        fn.fn.__self__
        for fn in page.build(workbench, budget).fns.values()
        if fn.api_visibility == "public"
    ]
    assert len(public) == 19
    assert all(endpoints.turns.budget is budget for endpoints in public)
    assert len({id(endpoints.turns) for endpoints in public}) == 1
