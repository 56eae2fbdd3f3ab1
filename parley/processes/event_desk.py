"""The bus as programs see it over REST: they publish events, and read those of the topics that they ask for.

Only the owner and operators do either; what people say (`message.*`) is read by the owner alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied
from parley.messages.bus import Bus, Outcome
from parley.messages.event_log import EventLog, Logged
from parley.messages.outbox import Outbox
from parley.messages.published import Happening, Published
from parley.messages.topics import Pattern
from parley.people.principals import Principal, Role
from parley.runs.dispatch import Dispatcher
from parley.runs.run_events import check_topic
from parley.settings import BUS
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id
from parley.web.front import EventsView, EventView

MOST_PATTERNS: Final = 20
_SAID: Final = (Pattern("message.#"),)
_ENDS: Final = "run.#"


class EventDesk:
    """Checks rights, publishes, reads."""

    def __init__(
        self,
        store: Store,
        log: EventLog,
        bus: Bus,
        outbox: Outbox,
        dispatcher: Dispatcher,
        *,
        account_topics: Callable[[], frozenset[str]],
    ) -> None:
        self._store = store
        self._log = log
        self._bus = bus
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._account_topics = account_topics

    async def publish(self, principal: Principal, event: Happening, native_id: str | None) -> None:
        """Publish; a second time with the same id nothing happens. Raises `Denied`, `BadArguments`."""
        _check_role(principal)
        check_topic(event.topic, self._account_topics())
        source = f"rest:{principal.id}:{native_id or new_id()}"
        published = Published(source=source, account=BUS, **event.model_dump())

        async def write(conn: AsyncConnection) -> Outcome:
            return await self._bus.publish(conn, published)

        outcome = await self._store.write(write)
        self._outbox.send(outcome.deliveries)
        for queued in outcome.queued:
            self._dispatcher.add(queued)

    async def read(
        self, principal: Principal, patterns: Sequence[str], after: int | None, limit: int, seconds: float
    ) -> EventsView:
        """Events behind a place, or from now on when it is None; waits for the first one. Raises as `publish`."""
        _check_role(principal)
        wanted = _patterns(patterns)
        without = () if principal.role is Role.OWNER else _SAID
        await self._log.asked_for(patterns if principal.role is Role.OWNER else _without_said(wanted))
        lost = await self._is_lost(after) if after is not None else False
        place = await self._log.newest() if after is None else after
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            written, before = self._log.written, place
            found, place = await self._log.after(place, wanted, limit, without=without)
            if not found and place > before:
                continue  # others' events only, so far
            left = until - loop.time()
            if found or lost or left <= 0:
                return EventsView(items=tuple(map(_view, found)), after=place, lost=lost)
            await self._log.wait(written, left)

    async def _is_lost(self, after: int) -> bool:
        # Numbers are given out once only, so a gap behind the place means that events there are gone.
        table = schema.event

        async def oldest(conn: AsyncConnection) -> int | None:
            first: int | None = (await conn.execute(sa.select(sa.func.min(table.c.sequence)))).scalar()
            return first

        first = await self._store.read(oldest)
        return first is not None and after + 1 < first


def _check_role(principal: Principal) -> None:
    if principal.role not in (Role.OWNER, Role.OPERATOR):
        raise Denied("Only the owner and operators publish and read events.")


def _patterns(texts: Sequence[str]) -> tuple[Pattern, ...]:
    if not 0 < len(texts) <= MOST_PATTERNS:
        raise BadArguments(f"Name 1 to {MOST_PATTERNS} patterns of topics, as in topic=github.push.")
    try:
        return tuple(map(Pattern, texts))
    except ValueError as error:
        raise BadArguments(str(error)) from None


def _without_said(patterns: Sequence[Pattern]) -> Sequence[str]:
    """What is kept for somebody who may not read what people say: nothing of that is stored on their account."""
    # Besides that, only the ends of runs depend on who asks; for a pattern that may mean either those are kept.
    return [_ENDS if one.first is None else one.text for one in patterns if one.first != _SAID[0].first]


def _view(one: Logged) -> EventView:
    event = one.event
    return EventView(sequence=one.sequence, **event.model_dump(exclude={"source", "trail"}))
