"""The store: one way to write and one to read, over SQLite or PostgreSQL.

    store = await Store.open("data/parley.db")
    message_id = await store.write(lambda conn: accept(conn, event))    # returned only after the commit
    rows = await store.read(pending)
    await store.aclose()

A function given to `write` does nothing but talk to its connection: it neither commits nor waits for anything else,
has no other effect (PostgreSQL may have it run again), and leaves what must follow the commit to `after_commit`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, StoreUnavailable

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""What is given to `Store.write` and `Store.read`."""

Callbacks = list[Callable[[], None]]

Measure = Callable[[int, float], None]
"""Told of each commit: how many writes it held, and how many seconds it took."""

log = logging.getLogger(__name__)
_callbacks: ContextVar[Callbacks | None] = ContextVar("parley_store_callbacks", default=None)


class Backend(Protocol):
    """What SQLite and PostgreSQL each do in their own way."""

    name: str
    measure: Measure | None
    """Who is told of each commit."""

    @property
    def waiting(self) -> int:
        """See `Store.waiting`."""
        ...

    async def write(self, work: Work[T]) -> T:
        """See `Store.write`."""
        ...

    async def read(self, work: Work[T]) -> T:
        """See `Store.read`."""
        ...

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        ...


class Store:
    """Our own database. Safe to use from all tasks of one event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    async def open(
        cls, url_or_path: str | Path, *, pool_size: int = 10, plain_links: Collection[str] = ()
    ) -> Store:
        """Open `sqlite:///file`, a path, or `postgresql://...`, and bring it to the present schema.

        A PostgreSQL on another machine is reached over TLS, and verified, unless `plain_links` names its host.

        Raises ConfigurationError, which says how to mend it, when the place is not usable: another hub has it, it
        cannot be written, it is full, newer than this code, or not ours. Raises StoreUnavailable when a database
        server does not answer, which may pass.
        """
        url = _parse(url_or_path)
        if url.get_backend_name() == "sqlite":
            from parley.store.sqlite import SqliteBackend

            return cls(await SqliteBackend.open(url.database or "", pool_size=pool_size))
        from parley.store.postgres import PostgresBackend

        return cls(await PostgresBackend.open(url, pool_size=pool_size, plain_links=plain_links))

    @property
    def backend(self) -> str:
        """`sqlite` or `postgresql`: only for what people are told."""
        return self._backend.name

    @property
    def waiting(self) -> int:
        """How many writes wait for their commit."""
        return self._backend.waiting

    def measured_by(self, measure: Measure) -> None:
        """Tell `measure` of each commit from now on: how many writes it held, and its seconds. It must not block."""
        self._backend.measure = measure

    async def write(self, work: Work[T]) -> T:
        """Run `work` and commit it; the result comes back only after the commit.

        Writes take effect one after another, in the order of the calls on SQLite, as if in some order on
        PostgreSQL. What `work` raises comes back as it is, and nothing of that write stays. StoreUnavailable means
        that nothing is promised: disk full, too many waiting, no connection; the store goes on by itself when the
        reason is gone. A caller that is cancelled does not know whether its write was committed.
        """
        return await self._backend.write(work)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent picture of what is committed; it cannot write."""
        return await self._backend.read(work)

    async def aclose(self) -> None:
        """Commit what was asked for, then let go of every connection, thread and lock. May be called twice."""
        await self._backend.aclose()


def after_commit(callback: Callable[[], None]) -> None:
    """Have `callback` called once the write that is running now is committed; never if it is not.

    It runs on the event loop before the writer's own caller goes on, and must not block. What it raises is logged.
    """
    callbacks = _callbacks.get()
    if callbacks is None:
        raise RuntimeError("after_commit is for functions that Store.write runs.")
    callbacks.append(callback)


async def collecting(callbacks: Callbacks, work: Work[T], conn: AsyncConnection) -> T:
    """Run `work` with `after_commit` going to `callbacks`."""
    token = _callbacks.set(callbacks)
    try:
        return await work(conn)
    finally:
        _callbacks.reset(token)


def call_back(callbacks: Callbacks) -> None:
    """After a commit: all of them, each on its own."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            # The write stands; a listener that fails must not make its sender try again.
            log.exception("after_commit")


def refuse_within_write() -> None:
    """A write that waits for another write would wait for itself."""
    if _callbacks.get() is not None:
        raise RuntimeError(
            "A function given to Store.write must not call the store again: it has a connection."
        )


def too_many(waiting: int) -> StoreUnavailable:
    """The queue is full."""
    return StoreUnavailable(
        f"The store is busy: {waiting} writes are waiting already. Nothing was stored; try again."
    )


def closed() -> StoreUnavailable:
    """The store was closed."""
    return StoreUnavailable("The store is closed. Nothing was stored.")


def _parse(url_or_path: str | Path) -> sa.URL:
    text = str(url_or_path)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text.replace("postgres://", "postgresql://", 1))
    except sa.exc.ArgumentError as error:
        raise ConfigurationError(
            "The store's address cannot be read: give a path, sqlite:/// or postgresql://."
        ) from error
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigurationError(
            f"The store cannot be {url.get_backend_name()}: give a path, sqlite:///file or postgresql://user@host/name."
        )
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ConfigurationError("The store needs a file: what is only in memory is lost with the process.")
    return url


__all__ = ["Backend", "Callbacks", "Measure", "Store", "Work", "after_commit"]
