"""Freezes: while one is in force, automations of certain names that change something are not started.

Functions of one transaction; who may lock and unlock is decided by the caller, and audited there. The reason is what a
person wrote: it is stored sealed, and told to those whose request is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages.model import now
from parley.people.sealing import Keyring
from parley.runs.catalogue import AutomationSpec, Effect
from parley.store import schema
from parley.store.ids import new_id

ALL: Final = "*"

LONGEST_REASON: Final = 500

_TABLE = schema.freeze


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """What `automations` (a glob) names is not started, says `by`, until it is unlocked or until `expires_at`.

    `reason` is empty where it does not open any more: a lock whose reason cannot be read locks all the same.
    """

    id: str
    automations: str
    reason: str
    by: str
    by_id: str
    created_at: datetime
    expires_at: datetime | None


async def begin(
    conn: AsyncConnection,
    keyring: Keyring,
    automations: str,
    reason: str,
    by_id: str,
    expires_at: datetime | None,
) -> str:
    """Lock; the id."""
    identity = new_id()
    row = {
        "id": identity,
        "automations": automations,
        "reason_sealed": keyring.seal(
            "freeze", "reason_sealed", identity, reason[:LONGEST_REASON].encode("utf-8", "replace")
        ),
        "by_id": by_id,
        "created_at": now(),
        "expires_at": expires_at,
    }
    await conn.execute(sa.insert(_TABLE).values(row))
    return identity


async def end(conn: AsyncConnection, freeze_id: str, by_id: str) -> bool:
    """Unlock; false when it had ended before."""
    mine = sa.and_(_TABLE.c.id == freeze_id, _TABLE.c.ended_at.is_(None))
    done = await conn.execute(sa.update(_TABLE).where(mine).values(ended_at=now(), ended_by_id=by_id))
    return bool(done.rowcount)


async def in_force(conn: AsyncConnection, keyring: Keyring) -> Sequence[Freeze]:
    """All that are in force, oldest first."""
    person = schema.principal
    query = (
        sa.select(_TABLE, person.c.name.label("by"))
        .join(person, person.c.id == _TABLE.c.by_id)
        .where(
            _TABLE.c.ended_at.is_(None), sa.or_(_TABLE.c.expires_at.is_(None), _TABLE.c.expires_at > now())
        )
        .order_by(_TABLE.c.created_at, _TABLE.c.id)
    )
    return [_of(keyring, row) for row in (await conn.execute(query)).all()]


async def stopping(conn: AsyncConnection, keyring: Keyring, spec: AutomationSpec) -> Freeze | None:
    """The freeze that keeps this from starting, if there is one; what only looks things up is never frozen."""
    if spec.effect is Effect.READ:
        return None
    return next((one for one in await in_force(conn, keyring) if covers(one, spec)), None)


def covers(freeze: Freeze, spec: AutomationSpec) -> bool:
    """Whether this automation is meant."""
    return fnmatchcase(spec.command, freeze.automations) or fnmatchcase(spec.name, freeze.automations)


def _of(keyring: Keyring, row: Any) -> Freeze:
    return Freeze(
        id=row.id,
        automations=row.automations,
        reason=_reason(keyring, row),
        by=row.by,
        by_id=row.by_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _reason(keyring: Keyring, row: Any) -> str:
    try:
        return keyring.open("freeze", "reason_sealed", row.id, row.reason_sealed).decode()
    except SealError:
        return ""


__all__ = ["ALL", "LONGEST_REASON", "Freeze", "begin", "covers", "end", "in_force", "stopping"]
