"""The peer of `readers.*`: plain `await flow()` of two tasks, so many at a time, in one process. Started as a program.

One JSON object a line: in `{"seconds", "at_once"}`, out `{"milliseconds": [...]}`, a number for each run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from prefect import flow, task


@task
async def add_one(number: int) -> int:
    return number + 1


@task
async def double(number: int) -> int:
    return 2 * number


@flow(name="plain_dag")
async def plain_dag(number: int) -> int:
    return await double(await add_one(number))


async def milliseconds(seconds: float, at_once: int) -> list[float]:
    """How long each took; none begins after so many seconds."""
    end, took = time.monotonic() + seconds, list[float]()

    async def one_after_the_other() -> None:
        while time.monotonic() < end:
            start = time.perf_counter()
            assert await plain_dag(len(took)) >= 2
            took.append((time.perf_counter() - start) * 1e3)

    await asyncio.gather(*[one_after_the_other() for _ in range(at_once)])
    return took


async def main() -> None:
    await plain_dag(1)
    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted = json.loads(line)
        took = await milliseconds(wanted["seconds"], wanted["at_once"])
        print(json.dumps({"milliseconds": took}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
