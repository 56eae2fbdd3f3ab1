"""The inbox: an event is committed here before its platform is acknowledged, and once only."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.failpoints import failpoint
from parley.messages.kept_routes import kept
from parley.messages.model import Accepted, Event, Message, Route, derived_id, now
from parley.people.sealing import Keyring
from parley.settings import Limits, Retention
from parley.store import schema
from parley.store.engine import Store, after_commit
from parley.store.ids import new_id
from parley.store.insert_new import insert_new as new_row

logger = logging.getLogger(__name__)

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


REPLAYED = "a person had it handled once more"
"""The reason of a message that is handled once more, however old it is."""


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
    replayed: bool = False
    """A person had it handled once more, after it was too late or could not be handled."""
    stored_at: datetime = field(default_factory=now, compare=False)
    """When it was committed; for one that an earlier hub left, when it was taken up."""


class Inbox:
    """Accepts events and gives them on, in the order of their arrival."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        limits: Limits,
        retention: Retention,
        arrived: Callable[[Received], None],
        *,
        wanted: Callable[[Message], bool] = lambda _message: True,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self.limits = limits
        self.retention = retention
        self.arrived = arrived
        self._wanted = wanted
        self._unreadable: set[str] = set()

    async def accept(
        self, event: Event, *, principal_id: str | None = None, acting_for_id: str | None = None
    ) -> Accepted:
        """Store an event; returns after the commit. A redelivery changes nothing and gives the first one's id.

        What was said to others in a room, and that nobody here wants, is not stored: it has no id, and is not new.

        `principal_id` is given where the sender has logged in to us (console, REST). Raises `StoreUnavailable`.
        """
        if isinstance(event, Message) and not event.addressed and not self._wanted(event):
            return Accepted(id="", new=False)
        event, body = _storable(event)
        message_id, at = new_id(), now()

        async def insert(conn: AsyncConnection) -> Accepted:
            conversation = await conversation_id(conn, event.route)
            values = self._row(message_id, event, body, conversation, at) | {
                "principal_id": principal_id,
                "acting_for_id": acting_for_id,
            }
            done = await conn.execute(new_row(schema.message, ("account", "native_id")), values)
            if not done.rowcount:
                return Accepted(id=await _existing(conn, event), new=False)

            def committed() -> None:
                received = Received(
                    id=message_id,
                    event=event,
                    conversation_id=conversation,
                    principal_id=principal_id,
                    acting_for_id=acting_for_id,
                    received_at=at,
                    expires_at=at + timedelta(seconds=self.limits.message_age),
                )
                self.arrived(received)

            # Not after the write: a caller that goes away while it waits would leave a stored event unhandled.
            after_commit(committed)
            return Accepted(id=message_id, new=True)

        failpoint("inbox.received")
        accepted = await self._store.write(insert)
        failpoint("inbox.stored")
        return accepted

    async def unhandled(self, limit: int = 1000, known: Container[str] = ()) -> AsyncIterator[Received]:
        """Events that were stored and not yet handled: what a killed hub left. `known` ones are left out.

        One by one, because each may hold files of megabytes.
        """
        for message_id in await self._waiting_ids(limit):
            if received := await self._taken_up(message_id, known):
                yield received

    async def unhandled_before(
        self, message_id: str, conversation: str, known: Container[str] = (), *, most: int = 100
    ) -> AsyncIterator[Received]:
        """As `unhandled`: what waits in this conversation up to this event, and the event itself as the last.

        Nothing where more than `most` are before it.
        """
        ids = await self._waiting_ids(most + 1, schema.message.c.conversation_id == conversation)
        if message_id not in ids:
            return
        for one in ids[: ids.index(message_id) + 1]:
            if received := await self._taken_up(one, known):
                yield received

    @property
    def unreadable(self) -> frozenset[str]:
        """Messages that wait and do not open; they hold up no others."""
        return frozenset(self._unreadable)

    def settled_unreadable(self, message_id: str) -> None:
        """Somebody has dealt with it: it waits no more."""
        self._unreadable.discard(message_id)

    async def _waiting_ids(self, limit: int, *which: sa.ColumnElement[bool]) -> Sequence[str]:
        query = (
            sa.select(schema.message.c.id)
            .where(schema.message.c.state == "received", schema.message.c.event_sealed.is_not(None), *which)
            .order_by(schema.message.c.received_at, schema.message.c.id)
            .limit(limit + len(self._unreadable))
        )

        async def find(conn: AsyncConnection) -> Sequence[str]:
            return (await conn.execute(query)).scalars().all()

        return await self._store.read(find)

    async def _taken_up(self, message_id: str, known: Container[str]) -> Received | None:
        if message_id in known or message_id in self._unreadable:
            return None
        try:
            return await self._waiting(message_id)
        except (SealError, ValidationError) as error:
            # One that cannot be read must not hold up the others.
            logger.error("message %s cannot be opened and stays in the inbox: %s", message_id, error)  # noqa: TRY400
            self._unreadable.add(message_id)
            return None

    async def _waiting(self, message_id: str) -> Received | None:
        table = schema.message
        query = sa.select(table).where(table.c.id == message_id, table.c.state == "received")

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).first()

        row = await self._store.read(fetch)
        return self.opened(row) if row is not None else None

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
            replayed=row.reason == REPLAYED,
        )

    def _row(
        self, message_id: str, event: Event, body: bytes, conversation: str, at: datetime
    ) -> dict[str, Any]:
        return {
            "id": message_id,
            "account": event.account,
            "native_id": event.native_id,
            "conversation_id": conversation,
            "sender_id": event.sender.id,
            "type": event.type,
            "event_sealed": self._keyring.seal("message", "event_sealed", message_id, body),
            "route": kept(self._keyring, "message", message_id, event.route),
            "state": "received",
            "received_at": at,
            "expires_at": at + timedelta(seconds=self.limits.message_age),
            "erase_after": at + timedelta(days=self.retention.bodies_days),
            "forget_after": at + timedelta(days=self.retention.keys_days),
        }


