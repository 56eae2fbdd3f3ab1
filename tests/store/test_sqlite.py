from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, StoreUnavailable
from parley.store import sqlite
from parley.store.engine import Store
from tests.store.test_engine import add, names


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """On SQLite only."""
    opened = await Store.open(tmp_path / "parley.db")
    yield opened
    await opened.aclose()


async def test_the_file_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "home" / "parley.db"
    store = await Store.open(f"sqlite:///{path}")

    async def pragma(conn: AsyncConnection) -> dict[str, object]:
        wanted = ("journal_mode", "synchronous", "foreign_keys")
        return {name: await conn.scalar(sa.text(f"PRAGMA {name}")) for name in wanted}

    kept = await store.write(pragma)
    await store.aclose()
    assert kept == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_every_file_of_an_open_store_is_private(store: Store, tmp_path: Path) -> None:
    await store.write(add("a"))
    modes = _modes(tmp_path)
    assert set(modes) >= {"parley.db", "parley.db-wal", "parley.db-shm"}
    assert set(modes.values()) == {0o600}


def _modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_a_second_hub_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = await Store.open(tmp_path / "parley.db")
    with pytest.raises(ConfigurationError, match="Another hub"):
        await Store.open(tmp_path / "parley.db")
    await first.aclose()
    await (await Store.open(tmp_path / "parley.db")).aclose()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parley.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(ConfigurationError, match="not a SQLite database"):
        await Store.open(tmp_path / "parley.db")


async def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await Store.open(tmp_path / "file" / "parley.db")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await Store.open(tmp_path)


async def test_what_queues_up_behind_a_commit_shares_the_next_one(store: Store) -> None:
    commits: list[int] = []
    backend = store._backend
    assert isinstance(backend, sqlite.SqliteBackend)
    sa.event.listen(backend._writing.sync_engine, "commit", lambda _conn: commits.append(1))
    await asyncio.gather(*(store.write(add(f"{number:03}")) for number in range(200)))
    assert len(commits) == 1
    for number in range(3):
        await store.write(add(f"alone {number}"))
    assert len(commits) == 4


async def test_a_batch_has_a_limit_and_keeps_the_order(store: Store) -> None:
    done: list[int] = []

    async def one(number: int) -> None:
        await store.write(add(f"{number:04}"))
        done.append(number)

    await asyncio.gather(*(one(number) for number in range(3 * sqlite.MOST_TOGETHER)))
    assert done == sorted(done)


async def test_one_too_many_is_refused_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MOST_WAITING", 5)
    results = await asyncio.gather(*(store.write(add(str(n))) for n in range(8)), return_exceptions=True)
    assert results[:5] == ["0", "1", "2", "3", "4"]
    assert all(isinstance(result, StoreUnavailable) for result in results[5:])
    assert await store.write(add("later")) == "later"


async def test_a_full_database_acknowledges_nothing_and_goes_on_when_there_is_room(
    store: Store, tmp_path: Path
) -> None:

    async def limit(conn: AsyncConnection, pages: int) -> None:
        await conn.execute(sa.text(f"PRAGMA max_page_count={pages}"))

    pages = await store.write(lambda conn: conn.scalar(sa.text("PRAGMA page_count")))
    await store.write(lambda conn: limit(conn, pages + 5))
    wanted = [f"{number:03}" + "x" * 1000 for number in range(100)]
    results = await asyncio.gather(*(store.write(add(name)) for name in wanted), return_exceptions=True)
    acknowledged = [result for result in results if isinstance(result, str)]
    refused = [result for result in results if not isinstance(result, str)]
    assert refused
    assert all(isinstance(result, StoreUnavailable) and "full" in str(result) for result in refused)
    assert await store.read(names) == acknowledged
    await store.write(lambda conn: limit(conn, 1_000_000))
    assert await store.write(add("after")) == "after"
    await store.aclose()
    with sqlite3.connect(tmp_path / "parley.db") as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    plain.close()


