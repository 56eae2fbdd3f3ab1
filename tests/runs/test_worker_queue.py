"""Who runs first, runs that Prefect hands out, the other way to start the worker, and changes of parley.toml."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley.errors import LinkError, StartRefused
from tests.prefect_fixture import PrefectServer
from tests.prefect_fixture import own_server as prefect_server
from tests.runs.worker_stack import Stack, running

__all__ = ["prefect_server"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


@pytest.fixture
async def narrow(prefect_server: PrefectServer, tmp_path: Path) -> AsyncIterator[Stack]:
    """Two children at most, of which one is kept for urgent orders; each takes two runs."""
    toml = "[worker]\nchildren = 2\nwarm = 1\nruns = 2\n"
    async with running(prefect_server, tmp_path, toml) as stack:
        yield stack


async def test_an_urgent_order_overtakes(narrow: Stack) -> None:
    """The kept place is for it, however many ordinary orders run and wait."""
    long = await narrow.order("lasting", seconds=8)
    waiting = [await narrow.order("quick") for _ in range(3)]
    await narrow.noted("entered")
    urgent = await narrow.order("quick_sync", urgent=True)
    assert (await narrow.ended(urgent))["state"] == "Completed"
    told = [args["flow_run_id"] for called, args in narrow.hub.calls if called == "run_ended"]
    assert told == [urgent]
    for run in (long, *waiting):
        assert (await narrow.ended(run))["state"] == "Completed"


async def test_the_hub_is_told_how_the_children_are(narrow: Stack) -> None:
    """Who is busy, who is warm, and how many orders wait: for the metrics and `parley status`."""
    long = await narrow.order("lasting", seconds=60)
    waiting = [await narrow.order("quick") for _ in range(2)]
    await narrow.noted("entered")
    assert narrow.hub.worker
    async with asyncio.timeout(30):
        while (told := await narrow.hub.worker.call("crew"))["warm"] < 1:  # noqa: ASYNC110 - a child gets ready
            await asyncio.sleep(0.1)
    assert told == {"busy": 1, "warm": 1, "changing": 0, "waiting": 2}
    assert await narrow.cancel(long)
    for run in waiting:
        await narrow.ended(run)
    async with asyncio.timeout(30):
        while (await narrow.hub.worker.call("crew"))["busy"]:  # noqa: ASYNC110 - a child becomes free
            await asyncio.sleep(0.1)


async def test_a_child_is_replaced_after_its_runs(narrow: Stack) -> None:
    """With `runs = 2` no process takes a third run."""
    for _ in range(5):
        await narrow.ended(await narrow.order("quick"))
    pids = [pid for pid, _ in narrow.lines("entered")]
    assert len(pids) == 5
    assert max(pids.count(pid) for pid in pids) <= 2


async def test_a_waiting_order_is_cancelled_before_it_starts(narrow: Stack) -> None:
    """By the hub, or in Prefect: it never enters its flow."""
    long = await narrow.order("lasting", seconds=60)
    await narrow.noted("entered")
    by_hub, by_page = await narrow.order("quick"), await narrow.order("quick")
    assert await narrow.cancel(by_hub)
    assert (await narrow.ended(by_hub))["how"] == "cancelled"
    assert await narrow.state(by_hub) == "Cancelled"
    await narrow.api.set_state(by_page, "CANCELLING", "Cancelling", "", force=False)
    assert (await narrow.ended(by_page))["how"] == "cancelled"
    assert await narrow.cancel(long)
    await narrow.ended(long)
    assert len(narrow.lines("entered")) == 1


async def test_what_waits_goes_back_when_the_worker_stops(narrow: Stack) -> None:
    """An order that no child has begun is handed back: the hub can order it again, and Prefect has it Pending."""
    long = await narrow.order("lasting", seconds=4)
    waiting = await narrow.order("quick")
    await narrow.noted("entered")
    assert await narrow.stop() == 0
    assert (await narrow.ended(waiting))["how"] == "refused"
    assert await narrow.state(waiting) == "Pending"
    assert (await narrow.ended(long))["state"] == "Completed"


async def test_the_same_order_twice_is_one_run(narrow: Stack) -> None:
    """A repeated push changes nothing, while it runs and after."""
    flow_run = await narrow.create("lasting", seconds=2)
    run = await narrow.push(flow_run)
    await narrow.push(flow_run)
    assert (await narrow.ended(run))["state"] == "Completed"
    narrow.hub.forget()
    await narrow.push(flow_run | {"state": (await narrow.api.flow_run(run))["state"]})
    assert (await narrow.ended(run))["state"] == "Completed"
    assert len(narrow.lines("entered")) == 1


async def test_a_run_that_prefect_hands_out_is_registered_first(narrow: Stack) -> None:
    """A scheduled run gets its token from the hub before its start."""
    flow_run = await narrow.create("quick", pending=False)
    assert (await narrow.ended(flow_run["id"]))["state"] == "Completed"
    names = [called for called, args in narrow.hub.calls if args.get("flow_run_id") == flow_run["id"]]
    assert names[:2] == ["register", "start"]
    start = next(args for called, args in narrow.hub.calls if called == "start")
    assert start["token"] == "registered"


async def test_a_run_that_the_hub_refuses_ends_before_its_first_task(narrow: Stack) -> None:
    """Its state says why; nothing was entered."""
    narrow.hub.refusals["register"] = StartRefused("forbidden needs a grant: ask the owner.")
    flow_run = await narrow.create("forbidden", pending=False)
    assert await narrow.state_becomes(flow_run["id"], "Refused", "Completed") == "Refused"
    said = (await narrow.api.flow_run(flow_run["id"]))["state"]["message"]
    assert said == "forbidden needs a grant: ask the owner."
    assert not narrow.lines("entered")


async def test_without_the_hub_nothing_that_prefect_hands_out_runs(narrow: Stack) -> None:
    """It stays Scheduled, and runs once the hub answers."""
    narrow.hub.refusals["register"] = LinkError("not now")
    flow_run = await narrow.create("quick", pending=False)
    await narrow.hub.wait_for("register", flow_run_id=flow_run["id"])
    narrow.hub.forget()
    await narrow.hub.wait_for("register", flow_run_id=flow_run["id"])
    assert await narrow.state(flow_run["id"]) in ("Scheduled", "Late")
    narrow.hub.refusals.clear()
    assert (await narrow.ended(flow_run["id"]))["state"] == "Completed"


async def test_a_changed_parley_toml_is_taken_up(narrow: Stack) -> None:
    """After `reload` new children know the new modules; a run that was going on finishes as it began."""
    run = await narrow.order("lasting", seconds=4)
    await narrow.noted("entered")
    narrow.change_modules("flows")
    narrow.hub.forget()
    assert narrow.hub.worker
    await narrow.hub.worker.call("reload", {}, timeout=30)
    catalogue = await narrow.hub.wait_for("publish_catalogue")
    assert "quick" not in {spec["command"] for spec in catalogue["automations"]}
    assert (await narrow.ended(run))["state"] == "Completed"


async def test_prefects_own_command_starts_it(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """`prefect worker start --type parley` finds the type, runs orders, and leaves nothing behind."""
    async with running(prefect_server, tmp_path, start=False) as stack:
        argv = ["-m", "prefect", "worker", "start", "--pool", "parley", "--type", "parley", "--name", "cli"]
        stack.process = await asyncio.create_subprocess_exec(sys.executable, *argv, env=stack.environment)
        await stack.hub.wait_for("publish_catalogue")
        assert (await stack.ended(await stack.order("quick")))["state"] == "Completed"
        family = {process.pid for process in stack.family()}
        stack.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(stack.process.wait(), 30)
        await stack.all_gone(family)
