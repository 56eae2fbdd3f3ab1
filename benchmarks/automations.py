"""What the benchmarks ask for over the chat: one task, and nothing in it that would take time of its own."""

from __future__ import annotations

from prefect import flow

from benchmarks.plain_runs import double
from parley import automation


@automation(command="double", summary="Twice a number.", effect="read", idempotent=True)
@flow(name="bench_double")
async def bench_double(number: int) -> int:
    """Twice a number."""
    return await double(number)