def _storable(event: Event) -> tuple[Event, bytes]:
    """The same event as every database can hold it, and its JSON.

    PostgreSQL takes no NUL in text: an id with one becomes its digest, so that no two ids become the same. A lone
    surrogate is no text and cannot be written at all: it becomes the replacement character.
    """
    if "\0" in event.native_id + event.sender.id:
        sender = event.sender.model_copy(update={"id": _without_nul(event.sender.id)})
        event = event.model_copy(update={"native_id": _without_nul(event.native_id), "sender": sender})
    try:
        return event, _EVENT.dump_json(event)
    except PydanticSerializationError:
        event = _EVENT.validate_python(_replaced(event.model_dump()))
        return event, _EVENT.dump_json(event)


def _without_nul(text: str) -> str:
    return derived_id(text) if "\0" in text else text


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item) for item in value]
    return value


_PLACE: Final = ("account", "native_id", "thread")
_CONVERSATION: Final = sa.select(schema.conversation.c.id).where(
    *(schema.conversation.c[name] == sa.bindparam(name) for name in _PLACE)
)


async def conversation_id(conn: AsyncConnection, route: Route) -> str:
    """The id of this route's conversation, made when it is new."""
    place = {
        "account": route.account,
        "native_id": _without_nul(route.conversation),
        "thread": _without_nul(route.thread or ""),
    }
    if found := (await conn.execute(_CONVERSATION, place)).scalar():
        return str(found)
    values = place | {"id": new_id(), "kind": route.kind.value, "created_at": now()}
    await conn.execute(new_row(schema.conversation, _PLACE), values)
    return str((await conn.execute(_CONVERSATION, place)).scalar_one())


def insert_new(conn: AsyncConnection, table: sa.Table, values: dict[str, Any], key: Sequence[str]) -> Any:  # noqa: ARG001
    """INSERT ... ON CONFLICT (key) DO NOTHING, for the dialect of this connection."""
    return new_row(table, tuple(key)).values(values)


async def _existing(conn: AsyncConnection, event: Event) -> str:
    table = schema.message
    query = sa.select(table.c.id).where(
        table.c.account == event.account, table.c.native_id == event.native_id
    )
    return str((await conn.execute(query)).scalar_one())


__all__ = ["REPLAYED", "Inbox", "Received", "conversation_id", "insert_new"]
