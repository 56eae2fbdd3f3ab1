"""Deliveries as they are stored: written once for each reply and place, read in the order in which they go out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages import kept_routes
from parley.messages.inbox import conversation_id
from parley.messages.model import Capabilities, Reply, Route, now
from parley.messages.rendering import render_down
from parley.people.sealing import Keyring
from parley.settings import Retention
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id
from parley.store.insert_new import insert_new

MOST_UNREADABLE: Final = 10_000
"""Deliveries that cannot be opened, of those that are passed over in a look: a statement has so many parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One reply to one place; already rendered down. `doubt`: an earlier attempt may have arrived.

    While it waits, `reply` may be empty: a large one is kept in the store alone. `waits_since`: in this hub.
    `under_id`: the delivery in whose thread it is shown; `edit_of_id`: the one that it replaces in place.
    """

    id: str
    source: str
    ordinal: int
    message_id: str | None
    conversation_id: str
    reply: Reply
    route: Route
    token: str
    created_at: datetime = field(default_factory=now)
    attempts: int = 0
    doubt: bool = False
    under_id: str | None = None
    edit_of_id: str | None = None
    waits_since: datetime = field(default_factory=now)


_CHANGE: Final = sa.update(schema.delivery).where(
    schema.delivery.c.id == sa.bindparam("the_delivery"),
    schema.delivery.c.state.in_(("pending", "sending")),
)

_UNSETTLED = sa.and_(
    schema.delivery.c.state.in_(("pending", "sending")), schema.delivery.c.body_sealed.is_not(None)
)
"""`sending` when a hub died: it may have arrived, so it is taken up in doubt."""


class Deliveries:
    """The deliveries of the store. `retention` says for how long each keeps its body."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        retention: Retention,
        *,
        capabilities_of: Callable[[str], Capabilities],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self.retention = retention
        self._capabilities_of = capabilities_of
        self._since = now()

    async def write(
        self,
        conn: AsyncConnection,
        source: str,
        replies: Iterable[Reply],
        route: Route,
        *,
        message_id: str | None = None,
        first: int = 0,
        under_id: str | None = None,
        edit_of_id: str | None = None,
        most: int | None = None,
    ) -> list[Delivery]:
        """Insert deliveries for these replies; call `send` with them once the transaction is committed.

        (source, ordinal) is unique: a second write of the same inserts nothing and returns nothing. `under_id` and
        `edit_of_id` are deliveries of the same account and conversation: the native ids come from their receipts, and
        until they have arrived these wait. What stands under one that died is sent plainly; its edit is dropped.
        Of more than `most` parts the rest is left out.
        """
        can = self._capabilities_of(route.account)
        parts = [part for reply in replies for part in render_down(reply, can) if not part.is_empty()][:most]
        if not parts:
            return []
        conversation = await conversation_id(conn, route)
        made = [
            replace(
                self._make(source, first + n, part, route, message_id, conversation),
                under_id=under_id,
                edit_of_id=edit_of_id,
            )
            for n, part in enumerate(parts)
        ]
        return [one for one in made if await self._insert(conn, one)]

    async def write_again(self, conn: AsyncConnection, delivery_id: str, source: str) -> Delivery | None:
        """A new delivery of the same reply, to the same place under the same token; None when that was erased.

        For one that was given up or may not have arrived, when a person says so. A platform that removes duplicates
        still knows the token, for as long as it keeps it. Raises `SealError`.
        """
        table = schema.delivery
        query = sa.select(table).where(table.c.id == delivery_id, table.c.state.in_(("dead", "ambiguous")))
        row = (await conn.execute(query)).first()
        if row is None or row.body_sealed is None:
            return None
        at = now()
        one = replace(
            self.opened(row),
            id=new_id(),
            source=source,
            ordinal=0,
            attempts=0,
            created_at=at,
            waits_since=at,
        )
        return one if await self._insert(conn, one) else None

    async def _insert(self, conn: AsyncConnection, one: Delivery) -> bool:
        at = now()
        values = {
            "id": one.id,
            "source": one.source,
            "ordinal": one.ordinal,
            "account": one.route.account,
            "conversation_id": one.conversation_id,
            "message_id": one.message_id,
            "route": kept_routes.kept(self._keyring, "delivery", one.id, one.route),
            "body_sealed": self._keyring.seal(
                "delivery", "body_sealed", one.id, one.reply.model_dump_json().encode()
            ),
            "token": one.token,
            "state": "pending",
            "attempts": 0,
            "under_id": one.under_id,
            "edit_of_id": one.edit_of_id,
            "next_attempt_at": at,
            "created_at": one.created_at,
            "erase_after": at + timedelta(days=self.retention.bodies_days),
        }
        done = await conn.execute(insert_new(schema.delivery, ("source", "ordinal")), values)
        return bool(done.rowcount)

    @staticmethod
    def _make(
        source: str, ordinal: int, reply: Reply, route: Route, message_id: str | None, conversation: str
    ) -> Delivery:
        identity = new_id()
        return Delivery(
            id=identity,
            source=source,
            ordinal=ordinal,
            message_id=message_id,
            conversation_id=conversation,
            reply=reply,
            route=route,
            token=identity,
        )

    def opened(self, row: Any) -> Delivery:
        """A row of the table with its reply opened."""
        return self._taken_up(row, self._reply(row))

    def _reply(self, row: Any) -> Reply:
        body = self._keyring.open("delivery", "body_sealed", row.id, row.body_sealed)
        return Reply.model_validate_json(body)

    def _taken_up(self, row: Any, reply: Reply) -> Delivery:
        return Delivery(
            id=row.id,
            source=row.source,
            ordinal=row.ordinal,
            message_id=row.message_id,
            conversation_id=row.conversation_id,
            reply=reply,
            route=kept_routes.opened(self._keyring, "delivery", row.id, row.route),
            token=row.token,
            created_at=row.created_at,
            attempts=row.attempts,
            doubt=row.state == "sending",
            under_id=row.under_id,
            edit_of_id=row.edit_of_id,
            waits_since=max(row.created_at, self._since),
        )

    # -- what an `Outbox` reads and changes; each raises `StoreUnavailable`

    async def _accounts(self) -> Sequence[str]:
        """Those for which something waits."""
        query = sa.select(schema.delivery.c.account).where(_UNSETTLED).distinct()

        async def find(conn: AsyncConnection) -> Sequence[str]:
            return (await conn.execute(query)).scalars().all()

        return await self._store.read(find)

    async def _conversations(
        self, account: str, most: int, unreadable: Collection[str]
    ) -> tuple[Sequence[Any], int]:
        """An account's conversations that have waited longest, each with how many wait; and how many do in all."""
        table = schema.delivery
        count = sa.func.count()
        readable = table.c.id.not_in(sorted(unreadable)[:MOST_UNREADABLE])
        here = sa.and_(table.c.account == account, _UNSETTLED, readable)
        query = (
            sa.select(table.c.conversation_id, count)
            .where(here)
            .group_by(table.c.conversation_id)
            .order_by(sa.func.min(table.c.created_at), table.c.conversation_id)
            .limit(most)
        )

        async def find(conn: AsyncConnection) -> tuple[Sequence[Any], int]:
            total = (await conn.execute(sa.select(count).where(here))).scalar_one()
            return (await conn.execute(query)).all(), total

        return await self._store.read(find)

    async def _next_of(self, conversation: str, most: int) -> Sequence[Any]:
        """The next of a conversation, in their order."""
        # Without their bodies, which may hold files of megabytes, and may wait for a day.
        columns = [column for column in schema.delivery.c if column.name != "body_sealed"]
        table = schema.delivery
        query = (
            sa.select(*columns)
            .where(table.c.conversation_id == conversation, _UNSETTLED)
            .order_by(table.c.created_at, table.c.ordinal)
            .limit(most)
        )

        async def find(conn: AsyncConnection) -> Sequence[Any]:
            return (await conn.execute(query)).all()

        return await self._store.read(find)

    async def _body_of(self, delivery_id: str) -> Any:
        table = schema.delivery
        query = sa.select(table.c.id, table.c.body_sealed).where(table.c.id == delivery_id)

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).one()

        return await self._store.read(fetch)

    async def _before(self, one: Delivery) -> Any:
        """State and receipt of the delivery that this one stands under, or changes."""
        table = schema.delivery
        query = sa.select(table.c.state, table.c.receipt).where(
            table.c.id == (one.edit_of_id or one.under_id)
        )

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).first()

        return await self._store.read(fetch)

    async def _change(
        self,
        one: Delivery,
        values: Mapping[str, Any],
        also: Callable[[AsyncConnection], Awaitable[None]] | None = None,
    ) -> bool:
        """Write this, and in the same transaction what `also` does; false when it was settled before."""

        async def update(conn: AsyncConnection) -> bool:
            changed = (await conn.execute(_CHANGE, {**values, "the_delivery": one.id})).rowcount
            if changed and also is not None:
                await also(conn)
            return bool(changed)

        return await self._store.write(update)


async def last_ordinal(conn: AsyncConnection, source: str) -> int:
    """The greatest ordinal of this source's deliveries; -1 when there are none."""
    table = schema.delivery
    query = sa.select(sa.func.max(table.c.ordinal)).where(table.c.source == source)
    last = (await conn.execute(query)).scalar()
    return -1 if last is None else int(last)


def first_id(receipt: Any) -> str | None:
    """The platform's id of the first part that arrived."""
    ids = (receipt or {}).get("native_ids") or ()
    return str(ids[0]) if ids else None


__all__ = ["Deliveries", "Delivery", "first_id", "last_ordinal"]
