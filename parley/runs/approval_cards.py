"""Cards: where an open approval is shown, and how each is locked once it is decided.

Who asks sees what it waits for; everybody who may approve gets a card where they can be reached, and so do the
conversations that the rule names. A card has buttons where there are, elsewhere it says what to write. When it is
decided, each card says so: in place where the platform can edit, else in a message below.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages.model import Button, Capabilities, ConversationKind, Reply, Route
from parley.messages.outbox import Delivery, Outbox
from parley.messages.published import place_of
from parley.people import approvals
from parley.people.approval_rules import Terms
from parley.people.approvers import Approver
from parley.runs.approval_texts import clock, names, say, what
from parley.runs.catalogue import AutomationSpec
from parley.store import schema

MOST_CARDS: Final = 60
"""Places in which one approval is shown at the most."""

CONSOLE: Final = "console"

_NUMBERS: Final = 100
"""Of deliveries that each card has for itself: its parts, from 50 on what replaces it, and last what is said below."""
_EDITS: Final = 50
_BELOW: Final = 99
_MOST_EDITS: Final = _BELOW - _EDITS - 1

_ROOMS: Final = (ConversationKind.GROUP, ConversationKind.CHANNEL)

Status = Callable[[str, str], str]
"""What became of it, in this language and time zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be approved: a request, and who it waits for. `acting`: ids of those who spoke for `actor`."""

    request_id: str
    spec: AutomationSpec
    values: Mapping[str, Any]
    terms: Terms
    actor_id: str
    actor: str
    acting: tuple[str, ...] = ()
    route: Route | None
    message_id: str | None
    language: str
    time_zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    route: Route
    language: str
    time_zone: str
    asker: bool = False


class Cards:
    """Shows approvals. `vouched`: whether the platform of an account proves who writes there."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        capabilities_of: Callable[[str], Capabilities],
        route_to: Callable[[AsyncConnection, str], Awaitable[Route | None]],
        vouched: Callable[[str], bool],
        language: Callable[[], str],
        time_zone: Callable[[], str],
    ) -> None:
        self._outbox = outbox
        self._capabilities_of = capabilities_of
        self._route_to = route_to
        self._vouched = vouched
        self._language = language
        self._time_zone = time_zone

    async def show(
        self, conn: AsyncConnection, row: Any, asked: Asked, able: Mapping[str, Approver]
    ) -> list[Delivery]:
        """Show a new approval to all whom it concerns; call `Outbox.send` with them once that is committed."""
        written: list[Delivery] = []
        cards: list[dict[str, Any]] = []
        for at, place in enumerate(await self._places(conn, row, asked, able)):
            mine = await self._outbox.write(
                conn,
                f"approval:{row.id}",
                [_card(row, asked, able, place)],
                place.route,
                message_id=asked.message_id if place.asker else None,
                first=at * _NUMBERS,
                most=_EDITS,
            )
            written += mine
            if mine:
                shown = {"language": place.language, "time_zone": place.time_zone, "asker": place.asker}
                cards.append({"delivery": mine[-1].id, "at": at, **shown})
        await approvals.show(conn, row.id, cards)
        return written

    async def progress(self, conn: AsyncConnection, row: Any, status: Status) -> list[Delivery]:
        """How far it has come, and it needs more: said in place where that can be done, else not at all."""
        written: list[Delivery] = []
        edits = {card["delivery"]: int(card.get("edits", 0)) for card in row.cards}
        for card, shown in await self._shown(conn, row):
            said = edits[shown.id]
            if self._capabilities_of(shown.route.account).edits and said < _MOST_EDITS:
                text = _headed(status(card["language"], card["time_zone"]), shown.reply.text)
                reply = shown.reply.model_copy(update={"text": text})
                written += await self._edit(conn, row, card, shown, reply, _EDITS + said)
                edits[shown.id] = said + 1
        await approvals.show(conn, row.id, [card | {"edits": edits[card["delivery"]]} for card in row.cards])
        return written

    async def close(
        self, conn: AsyncConnection, row: Any, places: Collection[str], status: Status
    ) -> list[Delivery]:
        """Those in these places, but for that of who asked, are closed: they offer nothing, and are told no more."""
        written: list[Delivery] = []
        closed = set()
        for card, shown in await self._shown(conn, row):
            if card["asker"] or place_of(shown.route) not in places:
                continue
            closed.add(shown.id)
            if self._capabilities_of(shown.route.account).edits:
                text = _headed(status(card["language"], card["time_zone"]), shown.reply.text)
                written += await self._edit(conn, row, card, shown, Reply(text=text), _BELOW - 1)
        if closed:
            await approvals.show(conn, row.id, [card for card in row.cards if card["delivery"] not in closed])
        return written

    async def places_of(self, conn: AsyncConnection, principal_id: str, name: str) -> Collection[str]:
        """Where somebody is shown what waits for them alone."""
        table = schema.identity
        query = sa.select(table.c.account, table.c.direct).where(
            table.c.principal_id == principal_id, table.c.direct.is_not(None)
        )
        directs = {f"{row.account}:{row.direct}" for row in (await conn.execute(query)).all()}
        return {*directs, place_of(Route(account=CONSOLE, conversation=name))}

    async def lock(
        self, conn: AsyncConnection, row: Any, command: str, status: Status, *, told: str = ""
    ) -> list[Delivery]:
        """It is decided: every card says so and offers nothing any more.

        `told`: the key of what who asks is told besides, because an edit is easily missed.
        """
        written: list[Delivery] = []
        for card, shown in await self._shown(conn, row):
            language, outcome = card["language"], status(card["language"], card["time_zone"])
            edits = self._capabilities_of(shown.route.account).edits
            if edits:
                locked = Reply(text=_headed(outcome, shown.reply.text))
                written += await self._edit(conn, row, card, shown, locked, _BELOW - 1)
            if not edits or (card["asker"] and told):
                key = told if card["asker"] and told else "over"
                below = say(key, language, command=command, code=row.code, outcome=outcome)
                written += await self._outbox.write(
                    conn,
                    f"approval:{row.id}",
                    [Reply(text=below)],
                    shown.route,
                    message_id=shown.message_id,
                    first=card["at"] * _NUMBERS + _BELOW,
                    most=1,
                )
        return written

    async def _edit(
        self,
        conn: AsyncConnection,
        row: Any,
        card: Mapping[str, Any],
        shown: Delivery,
        reply: Reply,
        number: int,
    ) -> list[Delivery]:
        return await self._outbox.write(
            conn,
            f"approval:{row.id}",
            [reply],
            shown.route,
            first=card["at"] * _NUMBERS + number,
            edit_of_id=shown.id,
            most=1,
        )

    async def _shown(self, conn: AsyncConnection, row: Any) -> list[tuple[Mapping[str, Any], Delivery]]:
        cards = {card["delivery"]: card for card in row.cards}
        table = schema.delivery
        query = sa.select(table).where(table.c.id.in_(cards), table.c.body_sealed.is_not(None))
        found = []
        for delivery in (await conn.execute(query.order_by(table.c.ordinal))).all():
            try:
                found.append((cards[delivery.id], self._outbox.opened(delivery)))
            except (SealError, ValidationError):
                continue  # what cannot be read any more cannot be locked either; the vote counts all the same
        return found

    async def _places(
        self, conn: AsyncConnection, row: Any, asked: Asked, able: Mapping[str, Approver]
    ) -> Sequence[_Place]:
        found: dict[str, _Place] = {}
        language, time_zone = self._language(), self._time_zone()
        if asked.route is not None:
            own = _Place(route=asked.route, language=asked.language, time_zone=asked.time_zone, asker=True)
            found[place_of(asked.route)] = own
        if row.alone:
            return list(found.values())
        for text in asked.terms.to:
            route = await self._route_to(conn, text)
            if route is not None:
                room = _Place(route=route, language=language, time_zone=time_zone)
                found.setdefault(place_of(route), room)
        directs = await self._directs(conn, list(able))
        for approver in able.values():
            for route in directs.get(approver.id) or [Route(account=CONSOLE, conversation=approver.name)]:
                own = _Place(
                    route=route,
                    language=approver.language or language,
                    time_zone=approver.time_zone or time_zone,
                )
                found.setdefault(place_of(route), own)
        return list(found.values())[:MOST_CARDS]

    async def _directs(self, conn: AsyncConnection, people: Sequence[str]) -> Mapping[str, list[Route]]:
        """Where these people have written to us alone, and surely were themselves."""
        table = schema.identity
        query = sa.select(table).where(table.c.principal_id.in_(people), table.c.direct.is_not(None))
        found: dict[str, list[Route]] = {}
        for one in (await conn.execute(query.order_by(table.c.created_at))).all():
            if one.verified or self._vouched(one.account):
                route = await self._route_to(conn, f"{one.account}:{one.direct}")
                if route is not None:
                    found.setdefault(one.principal_id, []).append(route)
        return found


