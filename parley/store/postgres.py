"""The store on PostgreSQL: a pool, and a transaction for each write; several hubs may share it.

Transactions are SERIALIZABLE, so that a function written for SQLite, where writes follow one another, is right here
too. What PostgreSQL calls off because of that is run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from parley.errors import ConfigurationError, StoreUnavailable
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
from parley.store.migrations import upgrade
from parley.tls.database import link, unverified

MOST_WAITING = 10_000
RETRY_SECONDS = 10.0
"""How long a write is run again before its caller is told to try later."""

_CALLED_OFF = frozenset({"40001", "40P01"})  # serialization failure, deadlock
_REFUSED = ("28", "3D")  # password or user, no such database


class PostgresBackend:
    """A PostgreSQL database, which other hubs may use too."""

    name = "postgresql"

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._readers = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._turn = asyncio.Lock()
        self.measure: Measure | None = None

    @classmethod
    async def open(cls, url: sa.URL, *, pool_size: int, plain_links: Collection[str] = ()) -> PostgresBackend:
        """See `Store.open`."""
        engine = _engine(url, pool_size, plain_links)
        # READ COMMITTED: a hub that waited for another one's migration must see what that one made.
        patient = engine.execution_options(isolation_level="READ COMMITTED")
        try:
            async with patient.begin() as conn:
                await conn.run_sync(upgrade)
        except BaseException as error:
            await engine.dispose()
            if isinstance(error, (DBAPIError, OSError)) or _state(error):
                raise _cannot_open(url, error) from error
            raise
        return cls(engine)

    @property
    def waiting(self) -> int:
        """See `Store.waiting`."""
        return self._waiting

    async def write(self, work: Work[T]) -> T:
        """See `Store.write`."""
        refuse_within_write()
        if self._closed:
            raise closed()
        if self._waiting >= MOST_WAITING:
            raise too_many(self._waiting)
        async with self._counted():
            return await self._persist(work)

    async def read(self, work: Work[T]) -> T:
        """See `Store.read`."""
        until = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                async with self._readers.connect() as conn:
                    return await work(conn)
            except Exception as error:
                if not _stale(error) or time.monotonic() > until:
                    raise _translated(error) from error

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        self._closed = True
        await self._idle.wait()
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self._waiting += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def _persist(self, work: Work[T]) -> T:
        """Once among the others; when called off, again in a queue of those that were, so that one always wins."""
        try:
            return await self._transaction(work)
        except Exception as error:
            if not _passing(error):
                raise _translated(error) from error
        async with self._turn:
            return await self._insist(work)

    async def _insist(self, work: Work[T]) -> T:
        until = time.monotonic() + RETRY_SECONDS
        pause = 0.001
        while True:
            try:
                return await self._transaction(work)
            except Exception as error:
                if not _passing(error) or time.monotonic() > until:
                    raise _translated(error) from error
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311  only spreads hubs that collide
            pause = min(pause * 2, 0.25)

    async def _transaction(self, work: Work[T]) -> T:
        callbacks: Callbacks = []
        began = time.perf_counter()
        async with self._engine.connect() as conn:
            result = await collecting(callbacks, work, conn)
            await _commit(conn)
        if self.measure is not None:
            self.measure(1, time.perf_counter() - began)
        call_back(callbacks)
        return result


async def _commit(conn: AsyncConnection) -> None:
    """A connection lost here leaves it open whether the commit arrived: such a write is never run again by us."""
    try:
        await conn.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailable(
                "The connection to the store broke during a commit: it may or may not have been stored. Try again."
            ) from error
        raise


def _engine(url: sa.URL, pool_size: int, plain_links: Collection[str]) -> AsyncEngine:
    way = link(url, plain_links)
    arguments: dict[str, Any] = {"timeout": 10, "server_settings": {"application_name": "parley"}}
    if context := way.context():
        arguments["ssl"] = context
    try:
        return create_async_engine(
            way.url.set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=0,
            hide_parameters=True,  # errors are logged, and what people said is in the parameters
            isolation_level="SERIALIZABLE",
            connect_args=arguments,
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            'PostgreSQL needs a driver: pip install "prefect-parley[postgres]".'
        ) from error


def _state(error: BaseException) -> str:
    """The SQLSTATE, empty when it is not the server's error."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(original, "sqlstate", None) or "")


def _stale(error: Exception) -> bool:
    """The pool kept a connection that the server had closed, or a plan from before a migration."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _passing(error: Exception) -> bool:
    return _state(error) in _CALLED_OFF or _stale(error)


def _translated(error: Exception) -> Exception:
    """What is the server's, not the caller's: connections, resources, operators, collisions that never ended."""
    if isinstance(error, DBAPIError):
        state = _state(error)
        if _passing(error) or state[:2] in {"08", "53", "57", "58", "XX", *_REFUSED} or state == "25006":
            return StoreUnavailable(
                f"The store cannot be written ({error.orig}). Nothing was stored; try again."
            )
        return error
    if isinstance(error, (OSError, sa.exc.TimeoutError)) or _state(error):
        return StoreUnavailable(f"The store does not answer ({error}). Nothing was stored; try again.")
    return error


def _cannot_open(url: sa.URL, error: BaseException) -> Exception:
    where = url.render_as_string(hide_password=True)
    words = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if _state(error)[:2] in _REFUSED:
        return ConfigurationError(
            f"The store {where} refuses us: {words}. Check user, password and database name."
        )
    if _state(error) in {"42501", "25006"}:
        return ConfigurationError(f"The store {where} cannot be written: {words}.")
    if mend := unverified(url, error):
        return ConfigurationError(f"The store {where} is not used: {mend}")
    return StoreUnavailable(f"The store {where} cannot be reached: {words}.")
