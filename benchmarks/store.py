"""Group commit: writes a second into the store with 64 writers waiting, beside one writer that waits for each.

The same store in a file of its own on the same disk, with `synchronous=FULL` both times; each write is one sealed row
of the bus. No process but this one takes part.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.machine import watched
from benchmarks.rows import Row, scaled
from parley.messages.model import now
from parley.store import schema
from parley.store.engine import Store

AT_ONCE = 64
WRITES, ALONE, BLOCKS = 3000, 300, 3
BODY_BYTES = 600


def measure(effort: float = 1.0) -> list[Row]:
    """`store.group_commit`."""
    with watched() as conditions, tempfile.TemporaryDirectory(prefix="store-") as folder:
        together, alone = asyncio.run(
            _measure(Path(folder), scaled(WRITES, effort, least=AT_ONCE), scaled(ALONE, effort, least=10))
        )
        conditions |= {"at_once": AT_ONCE, "body_bytes": BODY_BYTES}
    here, there = statistics.median(together), statistics.median(alone)
    return [
        Row(
            name="store.group_commit",
            unit="1/s",
            ours=here,
            peer="one writer",
            theirs=there,
            ratio=here / there,
            n=scaled(WRITES, effort, least=AT_ONCE) * BLOCKS,
            conditions=conditions,
        )
    ]


async def _measure(folder: Path, writes: int, alone: int) -> tuple[list[float], list[float]]:
    store = await Store.open(folder / "bench.db")
    try:
        await _block(store, alone, 1)
        pairs = [(await _block(store, writes, AT_ONCE), await _block(store, alone, 1)) for _ in range(BLOCKS)]
    finally:
        await store.aclose()
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


async def _block(store: Store, writes: int, at_once: int) -> float:
    numbers = iter(range(writes))

    async def one_after_the_other() -> None:
        for _ in numbers:
            await store.write(_write)

    start = time.perf_counter()
    await asyncio.gather(*[one_after_the_other() for _ in range(at_once)])
    return writes / (time.perf_counter() - start)


async def _write(conn: AsyncConnection) -> None:
    row = {"topic": "bench", "body_sealed": os.urandom(BODY_BYTES), "created_at": now()}
    await conn.execute(sa.insert(schema.event).values(row))
