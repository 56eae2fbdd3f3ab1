"""What the tests of the lean engine run as a client process: `python -m tests.runs.warm_programs NAME`, prints JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
import sys
import threading
import time
from typing import Any

from prefect import flow, get_client, get_run_logger, task
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Pending, Suspended

from parley.runs import lean
from parley.runs.execute import Executor, Relinquished, flush


@task
async def fetch(number: int) -> int:
    get_run_logger().info("fetched %s", number)
    return number


@task
async def double(number: int) -> int:
    return number * 2


@flow
async def chain(number: int, times: int = 1) -> int:
    get_run_logger().info("chain of %s", number)
    return await double(await fetch(number)) * times


@task
def double_here(number: int) -> int:
    return number * 2


@flow
def chain_sync(number: int, times: int = 1) -> int:
    get_run_logger().info("chain of %s", number)
    return double_here(number) * times


@flow
async def fails(number: int) -> int:
    raise ValueError(f"no {number} here")


@flow
async def sleeps(number: int) -> int:
    await asyncio.sleep(number)
    return await double(number)


def create(executor: Executor, wanted: Any, state: State[Any] | None = None, **parameters: Any) -> FlowRun:
    """Create a run of a deployment of `wanted`, as the hub does."""

    async def make() -> FlowRun:
        client = executor.client
        deployment = await client.create_deployment(await client.create_flow(wanted), "warm")
        return await client.create_flow_run_from_deployment(
            deployment, parameters=parameters, state=state or Pending()
        )

    return executor.call(make())


async def seen(flow_run: FlowRun) -> dict[str, Any]:
    """Return what the server, and so a person in the UI, knows of a run."""
    async with get_client() as client:
        states = await client.read_flow_run_states(flow_run.id)
        wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run.id]))
        tasks = await client.read_task_runs(task_run_filter=wanted)
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run.id])))
        body = {"filter": {"any_resource": {"id": [f"prefect.flow-run.{flow_run.id}"]}}}
        events = (await client.request("POST", "/events/filter", json=body)).json()["events"]
        return {
            "states": [state.name for state in sorted(states, key=lambda state: state.timestamp)],
            "tasks": {run.name.rsplit("-", 1)[0]: run.state_name for run in tasks},
            "edges": sum(len(inputs) for run in tasks for inputs in run.task_inputs.values()),
            "logs": [log.message for log in logs],
            "events": sorted({event["event"] for event in events}),
        }


def whole() -> dict[str, Any]:
    """Run both kinds of flow and return what can be seen of them."""
    with Executor() as executor:
        made = {
            "async": create(executor, chain, number=2100),
            "sync": create(executor, chain_sync, number=2100, times=2),
        }
        values = {
            "async": executor.call(executor.run(chain, made["async"]).aresult()),
            "sync": executor.call(executor.run(chain_sync, made["sync"]).aresult()),
        }
    time.sleep(7)  # the server keeps events for 5 s before it writes them
    return {kind: {"value": values[kind]} | asyncio.run(seen(made[kind])) for kind in made}


def costs() -> dict[str, Any]:
    """Count what a warm run must not do."""
    contexts, threads = list[int](), list[str]()
    make_context, start = ssl.create_default_context, threading.Thread.start

    def counted_context(*arguments: Any, **options: Any) -> ssl.SSLContext:
        contexts.append(1)
        return make_context(*arguments, **options)

    def counted_start(thread: threading.Thread) -> None:
        threads.append(thread.name)
        start(thread)

    with Executor() as executor:
        for wanted in (chain, chain_sync):
            executor.run(wanted, create(executor, wanted, number=1))
        ssl.create_default_context, threading.Thread.start = counted_context, counted_start  # type: ignore[assignment, method-assign]
        runs = [
            (wanted, create(executor, wanted, number=1)) for wanted in (chain, chain_sync) for _ in range(5)
        ]
        slowest = 0.0
        for wanted, run in runs:
            begin = time.perf_counter()
            executor.run(wanted, run)
            slowest = max(slowest, time.perf_counter() - begin)
        threading.Thread.start = start  # type: ignore[method-assign]
        return {"contexts": len(contexts), "threads": threads, "slowest_s": slowest}


def ends() -> dict[str, Any]:
    """Return how runs end that do not complete, and that the executor goes on after each."""
    with Executor() as executor:
        result = {"failed": _outcome(executor, fails, create(executor, fails, number=3))}
        result["refused"] = _outcome(executor, chain, create(executor, chain, state=Cancelled(), number=3))
        suspended = create(executor, sleeps, number=1)
        threading.Timer(0.3, lean.request_suspension, (suspended.id, Suspended())).start()
        result["suspended"] = _outcome(executor, sleeps, suspended)
        result["bad parameter"] = _outcome(executor, chain, create(executor, chain, number="many"))
        result["cancelled"] = _cancelled(executor)
        result["unknown run"] = str(lean.request_suspension(suspended.id, Suspended()))
        result["after"] = _outcome(executor, chain, create(executor, chain, number=1))
        return result


def _outcome(executor: Executor, wanted: Any, run: FlowRun) -> str:
    try:
        state = executor.run(wanted, run)
    except Relinquished as gone:
        return f"relinquished: {gone.state.name if gone.state else None}"
    return f"{state.name}: {state.message}"


def _cancelled(executor: Executor) -> str:
    """Interrupt a run as the worker does, with SIGINT, and return what the server then holds."""
    run = create(executor, sleeps, number=30)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    begin = time.monotonic()
    try:
        executor.run(sleeps, run)
    except KeyboardInterrupt:
        state = executor.call(executor.client.read_flow_run(run.id)).state
        return f"{state.name if state else None} in {time.monotonic() - begin:.0f} s"
    return "was not interrupted"


def forked() -> dict[str, Any]:
    """Fork three children from this preloaded parent; each runs a flow with its own clients."""
    threads = [thread.name for thread in threading.enumerate()]
    children = [_fork(number) for number in range(3)]
    answers = []
    for pid, reading in children:
        with os.fdopen(reading) as answer:
            answers.append(json.loads(answer.read()))
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
    logs = [asyncio.run(seen(FlowRun.model_validate(answer["run"])))["logs"] for answer in answers]
    return {"threads": threads, "values": [answer["value"] for answer in answers], "logs": logs}


def _fork(number: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    with Executor() as executor:
        run = create(executor, chain, number=number)
        value = executor.call(executor.run(chain, run).aresult())
    with os.fdopen(writing, "w") as answer:
        answer.write(json.dumps({"value": value, "run": run.model_dump(mode="json")}))
    flush()
    os._exit(0)


if __name__ == "__main__":
    logging.raiseExceptions = False
    print(json.dumps({"whole": whole, "costs": costs, "ends": ends, "forked": forked}[sys.argv[1]]()))
