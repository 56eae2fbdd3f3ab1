"""Lanes keep the order within each of them, hold up no other one, and lose nothing of what is behind a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from connectors._lanes import Lanes
from tests.fakes._driver import eventually


class Record:
    """What was done, in order; some of it waits until it is let go."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.held: dict[str, asyncio.Event] = {}

    def work(self, name: str, *, held: bool = False) -> Callable[[], Awaitable[None]]:
        if held:
            self.held[name] = asyncio.Event()

        async def do() -> None:
            if held:
                await self.held[name].wait()
            self.done.append(name)

        return do


async def test_a_lane_has_its_order_and_holds_up_no_other() -> None:
    record, lanes = Record(), Lanes(10)
    lanes.put("a", record.work("a1", held=True))
    lanes.put("a", record.work("a2"))
    lanes.put("b", record.work("b1"))
    await eventually(lambda: record.done == ["b1"], "the other lane")
    lanes.put("a", record.work("a3"))
    record.held["a1"].set()
    await eventually(lambda: record.done == ["b1", "a1", "a2", "a3"], "the rest of the lane")


async def test_what_is_put_while_a_lane_ends_is_done_once_and_in_order() -> None:
    record, lanes = Record(), Lanes(1000)
    for number in range(200):
        lanes.put("a", record.work(f"{number}"))
        for _ in range(number % 4):  # at every moment of the task's end
            await asyncio.sleep(0)
    await eventually(lambda: len(record.done) == 200, "all of it")
    assert record.done == [f"{number}" for number in range(200)]


@pytest.mark.parametrize("end", [asyncio.CancelledError, ValueError])
async def test_what_is_behind_a_failure_is_done(end: type[BaseException]) -> None:
    record, lanes = Record(), Lanes(10)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise end

    lanes.put("a", fail)
    lanes.put("a", record.work("behind"))
    await eventually(lambda: record.done == ["behind"], "what is behind it")


async def test_there_is_room_until_so_many_are_open() -> None:
    record, lanes = Record(), Lanes(2)
    lanes.put("a", record.work("a1", held=True))
    assert lanes.room.is_set()
    lanes.put("a", record.work("a2"))
    assert not lanes.room.is_set()
    record.held["a1"].set()
    await asyncio.wait_for(lanes.room.wait(), 5)


async def test_closing_leaves_no_task_and_does_nothing_more() -> None:
    record, lanes = Record(), Lanes(10)
    lanes.put("a", record.work("a1", held=True))
    lanes.put("a", record.work("a2"))
    lanes.put("b", record.work("b1"))
    await lanes.aclose()
    assert record.done == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
