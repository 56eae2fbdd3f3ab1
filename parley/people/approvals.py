"""Approvals: a request waits until enough people said yes to exactly this.

An approval is bound to a keyed hash over automation, version, parameters and who asks; a change of any of them voids
it. It is for one start: what is asked for again is approved again. Functions of one transaction, the caller's: what is
decided together is committed together.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people.sealing import Keyring
from parley.runs.catalogue import AutomationSpec
from parley.store import schema
from parley.store.ids import new_id
from parley.store.insert_new import insert_new

KIND: Final = "approval"
"""What stands in a request's `asking` while it waits for an approval."""

LETTERS: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Of which codes are made: none looks like another one."""

Ending = Literal["granted", "refused", "expired", "withdrawn", "void"]

_TABLE = schema.approval
_PURPOSE: Final = "approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApproval:
    """What is asked for. `excluded`: who may not vote; `alone`: nobody else could approve it."""

    request_id: str
    digest: str
    needed: int
    excluded: Collection[str]
    alone: bool
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Word:
    """A yes or a no. `lent_by`: names of those in whose place it was said, where it was by no right of their own."""

    name: str
    lent_by: tuple[str, ...] = ()


def bound_to(
    keyring: Keyring, spec: AutomationSpec, values: Mapping[str, Any], actor_id: str | None, key_id: str = ""
) -> str:
    """`key id:HMAC` of what an approval is for; parameters that are secret cannot be guessed from it."""
    body = json.dumps(
        [spec.name, spec.effect, spec.version_for(values), dict(values), actor_id],
        sort_keys=True,
        ensure_ascii=False,
    ).encode("utf-8", "surrogatepass")
    key_id = key_id or keyring.newest
    return f"{key_id}:{keyring.authenticate(key_id, _PURPOSE, body)}"


def is_for(
    keyring: Keyring, row: Any, spec: AutomationSpec, values: Mapping[str, Any], actor_id: str | None
) -> bool:
    """Whether an approval's row is for exactly this. Raises `SealError` when its key is gone."""
    key_id = str(row.digest).partition(":")[0]
    return hmac.compare_digest(bound_to(keyring, spec, values, actor_id, key_id), str(row.digest))


async def insert(conn: AsyncConnection, new: NewApproval) -> Any:
    """A new open approval; its row."""
    identity, tries = new_id(), 0
    while True:
        values = {
            "id": identity,
            "request_id": new.request_id,
            "code": _code(4 if tries < 10 else 6),
            "digest": new.digest,
            "needed": new.needed,
            "excluded": sorted(new.excluded),
            "alone": new.alone,
            "cards": [],
            "state": "open",
            "created_at": now(),
            "expires_at": new.expires_at,
        }
        if (await conn.execute(insert_new(_TABLE, ("code",)), values)).rowcount:
            return await get(conn, identity)
        tries += 1


async def get(conn: AsyncConnection, approval_id: str) -> Any:
    """The row of an approval; None when it was forgotten."""
    return (await conn.execute(sa.select(_TABLE).where(_TABLE.c.id == approval_id))).first()


async def by_code(conn: AsyncConnection, code: str) -> Any:
    """The row with this code, however it was typed; of two hubs one at a time goes on with it."""
    wanted = code.strip().strip("`'\"“”。.,，").upper().replace("-", "")
    if not 0 < len(wanted) <= 12 or not wanted.isascii() or not wanted.isalnum():
        return None
    return (await conn.execute(sa.select(_TABLE).where(_TABLE.c.code == wanted).with_for_update())).first()


async def of_request(conn: AsyncConnection, request_id: str) -> Any:
    """The newest approval of a request; None when there is none."""
    query = sa.select(_TABLE).where(_TABLE.c.request_id == request_id)
    return (
        await conn.execute(query.order_by(_TABLE.c.created_at.desc(), _TABLE.c.id.desc()).limit(1))
    ).first()


