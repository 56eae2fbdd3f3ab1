"""What the worker takes and holds: `python -m tests.runs.measure_worker`.

Prints order -> flow function entered, runs a second through the worker beside plain `await flow()` in one process on
the same server, and the memory (PSS) of the worker's processes at rest.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.prefect_fixture import PrefectServer, plain_environment, running_server
from tests.runs.worker_stack import Stack, running

PLAIN = """
import asyncio, sys, time
from prefect import flow

@flow
async def quick(path: str) -> int:
    return 1

async def main(n: int, at_once: int) -> None:
    await quick("")
    room = asyncio.Semaphore(at_once)
    async def run() -> None:
        async with room:
            await quick("")
    start = time.perf_counter()
    await asyncio.gather(*[run() for _ in range(n)])
    print(n / (time.perf_counter() - start))

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


async def main() -> None:
    with tempfile.TemporaryDirectory() as home, running_server(Path(home) / "prefect") as server:
        async with running(server, Path(home), "[worker]\nchildren = 9\nwarm = 3\n") as stack:
            await _latency(stack)
            await asyncio.sleep(1)
            _memory(stack)
        async with running(server, Path(home), "[worker]\nchildren = 9\nwarm = 9\n") as stack:
            for _ in range(2):
                print(f"worker, 8 at once: {await _throughput(stack, 160, 8):.1f} runs/s (creation included)")
                print(f"plain await flow(), 8 at once: {await _plain(server, 160, 8):.1f} runs/s")


async def _latency(stack: Stack) -> None:
    for name in ("quick", "quick_sync"):
        took = []
        for n in range(31):
            flow_run = await stack.create(name)
            before, count = time.time(), len(stack.lines("entered"))
            run = await stack.push(flow_run)
            entered = (await stack.noted("entered", count + 1))[-1][1]
            await stack.ended(run)
            if n:
                took.append((entered - before) * 1e3)
        took.sort()
        print(f"{name}: order -> entered p50 {statistics.median(took):.0f} ms, p95 {took[28]:.0f} ms")


async def _throughput(stack: Stack, count: int, at_once: int) -> float:
    room = asyncio.Semaphore(at_once)

    async def run() -> None:
        async with room:
            await stack.ended(await stack.order("quick"))

    await run()
    await asyncio.gather(*[run() for _ in range(at_once)])
    start = time.perf_counter()
    await asyncio.gather(*[run() for _ in range(count)])
    return count / (time.perf_counter() - start)


async def _plain(server: PrefectServer, count: int, at_once: int) -> float:
    argv = [sys.executable, "-c", PLAIN, str(count), str(at_once)]
    environment = plain_environment() | server.environment
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    return float(said)


def _memory(stack: Stack) -> None:
    total = 0.0
    for process in [psutil.Process(stack.pid), *stack.family()]:
        pss, uss = process.memory_full_info().pss / 1e6, process.memory_full_info().uss / 1e6
        total += pss
        print(f"pid {process.pid} (below {process.ppid()}): PSS {pss:.1f} MB, alone {uss:.1f} MB")
    print(f"worker and its processes at rest: PSS {total:.1f} MB")


if __name__ == "__main__":
    asyncio.run(main())
