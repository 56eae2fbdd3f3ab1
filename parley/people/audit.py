"""The audit: who did what, in a table that only grows and shows when it was touched.

A privileged action leaves two rows: `intent`, committed before the effect, and `outcome` after it. Where the effect is
nothing but a change of the store, both are in its own commit (`record`): there is never one without the others. Where
it is outside of the store, the intent is committed first, and stays in `audit_open` until its outcome is written; an
intent that never got one is an action of which nobody knows how it ended.

Each row carries an HMAC over itself and the row before, so that a row that was changed, removed, added or moved
breaks the chain from there on. What the chain alone cannot show, that its newest rows were cut off or the whole
database was put back, `parley.people.anchors` shows.

`actor`, `subject` and `details` hold ids, names of automations and counts; never a message's text, an address, a
platform's user id or anything else about a person. What has to be compared later goes in as `Keyring.keyed_hash`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AuditUnavailable, SealError
from parley.people.sealing import Keyring
from parley.store.schema import audit, audit_open

Details = Mapping[str, str | int | bool | None]
"""Flat, and of types that every database gives back as they were."""

MOST_TEXT: Final = 300
"""Characters of an action, an actor, a subject."""

MOST_DETAIL: Final = 1000
"""Characters of one detail; what is longer is cut, and says so."""

MOST_DETAILS: Final = 64

# Made once: to make a statement takes several times as long as to execute it.
_HEAD: Final = sa.select(audit.c.sequence, audit.c.chain).order_by(audit.c.sequence.desc()).limit(1)
_APPEND: Final = sa.insert(audit)
_OPENED: Final = sa.insert(audit_open)
_CLOSED: Final = sa.delete(audit_open).where(
    audit_open.c.sequence
    == sa.select(sa.func.min(audit_open.c.sequence))
    .where(audit_open.c.subject == sa.bindparam("subject"), audit_open.c.action == sa.bindparam("action"))
    .scalar_subquery()
)

_GENESIS = ""
_RAISED = "P0001"  # PostgreSQL: a trigger's own error


class Phase(StrEnum):
    """Before the effect, or after it."""

    INTENT = "intent"
    OUTCOME = "outcome"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One row, as it is stored."""

    sequence: int
    at: datetime
    action: str
    phase: str
    actor: str
    subject: str | None
    details: Mapping[str, Any]
    chain: str

    @classmethod
    def of(cls, row: sa.Row[Any]) -> AuditRow:
        """From a row of `select(audit)`."""
        return cls(**row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it


class Audit:
    """Appends to the audit and checks it; the key that signs is made from the sealing key."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def append(
        self,
        conn: AsyncConnection,
        *,
        action: str,
        phase: Phase | str,
        actor: str,
        subject: str | None = None,
        details: Details | None = None,
    ) -> int:
        """Add a row within a write, and return its number; it stands when that write is committed.

        It raises when the row cannot be added (`AuditUnavailable` where the database refuses it): a privileged action
        that cannot be audited does not happen.
        """
        last = (await conn.execute(_HEAD)).first()
        row: dict[str, Any] = {
            "sequence": (last.sequence if last else 0) + 1,
            "at": datetime.now(UTC),
            "action": action[:MOST_TEXT],
            "phase": str(Phase(phase)),
            "actor": actor[:MOST_TEXT],
            "subject": subject[:MOST_TEXT] if subject else subject,
            "details": _bounded(details or {}),
        }
        row["chain"] = self._link(self._keyring.newest, row, last.chain if last else _GENESIS)
        try:
            await conn.execute(_APPEND, row)
        except DBAPIError as error:
            if _is_refused(error):
                raise AuditUnavailable from error
            raise
        await _keep_account(conn, row)
        return int(row["sequence"])

    async def record(
        self,
        conn: AsyncConnection,
        *,
        action: str,
        actor: str,
        subject: str | None = None,
        details: Details | None = None,
    ) -> None:
        """Intent and outcome of an effect that is part of this very write, and of nothing outside of the store.

        All three are committed together or not at all. Raises as `append`.
        """
        for phase in Phase:
            await self.append(conn, action=action, phase=phase, actor=actor, subject=subject, details=details)

    def verify(self, rows: Iterable[AuditRow], *, after: AuditRow | None = None) -> list[str]:
        """What is wrong with these rows, in words; nothing when they are whole.

        `rows` in ascending order, from the first one on or following `after`.
        """
        problems: list[str] = []
        expected, before = (after.sequence + 1, after.chain) if after else (1, _GENESIS)
        for row in rows:
            problem = self.problem(row, expected, before)
            if problem:
                problems.append(problem)
            expected, before = row.sequence + 1, row.chain
        return problems

    def problem(self, row: AuditRow, expected: int, before: str) -> str | None:
        """What is wrong with this row, where `expected` is its number and `before` the chain of the one before."""
        if row.sequence > expected:
            gone = (
                f"Row {expected} is" if row.sequence == expected + 1 else missing(expected, row.sequence - 1)
            )
            return f"{gone} missing: row {row.sequence} follows row {expected - 1}."
        if row.sequence < expected or not self._holds(row, before):
            return f"Row {row.sequence} was changed, or the one before it was."
        return None

    def _holds(self, row: AuditRow, before: str) -> bool:
        try:
            values = {name: getattr(row, name) for name in AuditRow.__slots__}
            return hmac.compare_digest(self._link(row.chain.partition(":")[0], values, before), row.chain)
        except (SealError, AttributeError, TypeError, ValueError):
            return False

    def _link(self, key_id: str, row: Mapping[str, Any], before: str) -> str:
        """`key id:HMAC`: the id, so that rows of an older key can be checked after a new one was made."""
        return f"{key_id}:{self._keyring.authenticate(key_id, 'audit', _canonical(row, before))}"


def missing(first: int, last: int) -> str:
    """Words for rows that should be there."""
    return f"Row {first} is" if first == last else f"Rows {first} to {last} are"


async def _keep_account(conn: AsyncConnection, row: Mapping[str, Any]) -> None:
    """What is open: an index of the audit, from which nothing about the past is concluded."""
    subject = row["subject"] or ""
    if row["phase"] == Phase.INTENT:
        kept = {name: row[name] for name in ("sequence", "at", "action", "actor")} | {"subject": subject}
        await conn.execute(_OPENED, kept)
        return
    await conn.execute(_CLOSED, {"subject": subject, "action": row["action"]})


def _bounded(details: Details) -> dict[str, Any]:
    if len(details) > MOST_DETAILS:
        raise ValueError(f"an audit row has {MOST_DETAILS} details at the most.")
    return {
        name[:MOST_TEXT]: f"{value[:MOST_DETAIL]}… ({len(value)} characters)"
        if isinstance(value, str) and len(value) > MOST_DETAIL
        else value
        for name, value in details.items()
    }


def _is_refused(error: DBAPIError) -> bool:
    # A trigger of the database, or a constraint: not a store that is out of order, which the store tells itself, nor
    # one of two writers at once, which is run again.
    if isinstance(error, sa.exc.IntegrityError):
        return "UNIQUE" not in str(error.orig) and getattr(error.orig, "sqlstate", None) != "23505"
    return getattr(error.orig, "sqlstate", None) == _RAISED


def _canonical(row: Mapping[str, Any], before: str) -> bytes:
    at: datetime = row["at"]
    fields = [
        before,
        row["sequence"],
        at.astimezone(UTC).isoformat(timespec="microseconds"),
        *(row[name] for name in ("action", "phase", "actor", "subject", "details")),
    ]
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