DISK = """
import asyncio, pathlib, resource, signal, sys
from parley.errors import StoreUnavailable
from parley.store.engine import Store
from tests.store.test_engine import add, names

async def main():
    store = await Store.open(sys.argv[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    acknowledged, refused = [], 0
    largest = max(one.stat().st_size for one in pathlib.Path(sys.argv[1]).parent.glob("parley.db*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 400_000, hard))
    for turn in range(20):
        results = await asyncio.gather(
            *(store.write(add(f"{turn:02} {n:02}" + "x" * 2000)) for n in range(20)), return_exceptions=True
        )
        for result in results:
            if isinstance(result, str):
                acknowledged.append(result)
            elif isinstance(result, StoreUnavailable):
                refused += 1
            else:
                raise result
    assert refused > 20, refused
    assert acknowledged
    seen = await store.read(names)
    assert set(acknowledged) == set(seen), (len(acknowledged), len(seen))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    acknowledged.append(await store.write(add("after")))
    assert sorted(acknowledged) == await store.read(names)
    await store.aclose()
    print(len(acknowledged), refused)

asyncio.run(main())
"""


def _program(source: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_a_file_that_may_not_grow_acknowledges_nothing_and_goes_on_afterwards(tmp_path: Path) -> None:
    """The file system refuses the write (RLIMIT_FSIZE), so that the commit itself fails."""
    with _program(DISK, str(tmp_path / "parley.db")) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert len(out.split()) == 2
    assert _integrity(tmp_path / "parley.db") == "ok"


KILLED = """
import asyncio, os, sys
from parley.store.engine import Store
from parley.store.ids import new_id
from tests.store.test_engine import add

async def client(store):
    while True:
        os.write(1, (await store.write(add(new_id())) + "\\n").encode())

async def main():
    store = await Store.open(sys.argv[1])
    await asyncio.gather(*(client(store) for _ in range(20)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged_before", [1, 100, 500])
def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, acknowledged_before: int) -> None:
    path = tmp_path / "parley.db"
    with _program(KILLED, str(path)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledged_before)]
        process.kill()
        lines += process.stdout.readlines()
    # Each line was one write(2) of less than a pipe's atomic size: none is torn.
    acknowledged = {line.decode().strip() for line in lines}
    stored = asyncio.run(_names_in(path))
    assert len(acknowledged) >= acknowledged_before
    assert acknowledged <= set(stored)
    assert _integrity(path) == "ok"


async def _names_in(path: Path) -> list[str]:
    store = await Store.open(path)
    try:
        return await store.read(names)
    finally:
        await store.aclose()


async def test_an_event_loop_that_ends_leaves_nobody_waiting(store: Store) -> None:
    """The writer is cancelled from outside, as at the end of asyncio.run."""
    begun = asyncio.Event()

    async def stuck(_conn: AsyncConnection) -> None:
        begun.set()
        await asyncio.Event().wait()

    waiting: list[Awaitable[object]] = [asyncio.create_task(store.write(stuck))]
    await begun.wait()
    waiting.append(asyncio.create_task(store.write(add("a"))))
    await asyncio.sleep(0)
    (writer,) = (task for task in asyncio.all_tasks() if task.get_name() == "parley-store-writer")
    writer.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)


async def test_a_write_lock_held_by_another_program_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    store = await Store.open(tmp_path / "parley.db")
    other = sqlite3.connect(tmp_path / "parley.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.write(add("a"))
    other.execute("ROLLBACK")
    other.close()
    assert await store.write(add("a")) == "a"
    await store.aclose()


async def test_a_job_that_swallows_a_full_disk_is_not_acknowledged(store: Store) -> None:
    """SQLite may roll back all of a transaction at once; then the commit would hold nothing."""

    async def lost(conn: AsyncConnection) -> str:
        await add("lost")(conn)
        raw = (await conn.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.execute("ROLLBACK")  # as SQLite does by itself on SQLITE_FULL, IOERR or NOMEM
        return "lost"

    results = await asyncio.gather(store.write(add("a")), store.write(lost), return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert await store.read(names) == []
    assert await store.write(add("b")) == "b"