def _card(row: Any, asked: Asked, able: Mapping[str, Approver], place: _Place) -> Reply:
    language, until = place.language, clock(row.expires_at, place.time_zone)
    who = names((one.name for one in able.values()), language)
    shown = what(asked.spec, asked.values, language)
    if place.asker:
        key = "waits-alone" if row.alone else "waits"
        lines = [shown, say(key, language, needed=row.needed, who=who, code=row.code, until=until)]
        room = place.route.kind in _ROOMS and not row.alone
        return Reply(text="\n".join(lines), buttons=_buttons(row.code, language) if room else ())
    lines = [say("asks", language, name=asked.actor, what=shown)]
    if row.needed > 1:
        lines.append(say("needs-more", language, needed=row.needed, who=who))
    lines.append(say("decide", language, code=row.code, until=until))
    return Reply(text="\n".join(lines), buttons=_buttons(row.code, language))


def _buttons(code: str, language: str) -> tuple[Button, ...]:
    return (
        Button(label=say("approve", language), value=f"/approve {code}", style="primary"),
        Button(label=say("refuse", language), value=f"/refuse {code}", style="danger"),
    )


def _headed(outcome: str, text: str) -> str:
    # The outcome stands first: whatever a platform cuts off, it is not this.
    return f"**{outcome}**\n\n{text}"


__all__ = ["Asked", "Cards", "Status"]
