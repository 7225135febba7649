"""One question at a time, visitors in turn, trials before evidence, and nobody left waiting."""

import threading
from types import SimpleNamespace

import pytest

from explorer.page import turns as module
from explorer.page.turns import PICTURES, Turns
from explorer.types import UserError


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that tests set; waiting looks once and goes on."""
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


def has(turns, turn):
    return turns.wait(turn, 0.0)


def test_only_one_holds_the_models_and_the_next_in_line_follows(clock):
    turns = Turns()
    first, second = turns.ask("a"), turns.ask("b")
    assert has(turns, first) and not has(turns, second)
    assert has(turns, first)  # still its own
    turns.leave(first)
    assert has(turns, second)


def test_who_waits_for_loading_is_told_so_and_goes_before_its_next_part(clock):
    turns = Turns()
    loading = turns.ask(None, module.LOADING)
    assert has(turns, loading)
    trial, more = turns.ask("a", PICTURES), turns.ask(None, module.LOADING)
    assert turns.told(trial) == "Waiting for models that are being loaded, about 5 s"
    turns.leave(loading)
    assert not has(turns, more) and has(turns, trial)


def test_trials_go_before_evidence(clock):
    turns = Turns()
    running = turns.ask("a", "controls")
    assert has(turns, running)
    more, trial = turns.ask("a", "controls"), turns.ask("b", PICTURES)
    turns.leave(running)  # between two parts of the evidence
    assert not has(turns, more)
    assert has(turns, trial)


def test_a_visitor_who_asks_often_does_not_keep_others_waiting(clock):
    turns = Turns()
    first = turns.ask("a")
    assert has(turns, first)
    again = [turns.ask("a") for _ in range(3)]
    other = turns.ask("b")
    turns.leave(first)
    assert not has(turns, again[0])
    assert has(turns, other)
    turns.leave(other)
    assert has(turns, again[0])


def test_one_who_gives_up_is_not_waited_for(clock):
    turns = Turns()
    holder, gone, last = turns.ask("a"), turns.ask("b"), turns.ask("c")
    assert has(turns, holder)
    turns.leave(gone)
    turns.leave(holder)
    turns.leave(holder)
    assert has(turns, last)


def test_an_answer_that_nobody_reads_loses_its_turn(clock):
    turns = Turns()
    lost, next_ = turns.ask("a"), turns.ask("b")
    assert has(turns, lost)
    reading = turns.read(lost)
    reading.__enter__()
    clock.at += module.LOST - 1
    assert not has(turns, next_)
    clock.at += 2
    assert has(turns, next_)
    reading.__exit__(None, None, None)
    turns.leave(lost)  # comes back late: it no longer holds anything
    assert not has(turns, turns.ask("c"))


def test_long_computing_is_not_taken_for_a_lost_reader(clock):
    turns = Turns()
    busy, next_ = turns.ask("a"), turns.ask("b")
    assert has(turns, busy)
    clock.at += 100 * module.LOST
    assert not has(turns, next_)


def test_who_waits_is_told_for_what_and_how_long(clock):
    turns = Turns()
    timed = turns.ask("a", "controls")
    assert has(turns, timed)
    clock.at += 40
    turns.leave(timed)
    running = turns.ask("a", "controls")
    assert has(turns, running)
    clock.at += 10
    mine, theirs = turns.ask("a"), turns.ask("b")
    assert turns.told(theirs) == "Waiting for another visitor's controls, about 30 s"
    assert turns.told(mine) == "Waiting for your own controls, 1 before you, about 35 s"


def test_threads_never_hold_the_models_together():
    turns, inside, most = Turns(), [], []

    def ask(visitor):
        for _ in range(20):
            with turns.held(visitor):
                inside.append(visitor)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 160 and max(most) == 1


def test_a_full_line_says_so(clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    turns = Turns()
    turns.ask("a"), turns.ask("b")
    with pytest.raises(UserError, match="2 questions wait for the models already; try again in"):
        turns.ask("c")
