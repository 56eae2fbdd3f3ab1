"""Threads: what events with the same key become in one conversation.

The first makes the head, a message with title, text and link. Later ones are said under it, and the head is edited in
place to the newest title, where the platform can do either; elsewhere each is a message of its own that repeats its
title. When an alert (`warning` or `critical`) comes back after its key was closed, it makes a new head, so that people
are told as loudly as before; anything else goes on under the old one, as a pull request does that is opened again.
"""

from __future__ import annotations

import re
from typing import Any, Final

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages import thread_links
from parley.messages.model import Button, Capabilities, Reply, Route, derived_id, now
from parley.messages.outbox import Delivery, Outbox
from parley.messages.published import Published
from parley.messages.rendering import render_down
from parley.store import schema

MOST_PARTS: Final = 90
"""Messages that one event becomes in one conversation at the most; it has a hundred numbers there."""

_LINK = re.compile(r"https?://[^\s<>\"]+", re.ASCII)
_BOLD = re.compile(r"[*\n\r]+")


def scope_of(event: Published) -> str:
    """Within what a key means the same."""
    return f"notice:{event.account}"


async def place_event(
    conn: AsyncConnection,
    outbox: Outbox,
    event: Published,
    route: Route,
    can: Capabilities,
    ordinal: int,
    buttons: tuple[Button, ...] = (),
) -> tuple[list[Delivery], str | None]:
    """Write what this event becomes in a conversation; also the delivery in whose thread answers to it belong.

    `ordinal`: its first number among all that the event leads to; a hundred are its own. `buttons`: what is offered
    with it.
    """
    source = f"event:{event.source}"
    scope, closed_at = scope_of(event), now() if event.closes else None
    link = await thread_links.find(conn, scope, event.key, route) if event.key else None
    if link is None or (link.closed_at is not None and not event.closes and event.severity != "info"):
        reply = Reply(text=head_text(event), buttons=buttons)
        written = await outbox.write(conn, source, [reply], route, first=ordinal, most=MOST_PARTS)
        head = written[0].id if written else None
        if event.key and head:
            shown = {"closed_at": closed_at, "shown": derived_id(_title(event))}
            await thread_links.put(conn, scope, event.key, route, head, **shown)
        return written, head
    written = await _go_on(conn, outbox, event, route, can, link, ordinal, buttons)
    if event.severity == "info" and not event.closes:
        closed_at = link.closed_at  # a remark about an alert that is over does not open it again
    await thread_links.touch(conn, link.id, closed_at=closed_at, shown=derived_id(_title(event)))
    return written, link.delivery_id


async def _go_on(
    conn: AsyncConnection,
    outbox: Outbox,
    event: Published,
    route: Route,
    can: Capabilities,
    link: Any,
    ordinal: int,
    buttons: tuple[Button, ...],
) -> list[Delivery]:
    source = f"event:{event.source}"
    text = _under_text(event) if can.threads else head_text(event)
    written = await outbox.write(
        conn,
        source,
        [Reply(text=text, buttons=buttons)],
        route,
        first=ordinal,
        under_id=link.delivery_id if can.threads else None,
        most=MOST_PARTS,
    )
    if can.edits and link.shown != derived_id(_title(event)):
        edited = await _edited_head(conn, outbox, event, link, can)
        written += await outbox.write(
            conn, source, [edited], route, first=ordinal + MOST_PARTS, edit_of_id=link.delivery_id, most=1
        )
    return written


async def _edited_head(
    conn: AsyncConnection, outbox: Outbox, event: Published, link: Any, can: Capabilities
) -> Reply:
    """The head with the newest title above what it says; what it offers stays until the matter is closed."""
    table = schema.delivery
    row = (await conn.execute(sa.select(table).where(table.c.id == link.delivery_id))).first()
    head = Reply()
    if row is not None and row.body_sealed is not None:
        try:
            head = outbox.opened(row).reply
        except (SealError, ValidationError):
            head = Reply()
    before = head.text
    title = render_down(Reply(text=_title(event)), can)[0].text
    below = before.partition("\n\n")[2] if before else _address(event)
    text = f"{title}\n\n{below}" if below else title
    buttons = () if event.closes else head.buttons
    return Reply(text=render_down(Reply(text=text), can)[0].text, buttons=buttons)


def head_text(event: Published) -> str:
    """A message that stands alone: title, what happened, where to look unless that was said already."""
    address = _address(event)
    if address in event.text:
        address = ""
    return "\n\n".join(part for part in (_title(event), event.text.strip(), address) if part)


def _under_text(event: Published) -> str:
    return event.text.strip() or head_text(event)


def _title(event: Published) -> str:
    # One line, so that it is the head's first paragraph and can be replaced.
    title = _BOLD.sub(" ", event.title or event.topic).strip()
    return f"**{title}**" if title else ""


def _address(event: Published) -> str:
    return event.url if _LINK.fullmatch(event.url) else ""
