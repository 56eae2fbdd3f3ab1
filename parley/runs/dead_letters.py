"""Dead letters: what ended without having been carried out or delivered, so that a person can decide about it.

=============  =====================================================================  =============================
kind           what it is                                                             doubtful
=============  =====================================================================  =============================
`message`      could not be handled, by an error of our own                           never: nothing was committed
`run`          its process died in the middle, or it could not be started at all      died, and it is more than a look
`delivery`     an answer or notice that was given up, or that may not have arrived    it may have arrived
`expired`      its time was over before it could start                                never
=============  =====================================================================  =============================

Each is written in the transaction that ends the matter, once for each subject. A person does it again (`replayed`) or
lets it be (`discarded`), once; the record stays until retention takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.inbox import insert_new
from parley.messages.model import now
from parley.store import schema
from parley.store.ids import new_id

Kind = Literal["message", "run", "delivery", "expired"]

KINDS: Final[tuple[Kind, ...]] = ("message", "run", "delivery", "expired")
LONGEST_REASON: Final = 1000

_TABLE = schema.dead_letter


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One of them. `subject` is `message:<id>`, `run:<id>` or `delivery:<id>`; `actor` who asked, where known."""

    id: str
    kind: str
    subject: str
    automation: str | None
    account: str | None
    actor: str | None
    reason: str
    doubtful: bool
    state: str
    created_at: datetime
    settled_at: datetime | None
    settled_by: str | None

    @property
    def subject_id(self) -> str:
        """The id in `subject`."""
        return self.subject.partition(":")[2]


async def record(
    conn: AsyncConnection,
    kind: Kind,
    subject: str,
    reason: str,
    *,
    automation: str | None = None,
    account: str | None = None,
    actor_id: str | None = None,
    doubtful: bool = False,
) -> str:
    """Write one within the transaction that ends the matter; its id. One that ended so once more is open again."""
    values: dict[str, Any] = {
        "kind": kind,
        "automation": automation,
        "account": account,
        "actor_id": actor_id,
        "reason": reason.replace("\0", "\ufffd")[:LONGEST_REASON],
        "doubtful": doubtful,
        "state": "open",
        "created_at": now(),
        "settled_at": None,
        "settled_by": None,
    }
    fresh = values | {"id": new_id(), "subject": subject}
    same = _TABLE.c.subject == subject
    if not (await conn.execute(insert_new(conn, _TABLE, fresh, ("subject",)))).rowcount:
        await conn.execute(sa.update(_TABLE).where(same).values(values))
    return str((await conn.execute(sa.select(_TABLE.c.id).where(same))).scalar_one())


async def settle(
    conn: AsyncConnection, letter_id: str, state: Literal["replayed", "discarded"], by: str
) -> bool:
    """Note what was decided; false when it was decided before: then nothing may be done."""
    free = sa.and_(_TABLE.c.id == letter_id, _TABLE.c.state == "open")
    values = {"state": state, "settled_at": now(), "settled_by": by}
    return bool((await conn.execute(sa.update(_TABLE).where(free).values(values))).rowcount)


async def counts(conn: AsyncConnection) -> dict[str, int]:
    """How many are open, by kind."""
    query = sa.select(_TABLE.c.kind, sa.func.count()).where(_TABLE.c.state == "open").group_by(_TABLE.c.kind)
    found: Mapping[str, int] = {row[0]: row[1] for row in (await conn.execute(query)).all()}
    return {kind: found.get(kind, 0) for kind in KINDS}


async def newest(
    conn: AsyncConnection,
    *,
    limit: int,
    kind: str | None = None,
    settled: bool = False,
    before: str | None = None,
) -> list[DeadLetter]:
    """The newest, open ones unless `settled`; older than the id `before`."""
    query = _QUERY.order_by(_TABLE.c.id.desc()).limit(limit)
    if not settled:
        query = query.where(_TABLE.c.state == "open")
    if kind is not None:
        query = query.where(_TABLE.c.kind == kind)
    if before is not None:
        query = query.where(_TABLE.c.id < before)
    return [_of(row) for row in (await conn.execute(query)).all()]


async def find(conn: AsyncConnection, identifier: str) -> DeadLetter | None:
    """The one with this id, or with these last eight characters of it."""
    wanted = identifier.strip().strip("`").lower().replace("-", "")
    if not 8 <= len(wanted) <= 32 or not wanted.isalnum():
        return None
    # An id has its hyphens in the store: what is typed is the end of it, and is compared without them.
    rows = (await conn.execute(_QUERY.where(_TABLE.c.id.like(f"%{wanted[-8:]}")).limit(10))).all()
    fitting = [row for row in rows if row.id.replace("-", "").endswith(wanted)]
    return _of(fitting[0]) if len(fitting) == 1 else None


_QUERY: Final = sa.select(_TABLE, schema.principal.c.name.label("actor")).outerjoin(
    schema.principal, schema.principal.c.id == _TABLE.c.actor_id
)


def _of(row: Any) -> DeadLetter:
    return DeadLetter(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        automation=row.automation,
        account=row.account,
        actor=row.actor,
        reason=row.reason,
        doubtful=row.doubtful,
        state=row.state,
        created_at=row.created_at,
        settled_at=row.settled_at,
        settled_by=row.settled_by,
    )
