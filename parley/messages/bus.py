"""The bus: an event is written down, goes where routes lead, and starts what waits for it; all in one transaction.

That transaction is the one that makes the event true: the message it came as is handled, the run that published it
goes on, the request is closed. So whatever dies in between, an event happens once, and what it leads to is in the
outbox and among the queued runs or is not there at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.carrying import carry, carry_change, is_ours
from parley.messages.event_log import EventLog
from parley.messages.model import Button, Capabilities, Edit, Message, Route
from parley.messages.outbox import Delivery, Outbox
from parley.messages.published import Published, place_of
from parley.messages.routes import Matched, Routes, Start
from parley.messages.threads import place_event
from parley.runs.requests import QueuedRun

MOST_PLACES: Final = 200
"""Conversations that one event goes to at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an event came from: the message it arrived as. `said`: what somebody wrote; it is carried to `rooms`."""

    message_id: str | None = None
    conversation_id: str | None = None
    said: Message | None = None
    rooms: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What is sent and dispatched once the transaction is committed."""

    deliveries: list[Delivery] = field(default_factory=list)
    queued: list[QueuedRun] = field(default_factory=list)


class Planned(Protocol):
    """What an event would start; `button` where the service may not start it and a person may."""

    @property
    def button(self) -> Button | None:
        """What people press to start it themselves."""


P = TypeVar("P", bound=Planned)


class Starter(Protocol[P]):
    """Makes requests of events; see parley.runs.on_event."""

    async def plan(
        self, conn: AsyncConnection, event: Published, start: Start, before: Sequence[P] = ()
    ) -> P:
        """Whether the event may start this, or offer it. `before`: what else it starts already."""

    async def carry_out(
        self,
        conn: AsyncConnection,
        event: Published,
        plan: P,
        origin: Origin,
        *,
        ordinal: int,
        route: Route | None,
        under_id: str | None,
    ) -> Sequence[QueuedRun]:
        """The runs that are queued: none when the service may not run it."""

    async def meet(self, conn: AsyncConnection, account: str) -> None:
        """Make sure that the service behind this account can be given rights."""

    async def withdraw(self, conn: AsyncConnection, event: Published) -> None:
        """What was offered about this event's key is over."""


Followers = Callable[[AsyncConnection, Published], Awaitable[Sequence[Route]]]
"""Conversations that follow what an event is about."""


class Bus:
    """Publishes events. `route_to` finds the conversation that parley.toml names; None when there is no account."""

    def __init__(
        self,
        outbox: Outbox,
        log: EventLog,
        *,
        routes: Callable[[], Routes],
        route_to: Callable[[AsyncConnection, str], Awaitable[Route | None]],
        followers: Followers,
        capabilities_of: Callable[[str], Capabilities],
        start: Starter[Any],
    ) -> None:
        self._outbox = outbox
        self._log = log
        self._routes = routes
        self._route_to = route_to
        self._followers = followers
        self._capabilities_of = capabilities_of
        self._start = start

    def may_take(self, topic: str) -> bool:
        """Whether a route or a program may want events of this topic: asked before one is made."""
        return self._routes().may_take(topic) or self._log.is_wanted(topic)

    def takes(self, event: Published) -> bool:
        """Whether a route or a program wants this: for what is published often and mostly for nobody."""
        matched = self._routes().for_event(event)
        return bool(matched.places or matched.starts) or self._log.is_wanted(event.topic)

    async def publish(
        self, conn: AsyncConnection, event: Published, origin: Origin | None = None, *, keep: bool = True
    ) -> Outcome:
        """Publish within this transaction. `keep`: also when no program asked for its topic.

        A second event of the same source does nothing, if it is kept; one that is not has a caller that knows.
        """
        outcome = Outcome()
        matched, origin = self._routes().for_event(event), origin or Origin()
        if origin.said is not None and await is_ours(conn, origin.said):
            return outcome
        if (keep or self._log.is_wanted(event.topic)) and not await self._log.append(conn, event):
            return outcome
        routes = await self._conversations(conn, event, matched, origin)
        if not event.topic.startswith("message."):
            await self._start.meet(conn, event.account)
        if event.closes and event.key:
            await self._start.withdraw(conn, event)
        # What led to this event is not started by it again.
        plans: list[Any] = []
        for start in matched.starts:
            if f"run:{start.automation}" not in event.trail:
                plans.append(await self._start.plan(conn, event, start, plans))
        buttons = tuple(plan.button for plan in plans if plan.button)
        if origin.said is not None:
            heads = await self._carry(conn, event, origin.said, routes, outcome)
        else:
            heads = await self._tell(conn, event, matched, buttons, routes, outcome)
        # What an automation says of the event belongs under it, in the first conversation that parley.toml names.
        first, head = heads[0] if heads else (None, None)
        if first is None or place_of(first) not in matched.places:
            first = head = None
        for at, plan in enumerate(plans):
            outcome.queued += await self._start.carry_out(
                conn, event, plan, origin, ordinal=at, route=first, under_id=head
            )
        return outcome

    async def change(self, conn: AsyncConnection, message_id: str, edit: Edit) -> list[Delivery]:
        """What was carried to other rooms was changed where it was said: it is changed there, too."""
        source = f"event:message:{message_id}"
        return await carry_change(conn, self._outbox, source, edit, self._route_to, self._capabilities_of)

    async def _tell(
        self,
        conn: AsyncConnection,
        event: Published,
        matched: Matched,
        buttons: tuple[Button, ...],
        routes: Sequence[Route],
        outcome: Outcome,
    ) -> Sequence[tuple[Route | None, str | None]]:
        heads = []
        for at, route in enumerate(routes):
            can = self._capabilities_of(route.account)
            offered = buttons if place_of(route) in matched.places else ()
            written, head = await place_event(conn, self._outbox, event, route, can, at * 100, offered)
            outcome.deliveries += written
            heads.append((route, head))
        return heads

    async def _carry(
        self,
        conn: AsyncConnection,
        event: Published,
        said: Message,
        routes: Sequence[Route],
        outcome: Outcome,
    ) -> Sequence[tuple[Route | None, str | None]]:
        source = f"event:{event.source}"
        copies = await carry(conn, self._outbox, source, said, routes, self._capabilities_of)
        outcome.deliveries += copies
        return [(routes[0], copies[0].id)] if copies else []

    async def _conversations(
        self, conn: AsyncConnection, event: Published, matched: Matched, origin: Origin
    ) -> list[Route]:
        places = dict.fromkeys((*matched.places, *origin.rooms))
        if origin.said is not None:
            places.pop(place_of(origin.said.route), None)  # it was said there
        found = [await self._route_to(conn, place) for place in places]
        routes = [route for route in found if route is not None]
        if origin.said is None:
            routes += await self._followers(conn, event)
        once: dict[str, Route] = {}
        for route in routes:
            once.setdefault(place_of(route), route)
        return list(once.values())[:MOST_PLACES]
