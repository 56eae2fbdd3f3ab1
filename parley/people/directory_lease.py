"""Who asks the directory where several hubs share a database: the one that holds a row of `lease`, while it lives.

It is renewed while the hub lives and given back when it stops; a hub that died keeps it for `LASTS` at the most. That
two hubs ask at once, after a long standstill, does no harm: each write looks again at what it changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.store.engine import Store
from parley.store.ids import new_id
from parley.store.insert_new import insert_new
from parley.store.schema import lease

NAME: Final = "directory"
RENEWED_EVERY: Final = 30.0
"""Seconds."""

LASTS: Final = timedelta(seconds=100)
_AHEAD: Final = 2 * LASTS
"""None that is honest ends later from now: whoever wrote one had a clock that was ahead."""


class DirectoryLease:
    """One for a hub. `since`: from when on it is this hub's without a break; None while it is not.

    `elsewhere`: whether another hub had it when it was last looked at.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._holder = new_id()
        self.since: datetime | None = None
        self.elsewhere: bool = False

    async def take(self) -> bool:
        """Take or renew it; whether it is this hub's now."""
        at = self._clock()
        # Whoever only waits for it writes nothing.
        waits = await self._store.read(lambda conn: self._is_anothers(conn, at))
        self.since = None if waits else await self._store.write(lambda conn: self._write(conn, at))
        self.elsewhere = self.since is None
        return not self.elsewhere

    async def give_back(self) -> None:
        """Let another hub have it at once, if it is this one's."""
        if self.since is not None:
            self.since = None
            await self._store.write(lambda conn: conn.execute(sa.delete(lease).where(self._mine())))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Take it where it is free, and renew it for as long as the block takes."""
        await self.take()
        renewing = asyncio.ensure_future(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_EVERY)
            await self.take()

    async def _is_anothers(self, conn: AsyncConnection, at: datetime) -> bool:
        theirs = sa.and_(lease.c.name == NAME, lease.c.holder != self._holder, sa.not_(_is_over(at)))
        return (await conn.execute(sa.select(lease.c.name).where(theirs))).first() is not None

    async def _write(self, conn: AsyncConnection, at: datetime) -> datetime | None:
        values = {"holder": self._holder, "until": at + LASTS}
        renewed = sa.update(lease).where(self._mine()).values(values)
        if (await conn.execute(renewed)).rowcount:
            return self.since or at
        fresh = {"name": NAME, "epoch": 0, **values}
        if (await conn.execute(insert_new(lease, ("name",)), fresh)).rowcount == 1:
            return at
        taken = sa.update(lease).where(lease.c.name == NAME, _is_over(at)).values(values)
        return at if (await conn.execute(taken)).rowcount else None

    def _mine(self) -> sa.ColumnElement[bool]:
        return sa.and_(lease.c.name == NAME, lease.c.holder == self._holder)


def _is_over(at: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(lease.c.until < at, lease.c.until > at + _AHEAD)


__all__ = ["LASTS", "RENEWED_EVERY", "DirectoryLease"]
