"""The crew's own rules, without processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from parley.runs.crew import SURPLUS_AGE, Crew, _Child
from parley.settings import Worker


@dataclass
class Channel:
    """The way to a child; at its end the child leaves."""

    ended: bool = False

    def end(self) -> None:
        self.ended = True


def child(idle_for: float, runs: int = 0) -> tuple[_Child, Channel]:
    channel, nowhere = Channel(), Any
    made: Any = channel
    since = asyncio.get_running_loop().time() - idle_for
    return _Child(nowhere, made, ready=True, idle_since=since, runs=runs), channel  # type: ignore[arg-type]


async def test_beyond_the_warm_ones_those_leave_that_had_no_run_for_long() -> None:
    crew = Crew(Worker(warm=2), on_catalogue=lambda _: None)
    kept = [child(1.0), child(SURPLUS_AGE - 5), child(2.0)]
    left = [child(SURPLUS_AGE + 1), child(SURPLUS_AGE + 100)]
    crew._children = {one for one, _ in (*kept, *left)}
    crew._rest()
    assert [channel.ended for _, channel in kept] == [False] * 3, "they may be needed in a moment"
    assert [channel.ended for _, channel in left] == [True] * 2


async def test_the_warm_ones_stay_however_long_nobody_asks() -> None:
    crew = Crew(Worker(warm=2), on_catalogue=lambda _: None)
    two = [child(SURPLUS_AGE * 10), child(SURPLUS_AGE * 20)]
    crew._children = {one for one, _ in two}
    crew._rest()
    assert [channel.ended for _, channel in two] == [False, False]


async def test_when_all_rest_one_that_has_run_stays_and_the_others_are_made_anew() -> None:
    crew = Crew(Worker(warm=3), on_catalogue=lambda _: None)
    most, worn, fresh = child(SURPLUS_AGE + 1, runs=9), child(SURPLUS_AGE + 2, runs=4), child(SURPLUS_AGE * 2)
    crew._children = {one for one, _ in (most, worn, fresh)}
    crew._rest()
    assert [channel.ended for _, channel in (most, worn, fresh)] == [False, True, False]


async def test_while_somebody_may_come_back_in_a_moment_all_that_have_run_stay() -> None:
    crew = Crew(Worker(warm=3), on_catalogue=lambda _: None)
    three = [child(SURPLUS_AGE - 20, runs=9), child(SURPLUS_AGE + 2, runs=4), child(SURPLUS_AGE + 2, runs=1)]
    crew._children = {one for one, _ in three}
    crew._rest()
    assert [channel.ended for _, channel in three] == [False] * 3
    assert crew._resting is not None, "looked at again when the youngest has rested"
