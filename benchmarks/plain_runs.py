"""The peer of `runs.per_s`: plain `await flow()`, so many at once, in one warm process. Started as a program.

One JSON object a line: in `{"runs", "at_once"}`, out `{"seconds", "processor_seconds"}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from prefect import flow, task


@task
async def double(number: int) -> int:
    return 2 * number


@flow(name="plain_double")
async def plain_double(number: int) -> int:
    return await double(number)


async def seconds(runs: int, at_once: int) -> float:
    """How long it takes, with `at_once` under way at any time."""
    numbers = iter(range(runs))

    async def one_after_the_other() -> None:
        for number in numbers:
            assert await plain_double(number) == 2 * number

    start = time.perf_counter()
    await asyncio.gather(*[one_after_the_other() for _ in range(at_once)])
    return time.perf_counter() - start


async def main() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted, spent = json.loads(line), time.process_time()
        took = await seconds(wanted["runs"], wanted["at_once"])
        print(json.dumps({"seconds": took, "processor_seconds": time.process_time() - spent}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
