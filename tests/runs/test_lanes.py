"""Lanes: so many in memory, the rest in the store, and nobody overtakes."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

import pytest

from parley.runs.catalogue import Lane
from parley.runs.lanes import PAGE, Lanes, Page
from parley.runs.requests import QueuedRun

MOST = 2 * PAGE


def queued(number: int, lane: Lane = Lane.PEOPLE) -> QueuedRun:
    run_id = f"run-{number:08}"
    return QueuedRun(
        run_id=run_id,
        request_id=run_id,
        message_id=None,
        automation="look",
        values={},
        actor="ann",
        lane=lane,
    )


class Table:
    """What the store holds: runs in the order of their making."""

    def __init__(self) -> None:
        self.runs: list[QueuedRun] = []
        self.reads = 0
        self.held = asyncio.Event()
        self.held.set()

    async def page(self, lane: Lane, known: AbstractSet[str], most: int) -> Page:
        self.reads += 1
        fresh = [one for one in self.runs if one.lane is lane and one.run_id not in known]
        await self.held.wait()
        return Page(runs=tuple(fresh[:most]), left=len(fresh[most:]))


class Desk:
    """Lanes with their table, as the dispatcher uses them."""

    def __init__(self) -> None:
        self.table = Table()
        self.lanes = Lanes(self.table.page, most=MOST)
        self.known: set[str] = set()
        self.most_in_memory = 0

    def ask(self, one: QueuedRun) -> None:
        self.table.runs.append(one)
        if self.lanes.add(one):
            self.known.add(one.run_id)

    async def refill(self) -> None:
        while low := self.lanes.low():
            for lane in low:
                self.known.update(one.run_id for one in await self.lanes.refill(lane, self.known))

    async def next(self) -> QueuedRun | None:
        await self.refill()
        self.most_in_memory = max(self.most_in_memory, len(list(self.lanes)))
        one = self.lanes.take(lambda _one: True)
        if one is not None:
            self.table.runs.remove(one)
            self.known.discard(one.run_id)
        return one


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_many_thousands_wait_in_the_store_and_come_in_their_order(desk: Desk) -> None:
    for number in range(7 * PAGE):
        desk.ask(queued(number))
    assert len(list(desk.lanes)) == MOST
    assert desk.lanes.sizes()["people"] == 7 * PAGE
    taken = []
    while (one := await desk.next()) is not None:
        taken.append(one.run_id)
        if len(taken) == PAGE:
            desk.ask(queued(7 * PAGE))  # comes last, though there is room in memory by now
    assert taken == [queued(number).run_id for number in range(7 * PAGE + 1)]
    assert desk.most_in_memory <= MOST
    assert desk.table.reads < 20
    assert desk.lanes.sizes()["people"] == 0


async def test_an_earlier_hub_left_some(desk: Desk) -> None:
    desk.table.runs = [queued(number) for number in range(3)]
    desk.lanes.look_in_store()
    assert [one.run_id for _ in range(3) if (one := await desk.next())] == [
        queued(n).run_id for n in range(3)
    ]
    desk.ask(queued(4))
    assert desk.known == {queued(4).run_id}


async def test_what_comes_while_a_page_is_read_is_not_forgotten(desk: Desk) -> None:
    desk.lanes.look_in_store()
    desk.table.held.clear()
    reading = asyncio.create_task(desk.lanes.refill(Lane.PEOPLE, desk.known))
    await asyncio.sleep(0)
    desk.ask(queued(1))
    desk.table.held.set()
    assert await reading == []
    found = await desk.next()
    assert found is not None
    assert found.run_id == queued(1).run_id


async def test_what_ends_while_a_page_is_read_does_not_come_back(desk: Desk) -> None:
    desk.table.runs = [queued(1), queued(2)]
    desk.lanes.look_in_store()
    desk.table.held.clear()
    reading = asyncio.create_task(desk.lanes.refill(Lane.PEOPLE, desk.known))
    await asyncio.sleep(0)
    desk.lanes.drop(queued(1).run_id)
    desk.table.held.set()
    assert [one.run_id for one in await reading] == [queued(2).run_id]


async def test_lanes_go_before_one_another_and_what_is_put_back_keeps_its_place(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.ask(queued(number))
    desk.ask(queued(4, Lane.ALERTS))
    assert desk.lanes.take(lambda _one: True) == queued_like(desk, 4)
    taken = [desk.lanes.take(lambda _one: True) for _ in range(3)]
    for one in (taken[2], taken[0], taken[1]):
        assert one is not None
        desk.lanes.put_back(one)
    assert [one.run_id for one in desk.lanes] == [queued(n).run_id for n in (1, 2, 3)]


def queued_like(desk: Desk, number: int) -> QueuedRun:
    """The run of this number as it was asked for."""
    return next(one for one in desk.table.runs if one.run_id == queued(number).run_id)
