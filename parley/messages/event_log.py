"""The log of events: what was published, in order, for programs that read it and may be away for a while.

What services report, what runs publish and alerts are always kept; the state of every run and what people say only
while a program asks for them (and for a day after it asked last), so that an ordinary message costs no extra write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages.inbox import insert_new
from parley.messages.model import now
from parley.messages.published import Published
from parley.messages.topics import Pattern
from parley.people.sealing import Keyring
from parley.store import schema
from parley.store.engine import Store, after_commit

logger = logging.getLogger(__name__)

REMEMBERED: Final = timedelta(days=1)
"""How long a pattern is kept for after a program asked for it last."""

MOST_READERS: Final = 1000
"""Patterns that are remembered; of more, the oldest is forgotten."""

_REFRESH = timedelta(hours=1)
_LOOKED_AT = 2000
_LOOK_AGAIN = 5.0
_OWN_LOCK = 0x7061726C6570  # "parlep": on PostgreSQL, sequences are committed in their order


@dataclass(frozen=True, slots=True)
class Logged:
    """An event and its place in the log."""

    sequence: int
    event: Published


class EventLog:
    """Writes events within a transaction, and reads them after a place."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._readers: dict[str, tuple[Pattern, datetime]] = {}
        self.written: asyncio.Event = asyncio.Event()

    async def load(self) -> None:
        """Read which patterns programs asked for lately."""
        table = schema.event_reader

        async def fetch(conn: AsyncConnection) -> Sequence[Any]:
            query = sa.select(table).where(table.c.seen_at > now() - REMEMBERED)
            return (await conn.execute(query.order_by(table.c.seen_at))).all()

        for row in (await self._store.read(fetch))[-MOST_READERS:]:
            self._readers[row.pattern] = (Pattern(row.pattern), row.seen_at)

    def is_wanted(self, topic: str) -> bool:
        """Whether a program asked for this topic within the last day."""
        oldest = now() - REMEMBERED
        return any(seen > oldest and pattern.matches(topic) for pattern, seen in self._readers.values())

    async def asked_for(self, patterns: Sequence[str]) -> None:
        """Remember that a program asks for these; from the return on they are kept."""
        at = now()
        fresh = [
            text for text in patterns if text not in self._readers or at - self._readers[text][1] > _REFRESH
        ]
        if not fresh:
            return
        table = schema.event_reader

        async def write(conn: AsyncConnection) -> None:
            await conn.execute(sa.delete(table).where(table.c.seen_at < at - REMEMBERED))
            for text in fresh:
                await conn.execute(insert_new(conn, table, {"pattern": text, "seen_at": at}, ("pattern",)))
                await conn.execute(sa.update(table).where(table.c.pattern == text).values(seen_at=at))

        await self._store.write(write)
        for text in fresh:
            self._readers[text] = (Pattern(text), at)
        while len(self._readers) > MOST_READERS:
            del self._readers[min(self._readers, key=lambda one: self._readers[one][1])]

    async def append(self, conn: AsyncConnection, event: Published) -> bool:
        """Add an event; false when one of this source is there already."""
        if conn.dialect.name == "postgresql":
            # A number is taken before its row is committed: a reader must not see a later one first.
            await conn.execute(sa.text(f"SELECT pg_advisory_xact_lock({_OWN_LOCK})"))
        table = schema.event
        values = {"topic": event.topic, "source": event.source, "created_at": now()}
        done = await conn.execute(insert_new(conn, table, values, ("source",)))
        if not done.rowcount:
            return False
        mine = table.c.source == event.source
        sequence = (await conn.execute(sa.select(table.c.sequence).where(mine))).scalar_one()
        body = self._keyring.seal("event", "body_sealed", str(sequence), event.model_dump_json().encode())
        await conn.execute(sa.update(table).where(table.c.sequence == sequence).values(body_sealed=body))
        after_commit(self._tell)
        return True

    async def after(
        self, sequence: int, patterns: Sequence[Pattern], limit: int, *, without: Sequence[Pattern] = ()
    ) -> tuple[list[Logged], int]:
        """Events behind this place that match one of the patterns, and the place to go on from."""
        table = schema.event
        behind = sa.select(table.c.sequence, table.c.topic).where(table.c.sequence > sequence)
        behind = behind.order_by(table.c.sequence).limit(_LOOKED_AT)

        async def fetch(conn: AsyncConnection) -> tuple[Sequence[Any], int]:
            wanted: list[int] = []
            place = sequence
            for row in (await conn.execute(behind)).all():
                if len(wanted) >= limit:
                    break
                place = row.sequence
                if _fits(row.topic, patterns) and not _fits(row.topic, without):
                    wanted.append(row.sequence)
            if not wanted:
                return (), place
            bodies = sa.select(table).where(table.c.sequence.in_(wanted), table.c.body_sealed.is_not(None))
            return (await conn.execute(bodies.order_by(table.c.sequence))).all(), place

        rows, place = await self._store.read(fetch)
        return [logged for row in rows for logged in self._opened(row)], place

    async def newest(self) -> int:
        """The place of the newest event; 0 when there is none."""

        async def fetch(conn: AsyncConnection) -> int:
            return (await conn.execute(sa.select(sa.func.max(schema.event.c.sequence)))).scalar() or 0

        return await self._store.read(fetch)

    @staticmethod
    async def wait(written: asyncio.Event, seconds: float) -> None:
        """Return once something was written since `written` was taken, or after some time.

        At the latest after some seconds, because another hub of the same store may have written it.
        """
        try:
            async with asyncio.timeout(min(seconds, _LOOK_AGAIN)):
                await written.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        written, self.written = self.written, asyncio.Event()
        written.set()

    def _opened(self, row: Any) -> list[Logged]:
        try:
            body = self._keyring.open("event", "body_sealed", str(row.sequence), row.body_sealed)
            return [Logged(row.sequence, Published.model_validate_json(body))]
        except (SealError, ValidationError) as error:
            logger.error("event %s cannot be opened and is left out: %s", row.sequence, error)  # noqa: TRY400
            return []


def _fits(topic: str, patterns: Sequence[Pattern]) -> bool:
    return any(pattern.matches(topic) for pattern in patterns)
