"""Work that is no longer wanted ends at its next step, and what was finished is kept."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from explorer import stopping
from explorer.drawing import reconstruct
from explorer.evidence import statistics
from explorer.evidence.attention import attention_of
from explorer.evidence.controls import controls
from explorer.evidence.forecast import (
    _pace,
    seconds_of_attention,
    seconds_of_gallery,
    seconds_of_importance,
    seconds_of_prediction,
)
from explorer.finished import finished_pictures
from explorer.request import Request, View
from explorer.types import EmbeddingSpace, UserError

TRIAL = Request("fake", "sub-01", "test-03", "linear", "painter", scales=(1.0, 2.0), steps=4)


def test_steps_end_before_the_next_one() -> None:
    done, unwanted = [], threading.Event()
    with pytest.raises(stopping.StoppedError), stopping.until(unwanted.is_set):
        for number in stopping.steps(range(10)):
            done.append(number)
            if number == 2:
                unwanted.set()
    assert done == [0, 1, 2]


def test_outside_nothing_is_ever_unwanted() -> None:
    with stopping.until(lambda: True), pytest.raises(stopping.StoppedError):
        stopping.look()
    stopping.look()
    assert list(stopping.steps("abc")) == ["a", "b", "c"]


def test_it_is_no_sentence_that_work_on_several_things_passes_over() -> None:
    assert not issubclass(stopping.StoppedError, UserError)


def test_a_sweep_keeps_the_pictures_it_finished(workbench: Any) -> None:
    frames, unwanted = reconstruct(workbench, TRIAL), threading.Event()
    with pytest.raises(stopping.StoppedError), stopping.until(unwanted.is_set):
        for frame in frames:
            if frame.done:
                unwanted.set()
    assert [frame.index for frame in finished_pictures(workbench, TRIAL)] == [0]


def test_controls_do_not_take_it_for_one_that_cannot_be_had(
    workbench: Any, fakes: SimpleNamespace
) -> None:
    painted, strip = fakes.Generator.painted, controls(workbench, TRIAL)
    with stopping.until(lambda: fakes.Generator.painted > painted):
        with pytest.raises(stopping.StoppedError):
            list(strip)
    assert fakes.Generator.painted == painted + 1


# --------------------------------------------------------------------------------------- forecasts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return a clock that models move: the seconds that each call of a mapper takes."""
    now = SimpleNamespace(at=0.0)
    monkeypatch.setattr(stopping, "clock", lambda: now.at)
    return now


@pytest.fixture
def timed(make_workbench: Any, fakes: SimpleNamespace, clock: SimpleNamespace) -> Any:
    """Return a workbench with a mapper that takes 0.4 s a pass and an embedder of 0.8 s."""

    class Linear(fakes.Linear):
        def forward(self, betas: Any, subject: str) -> Any:
            clock.at += 0.4
            return super().forward(betas, subject)

    class Embedder(fakes.Embedder):
        def embed(self, images: Any, *space: Any) -> Any:
            clock.at += 0.8
            return super().embed(images, *space)

    return make_workbench(
        mappers={"linear": Linear, "ridge": Linear}, embedders={"pocket-clip": Embedder}
    )


def test_statistics_are_foretold_from_a_pass_through_the_mapper(
    timed: Any, fakes: SimpleNamespace
) -> None:
    view, trial = View(panel="statistics"), replace(TRIAL, generator="")
    # a pass of 4 rows takes 0.4 s. 10 test images: 2 maps and 2 of single repeats, then what is
    # decoded from each parcel alone, and from all
    parcels = 2 * len(fakes.parcels)
    expected = statistics.seconds_needed(timed, trial, view, permutations=20)
    assert expected == pytest.approx(0.1 * (10 * 4 + 10 * (parcels + 1)))
    statistics.subject_map(timed, trial, view, permutations=20)
    assert statistics.seconds_needed(timed, trial, view, permutations=20) == 0.0


def test_importance_and_attention_are_foretold_and_cost_nothing_once_known(timed: Any) -> None:
    # colours are fixed by all 10 test images, and the trial itself is one more
    assert seconds_of_importance(timed, TRIAL, View()) == pytest.approx(1.1)
    # 49 windows and the whole image; 4 of them take 0.8 s
    assert seconds_of_attention(timed, TRIAL) == pytest.approx(10)
    attention_of(timed, TRIAL)
    assert seconds_of_attention(timed, TRIAL) == 0
    # where nothing is decoded, nothing is computed
    for nothing in (replace(TRIAL, mapper=""), replace(TRIAL, mapper="", generator="")):
        assert seconds_of_importance(timed, nothing, View()) == 0
        assert seconds_of_attention(timed, nothing) == seconds_of_gallery(timed, nothing) == 0


def test_pictures_that_are_embedded_cost_nothing_and_captions_never(
    timed: Any, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seconds_of_gallery(timed, TRIAL) == pytest.approx(2)  # 10 images, 4 of them in 0.8 s
    assert seconds_of_prediction(timed, TRIAL) == 0  # there is no encoding model
    words = EmbeddingSpace("words", "caption", (8,))
    monkeypatch.setattr(timed.catalogue, "encoder_offer", lambda *place: "one")
    model = SimpleNamespace(spaces=(fakes.space, words))
    monkeypatch.setattr(timed.models, "encoder", lambda *place: model)
    assert seconds_of_prediction(timed, TRIAL) == pytest.approx(2)
    names = list(timed.catalogue.gallery("fake", "sub-01").index)
    timed.models.embed("fake", names, fakes.space)
    assert seconds_of_gallery(timed, TRIAL) == seconds_of_prediction(timed, TRIAL) == 0


@pytest.mark.parametrize(("first", "later", "times"), [(5.0, 9.0, 1), (4.9, 3.0, 2)])
def test_what_took_long_is_not_timed_again(
    timed: Any, clock: SimpleNamespace, first: float, later: float, times: int
) -> None:
    """The first time sets things up, so a second one is truer, unless it would take too long."""
    done = []

    def work() -> None:
        clock.at += later if done else first
        done.append(clock.at)

    for _ in range(3):
        assert _pace(timed, ("work", first), work) == pytest.approx([first, later][times - 1])
    assert len(done) == times
