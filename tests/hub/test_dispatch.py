"""The dispatcher beside a Prefect that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from parley.errors import LinkError, StoreUnavailable
from parley.people.sealing import Keyring
from parley.runs.catalogue import AutomationSpec, Catalogue, Lane
from parley.runs.dispatch import Dispatcher
from parley.runs.gate import MOST_AT_ONCE
from parley.runs.prefect_api import PrefectRefused, PrefectUnavailable
from parley.runs.requests import QueuedRun
from tests.fakes._driver import eventually

CATALOGUE = Catalogue(
    automations=(
        AutomationSpec(name="look", command="look", summary="", deployment="look/parley"),
        AutomationSpec(name="read", command="read", summary="", deployment="read/parley", batch=3),
        AutomationSpec(name="far", command="far", summary="", deployment="far/away", wrapped=False),
    )
)


def queued(run_id: str, automation: str = "look") -> QueuedRun:
    return QueuedRun(
        run_id=run_id,
        request_id=run_id,
        message_id=None,
        automation=automation,
        values={},
        actor="ann",
        lane=Lane.PEOPLE,
    )


@dataclass
class Prefect:
    """Makes a flow run for each key, in this state, when `open`."""

    state: str = "PENDING"
    created: list[str] = field(default_factory=list)
    states: list[tuple[str, str]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: Exception | None = None

    async def deployment_id(self, name: str) -> str:
        return name

    async def create_flow_run(self, deployment_id: str, *, key: str, **more: Any) -> dict[str, Any]:
        self.created.append(key)
        if self.refusal:
            raise self.refusal
        await self.open.wait()
        return await self.flow_run(f"flow-{key}")

    async def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        return {"id": flow_run_id, "state": {"type": self.state}}

    async def set_state(self, flow_run_id: str, kind: str, name: str, message: str) -> str:
        self.states.append((flow_run_id, kind))
        return "ACCEPT"


@dataclass
class Worker:
    """Takes orders."""

    orders: list[str] = field(default_factory=list)
    together: list[list[str]] = field(default_factory=list)
    """The runs of each order for several."""
    error: Exception | None = None

    async def call(self, name: str, args: Any, *, timeout: float) -> None:
        self.orders.append(args.run_id)
        if args.tokens:
            self.together.append(list(args.tokens))
        if self.error:
            error, self.error = self.error, None
            raise error


@dataclass
class Batches:
    """Notes what is put together."""

    formed: list[tuple[str, ...]] = field(default_factory=list)
    made_of: dict[str, str] = field(default_factory=dict)

    async def form(self, automation: str, run_ids: Sequence[str]) -> str:
        self.formed.append(tuple(run_ids))
        return f"batch-{len(self.formed)}"

    async def made(self, batch_id: str, flow_run_id: str) -> None:
        self.made_of[batch_id] = flow_run_id


@dataclass
class Desk:
    """A dispatcher and what is around it."""

    prefect: Prefect = field(default_factory=Prefect)
    worker: Worker = field(default_factory=Worker)
    batches: Batches = field(default_factory=Batches)
    refused: list[str] = field(default_factory=list)
    started: set[str] = field(default_factory=set)
    full: int = 0

    def __post_init__(self) -> None:
        self.prefect.open.set()
        prefect: Any = self.prefect
        batches: Any = self.batches
        workers: Any = lambda: [self.worker]  # noqa: E731
        self.dispatcher = Dispatcher(
            prefect,
            Keyring.generate(),
            catalogue=lambda: CATALOGUE,
            workers=workers,
            refused=self._refuse,
            unstarted=self._unstarted,
            room=1,
            batches=batches,
        )

    async def _refuse(self, one: QueuedRun, reason: str) -> None:
        if self.full:
            self.full -= 1
            raise StoreUnavailable("full")
        self.refused.append(one.run_id)
        self.dispatcher.ended(one.run_id)

    async def _unstarted(self, run_id: str) -> bool:
        return run_id not in self.started

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Dispatcher]:
        task = asyncio.create_task(self.dispatcher.run())
        try:
            yield self.dispatcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_runs_on_other_workers_takes_no_room() -> None:
    desk = Desk()
    async with desk.at_work() as dispatcher:
        for number in range(3):
            dispatcher.add(queued(f"far-{number}", "far"))
        dispatcher.add(queued("here"))
        dispatcher.add(queued("waits"))
        await eventually(lambda: desk.worker.orders == ["here"], "ordered")
        assert sorted(desk.prefect.created) == ["far-0", "far-1", "far-2", "here"]


async def test_what_ended_while_prefect_made_it_is_closed_there() -> None:
    desk = Desk()
    desk.prefect.open.clear()
    async with desk.at_work() as dispatcher:
        dispatcher.add(queued("one"))
        await eventually(lambda: desk.prefect.created == ["one"], "asked for")
        dispatcher.ended("one")
        desk.prefect.open.set()
        await eventually(lambda: desk.prefect.states == [("flow-one", "CANCELLED")], "closed")
        assert desk.worker.orders == []


async def test_a_run_that_goes_on_is_not_set_back() -> None:
    desk = Desk(Prefect(state="RUNNING"), started={"one"})
    async with desk.at_work() as dispatcher:
        dispatcher.add(queued("one"))
        await eventually(lambda: dispatcher.run_of("flow-one") == "one", "found again")
        await asyncio.sleep(0.05)
        assert (desk.prefect.states, desk.worker.orders) == ([], [])


async def test_a_run_whose_process_died_before_its_start_is_set_back() -> None:
    desk = Desk(Prefect(state="RUNNING"))
    async with desk.at_work() as dispatcher:
        dispatcher.add(queued("one"))
        await eventually(lambda: desk.worker.orders == ["one"], "ordered")
        assert desk.prefect.states == [("flow-one", "PENDING")]


async def test_a_refusal_that_could_not_be_stored_is_repeated() -> None:
    desk = Desk(full=1)
    async with desk.at_work() as dispatcher:
        desk.prefect.refusal = PrefectRefused("no", 401)
        dispatcher.add(queued("one"))
        await eventually(lambda: desk.refused == ["one"], "refused")


async def test_nothing_is_kept_of_what_ended_between_two_orders() -> None:
    desk = Desk()
    async with desk.at_work() as dispatcher:
        dispatcher.add(queued("one"))
        await eventually(lambda: desk.worker.orders == ["one"], "ordered")
        dispatcher.order_again("one")
        dispatcher.ended("one")
        assert dispatcher.run_of("flow-one") is None


async def test_while_prefect_is_away_all_wait_and_then_go_in_the_order_of_the_lanes() -> None:
    desk = Desk()
    desk.prefect.refusal = PrefectUnavailable("away")
    async with desk.at_work() as dispatcher:
        for number in range(30):
            dispatcher.add(queued(f"far-{number:02}", "far"))
        await eventually(lambda: dispatcher.gate.is_shut, "Prefect is away")
        dispatcher.add(replace(queued("urgent", "far"), lane=Lane.ALERTS))
        assert dispatcher.waits_for() == "prefect"
        assert len(set(desk.prefect.created)) <= MOST_AT_ONCE  # the others were not even tried
        desk.prefect.refusal = None
        tried = len(desk.prefect.created)
        await eventually(lambda: len(dispatcher.in_flight) == 31, "all were handed over")
        await eventually(lambda: not any(dispatcher.queue_sizes().values()), "nothing waits")
    made = desk.prefect.created[tried:]
    assert made == ["urgent", *(f"far-{number:02}" for number in range(30))]
    assert desk.refused == []


async def test_an_outage_uses_up_no_attempts() -> None:
    """Just after it Prefect may not have the deployments yet: that is waited for as after any start."""
    desk = Desk()
    desk.prefect.refusal = PrefectUnavailable("away")
    async with desk.at_work() as dispatcher:
        dispatcher.add(queued("one"))
        await eventually(lambda: len(desk.prefect.created) >= 3, "tried again and again")
        assert [one.attempt for one in dispatcher.waiting()] == [0]


async def test_prefect_is_asked_for_a_bounded_number_at_once() -> None:
    desk = Desk()
    desk.prefect.open.clear()
    async with desk.at_work() as dispatcher:
        for number in range(50):
            dispatcher.add(queued(f"far-{number:02}", "far"))
        await eventually(lambda: len(desk.prefect.created) == MOST_AT_ONCE, "asked for")
        await asyncio.sleep(0.05)
        assert len(desk.prefect.created) == MOST_AT_ONCE
        desk.prefect.open.set()
        await eventually(lambda: len(desk.prefect.created) == 50, "all are made")


# -- together


def reads(*numbers: int) -> list[QueuedRun]:
    return [queued(f"read-{number:02}", "read") for number in numbers]


async def test_what_waits_for_the_same_automation_shares_a_flow_run_and_a_place() -> None:
    desk = Desk()
    async with desk.at_work() as dispatcher:
        dispatcher.add(queued("first"))
        await eventually(lambda: desk.worker.orders == ["first"], "ordered")
        for one in [*reads(1, 2), queued("other"), *reads(3, 4)]:
            dispatcher.add(one)
        dispatcher.ended("first")
        await eventually(lambda: len(desk.worker.together) == 1, "three of them together")
        assert desk.worker.together == [["read-01", "read-02", "read-03"]]
        assert desk.batches.made_of == {"batch-1": "flow-batch-1"}
        assert sorted(dispatcher.runs_of("flow-batch-1")) == ["read-01", "read-02", "read-03"]
        assert [one.run_id for one in dispatcher.waiting()] == ["other", "read-04"]

        dispatcher.ended("read-01")
        dispatcher.ended("read-03")
        await asyncio.sleep(0.05)
        assert dispatcher.runs_of("flow-batch-1") == ["read-02"], "the place is free when the last has ended"
        assert desk.worker.orders == ["first", "batch-1"]
        dispatcher.ended("read-02")
        await eventually(lambda: desk.worker.orders[-1] == "other", "the next one")
        dispatcher.ended("other")
        await eventually(lambda: desk.worker.orders[-1] == "read-04", "one alone has a flow run for itself")


async def test_what_cannot_be_done_together_is_done_one_by_one() -> None:
    desk = Desk()
    desk.worker.error = LinkError("gone")
    async with desk.at_work() as dispatcher:
        for one in reads(1, 2):
            dispatcher.add(one)
        await eventually(lambda: desk.worker.orders[-1:] == ["read-01"], "alone")
        dispatcher.ended("read-01")
        await eventually(lambda: desk.worker.orders[-1:] == ["read-02"], "alone, too")
    assert desk.batches.formed == [("read-01", "read-02")]


async def test_what_went_wrong_once_takes_no_others_along() -> None:
    desk = Desk()
    async with desk.at_work() as dispatcher:
        for one in [replace(queued("lost", "read"), again=True), *reads(1, 2)]:
            dispatcher.add(one)
        await eventually(lambda: desk.worker.orders == ["lost"], "alone")
        dispatcher.ended("lost")
        await eventually(lambda: desk.worker.together == [["read-01", "read-02"]], "the others")


async def test_while_prefect_is_away_those_together_wait_and_go_together() -> None:
    desk = Desk()
    desk.prefect.refusal = PrefectUnavailable("away")
    async with desk.at_work() as dispatcher:
        for one in reads(1, 2):
            dispatcher.add(one)
        await eventually(lambda: dispatcher.gate.is_shut, "Prefect is away")
        assert [one.attempt for one in dispatcher.waiting()] == [0, 0]
        desk.prefect.refusal = None
        await eventually(lambda: desk.worker.together == [["read-01", "read-02"]], "handed over")


async def test_what_ended_while_their_flow_run_was_made_is_not_ordered() -> None:
    desk = Desk()
    desk.prefect.open.clear()
    async with desk.at_work() as dispatcher:
        for one in reads(1, 2, 3):
            dispatcher.add(one)
        await eventually(lambda: desk.prefect.created == ["batch-1"], "asked for")
        dispatcher.ended("read-02")
        desk.prefect.open.set()
        await eventually(lambda: desk.worker.together == [["read-01", "read-03"]], "the two that are left")
