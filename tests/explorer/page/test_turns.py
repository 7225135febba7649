"""One question at a time, visitors in turn, trials before evidence, and nobody left waiting."""

import threading
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from explorer import stopping
from explorer.cache import Cache
from explorer.page import turns as module
from explorer.page.endpoint import caller, who
from explorer.page.turns import PICTURES, Budget, Turns
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


def working(turns, clock, visitor, seconds, kind=PICTURES):
    """Let a visitor's question compute for so long, as if between two steps."""
    turn = turns.ask(visitor, kind)
    assert has(turns, turn)
    clock.at += seconds
    return turn


def test_a_long_job_lets_a_short_question_in_and_goes_on_after_it(clock):
    turns = Turns()
    long = working(turns, clock, "a", module.SLICE + 1)
    assert not turns.pass_on(long)  # nobody waits
    short = turns.ask("b")
    assert turns.pass_on(long)
    assert has(turns, short) and not has(turns, long)
    clock.at += module.SLICE - 0.1
    assert not turns.pass_on(short)  # not for a job that had more
    more = turns.ask("c")
    turns.leave(short)
    assert has(turns, more) and not has(turns, long)
    turns.leave(more)
    assert has(turns, long)
    turns.leave(long)


def test_two_long_jobs_take_turns_and_one_that_waits_too_long_is_next(clock):
    turns = Turns()
    one = working(turns, clock, "a", module.SLICE)
    other = turns.ask("a")  # of the same visitor: the first would else come back at once
    assert turns.pass_on(one) and has(turns, other)
    clock.at += module.SLICE
    assert turns.pass_on(other) and has(turns, one)
    clock.at += module.OVERDUE + 1  # ``other`` waits, and shorter questions come all the time
    short = turns.ask("b")
    assert turns.pass_on(one)
    assert not has(turns, short) and has(turns, other)


def test_evidence_lets_a_trial_in_at_its_next_step(clock):
    turns = Turns()
    evidence = working(turns, clock, "a", module.EVIDENCE_SLICE, "statistics")
    turns.ask("b", "controls")
    assert not turns.pass_on(evidence)
    trial = turns.ask("c", PICTURES)
    assert turns.pass_on(evidence) and has(turns, trial)


def test_work_is_held_up_between_its_steps_and_its_clock_stands_still(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0.0)
    turns, done = Turns(), []

    def ask_shortly():
        with turns.held("b"):
            done.append("short")
            threading.Event().wait(0.2)

    with turns.held("a"):
        began = stopping.clock()
        other = threading.Thread(target=ask_shortly)
        other.start()
        while not turns.waiting:
            threading.Event().wait(0.01)
        stopping.look()
        done.append("long")
        assert stopping.clock() - began < 0.2
    other.join()
    assert done == ["short", "long"]


def test_who_waits_for_a_value_lets_its_maker_have_the_turn(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0.0)
    turns, values, made = Turns(), Cache(), []
    inside = threading.Event()

    def make():
        inside.set()
        while not turns.waiting:
            threading.Event().wait(0.01)
        stopping.look()  # the other comes in, and finds the value being made
        made.append(1)
        return "value"

    def ask(visitor, make):
        with turns.held(visitor):
            assert values.get("key", make) == "value"

    maker = threading.Thread(target=ask, args=("a", make), daemon=True)
    maker.start()
    assert inside.wait(10)
    other = threading.Thread(target=ask, args=("b", make), daemon=True)
    other.start()
    for thread in (maker, other):
        thread.join(10)
    assert made == [1] and not (maker.is_alive() or other.is_alive())


def test_one_person_has_so_many_questions_and_a_later_choice_is_no_further_one(clock):
    turns = Turns(Budget(questions=2))
    turns.ask("a", PICTURES, ("page", PICTURES))
    for _ in range(5):
        turns.ask("a", PICTURES, ("page", PICTURES))
    held = turns.ask("a", "controls")
    with pytest.raises(UserError, match=r"^2 of your questions wait or are at work here already"):
        turns.ask("a")
    turns.ask("b")
    turns.leave(held)
    turns.ask("a")


def test_a_person_is_a_login_or_a_session_or_where_a_program_runs():
    page = object()

    def asked(**known):
        usual = {"username": None, "session_hash": "event", "client": SimpleNamespace(host="::1")}
        tokens = [
            (LocalContext.request, LocalContext.request.set(SimpleNamespace(**usual | known))),
            (LocalContext.event_id, LocalContext.event_id.set("event")),
        ]
        found = caller(), who(page)
        for variable, token in tokens:
            variable.reset(token)
        return found

    assert asked(username="ann") == asked(username="ann", session_hash="tab 2")
    assert asked(username="ann") != asked(username="bob")
    assert asked(session_hash="one") != asked(session_hash="two")
    assert asked() == asked() != asked(client=SimpleNamespace(host="10.0.0.2"))
    assert asked()[1] == id(page)
