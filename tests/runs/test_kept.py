"""What a process keeps: bounded, for a time, one computation for a key, nothing across a fork."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from parley.runs.kept import Entry, Flight, Kept, seconds


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def put(kept: Kept[Any], key: str, value: Any) -> None:
    flight, mine = kept.board(key)
    assert mine
    assert isinstance(flight, Flight)
    with kept.lead(key, flight, unless=lambda _: False):
        flight.land(value)


def value(kept: Kept[Any], key: str) -> Any:
    entry = kept.find(key)
    return entry.value if entry else None


def test_a_value_is_kept_for_its_time_counted_from_where_it_was_begun() -> None:
    clock = Clock()
    kept: Kept[str] = Kept(10, 30, clock=clock)
    flight, _ = kept.board("a")
    assert isinstance(flight, Flight)
    with kept.lead("a", flight, unless=lambda _: False):
        clock.at += 10
        flight.land("A")
    assert kept.find("a") == Entry("A", 1000.0)
    clock.at += 19.9
    assert value(kept, "a") == "A"
    clock.at += 0.2
    assert value(kept, "a") is None
    assert len(kept) == 0


def test_what_took_longer_than_it_may_be_old_is_given_to_who_waited_and_not_kept() -> None:
    clock = Clock()
    kept: Kept[str] = Kept(10, 30, clock=clock)
    flight, _ = kept.board("a")
    assert isinstance(flight, Flight)
    with kept.lead("a", flight, unless=lambda _: False):
        clock.at += 31
        flight.land("A")
    assert flight.ended.result(0) == Entry("A", 1000.0)
    assert value(kept, "a") is None


def test_the_least_recently_used_goes_first() -> None:
    kept: Kept[str] = Kept(3, 30, clock=Clock())
    for key in "abc":
        put(kept, key, key.upper())
    assert value(kept, "a") == "A"
    put(kept, "d", "D")
    assert [value(kept, key) for key in "abcd"] == ["A", None, "C", "D"]
    assert len(kept) == 3


def test_what_is_too_old_is_gone_when_anybody_looks_for_anything() -> None:
    """It is not only not given: nothing refers to it any more."""
    clock = Clock()
    kept: Kept[str] = Kept(10, 30, clock=clock)
    put(kept, "a", "A")
    clock.at += 31
    assert kept.find("another") is None
    assert len(kept._entries._Cache__data) == 0  # type: ignore[attr-defined]


def test_a_value_that_was_forgotten_while_it_was_computed_is_not_kept() -> None:
    kept: Kept[str] = Kept(10, 30, clock=Clock())
    before, _ = kept.board("a")
    assert isinstance(before, Flight)
    with kept.lead("a", before, unless=lambda _: False):
        kept.forget("a")
        put(kept, "a", "new")  # who asks after it computes anew
        before.land("old")
    assert value(kept, "a") == "new"
    assert before.ended.result(0) == Entry("old", 1000.0)
    kept.forget_all()
    assert value(kept, "a") is None
    kept.forget("a")


def test_the_clock_goes_on() -> None:
    assert 0 <= seconds() - seconds() + 1 <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_has_nothing_of_its_parent_and_waits_for_none_of_its_threads() -> None:
    kept: Kept[str] = Kept(10, 30)
    put(kept, "kept", "A")
    flight, _ = kept.board("under way")
    assert isinstance(flight, Flight)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with kept._lock:
            held.set()
            go_on.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        # In the child: its parent's thread is not here, and would never give the lock back.
        try:
            fresh = kept.find("kept") is None and kept.board("under way")[1]
            os.write(writer, b"fresh" if fresh else b"not fresh")
        finally:
            os._exit(0)
    go_on.set()
    thread.join(10)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    assert said == b"fresh"
    assert value(kept, "kept") == "A"