async def open_ones(conn: AsyncConnection, limit: int = 200) -> list[Any]:
    """Those that wait, with what they are for (`automation`, `actor`, `actor_id`, ...), the first to end first."""
    request, who = schema.request, schema.principal
    query = (
        sa.select(
            _TABLE,
            request.c.automation,
            request.c.actor_id,
            request.c.parameters_sealed,
            who.c.name.label("actor"),
        )
        .join(request, request.c.id == _TABLE.c.request_id)
        .outerjoin(who, who.c.id == request.c.actor_id)
        .where(_TABLE.c.state == "open", _TABLE.c.expires_at > now())
        .order_by(_TABLE.c.expires_at, _TABLE.c.id)
        .limit(limit)
    )
    return list((await conn.execute(query)).all())


async def close(
    conn: AsyncConnection,
    keyring: Keyring,
    row: Any,
    state: Ending,
    by: str | None = None,
    *,
    reason: str = "",
    at: datetime | None = None,
) -> bool:
    """End an open approval; false when it had ended before."""
    values = {
        "state": state,
        "decided_at": at or now(),
        "decided_by": by,
        "reason_sealed": keyring.seal("approval", "reason_sealed", row.id, reason.encode("utf-8", "replace"))
        if reason
        else None,
    }
    mine = sa.and_(_TABLE.c.id == row.id, _TABLE.c.state == "open")
    return bool((await conn.execute(sa.update(_TABLE).where(mine).values(values))).rowcount)


async def show(conn: AsyncConnection, approval_id: str, cards: list[dict[str, Any]]) -> None:
    """Remember what shows it."""
    await conn.execute(sa.update(_TABLE).where(_TABLE.c.id == approval_id).values(cards=cards))


async def vote(
    conn: AsyncConnection,
    approval_id: str,
    principal_id: str,
    *,
    granted: bool,
    lent_by: Collection[str] = (),
) -> bool:
    """Count this person's word; false when they gave one before, which stays.

    `lent_by`: ids of those who lent the right that the word uses; nothing when it is by a right of their own.
    """
    row = {
        "id": new_id(),
        "approval_id": approval_id,
        "principal_id": principal_id,
        "granted": granted,
        "lent_by": sorted(lent_by) or None,
        "created_at": now(),
    }
    done = await conn.execute(insert_new(schema.vote, ("approval_id", "principal_id")), row)
    return bool(done.rowcount)


async def forget_word(conn: AsyncConnection, approval_id: str, principal_id: str) -> bool:
    """Take back this person's word; whether they had given one."""
    table = schema.vote
    theirs = sa.and_(table.c.approval_id == approval_id, table.c.principal_id == principal_id)
    return bool((await conn.execute(sa.delete(table).where(theirs))).rowcount)


async def words(conn: AsyncConnection, approval_id: str, *, granted: bool = True) -> dict[str, Word]:
    """Who said yes, or no, in order: by their ids."""
    table, who = schema.vote, schema.principal
    query = (
        sa.select(table.c.principal_id, table.c.lent_by, who.c.name)
        .join(who, who.c.id == table.c.principal_id)
        .where(table.c.approval_id == approval_id, table.c.granted == granted)
        .order_by(table.c.created_at, table.c.id)
    )
    rows = (await conn.execute(query)).all()
    lenders = {one for row in rows for one in row.lent_by or ()}
    named = sa.select(who.c.id, who.c.name).where(who.c.id.in_(lenders))
    names = dict((await conn.execute(named)).tuples().all()) if lenders else {}
    return {
        row.principal_id: Word(row.name, tuple(sorted(names.get(one, "-") for one in row.lent_by or ())))
        for row in rows
    }


def _code(length: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(length))


__all__ = [
    "KIND",
    "LETTERS",
    "Ending",
    "NewApproval",
    "Word",
    "bound_to",
    "by_code",
    "close",
    "forget_word",
    "get",
    "insert",
    "is_for",
    "of_request",
    "open_ones",
    "show",
    "vote",
    "words",
]
