"""Lanes: so many in memory, the rest in the store; automations take turns, and in each nobody overtakes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import pytest

from parley.runs.catalogue import Lane
from parley.runs.lanes import FEW, PAGE, Lanes, Page
from parley.runs.requests import QueuedRun

MOST = 2 * PAGE


def queued(number: int, lane: Lane = Lane.PEOPLE, automation: str = "look") -> QueuedRun:
    run_id = f"run-{number:08}"
    return QueuedRun(
        run_id=run_id,
        request_id=run_id,
        message_id=None,
        automation=automation,
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

    async def automations(self, lane: Lane) -> Mapping[str, int]:
        return Counter(one.automation for one in self.runs if one.lane is lane)

    async def page(self, lane: Lane, automation: str, known: AbstractSet[str], most: int) -> Page:
        self.reads += 1
        line = [one for one in self.runs if one.lane is lane and one.automation == automation]
        fresh = [one for one in line if one.run_id not in known]
        await self.held.wait()
        return Page(runs=tuple(fresh[:most]), queued=len(line) if len(fresh) > most else 0)


class Desk:
    """Lanes with their table, as the dispatcher uses them."""

    def __init__(self) -> None:
        self.table = Table()
        self.lanes = Lanes(self.table, most=MOST)
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
    desk.table.runs = [queued(0)]
    desk.lanes.look_in_store()
    desk.table.held.clear()
    reading = asyncio.create_task(desk.lanes.refill(Lane.PEOPLE, desk.known))
    await asyncio.sleep(0)
    desk.ask(queued(1))
    desk.ask(queued(2, automation="new"))
    desk.table.held.set()
    desk.known.update(one.run_id for one in await reading)
    assert desk.known >= {queued(0).run_id}
    assert {one.run_id for _ in range(3) if (one := await desk.next())} == {
        queued(n).run_id for n in range(3)
    }
    assert await desk.next() is None


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


async def test_automations_take_turns_however_many_wait_for_one(desk: Desk) -> None:
    for number in range(4 * PAGE):
        desk.ask(queued(number, automation="flood"))
    others = [queued(9000 + number, automation=name) for number, name in enumerate(("order", "stock"))]
    for one in others:
        desk.ask(one)
    assert len(list(desk.lanes)) == MOST + len(others)
    first = [taken.automation for _ in range(6) if (taken := await desk.next())]
    assert first == ["flood", "order", "stock", "flood", "flood", "flood"]


async def test_a_line_that_comes_back_waits_for_its_turn(desk: Desk) -> None:
    for number in range(3):
        desk.ask(queued(number, automation="one"))
    taken = []
    for number in range(3):
        desk.ask(queued(10 + number, automation="other"))
        taken += [one.automation for _ in range(2) if (one := await desk.next())]
    assert taken == ["one", "other"] * 3


async def test_what_may_share_a_flow_run_is_taken_together(desk: Desk) -> None:
    for number in range(10):
        desk.ask(queued(number, automation="flood"))
        desk.ask(queued(100 + number, automation="order"))
    flood, order = await desk.next(), await desk.next()
    assert flood is not None
    assert order is not None
    like = desk.lanes.take_like(order, 4)
    assert [one.run_id for one in like] == [queued(100 + n).run_id for n in range(1, 5)]
    assert desk.lanes.sizes()["people"] == 9 + 5


async def test_many_lines_hold_a_few_each_beyond_what_a_lane_holds(desk: Desk) -> None:
    for number in range(2 * MOST):
        desk.ask(queued(number, automation="flood"))
    for number in range(5 * FEW):
        desk.ask(queued(100_000 + number, automation="order"))
    assert len(list(desk.lanes)) == MOST + FEW
    taken: list[QueuedRun] = []
    while (found := await desk.next()) is not None:
        taken.append(found)
    for name, count in (("flood", 2 * MOST), ("order", 5 * FEW)):
        mine = [one.run_id for one in taken if one.automation == name]
        assert mine == sorted(mine), "in each line nobody overtakes"
        assert len(mine) == count
    assert [one.automation for one in taken[: 10 * FEW]].count("order") == 5 * FEW, (
        "they took turns all the while"
    )
    assert desk.most_in_memory <= MOST + 2 * FEW


async def test_an_earlier_hub_left_some_of_several(desk: Desk) -> None:
    for number in range(3 * PAGE):
        desk.table.runs.append(queued(number, automation="flood"))
    desk.table.runs.append(queued(100_000, automation="order"))
    desk.lanes.look_in_store()
    first = [one.automation for _ in range(3) if (one := await desk.next())]
    assert first.count("order") == 1


async def test_the_age_of_a_lane_is_that_of_its_oldest(desk: Desk) -> None:
    desk.ask(queued(1, automation="old"))
    desk.ask(queued(2, automation="new"))
    desk.ask(queued(3, automation="old"))
    await desk.next()
    head = desk.lanes.first()[Lane.PEOPLE]
    assert head is not None
    assert head.run_id == queued(2).run_id


async def test_with_room_in_another_line_nobody_waits_for_one_without(desk: Desk) -> None:
    desk.ask(queued(1, automation="elsewhere"))
    desk.ask(queued(2, automation="here"))
    found = desk.lanes.take(lambda one: one.automation == "here")
    assert found is not None
    assert found.run_id == queued(2).run_id
