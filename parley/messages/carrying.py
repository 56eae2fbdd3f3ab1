"""Carrying: what people write in one room is written in others, with their name, in its thread, and changed there too.

Each copy is linked to what it copies, so that a reply to the copy finds its way back to the original's thread and to
every other copy. A copy that a platform tells us of as if somebody had written it is known as ours and goes nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages import thread_links
from parley.messages.model import Capabilities, Edit, Message, Reply, Route
from parley.messages.outbox import Delivery, Outbox
from parley.messages.published import place_of

MOST_CARRIED: Final = 20_000
"""Characters of a text that are carried; of a longer one the rest is left out, and the copy says so."""

MOST_PARTS: Final = 99
"""Messages that one becomes in another room at the most; it has a hundred numbers there."""

_NOT_IN_A_NAME = re.compile(r"[*_`~\[\]<>|\x00-\x1f\u202a-\u202e\u2066-\u2069]+")
_ALARM = re.compile(r"@(?=(?:everyone|here|channel|all)\b)|@(?=所有人)", re.IGNORECASE)


def scope_of_room(route: Route) -> str:
    """Within what the native ids of a room are unique."""
    return f"room:{place_of(route)}"


async def is_ours(conn: AsyncConnection, message: Message) -> bool:
    """Whether this is a message of our own that came back."""
    place = message.route
    link = await thread_links.shown_by(conn, place.account, place.conversation, message.native_id)
    return link is not None


async def in_carried_thread(conn: AsyncConnection, route: Route) -> bool:
    """Whether the thread of this route has a copy in another room, or began as one."""
    if not route.thread:
        return False
    if await thread_links.shown_by(conn, route.account, route.conversation, route.thread) is not None:
        return True
    return bool(await thread_links.showing(conn, scope_of_room(route), route.thread))


async def carry(
    conn: AsyncConnection,
    outbox: Outbox,
    source: str,
    message: Message,
    targets: Sequence[Route],
    capabilities_of: Callable[[str], Capabilities],
) -> list[Delivery]:
    """Write this message in these rooms."""
    scope, written = scope_of_room(message.route), []
    root = await _root(conn, message.route)
    reply = copy_of(message)
    for at, target in enumerate(targets):
        route, under_id = target, None
        if root is not None and capabilities_of(target.account).threads:
            route, under_id = await _thread(conn, root, target)
        copies = await outbox.write(
            conn, source, [reply], route, first=at * 100, under_id=under_id, most=MOST_PARTS
        )
        if copies:
            await thread_links.put(conn, scope, message.native_id, target, copies[0].id)
        written += copies
    return written


async def carry_change(
    conn: AsyncConnection,
    outbox: Outbox,
    source: str,
    edit: Edit,
    route_to: Callable[[AsyncConnection, str], Awaitable[Route | None]],
    capabilities_of: Callable[[str], Capabilities],
) -> list[Delivery]:
    """Change the copies of what was changed, where the platform can; elsewhere they stay as they are."""
    written: list[Delivery] = []
    for at, link in enumerate(await thread_links.showing(conn, scope_of_room(edit.route), edit.target)):
        route = await route_to(conn, f"{link.account}:{link.conversation}")
        if route is None or not capabilities_of(link.account).edits:
            continue
        reply = Reply(text=_said(edit.sender.name or edit.sender.id, edit.text))
        written += await outbox.write(
            conn, source, [reply], route, first=at * 100, edit_of_id=link.delivery_id, most=1
        )
    return written


def copy_of(message: Message) -> Reply:
    """A message as it is written elsewhere: behind its author, with its files and the names of those left out."""
    lines = [_said(message.sender.name or message.sender.id, message.text)]
    lines += [f"(without the file {_plain(name)})" for name in message.left_out[:20]]
    return Reply(text="\n".join(lines), files=message.files)


def _said(name: str, text: str) -> str:
    # Nobody on the other side may be made to ring everybody's phone from here.
    quiet = _ALARM.sub("@\u200b", text[:MOST_CARRIED])
    rest = "" if len(text) <= MOST_CARRIED else f"… ({len(text) - MOST_CARRIED:,} characters more)"
    return f"**{_plain(name)}**: {quiet}{rest}"


def _plain(name: str) -> str:
    return _ALARM.sub("", _NOT_IN_A_NAME.sub(" ", name)).strip()[:80] or "?"


async def _root(conn: AsyncConnection, route: Route) -> tuple[str, str] | None:
    """What the thread of this route is about: a link's scope and key."""
    if not route.thread:
        return None
    link = await thread_links.shown_by(conn, route.account, route.conversation, route.thread)
    return (link.scope, link.key) if link is not None else (scope_of_room(route), route.thread)


async def _thread(conn: AsyncConnection, root: tuple[str, str], target: Route) -> tuple[Route, str | None]:
    scope, key = root
    if scope == scope_of_room(target):
        return target.model_copy(update={"thread": key}), None
    link = await thread_links.find(conn, scope, key, target)
    return target, link.delivery_id if link is not None else None
