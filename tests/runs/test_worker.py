"""The worker with real children, a real Prefect server and a hub on the real link."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.prefect_fixture import PrefectServer
from tests.prefect_fixture import own_server as prefect_server
from tests.runs.worker_stack import Stack, running

__all__ = ["prefect_server"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
async def stack(prefect_server: PrefectServer, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running(prefect_server, tmp_path) as stack:
        yield stack


@pytest.mark.parametrize("name", ["quick", "quick_sync"])
async def test_an_order_runs_at_once(stack: Stack, name: str) -> None:
    """A pushed order is entered in milliseconds, ends Completed, and the hub is told."""
    first = await stack.order(name)
    assert (await stack.ended(first))["how"] == "finished"
    second = await stack.order(name)
    ended = await stack.ended(second)
    assert (ended["how"], ended["state"]) == ("finished", "Completed")
    assert await stack.state(second) == "Completed"
    starts = [args for called, args in stack.hub.calls if called == "start"]
    assert {start["token"] for start in starts} == {f"token-{first}", f"token-{second}"}


@pytest.mark.parametrize(
    ("name", "seen"), [("lasting", "cancelled"), ("lasting_sync", "TerminationSignal"), ("blocking", "")]
)
async def test_a_cancel_of_the_hub_ends_the_run(stack: Stack, name: str, seen: str) -> None:
    """An async flow is cancelled, a sync one interrupted; Prefect says Cancelled without having said Crashed."""
    run = await stack.order(name, seconds=60)
    await stack.noted("entered")
    assert await stack.cancel(run)
    assert (await stack.ended(run))["how"] == "cancelled"
    assert await stack.state(run) == "Cancelled"
    assert not seen or stack.lines(seen)
    assert not stack.lines("finished")


async def test_a_run_that_does_not_let_itself_be_ended_is_killed(stack: Stack) -> None:
    """After the grace its process is killed; its neighbours do not notice."""
    run, neighbour = await stack.order("stubborn"), await stack.order("lasting", seconds=8)
    await stack.noted("entered", 2)
    assert await stack.cancel(run)
    assert (await stack.ended(run))["how"] == "cancelled"
    assert await stack.state(run) == "Cancelled"
    assert (await stack.ended(neighbour))["state"] == "Completed"


async def test_a_cancel_in_prefects_pages_ends_the_run(stack: Stack) -> None:
    """State Cancelling, set by anybody, is observed within seconds."""
    run = await stack.order("lasting_sync", seconds=60)
    await stack.noted("entered")
    await stack.api.set_state(run, "CANCELLING", "Cancelling", "", force=False)
    assert (await stack.ended(run))["how"] == "cancelled"
    assert await stack.state(run) == "Cancelled"


@pytest.mark.parametrize("name", ["lasting", "lasting_sync"])
async def test_a_time_limit_ends_the_run(stack: Stack, name: str) -> None:
    """A run over its time is ended and is TimedOut."""
    run = await stack.order(name, seconds=60, limit=1.0)
    assert (await stack.ended(run))["how"] == "timed-out"
    assert await stack.state(run) == "TimedOut"


async def test_a_child_that_dies_harms_nobody_else(stack: Stack) -> None:
    """Kill -9 of one child: its run is Crashed with the reason, the others go on, the next order is taken."""
    run, neighbour = await stack.order("suicide"), await stack.order("lasting", seconds=3)
    ended = await stack.ended(run)
    assert ended["how"] == "crashed"
    assert "SIGKILL" in ended["reason"]
    assert await stack.state(run) == "Crashed"
    assert (await stack.ended(neighbour))["state"] == "Completed"
    assert (await stack.ended(await stack.order("quick")))["state"] == "Completed"


async def test_the_forking_processes_may_be_killed(stack: Stack) -> None:
    """Kill -9 of nursery and stem: running runs finish, and new ones find new children."""
    run = await stack.order("lasting", seconds=4)
    ((child, _),) = await stack.noted("entered")
    parents = [process for process in stack.family() if process.pid != child and process.children()]
    assert len(parents) == 2
    for process in parents:
        os.kill(process.pid, signal.SIGKILL)
    assert (await stack.ended(await stack.order("quick_sync")))["state"] == "Completed"
    assert (await stack.ended(run))["state"] == "Completed"
    assert (await stack.ended(await stack.order("quick")))["state"] == "Completed"


async def test_children_of_a_killed_worker_finish_their_run(stack: Stack) -> None:
    """Kill -9 of the worker: the run goes on to its end, idle processes leave, the next worker is not disturbed."""
    run = await stack.order("lasting", seconds=6)
    await stack.noted("entered")
    family = {process.pid for process in stack.family()}
    os.kill(stack.pid, signal.SIGKILL)
    assert stack.process
    await stack.process.wait()
    await stack.start_worker()
    assert (await stack.ended(await stack.order("quick")))["state"] == "Completed"
    await stack.noted("finished")
    assert await stack.state_becomes(run, "Completed", "Crashed") == "Completed"
    await stack.all_gone(family)


async def test_a_graceful_stop_lets_runs_finish(stack: Stack) -> None:
    """SIGTERM: what runs may finish, no process is left, and new orders are not taken."""
    run = await stack.order("lasting_sync", seconds=3)
    await stack.noted("entered")
    family = {process.pid for process in stack.family()}
    assert await stack.stop() == 0
    assert (await stack.ended(run))["state"] == "Completed"
    await stack.all_gone(family)


async def test_the_worker_tells_a_new_hub_what_it_holds(stack: Stack) -> None:
    """After a break of the link the hub hears of the runs that are here, and gets the catalogue again."""
    run = await stack.order("lasting", seconds=5)
    await stack.noted("entered")
    stack.hub.forget()
    assert stack.hub.worker
    await stack.hub.worker._connection.close()
    assert (await stack.hub.wait_for("holding"))["flow_run_ids"] == [run]
    catalogue = await stack.hub.wait_for("publish_catalogue")
    assert "quick" in {spec["command"] for spec in catalogue["automations"]}
    assert (await stack.ended(run))["state"] == "Completed"


async def test_a_child_that_cannot_leave_is_killed(stack: Stack) -> None:
    """What a flow left running does not keep the worker from stopping."""
    assert (await stack.ended(await stack.order("lingering")))["state"] == "Completed"
    family = {process.pid for process in stack.family()}
    assert await stack.stop() == 0
    await stack.all_gone(family)


async def test_a_stopping_worker_tells_the_hub_although_prefect_does_not_answer(
    stack: Stack, prefect_server: PrefectServer
) -> None:
    """Who is stopped has little time: the hub hears of a run that had to be ended before Prefect's state is right."""
    run = await stack.order("lasting_sync", seconds=300)
    await stack.noted("entered")
    prefect_server.process.send_signal(signal.SIGSTOP)
    stopping = asyncio.create_task(stack.stop())
    try:
        async with asyncio.timeout(32):  # what the supervisor gives it
            assert (await stack.hub.wait_for("run_ended", flow_run_id=run))["how"] == "crashed"
    finally:
        prefect_server.process.send_signal(signal.SIGCONT)
        assert await stopping == 0
