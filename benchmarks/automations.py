"""What the benchmarks ask for over the chat: one task or two, and nothing in them that would take time of its own."""

from __future__ import annotations

from prefect import flow

from benchmarks.plain_dags import add_one
from benchmarks.plain_runs import double
from parley import automation


@automation(command="double", summary="Twice a number.", effect="read", idempotent=True)
@flow(name="bench_double")
async def bench_double(number: int) -> int:
    """Twice a number."""
    return await double(number)


@automation(command="add-and-double", summary="A number and one, twice.", effect="read", idempotent=True)
@flow(name="bench_dag")
async def bench_dag(number: int) -> int:
    """A number and one, twice: two tasks."""
    return await double(await add_one(number))
