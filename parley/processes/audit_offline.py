"""Verifying the audit without a hub: the store is only read, and the key is the one that the hub would use.

Also beside a running hub, and on a copy of the data: nothing is migrated, made or locked.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from parley.errors import ConfigurationError, StoreUnavailable
from parley.people.anchors import AnchorFile, check_place
from parley.people.audit import Audit
from parley.people.audit_walk import Place, walk
from parley.people.data_keys import DataKeys, holds_keys
from parley.people.key_source import open_source
from parley.people.sealing import Keyring
from parley.settings import RUNNING, Settings, load
from parley.store.engine import Measure, Store, T, Work
from parley.tls.database import unverified


class _ReadOnly:
    """A backend of the store that cannot write."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.name: str = engine.dialect.name
        self.measure: Measure | None = None
        self.waiting: int = 0

    async def write(self, work: Work[T]) -> T:
        """See `Store.write`: refused."""
        raise StoreUnavailable("The store is open for reading only. Nothing was stored.")

    async def read(self, work: Work[T]) -> T:
        """See `Store.read`."""
        async with self._engine.connect() as conn:
            return await work(conn)

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        await self._engine.dispose()


async def verified(settings: Settings | None = None) -> AsyncIterator[dict[str, Any]]:
    """What each part of the audit showed, as `AuditDesk.verify` gives it.

    Raises ConfigurationError when there is no store, or not the key that belongs to it, or when the anchors lie where
    they prove nothing.
    """
    settings = settings or load({**os.environ, RUNNING: "1"})
    check_place(settings.anchors_file, home=settings.home)
    async with _opened(settings) as store:
        keyring = await _keyring(settings, store)
        log, file = Audit(keyring), AnchorFile(settings.anchors_file, keyring)
        place: Place | None = Place()
        while place is not None:
            found = await walk(store.read, log, file, place)
            place = found.next
            yield asdict(found)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Store]:
    store = Store(_ReadOnly(_engine(settings)))
    try:
        await _look(settings, store)
        yield store
    except DBAPIError as error:
        raise ConfigurationError(f"The store cannot be read: {error.orig}.") from error
    finally:
        await store.aclose()


async def _look(settings: Settings, store: Store) -> None:
    try:
        await store.read(lambda conn: conn.execute(sa.text("SELECT 1 FROM audit LIMIT 1")))
    except OSError as error:  # the link to a PostgreSQL
        mend = unverified(sa.make_url(settings.database_url or ""), error)
        raise ConfigurationError(f"The store cannot be read: {mend or error}") from error


def _engine(settings: Settings) -> AsyncEngine:
    url = settings.database_url or ""
    if url.startswith(("postgres://", "postgresql://")):
        from parley.store.postgres import _engine as engine_of

        address = sa.make_url(url.replace("postgres://", "postgresql://", 1))
        made = engine_of(address, 1, settings.plain_links)
        return made.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    path = Path(url.removeprefix("sqlite:///")) if url else settings.home / "parley.db"
    if not path.is_file():
        raise ConfigurationError(f"There is no store at {path}: set PARLEY_HOME, or PARLEY_DATABASE_URL.")
    # What is not checkpointed yet lies beside it: without that, the file alone is all there is, and cannot change.
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    # The path is in a URI, where ? and # would end it.
    uri = f"sqlite+aiosqlite:///file:{quote(str(path.absolute()))}?mode=ro{alone}&uri=true"
    return create_async_engine(uri, poolclass=NullPool, hide_parameters=True)


async def _keyring(settings: Settings, store: Store) -> Keyring:
    source = open_source(settings, sealed_rows=True)
    if not await store.read(holds_keys):
        return Keyring(source.keys)
    keys = DataKeys(store, source)
    await keys.refresh()
    return keys.keyring


__all__ = ["verified"]
