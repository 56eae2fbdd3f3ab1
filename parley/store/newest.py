"""Ids go on in their order over a restart, also where the clock was set back meanwhile."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import go_on_after

_ORDERED: Final = (schema.message, schema.request, schema.run, schema.delivery)
"""Whose ids say what came before what."""


async def go_on_from(store: Store) -> None:
    """Have this process's ids follow all that are stored. Raises `StoreUnavailable`."""

    async def newest(conn: AsyncConnection) -> list[str | None]:
        return [(await conn.execute(sa.select(sa.func.max(table.c.id)))).scalar() for table in _ORDERED]

    for identifier in await store.read(newest):
        if identifier is not None:
            go_on_after(identifier)
