"""The store on SQLite: one writer with group commit, several readers, one hub.

Writes that queue up while a commit is on its way to the disk share the next commit; a lone write waits for nobody.
Each has its own SAVEPOINT, so that one which fails takes nothing of its neighbours with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from parley.errors import ConfigurationError, ParleyError, StoreUnavailable
from parley.store.engine import (
    Callbacks,
    Measure,
    T,
    Work,
    call_back,
    closed,
    collecting,
    refuse_within_write,
    too_many,
)
from parley.store.inline_sqlite import InlineConnection
from parley.store.migrations import upgrade

MOST_WAITING = 10_000
"""Writes that may wait; one more is refused, so that the sender holds back instead of our memory growing."""

MOST_TOGETHER = 256
"""Writes in one commit: bounds how long the first of them waits for the last."""

BUSY_SECONDS = 5

_SPACE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_OUT_OF_ORDER = _SPACE | {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_INTERRUPT,
}


class SqliteBackend:
    """A SQLite file that this process alone has."""

    name = "sqlite"

    def __init__(self, path: Path, lock: int, pool_size: int) -> None:
        self._lock: int | None = lock
        self._readers = _engine(path, size=pool_size, begin="BEGIN", query_only=True)
        self._writing = _engine(path, size=1, begin="BEGIN IMMEDIATE")
        self._writer = _GroupCommit(self._writing)

    @property
    def measure(self) -> Measure | None:
        """See `Backend.measure`."""
        return self._writer.measure

    @measure.setter
    def measure(self, measure: Measure | None) -> None:
        self._writer.measure = measure

    @property
    def waiting(self) -> int:
        """See `Store.waiting`."""
        return len(self._writer)

    @classmethod
    async def open(cls, path: str, *, pool_size: int) -> SqliteBackend:
        """See `Store.open`."""
        file, lock = _take(path)
        backend = cls(file, lock, pool_size)
        try:
            async with backend._writing.begin() as conn:
                await conn.run_sync(upgrade)
        except BaseException as error:
            await backend.aclose()
            if isinstance(error, DBAPIError):
                raise _cannot_open(file, error) from error
            raise
        return backend

    async def write(self, work: Work[T]) -> T:
        """See `Store.write`."""
        return await self._writer.write(work)

    async def read(self, work: Work[T]) -> T:
        """See `Store.read`."""
        try:
            async with self._readers.connect() as conn:
                return await work(conn)
        except DBAPIError as error:
            raise _translated(error) from error
        except sa.exc.TimeoutError as error:
            raise StoreUnavailable(
                "The store is busy: every reading connection is taken. Try again."
            ) from error

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        await self._writer.aclose()
        await self._readers.dispose()
        await self._writing.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@dataclass(eq=False)
class _Job:
    work: Work[Any]
    future: asyncio.Future[Any]
    callbacks: Callbacks = field(default_factory=list)
    result: Any = None
    error: Exception | None = None

    def settle(self, error: Exception | None) -> None:
        """Tell the caller; `error` is the commit's, the job's own comes first."""
        if error is None and self.error is None:
            call_back(self.callbacks)
        if self.future.done():  # its caller was cancelled
            return
        failed = self.error or error
        if failed is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(failed)


class _GroupCommit:
    """Runs jobs in the order they came, as many in one transaction as are waiting when it starts."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self.measure: Measure | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def write(self, work: Work[T]) -> T:
        refuse_within_write()
        if self._closed:
            raise closed()
        if len(self._waiting) >= MOST_WAITING:
            raise too_many(len(self._waiting))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="parley-store-writer")
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._wake.set()
        result: T = await job.future
        return result

    async def aclose(self) -> None:
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        batch: list[_Job] = []
        try:
            while not (self._closed and not self._waiting):
                await self._wake.wait()
                self._wake.clear()
                while batch := self._next_batch():
                    await self._commit(batch)
        finally:
            # Only a cancelled event loop comes here with jobs in hand: nobody may be left waiting.
            for job in (*batch, *self._waiting):
                job.settle(closed())

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        while self._waiting and len(batch) < MOST_TOGETHER:
            job = self._waiting.popleft()
            if not job.future.done():  # cancelled before it began: as if it had never been asked for
                batch.append(job)
        return batch

    async def _commit(self, batch: Sequence[_Job]) -> None:
        began = time.perf_counter()
        try:
            await self._transaction(batch)
        except Exception as error:  # noqa: BLE001  whatever it was, nobody may be left waiting
            # When one job's error took the whole transaction with it, that one's words are the reason for all.
            reason = next(
                (job.error for job in batch if isinstance(job.error, StoreUnavailable)), _unavailable(error)
            )
            for job in batch:
                job.settle(StoreUnavailable(str(reason)))
        else:
            if self.measure is not None:
                self.measure(len(batch), time.perf_counter() - began)
            for job in batch:
                job.settle(None)

    async def _transaction(self, batch: Sequence[_Job]) -> None:
        async with self._engine.connect() as conn:
            try:
                for job in batch:
                    await _attempt(conn, job)
                await conn.commit()
            except BaseException:
                with contextlib.suppress(Exception):
                    await conn.rollback()
                raise


