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


def child(idle_for: float) -> tuple[_Child, Channel]:
    channel, nowhere = Channel(), Any
    made: Any = channel
    since = asyncio.get_running_loop().time() - idle_for
    return _Child(nowhere, made, ready=True, idle_since=since), channel  # type: ignore[arg-type]


async def test_beyond_the_warm_ones_those_leave_that_had_no_run_for_long() -> None:
    crew = Crew(Worker(warm=2), on_catalogue=lambda _: None)
    kept = [child(1.0), child(SURPLUS_AGE - 5), child(2.0)]
    left = [child(SURPLUS_AGE + 1), child(SURPLUS_AGE + 100)]
    crew._children = {one for one, _ in (*kept, *left)}
    crew._retire_surplus()
    assert [channel.ended for _, channel in kept] == [False] * 3, "they may be needed in a moment"
    assert [channel.ended for _, channel in left] == [True] * 2


async def test_the_warm_ones_stay_however_long_nobody_asks() -> None:
    crew = Crew(Worker(warm=2), on_catalogue=lambda _: None)
    two = [child(SURPLUS_AGE * 10), child(SURPLUS_AGE * 20)]
    crew._children = {one for one, _ in two}
    crew._retire_surplus()
    assert [channel.ended for _, channel in two] == [False, False]
