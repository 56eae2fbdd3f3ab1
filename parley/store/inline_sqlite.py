"""SQLite statements executed where they are asked for, without a thread: half of what short statements cost otherwise.

aiosqlite hands each statement to a thread and waits for it: two changes of thread and four wake-ups for what takes
SQLite some ten microseconds. Prefect's server makes fifty of them a run, and the hub as many. `InlineConnection` has
what SQLAlchemy's adapter of aiosqlite asks for, and does it at once. Three things are kept from the event loop: a
statement that has been slow once goes to a thread from then on, a commit that waits for the disk goes there always, and
what finds the database locked by another process waits outside of SQLite.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

SLOW_SECONDS: Final = 0.01
"""A statement that took the processor for longer is not executed on the event loop again."""

BLOCKED_SECONDS: Final = 0.2
"""Nor is one that took so long altogether: below that, other programs may have had the processor meanwhile."""

MOST_SLOW: Final = 500
"""So many statements are remembered as slow; their texts differ with the number of their values."""

RETRY_SECONDS: Final = 0.02

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY})

Parameters = Sequence[Any] | Mapping[str, Any]


class InlineConnection:
    """A connection with the interface of aiosqlite's, for one event loop; statements are executed in their order.

    Only what SQLAlchemy's `AsyncAdapt_aiosqlite_connection` uses is there. A query's rows are read at once. `locked` is
    how many seconds another process may hold the lock before that is an error; `durable` says that a commit waits for
    the disk (`synchronous=FULL`).
    """

    def __init__(self, path: str, *, locked: float, durable: bool = False) -> None:
        # We say when a transaction begins, and wait for locks ourselves.
        self._conn: sqlite3.Connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        self._locked = locked
        self._durable = durable
        self._tx = _AtOnce()
        self._slow: dict[str, None] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._busy: asyncio.Future[Any] | None = None

    def __await__(self) -> Any:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        return self

    @property
    def isolation_level(self) -> str | None:
        """As sqlite3's."""
        level: str | None = self._conn.isolation_level
        return level

    async def cursor(self) -> InlineCursor:
        """A cursor of this connection."""
        return InlineCursor(self)

    async def execute(self, statement: str, parameters: Parameters = ()) -> InlineCursor:
        """A cursor that has executed the statement."""
        cursor = InlineCursor(self)
        await cursor.execute(statement, parameters)
        return cursor

    async def create_function(self, *args: Any, **options: Any) -> None:
        """As sqlite3's."""
        self._conn.create_function(*args, **options)

    async def commit(self) -> None:
        """As sqlite3's; waits for another process's lock as statements do."""
        if self._durable and self._conn.in_transaction:
            await self._idle()
            await self._patiently(lambda: self._in_thread(self._conn.commit))
        else:
            await self.perform("COMMIT", self._conn.commit)

    async def rollback(self) -> None:
        """As sqlite3's."""
        await self.perform("ROLLBACK", self._conn.rollback)

    async def close(self) -> None:
        """End the connection, once what it executes has ended; more than once is as good as once."""
        await self._idle()
        self.stop()

    def stop(self) -> None:
        """End the connection at once, or as soon as a statement in the thread has ended."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        if self._busy is not None and not self._busy.done():
            self._busy.add_done_callback(lambda _: self._conn.close())
        else:
            self._conn.close()

    async def perform(self, statement: str, work: Callable[[], T]) -> T:
        """Do what a statement asks for: here if it is a fast one, in a thread if it has been slow."""
        await self._idle()
        return await self._patiently(lambda: self._once(statement, work))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self._locked
        while True:
            try:
                return await attempt()
            except sqlite3.OperationalError as error:
                # What is SQLite's own has a code; a text that does not decode is the module's, and has none.
                if getattr(error, "sqlite_errorcode", 0) not in _LOCKED or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _once(self, statement: str, work: Callable[[], T]) -> T:
        if statement in self._slow:
            return await self._in_thread(work)
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            slow = time.thread_time() - worked > SLOW_SECONDS
            if slow or time.perf_counter() - began > BLOCKED_SECONDS:
                self._remember(statement)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="slow-sqlite")
        self._busy = asyncio.get_running_loop().run_in_executor(self._thread, work)
        # Whoever gives up waiting does not end the statement: the next one waits for it.
        return await asyncio.shield(self._busy)

    async def _idle(self) -> None:
        while self._busy is not None:
            if self._busy.done():
                self._busy = None
            else:
                await asyncio.wait([self._busy])

    def _remember(self, statement: str) -> None:
        self._slow[statement] = None
        if len(self._slow) > MOST_SLOW:
            del self._slow[next(iter(self._slow))]


class InlineCursor:
    """A cursor with the interface of aiosqlite's."""

    def __init__(self, connection: InlineConnection) -> None:
        self._connection = connection
        self._cursor = connection._conn.cursor()  # noqa: SLF001 - aiosqlite's name for it, which SQLAlchemy uses too
        self._rows: list[Any] = []
        self._read = 0

    @property
    def description(self) -> Any:
        """As sqlite3's."""
        return self._cursor.description

    @property
    def lastrowid(self) -> Any:
        """As sqlite3's."""
        return self._cursor.lastrowid

    @property
    def rowcount(self) -> Any:
        """As sqlite3's."""
        return self._cursor.rowcount

    async def execute(self, statement: str, parameters: Parameters = ()) -> None:
        """Execute one statement and read its rows."""

        def work() -> list[Any]:
            rows: list[Any] = self._cursor.execute(statement, parameters).fetchall()
            return rows

        self._rows, self._read = await self._connection.perform(statement, work), 0

    async def executemany(self, statement: str, parameters: Sequence[Parameters]) -> None:
        """Execute one statement with each of these parameters."""
        await self._connection.perform(statement, lambda: self._cursor.executemany(statement, parameters))

    async def fetchall(self) -> list[Any]:
        """The rows that are left."""
        if not self._read:
            rows, self._rows = self._rows, []
            return rows
        return self._take(len(self._rows))

    async def fetchmany(self, size: int = 1) -> list[Any]:
        """The next rows."""
        return self._take(size)

    async def fetchone(self) -> Any:
        """The next row, if there is one."""
        return next(iter(self._take(1)), None)

    async def close(self) -> None:
        """Let go of the rows."""
        self._rows = []
        self._cursor.close()

    def _take(self, count: int) -> list[Any]:
        begin = self._read
        self._read = min(begin + count, len(self._rows))
        return self._rows[begin : self._read]


class _AtOnce:
    """In the place of aiosqlite's queue to its thread, which SQLAlchemy puts one kind of work into by itself."""

    def put_nowait(self, work: tuple[asyncio.Future[Any], Callable[[], Any]]) -> None:
        future, function = work
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - whoever awaits it has to have it
            future.set_exception(error)
