"""Runs a second and milliseconds a run: plain `await flow()` beside deployment runs in warm, forked children.

`python -m tests.runs.measure_runs [--at-once 8] [--runs 160] [--kind async|sync]`, PREFECT_API_URL and its password in
the environment (`parley.prefect_env.client_environment`). Both sides run the same one-task flow on the same server;
the deployment side creates its runs itself. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any
from uuid import UUID

from prefect import flow, get_client, task
from prefect.states import Pending

from parley.runs.execute import Executor


@task
async def double(number: int) -> int:
    return number * 2


@flow
async def one_task(number: int = 1) -> int:
    return await double(number)


@task
def double_sync(number: int) -> int:
    return number * 2


@flow
def one_task_sync(number: int = 1) -> int:
    return double_sync(number)


async def deploy(wanted: Any) -> UUID:
    async with get_client() as client:
        return await client.create_deployment(await client.create_flow(wanted), "measured")


async def plain(wanted: Any, at_once: int, runs: int) -> tuple[float, list[float]]:
    """Run the flow as a user would in one process, a sync one in threads; return wall time and each run's seconds."""
    room, took = asyncio.Semaphore(at_once), list[float]()

    async def one(number: int) -> None:
        async with room:
            start = time.perf_counter()
            await (wanted(number) if wanted.isasync else asyncio.to_thread(wanted, number))
            took.append(time.perf_counter() - start)

    await asyncio.gather(*[one(0) for _ in range(at_once)])
    took.clear()
    start = time.perf_counter()
    await asyncio.gather(*[one(number) for number in range(runs)])
    return time.perf_counter() - start, took


def warm(wanted: Any, deployment: UUID, at_once: int, runs: int) -> tuple[float, list[float]]:
    """Run it in forked children, one run each at a time, and return the same."""
    children = [_fork(wanted, deployment, runs // at_once) for _ in range(at_once)]
    for _, ready, _ in children:
        os.read(ready, 1)
    start = time.perf_counter()
    for _, _, go in children:
        os.write(go, b"g")
    took = [second for _, ready, _ in children for second in json.loads(_read_line(ready))]
    wall = time.perf_counter() - start
    for pid, _, _ in children:
        os.waitpid(pid, 0)
    return wall, took


def _fork(wanted: Any, deployment: UUID, runs: int) -> tuple[int, int, int]:
    (ready, tell), (wait, go) = os.pipe(), os.pipe()
    if pid := os.fork():
        return pid, ready, go
    with Executor() as executor:
        _one(executor, wanted, deployment, 0)
        os.write(tell, b"r")
        os.read(wait, 1)
        took = [_one(executor, wanted, deployment, number) for number in range(runs)]
        os.write(tell, json.dumps(took).encode() + b"\n")
    os._exit(0)


def _one(executor: Executor, wanted: Any, deployment: UUID, number: int) -> float:
    start = time.perf_counter()
    run = executor.call(
        executor.client.create_flow_run_from_deployment(
            deployment, parameters={"number": number}, state=Pending()
        )
    )
    state = executor.run(wanted, run)
    assert state.is_completed(), state
    return time.perf_counter() - start


def _read_line(descriptor: int) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        read += os.read(descriptor, 65536)
    return read


def _summary(wall: float, took: list[float]) -> dict[str, float]:
    took.sort()
    return {
        "runs_per_s": round(len(took) / wall, 1),
        "p50_ms": round(took[len(took) // 2] * 1e3, 1),
        "p95_ms": round(took[int(len(took) * 0.95)] * 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--runs", type=int, default=160)
    parser.add_argument("--kind", choices=("async", "sync"), default="async")
    options = parser.parse_args()
    wanted = one_task if options.kind == "async" else one_task_sync
    # In a child: the parent must not have run anything before it forks the warm ones.
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.write(writing, str(asyncio.run(deploy(wanted))).encode())
        os._exit(0)
    deployment = UUID(os.read(reading, 64).decode())
    os.waitpid(pid, 0)
    ours = _summary(*warm(wanted, deployment, options.at_once, options.runs))
    theirs = _summary(*asyncio.run(plain(wanted, options.at_once, options.runs)))
    ratio = round(ours["runs_per_s"] / theirs["runs_per_s"], 2)
    json.dump({"at_once": options.at_once, "ours": ours, "plain": theirs, "ratio": ratio}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
