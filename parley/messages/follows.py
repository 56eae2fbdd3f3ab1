"""Follows: routes that people made in a conversation for a repository, `/follow octo/app`. Kept in the store.

Functions of one transaction; who may follow is decided by the caller, and audited there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError, SealError
from parley.messages import thread_links
from parley.messages.inbox import insert_new
from parley.messages.model import ConversationKind, Route, now
from parley.messages.published import Published
from parley.messages.threads import scope_of
from parley.messages.topics import Pattern
from parley.people.principals import Role
from parley.people.sealing import Keyring
from parley.store import schema
from parley.store.ids import new_id

logger = logging.getLogger(__name__)

MOST_HERE: Final = 100
"""Repositories that one conversation follows at the most."""

USUAL: Final = ("*.push", "*.pull_request.#", "*.release.#", "*.pipeline.failed")
"""What is told when nothing else is asked for; the first word is the account."""

_NAME = r"[a-z0-9_][a-z0-9_.-]{0,99}"
_REPOSITORY = re.compile(rf"{_NAME}(/{_NAME}){{0,10}}/({_NAME}|\*)", re.ASCII)
_TABLE, _WHO = schema.follow, schema.principal

_ROOMS: Final = frozenset({ConversationKind.GROUP, ConversationKind.CHANNEL})
_MAY_HERE: Final = frozenset({Role.OWNER, Role.OPERATOR, Role.USER})
_MAY_IN_ROOMS: Final = frozenset({Role.OWNER, Role.OPERATOR})


def may_follow(role: str, kind: ConversationKind) -> bool:
    """Whether somebody of this role may have such a conversation told what happens in a repository."""
    return role in (_MAY_IN_ROOMS if kind in _ROOMS else _MAY_HERE)


def repository(text: str) -> str | None:
    """`owner/name` (or `owner/*`) as it is compared: lower case; None when it is none."""
    name = text.strip().lower().removesuffix(".git")
    return name if _REPOSITORY.fullmatch(name) else None


class Follows:
    """Conversations and the repositories that they follow."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def add(
        self, conn: AsyncConnection, name: str, topics: Sequence[str], route: Route, by_id: str
    ) -> None:
        """Follow a repository in this conversation, with these topics from now on. Raises `PolicyError`: too many."""
        here = _here(route)
        count = sa.select(sa.func.count()).select_from(_TABLE).where(here, _TABLE.c.repository != name)
        if (await conn.execute(count)).scalar_one() >= MOST_HERE:
            raise PolicyError(f"A conversation follows {MOST_HERE} repositories at the most.")
        follow_id = new_id()
        # Not the thread in which it was asked for, and no answer to that message (a slash command's, say): what happens
        # later is told to the whole room.
        plain = Route(account=route.account, conversation=route.conversation, kind=route.kind)
        body = self._keyring.seal("follow", "route_sealed", follow_id, plain.model_dump_json().encode())
        values = {
            "id": follow_id,
            "repository": name,
            "topics": list(topics),
            "account": route.account,
            "conversation": route.conversation,
            "route_sealed": body,
            "by_id": by_id,
            "created_at": now(),
        }
        await conn.execute(sa.delete(_TABLE).where(here, _TABLE.c.repository == name))
        await conn.execute(insert_new(conn, _TABLE, values, ("repository", "account", "conversation")))

    async def remove(self, conn: AsyncConnection, name: str, route: Route) -> bool:
        """Follow it no more; whether it was followed here."""
        done = await conn.execute(sa.delete(_TABLE).where(_here(route), _TABLE.c.repository == name))
        return bool(done.rowcount)

    async def here(self, conn: AsyncConnection, route: Route) -> list[Any]:
        """What this conversation follows: rows with `repository` and `topics`."""
        query = sa.select(_TABLE.c.repository, _TABLE.c.topics).where(_here(route))
        return list((await conn.execute(query.order_by(_TABLE.c.repository))).all())

    async def followers(self, conn: AsyncConnection, event: Published) -> list[Route]:
        """The conversations that follow what this event is about, as long as who asked for it may still follow.

        What closes a matter is told wherever the matter is still open: a success where a failure was told.
        """
        about = event.data.get("repository")
        if not isinstance(about, str) or len(about) > 1000:
            return []
        query = (
            sa.select(_TABLE, _WHO.c.role)
            .join(_WHO, _WHO.c.id == _TABLE.c.by_id)
            .where(_TABLE.c.repository.in_(_names(about.lower())), _WHO.c.enabled)
        )
        rows = (await conn.execute(query.order_by(_TABLE.c.id))).all()
        return [
            route
            for row in rows
            for route in self._route(row)
            if may_follow(row.role, route.kind)
            and (
                any(Pattern(pattern).matches(event.topic) for pattern in row.topics)
                or await _is_open(conn, event, route)
            )
        ]

    def _route(self, row: Any) -> list[Route]:
        try:
            body = self._keyring.open("follow", "route_sealed", row.id, row.route_sealed)
            return [Route.model_validate_json(body)]
        except (SealError, ValidationError) as error:
            # One that cannot be opened must not keep an event from the others.
            logger.error("the follow %s cannot be opened and is left out: %s", row.id, error)  # noqa: TRY400
            return []


async def _is_open(conn: AsyncConnection, event: Published, route: Route) -> bool:
    if not (event.closes and event.key):
        return False
    link = await thread_links.find(conn, scope_of(event), event.key, route)
    return link is not None and link.closed_at is None


def _names(about: str) -> list[str]:
    parts = about.split("/")
    return [about, *("/".join([*parts[:n], "*"]) for n in range(1, min(len(parts), 12)))]


def _here(route: Route) -> sa.ColumnElement[bool]:
    return sa.and_(_TABLE.c.account == route.account, _TABLE.c.conversation == route.conversation)
