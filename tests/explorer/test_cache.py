"""A cache makes a value once, however many ask, and forgets what was used least recently."""

import threading
import time

import pytest

from explorer.cache import Cache


def test_a_value_is_made_once_and_kept():
    cache, made = Cache(), []
    for _ in range(3):
        assert cache.get("key", lambda: made.append(1) or "value") == "value"
    assert made == [1]


def test_threads_that_ask_for_one_key_wait_for_one_making():
    cache, made, answers = Cache(), [], []
    barrier = threading.Barrier(8)

    def slow():
        made.append(threading.get_ident())
        time.sleep(0.05)
        return object()

    def ask():
        barrier.wait()
        answers.append(cache.get("model", slow))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(set(map(id, answers))) == 1
    assert not cache._making  # no lock is left behind


def test_making_one_key_does_not_hold_up_another():
    cache, inside, go_on = Cache(), threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert go_on.wait(5)
        return "slow"

    thread = threading.Thread(target=cache.get, args=("slow", slow))
    thread.start()
    assert inside.wait(5)
    assert cache.get("quick", lambda: "quick") == "quick"
    go_on.set()
    thread.join()
    assert cache.peek("slow") == "slow"


def test_a_making_may_ask_for_another_key():
    cache = Cache()
    assert cache.get("mapper", lambda: cache.get("trials", lambda: 2) + 1) == 3


def test_what_fails_is_not_kept_and_can_be_tried_again():
    cache = Cache()

    def fail():
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        cache.get("model", fail)
    assert cache.get("model", lambda: "there") == "there"
    assert not cache._making


def test_the_least_recently_used_goes_first():
    cache = Cache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.peek("a")
    cache.put("c", 3)
    assert cache.peek("b") is None and cache.peek("a") == 1 and cache.peek("c") == 3


def test_sizes_are_summed_and_a_replaced_value_counts_once():
    cache = Cache(10, size=len)
    cache.put("a", "x" * 6)
    cache.put("a", "x" * 4)
    cache.put("b", "x" * 6)
    assert cache.total == 10 and len(cache) == 2
    cache.put("c", "x")
    assert cache.peek("a") is None and cache.total == 7


def test_a_value_above_the_limit_is_returned_but_not_kept():
    cache = Cache(3, size=len)
    cache.put("a", "xx")
    assert cache.get("big", lambda: "xxxx") == "xxxx"
    assert cache.peek("big") is None and cache.peek("a") == "xx"
