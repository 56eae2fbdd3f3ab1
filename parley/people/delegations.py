"""Delegations: somebody approves in another's place, for a while.

What is lent is the right to approve and nothing else. It is lent by those who have it of their own, to people who have
not: nobody becomes two voices, and nobody lends on what was lent. Functions of one transaction; who may give and revoke
is decided by the caller, and audited there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.store import schema
from parley.store.ids import new_id

_TABLE = schema.delegation


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """`giver` lets `taker` (both names) approve in their place until `expires_at`."""

    id: str
    from_id: str
    to_id: str
    giver: str
    taker: str
    expires_at: datetime


async def give(conn: AsyncConnection, from_id: str, to_id: str, expires_at: datetime) -> str:
    """Lend the right to approve; the id. An earlier delegation between the two ends with it."""
    await end(conn, from_id, to_id)
    row = {"id": new_id(), "from_id": from_id, "to_id": to_id, "created_at": now(), "expires_at": expires_at}
    await conn.execute(sa.insert(_TABLE).values(row))
    return str(row["id"])


async def end(conn: AsyncConnection, from_id: str, to_id: str) -> bool:
    """Take it back; whether there was something to take back."""
    mine = sa.and_(_TABLE.c.from_id == from_id, _TABLE.c.to_id == to_id, _in_force())
    return bool((await conn.execute(sa.update(_TABLE).where(mine).values(revoked_at=now()))).rowcount)


async def in_force(conn: AsyncConnection, **where: Any) -> Sequence[Delegation]:
    """Those that are neither revoked nor over, between people who are both still there; `where` narrows by columns."""
    giver, taker = schema.principal.alias(), schema.principal.alias()
    query = (
        sa.select(_TABLE, giver.c.name.label("giver"), taker.c.name.label("taker"))
        .join(giver, giver.c.id == _TABLE.c.from_id)
        .join(taker, taker.c.id == _TABLE.c.to_id)
        .where(_in_force(), giver.c.enabled, taker.c.enabled)
        .where(*(_TABLE.c[name] == value for name, value in where.items()))
        .order_by(_TABLE.c.created_at, _TABLE.c.id)
    )
    return [
        Delegation(
            id=row.id,
            from_id=row.from_id,
            to_id=row.to_id,
            giver=row.giver,
            taker=row.taker,
            expires_at=row.expires_at,
        )
        for row in (await conn.execute(query)).all()
    ]


def _in_force() -> sa.ColumnElement[bool]:
    return sa.and_(_TABLE.c.revoked_at.is_(None), _TABLE.c.expires_at > now())


__all__ = ["Delegation", "end", "give", "in_force"]
