"""The inbox: an event is committed here before its platform is acknowledged, and once only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import Accepted, Event, Route, now
from parley.people.sealing import Keyring
from parley.settings import Limits, Retention
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A stored event on its way to be understood."""

    id: str
    event: Event
    conversation_id: str
    principal_id: str | None
    acting_for_id: str | None
    received_at: datetime
    expires_at: datetime


class Inbox:
    """Accepts events and gives them on, in the order of their arrival."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        limits: Limits,
        retention: Retention,
        arrived: Callable[[Received], None],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._limits = limits
        self._retention = retention
        self.arrived = arrived

    async def accept(
        self, event: Event, *, principal_id: str | None = None, acting_for_id: str | None = None
    ) -> Accepted:
        """Store an event; returns after the commit. A redelivery changes nothing and gives the first one's id.

        `principal_id` is given where the sender has logged in to us (console, REST). Raises `StoreUnavailable`.
        """
        message_id, at = new_id(), now()

        async def insert(conn: AsyncConnection) -> tuple[str, str, bool]:
            conversation = await conversation_id(conn, event.route)
            values = self._row(message_id, event, conversation, at) | {
                "principal_id": principal_id,
                "acting_for_id": acting_for_id,
            }
            done = await conn.execute(insert_new(conn, schema.message, values, ("account", "native_id")))
            if done.rowcount:
                return message_id, conversation, True
            return await _existing(conn, event), conversation, False

        stored, conversation, new = await self._store.write(insert)
        if new:
            self.arrived(
                Received(
                    id=stored,
                    event=event,
                    conversation_id=conversation,
                    principal_id=principal_id,
                    acting_for_id=acting_for_id,
                    received_at=at,
                    expires_at=at + timedelta(seconds=self._limits.message_age),
                )
            )
        return Accepted(id=stored, new=new)

    async def unhandled(self, limit: int = 1000) -> list[Received]:
        """Events that were stored and not yet handled: what a killed hub left."""
        query = (
            sa.select(schema.message)
            .where(schema.message.c.state == "received")
            .order_by(schema.message.c.received_at, schema.message.c.id)
            .limit(limit)
        )

        async def fetch(conn: AsyncConnection) -> Sequence[Any]:
            return (await conn.execute(query)).all()

        return [self.opened(row) for row in await self._store.read(fetch)]

    def opened(self, row: Any) -> Received:
        """A row of the table, with its event opened."""
        body = self._keyring.open("message", "event_sealed", row.id, row.event_sealed)
        return Received(
            id=row.id,
            event=_EVENT.validate_json(body),
            conversation_id=row.conversation_id,
            principal_id=row.principal_id,
            acting_for_id=row.acting_for_id,
            received_at=row.received_at,
            expires_at=row.expires_at,
        )

    def _row(self, message_id: str, event: Event, conversation: str, at: datetime) -> dict[str, Any]:
        body = _EVENT.dump_json(event)
        return {
            "id": message_id,
            "account": event.account,
            "native_id": event.native_id,
            "conversation_id": conversation,
            "sender_id": event.sender.id,
            "type": event.type,
            "event_sealed": self._keyring.seal("message", "event_sealed", message_id, body),
            "route": event.route.model_dump(mode="json"),
            "state": "received",
            "received_at": at,
            "expires_at": at + timedelta(seconds=self._limits.message_age),
            "erase_after": at + timedelta(days=self._retention.bodies_days),
            "forget_after": at + timedelta(days=self._retention.keys_days),
        }


async def conversation_id(conn: AsyncConnection, route: Route) -> str:
    """The id of this route's conversation, made when it is new."""
    table = schema.conversation
    key = {"account": route.account, "native_id": route.conversation, "thread": route.thread or ""}
    where = sa.and_(*(table.c[name] == value for name, value in key.items()))
    if found := (await conn.execute(sa.select(table.c.id).where(where))).scalar():
        return str(found)
    values = key | {"id": new_id(), "kind": route.kind.value, "created_at": now()}
    await conn.execute(insert_new(conn, table, values, tuple(key)))
    return str((await conn.execute(sa.select(table.c.id).where(where))).scalar_one())


def insert_new(conn: AsyncConnection, table: sa.Table, values: dict[str, Any], key: Sequence[str]) -> Any:
    """INSERT ... ON CONFLICT (key) DO NOTHING, for the dialect of this connection."""
    if conn.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        return postgres_insert(table).values(values).on_conflict_do_nothing(index_elements=list(key))
    from sqlalchemy.dialects.sqlite import insert as sqlite_insert

    return sqlite_insert(table).values(values).on_conflict_do_nothing(index_elements=list(key))


async def _existing(conn: AsyncConnection, event: Event) -> str:
    table = schema.message
    query = sa.select(table.c.id).where(
        table.c.account == event.account, table.c.native_id == event.native_id
    )
    return str((await conn.execute(query)).scalar_one())


def route_of(row: Any) -> Route:
    """The route that was fixed on a row when it was received."""
    return Route.model_validate(row.route)


__all__ = ["Inbox", "Received", "conversation_id", "insert_new", "route_of"]
