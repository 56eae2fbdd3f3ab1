"""Prefect's SQLite database through one pooled connection: writers queue instead of starving one another.

Stock Prefect opens a connection a session; SQLite lets one of them write at a time and the others poll for the lock
with growing pauses, which costs seconds at the 95th percentile. One connection handed out first come, first served has
no such lock to wait for. Both classes go in through Prefect's own injection points; Postgres is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import sqlalchemy as sa
from prefect.server.database import dependencies
from prefect.server.database.configurations import ENGINES, AioSqliteConfiguration
from prefect.server.database.interface import PrefectDBInterface
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from parley.store.inline_sqlite import InlineConnection

CONNECTION_TIMEOUT_SECONDS: Final = 10.0
"""How long a request waits for the connection before it is answered 503, which Prefect's clients try again."""


LOCKED_SECONDS: Final = 60.0
"""How long another process may hold the database's lock, as Prefect sets it for its own connections."""


class ConnectionBusy(sa.exc.TimeoutError, sa.exc.InvalidRequestError):
    """The connection was not free in time; an InvalidRequestError, because Prefect answers those with 503, not 500."""


class PatientPool(AsyncAdaptedQueuePool):
    """A queue pool whose time-out Prefect's clients know to try again."""

    def _do_get(self) -> Any:
        try:
            return super()._do_get()
        except sa.exc.TimeoutError as error:
            raise ConnectionBusy(
                f"the database connection was busy for {CONNECTION_TIMEOUT_SECONDS:.0f} s"
            ) from error


class OneConnection(AioSqliteConfiguration):
    """Prefect's SQLite configuration with a pool of exactly one connection."""

    async def engine(self) -> AsyncEngine:
        """Return this event loop's engine, made at the first call."""
        key = (asyncio.get_running_loop(), self.connection_url, self.echo, self.timeout)
        if key not in ENGINES:
            ENGINES[key] = self._make_engine()
            await self.schedule_engine_disposal(key)
        return ENGINES[key]

    def _make_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            self.connection_url,
            echo=self.echo,
            paramstyle="named",  # as Prefect has it: aiosqlite was seen to mix up positional ones
            poolclass=PatientPool,
            pool_size=1,
            max_overflow=0,
            pool_timeout=CONNECTION_TIMEOUT_SECONDS,
            async_creator=self._connection,
        )
        event.listen(engine.sync_engine, "connect", self.setup_sqlite)
        event.listen(engine.sync_engine, "connect", _never_block)
        event.listen(engine.sync_engine, "begin", self.begin_sqlite_stmt)
        return engine

    async def _connection(self) -> InlineConnection:
        return InlineConnection(
            sa.make_url(self.connection_url).database or ":memory:", locked=LOCKED_SECONDS
        )


def _never_block(connection: Any, _: Any) -> None:
    # After Prefect's own settings: a locked database is waited for in `InlineConnection`, not in a call that blocks.
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 0")
    cursor.close()


class JoiningInterface(PrefectDBInterface):
    """Prefect's database interface, in which a session opened inside another of the same asyncio task joins it.

    Prefect opens a second session while it holds a first (task tag concurrency limits, for one): with one connection
    it would wait for itself, and stock SQLite makes it wait for its own write lock. Here the inner session is a
    savepoint of the outer transaction: its rollback undoes its own part, its commit counts when the outer one commits.
    """

    def __init__(self, **components: Any) -> None:
        super().__init__(**components)
        self._held: dict[asyncio.Task[Any], AsyncSession] = {}
        self.joined = 0

    @asynccontextmanager
    async def session_context(
        self, begin_transaction: bool = False, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSession, None]:
        """Yield a session: the task's own connection when it holds it already, the pooled one otherwise."""
        task = asyncio.current_task()
        outer = self._held.get(task) if task else None
        if outer is not None:
            async with self._joined_session(outer, begin_transaction) as session:
                yield session
            return
        async with super().session_context(begin_transaction, with_for_update) as session:
            if task:
                self._held[task] = session
            try:
                yield session
            finally:
                self._held.pop(task, None)  # type: ignore[arg-type]

    @asynccontextmanager
    async def _joined_session(self, outer: AsyncSession, begin: bool) -> AsyncGenerator[AsyncSession, None]:
        self.joined += 1
        session = AsyncSession(
            await outer.connection(), expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        async with session:
            if not begin:
                yield session
                return
            async with session.begin():
                yield session


def use_one_connection(database_url: str | None = None) -> bool:
    """Make this process's Prefect use one connection if its database is SQLite, and return whether it is.

    Called before Prefect's server application is created. `database_url` is Prefect's setting when it is None.
    """
    url = database_url or PREFECT_API_DATABASE_CONNECTION_URL.value()
    if sa.make_url(url).get_backend_name() != "sqlite":
        return False
    dependencies.set_database_config(OneConnection(connection_url=url))
    dependencies.set_interface_class(JoiningInterface)
    return True
