"""Which message of ours shows what: the head of a thread about a key, or the copy of what was said elsewhere.

Looked up both ways: from a key to our message in a conversation, and from a message there to what it shows. Functions
of one transaction.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.inbox import insert_new
from parley.messages.model import Route, now
from parley.store import schema
from parley.store.ids import new_id

_TABLE = schema.thread_link


async def find(conn: AsyncConnection, scope: str, key: str, route: Route) -> Any:
    """The message of ours that shows this key in this conversation, or None."""
    return (await conn.execute(sa.select(_TABLE).where(_is(scope, key, route)))).first()


async def showing(conn: AsyncConnection, scope: str, key: str) -> list[Any]:
    """The messages of ours that show this key, wherever."""
    query = sa.select(_TABLE).where(_TABLE.c.scope == scope, _TABLE.c.key == key)
    return list((await conn.execute(query)).all())


async def shown_by(conn: AsyncConnection, account: str, conversation: str, native_id: str) -> Any:
    """What the message of ours with this native id shows, or None when it is not one that routes made."""
    query = sa.select(_TABLE).where(
        _TABLE.c.account == account, _TABLE.c.conversation == conversation, _TABLE.c.native_id == native_id
    )
    return (await conn.execute(query.order_by(_TABLE.c.used_at.desc()).limit(1))).first()


async def put(
    conn: AsyncConnection, scope: str, key: str, route: Route, delivery_id: str, **more: Any
) -> None:
    """From now on this delivery shows this key in this conversation."""
    values = {"delivery_id": delivery_id, "native_id": None, "closed_at": None, "used_at": now()} | more
    place = {"scope": scope, "key": key, "account": route.account, "conversation": route.conversation}
    done = await conn.execute(insert_new(conn, _TABLE, {"id": new_id(), **place, **values}, tuple(place)))
    if not done.rowcount:
        await conn.execute(sa.update(_TABLE).where(_is(scope, key, route)).values(values))


async def delivered(conn: AsyncConnection, delivery_id: str, native_id: str) -> None:
    """The platform took a message that may be such a head: from now on replies to it are known."""
    mine = _TABLE.c.delivery_id == delivery_id
    await conn.execute(sa.update(_TABLE).where(mine).values(native_id=native_id))


async def touch(conn: AsyncConnection, link_id: str, **values: Any) -> None:
    """Note that it was used just now, with what has changed."""
    change = sa.update(_TABLE).where(_TABLE.c.id == link_id)
    await conn.execute(change.values(used_at=now(), **values))


def _is(scope: str, key: str, route: Route) -> sa.ColumnElement[bool]:
    return sa.and_(
        _TABLE.c.scope == scope,
        _TABLE.c.key == key,
        _TABLE.c.account == route.account,
        _TABLE.c.conversation == route.conversation,
    )
