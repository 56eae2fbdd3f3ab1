"""Workers begin in order, several at once and never more, and no item's end is another's."""

from __future__ import annotations

import asyncio

import pytest

from connectors._workers import Workers
from tests.fakes._driver import eventually


class Desk:
    """Handles numbers; those that are held wait until they are let go."""

    def __init__(self, most: int) -> None:
        self.begun: list[int] = []
        self.done: list[int] = []
        self.held: dict[int, asyncio.Event] = {}
        self.tasks: set[object] = set()
        self.workers: Workers[int] = Workers(self.handle, most)

    async def handle(self, number: int) -> None:
        self.begun.append(number)
        self.tasks.add(asyncio.current_task())
        if number in self.held:
            await self.held[number].wait()
        self.done.append(number)

    def hold(self, *numbers: int) -> None:
        self.held |= {number: asyncio.Event() for number in numbers}

    def is_full(self) -> bool:
        return self.workers.full

    async def puts(self, *numbers: int) -> None:
        for number in numbers:
            self.workers.put(number)
        await asyncio.sleep(0.01)


async def test_what_waits_for_nothing_is_done_by_one_task() -> None:
    desk = Desk(50)
    await desk.puts(*range(30))
    assert desk.done == list(range(30))
    assert len(desk.tasks) == 1


async def test_one_that_waits_holds_up_no_other() -> None:
    desk = Desk(50)
    desk.hold(0, 2)
    await desk.puts(0, 1, 2, 3)
    assert desk.begun == [0, 1, 2, 3]
    assert desk.done == [1, 3]
    desk.held[2].set()
    await eventually(lambda: desk.done == [1, 3, 2], "the third")
    await desk.workers.finish(0)
    assert desk.done == [1, 3, 2]


async def test_no_more_than_so_many_are_begun_and_the_others_follow_in_order() -> None:
    desk = Desk(2)
    desk.hold(0, 1)
    await desk.puts(0, 1, 2, 3)
    assert desk.begun == [0, 1]
    await desk.workers.room(0.01)
    assert desk.is_full()
    desk.held[0].set()
    await desk.workers.room(5)
    assert not desk.is_full()
    assert desk.begun == [0, 1, 2, 3]
    await desk.workers.finish(0)


async def test_there_is_room_until_so_many_are_open() -> None:
    desk = Desk(2)
    desk.hold(0, 1)
    await desk.puts(0)
    assert not desk.is_full()
    await desk.puts(1)
    assert desk.is_full()
    desk.held[1].set()
    await desk.workers.room(5)
    assert not desk.is_full()
    await desk.workers.finish(0)


@pytest.mark.parametrize("end", [asyncio.CancelledError, ValueError])
async def test_an_item_that_ends_its_worker_ends_no_other(end: type[BaseException]) -> None:
    done = []

    async def handle(number: int) -> None:
        await asyncio.sleep(0)
        if number == 0:
            raise end
        done.append(number)

    # One worker at a time: what waits behind the one that ended needs a new one.
    workers = Workers(handle, 1)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for number in range(3):
        workers.put(number)
    await eventually(lambda: done == [1, 2], "the others")
    await workers.finish(0)


async def test_finishing_gives_time_and_then_no_more() -> None:
    desk = Desk(2)
    desk.hold(0, 1)
    await desk.puts(0, 1, 2)
    asyncio.get_running_loop().call_later(0.02, desk.held[0].set)
    before = asyncio.all_tasks()
    await desk.workers.finish(0.2)
    assert desk.done == [0, 2]
    assert len(asyncio.all_tasks()) < len(before)


async def test_finishing_that_is_broken_off_leaves_no_task() -> None:
    desk = Desk(2)
    desk.hold(0)
    await desk.puts(0)
    finishing = asyncio.create_task(desk.workers.finish(60))
    await asyncio.sleep(0.01)
    finishing.cancel()
    await asyncio.wait({finishing})
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_worker_that_was_ended_before_it_began_is_missed_by_nobody() -> None:
    desk = Desk(2)
    desk.workers.put(0)
    await desk.workers.finish(0)
    assert desk.done == []
    await desk.puts(1)
    assert desk.done == [1]
