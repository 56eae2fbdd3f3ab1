"""Rows with sealed values in every place of the store, and what they say in clear."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages import kept_routes
from parley.messages.model import Route, now
from parley.people.sealing import Keyring
from parley.store import schema
from parley.store.engine import Store

CONVERSATION = {"id": "c", "account": "a", "native_id": "n", "thread": "", "kind": "direct"}


def text(key: str) -> str:
    """What the message of this key says."""
    return f"the text of {key}"


def message(keyring: Keyring, key: str) -> dict[str, Any]:
    """A message's row; its event and its route are sealed."""
    at = now()
    route = Route(account="a", conversation="n", kind="direct", context={"reply": text(key)})
    return {
        "id": key,
        "account": "a",
        "native_id": key,
        "conversation_id": "c",
        "sender_id": "s",
        "type": "message",
        "event_sealed": keyring.seal("message", "event_sealed", key, text(key).encode()),
        "route": kept_routes.kept(keyring, "message", key, route),
        "state": "handled",
        "received_at": at,
        "expires_at": at + timedelta(hours=1),
        "erase_after": at + timedelta(days=1),
        "forget_after": at + timedelta(days=2),
    }


def opens(keyring: Keyring, row: Any) -> bool:
    """Whether a row of `message` says in both places what it should. Raises SealError."""
    said = keyring.open("message", "event_sealed", row.id, row.event_sealed).decode()
    route = kept_routes.opened(keyring, "message", row.id, row.route)
    return said == text(row.id) == route.context["reply"]


async def begin(store: Store) -> None:
    """The conversation that the messages are of."""
    await put(store, schema.conversation, [CONVERSATION | {"created_at": now()}])


async def put(store: Store, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows."""

    async def insert(conn: AsyncConnection) -> None:
        await conn.execute(sa.insert(table), rows)

    await store.write(insert)
