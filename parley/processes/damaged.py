"""What waits and does not open any more: a dead letter, and an apology where it is still known who waits.

A row that was altered, moved, cut, or whose key is lost stops nobody else. Restored from a backup, it can be replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages import kept_routes
from parley.messages.inbox import Inbox
from parley.messages.model import ConversationKind, Reply, Route, now
from parley.messages.outbox import Delivery, Outbox
from parley.people.sealing import Keyring
from parley.runs import dead_letters
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

REASON: Final = "it does not open: it was altered, or its key is not there"

_TO_ONE = frozenset({ConversationKind.DIRECT, ConversationKind.MAIL})


_WAITS: Final = {
    "message": sa.and_(schema.message.c.state == "received", schema.message.c.event_sealed.is_not(None)),
    "delivery": sa.and_(
        schema.delivery.c.state.in_(("pending", "sending")), schema.delivery.c.body_sealed.is_not(None)
    ),
}

_Opened = TypeVar("_Opened")


class Damaged:
    """Settles what the inbox and the outbox could not open."""

    def __init__(
        self, store: Store, keyring: Keyring, inbox: Inbox, outbox: Outbox, *, language: Callable[[], str]
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._inbox = inbox
        self._outbox = outbox
        self._language = language

    async def settle(self) -> None:
        """Write the dead letters. What opens by now goes on, for its key came later than it did.

        Raises `StoreUnavailable`; what was not settled is settled the next time.
        """
        await self._each(self._inbox.unreadable, self._message, self._inbox.settled_unreadable)
        await self._each(self._outbox.unreadable, self._delivery, self._outbox.settled_unreadable)

    async def _each(self, ids: Iterable[str], act: Any, settled: Callable[[str], None]) -> None:
        for identifier in list(ids):
            told = await self._store.write(partial(act, identifier=identifier))
            settled(identifier)
            self._outbox.send(told)

    async def _message(self, conn: AsyncConnection, *, identifier: str) -> list[Delivery]:
        table = schema.message
        if await _opens(conn, table, identifier, self._inbox.opened):
            return []  # the inbox reads it again at its next look
        row = await _taken(conn, table, identifier, ("received",), {"reason": REASON, "handled_at": now()})
        if row is None:
            return []
        await dead_letters.record(
            conn,
            "message",
            f"message:{identifier}",
            REASON,
            account=row.account,
            actor_id=row.principal_id,
        )
        route = self._route("message", row)
        # In a room it may have been said to others; an answer to that would be no apology.
        if route is None or route.kind not in _TO_ONE or row.type not in ("message", "action"):
            return []
        return await self._apologise(conn, "damaged-message", f"message:{identifier}", route, identifier)

    async def _delivery(self, conn: AsyncConnection, *, identifier: str) -> list[Delivery]:
        table = schema.delivery
        if (one := await _opens(conn, table, identifier, self._outbox.opened)) is not None:
            return [one]
        row = await _taken(conn, table, identifier, ("pending", "sending"), {"reason": REASON})
        if row is None:
            return []
        await dead_letters.record(
            conn,
            "delivery",
            f"delivery:{identifier}",
            REASON,
            account=row.account,
            doubtful=row.state == "sending",
        )
        route = self._route("delivery", row)
        if route is None or row.edit_of_id is not None:
            return []
        return await self._apologise(conn, "damaged-answer", f"damaged:{identifier}", route, row.message_id)

    def _route(self, table: str, row: Any) -> Route | None:
        try:
            return kept_routes.opened(self._keyring, table, row.id, row.route)
        except (SealError, ValidationError):
            return None

    async def _apologise(
        self, conn: AsyncConnection, key: str, source: str, route: Route, message_id: str | None
    ) -> list[Delivery]:
        reply = Reply(text=sentence(key, self._language()))
        return await self._outbox.write(conn, source, [reply], route, message_id=message_id)


async def _opens(
    conn: AsyncConnection, table: sa.Table, identifier: str, opened: Callable[[Any], _Opened]
) -> _Opened | None:
    """What is in the row, where it opens by now: its key was another hub's, and not known here yet."""
    row = (await conn.execute(sa.select(table).where(table.c.id == identifier, _WAITS[table.name]))).first()
    try:
        return opened(row) if row is not None else None
    except (SealError, ValidationError):
        return None


async def _taken(
    conn: AsyncConnection, table: sa.Table, identifier: str, states: tuple[str, ...], values: dict[str, Any]
) -> Any:
    """The row, as it was before it died; None when it is settled already."""
    mine = sa.and_(table.c.id == identifier, table.c.state.in_(states))
    row = (await conn.execute(sa.select(table).where(mine))).first()
    if row is not None:
        await conn.execute(sa.update(table).where(mine).values(state="dead", **values))
        logger.error("%s %s is dead: %s", table.name, identifier, REASON)
    return row
