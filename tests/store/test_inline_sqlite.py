from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from parley.store.inline_sqlite import SLOW_SECONDS, InlineConnection

SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT max(i) FROM n"


@asynccontextmanager
async def opened(path: Path, *, locked: float = 10, durable: bool = False) -> AsyncIterator[InlineConnection]:
    connection = await InlineConnection(str(path / "test.db"), locked=locked, durable=durable)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER)")
        await connection.commit()
        yield connection
    finally:
        await connection.close()


async def test_rows_come_one_by_one_some_or_all(tmp_path: Path) -> None:
    async with opened(tmp_path) as connection:
        await connection.execute("BEGIN")
        await (await connection.cursor()).executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(6)])
        cursor = await connection.execute("SELECT x FROM t ORDER BY x")

        assert cursor.description[0][0] == "x"
        assert await cursor.fetchone() == (0,)
        assert await cursor.fetchmany(2) == [(1,), (2,)]
        assert await cursor.fetchall() == [(3,), (4,), (5,)]
        assert await cursor.fetchone() is None


async def test_a_fast_statement_uses_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    async with opened(tmp_path) as connection:
        for _ in range(50):
            await connection.execute("INSERT INTO t VALUES (1)")

        assert threading.active_count() == before


async def test_a_statement_that_was_slow_once_no_longer_holds_up_the_loop(tmp_path: Path) -> None:
    async with opened(tmp_path) as connection:
        await connection.execute(SLOW, (2_000_000,))  # seen here to be slow

        asked = asyncio.create_task(connection.execute(SLOW, (2_000_000,)))
        turns = 0
        while not asked.done():
            await asyncio.sleep(SLOW_SECONDS / 4)
            turns += 1

        assert await (await asked).fetchall() == [(2_000_000,)]
        assert turns > 3


async def test_the_next_statement_waits_for_one_that_was_given_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as connection:
        await connection.execute(SLOW, (1_000_000,))
        asked = asyncio.create_task(connection.execute(SLOW, (1_000_000,)))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

        await connection.execute("INSERT INTO t VALUES (7)")
        await connection.commit()

        assert await (await connection.execute("SELECT x FROM t")).fetchall() == [(7,)]


async def test_another_process_that_holds_the_lock_is_waited_for_and_the_loop_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as connection:
        with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asked = asyncio.create_task(connection.execute("INSERT INTO t VALUES (1)"))
            began = time.monotonic()
            await asyncio.sleep(0.1)

            assert time.monotonic() - began < 1, "the loop was not blocked meanwhile"
            assert not asked.done()
            other.execute("COMMIT")
        await asyncio.wait_for(asked, 10)
        await connection.commit()


async def test_a_lock_that_is_held_too_long_is_an_error(tmp_path: Path) -> None:
    async with opened(tmp_path, locked=0.05) as connection:
        with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await connection.execute("INSERT INTO t VALUES (1)")


async def test_a_commit_that_waits_for_the_disk_does_so_in_a_thread(tmp_path: Path) -> None:
    async with opened(tmp_path, durable=True) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute("INSERT INTO t VALUES (1)")
        before = threading.active_count()
        committing = asyncio.create_task(connection.commit())
        await asyncio.sleep(0)

        assert threading.active_count() == before + 1
        rows = await connection.execute("SELECT count(*) FROM t")
        assert committing.done(), "the next statement is of the next transaction"
        assert await rows.fetchall() == [(1,)]
    with closing(sqlite3.connect(tmp_path / "test.db")) as again:
        assert again.execute("SELECT x FROM t").fetchall() == [(1,)]


async def test_errors_are_sqlites_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await connection.execute("SELECT * FROM nowhere")
        assert await (await connection.execute("SELECT 1")).fetchall() == [(1,)]


async def test_close_twice_is_close(tmp_path: Path) -> None:
    async with opened(tmp_path) as connection:
        await connection.close()
