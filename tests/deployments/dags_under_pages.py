"""Two-task flows, four at a time, while two readers poll as an open page does: `SECONDS`; prints a JSON summary."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from prefect import flow, get_client, task


@task
async def add(number: int) -> int:
    return number + 1


@task
async def double(number: int) -> int:
    return number * 2


@flow
async def two_tasks(number: int) -> int:
    return await double(await add(number))


async def read_pages(end: float, errors: list[str]) -> None:
    async with get_client() as client:
        while time.monotonic() < end:
            try:
                await client.read_flow_runs(limit=50)
                await client.read_task_runs(limit=50)
                await client.request("POST", "/events/filter", json={"filter": {}, "limit": 50})
            except Exception as error:  # noqa: BLE001 - whatever a page would see is what is counted
                errors.append(repr(error))
            await asyncio.sleep(0.1)


async def run_flows(end: float, took: list[float], errors: list[str]) -> None:
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            await two_tasks(1)
        except Exception as error:  # noqa: BLE001 - counted, not handled
            errors.append(repr(error))
        took.append(time.monotonic() - start)


async def main(seconds: float) -> None:
    end, took, errors = time.monotonic() + seconds, list[float](), list[str]()
    await asyncio.gather(
        *[read_pages(end, errors) for _ in range(2)], *[run_flows(end, took, errors) for _ in range(4)]
    )
    took.sort()
    print(
        json.dumps(
            {"runs": len(took), "p95_s": took[int(len(took) * 0.95)], "max_s": took[-1], "errors": errors}
        )
    )


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