async def _attempt(conn: AsyncConnection, job: _Job) -> None:
    """Run one job alone in its savepoint.

    SQLite may answer a full disk by rolling back everything at once. Then there is no savepoint to release or to go
    back to: that raises here and fails the batch, so that nobody is told of a commit that holds nothing of theirs.
    """
    savepoint = await conn.begin_nested()
    try:
        job.result = await collecting(job.callbacks, job.work, conn)
    except DBAPIError as error:
        job.error = _translated(error)
    except Exception as error:  # noqa: BLE001  it is raised where the job came from
        job.error = error
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        job.error = RuntimeError("What this write waited for was cancelled.")
    if job.error is None:
        await savepoint.commit()
    else:
        await savepoint.rollback()


def _engine(path: Path, *, size: int, begin: str, query_only: bool = False) -> AsyncEngine:
    async def connect() -> InlineConnection:
        return InlineConnection(str(path), locked=BUSY_SECONDS, durable=not query_only)

    engine = create_async_engine(
        sa.URL.create("sqlite+aiosqlite", database=str(path)),
        async_creator=connect,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # errors are logged, and what people said is in the parameters
    )

    def connected(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute(f"PRAGMA query_only={'ON' if query_only else 'OFF'}")
        cursor.close()

    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    sa.event.listen(engine.sync_engine, "connect", connected)
    sa.event.listen(engine.sync_engine, "begin", begun)
    return engine


def _take(name: str) -> tuple[Path, int]:
    """Make sure of a private file that is ours alone; the lock ends with the descriptor that comes back."""
    path = Path(name).expanduser().absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The store {path} cannot be written ({error.strerror}). "
            "Give the folder to the user that parley runs as, or set PARLEY_HOME to one that it may write."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigurationError(
            f"Another hub has the store {path}. Stop it first (`parley down`), or give this one its own PARLEY_HOME."
        ) from error
    return path, lock


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code, 0 when it is not SQLite's error."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return int(getattr(original, "sqlite_errorcode", 0) or 0) & 0xFF


def _translated(error: DBAPIError) -> Exception:
    """A database that is out of order is ours to tell; a broken constraint is the caller's own error."""
    return _unavailable(error) if _code(error) in _OUT_OF_ORDER else error


def _unavailable(error: Exception) -> StoreUnavailable:
    if _code(error) in _SPACE:
        reason = "The store's disk is full or failing. Nothing was stored; free some space on it"
    else:
        reason = f"The store cannot be written ({_words(error)}). Nothing was stored"
    unavailable = StoreUnavailable(f"{reason}; parley goes on by itself then.")
    unavailable.__cause__ = error
    return unavailable


def _cannot_open(path: Path, error: DBAPIError) -> ParleyError:
    code = _code(error)
    if code in _SPACE:
        return ConfigurationError(
            f"The store {path} cannot be opened: its disk is full or failing. Free some space."
        )
    if code == sqlite3.SQLITE_BUSY:
        return ConfigurationError(f"The store {path} is locked by another program. Close it and start again.")
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return ConfigurationError(
            f"{path} is not a SQLite database, or is damaged. Move it away and restore the newest backup."
        )
    return ConfigurationError(f"The store {path} cannot be opened: {_words(error)}.")


def _words(error: Exception) -> str:
    """What the database said, without the statement and its values."""
    return str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
