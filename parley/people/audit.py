"""The audit: who did what, in a table that only grows and shows when it was touched.

A privileged action leaves two rows: `intent`, committed before the effect, and `outcome` after it. An intent without
an outcome is an action of which nobody knows how it ended.

Each row carries an HMAC over itself and the row before, so that a row that was changed, removed, added or moved
breaks the chain from there on. What the chain alone cannot show is that its newest rows were cut off.

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
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.people.sealing import Keyring
from parley.store.schema import audit

Details = Mapping[str, str | int | bool | None]
"""Flat, and of types that every database gives back as they were."""

_GENESIS = ""


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

        It raises when the row cannot be added: a privileged action that cannot be audited does not happen.
        """
        head = sa.select(audit.c.sequence, audit.c.chain).order_by(audit.c.sequence.desc()).limit(1)
        last = (await conn.execute(head)).first()
        row: dict[str, Any] = {
            "sequence": (last.sequence if last else 0) + 1,
            "at": datetime.now(UTC),
            "action": action,
            "phase": str(Phase(phase)),
            "actor": actor,
            "subject": subject,
            "details": dict(details or {}),
        }
        row["chain"] = self._link(self._keyring.newest, row, last.chain if last else _GENESIS)
        await conn.execute(sa.insert(audit).values(row))
        return int(row["sequence"])

    def verify(self, rows: Iterable[AuditRow], *, after: AuditRow | None = None) -> list[str]:
        """What is wrong with these rows, in words; nothing when they are whole.

        `rows` in ascending order, from the first one on or following `after`.
        """
        problems: list[str] = []
        expected, before = (after.sequence + 1, after.chain) if after else (1, _GENESIS)
        for row in rows:
            if row.sequence != expected:
                problems.append(f"Row {expected} is missing: row {row.sequence} follows row {expected - 1}.")
            elif not self._holds(row, before):
                problems.append(f"Row {row.sequence} was changed, or the one before it was.")
            expected, before = row.sequence + 1, row.chain
        return problems

    def _holds(self, row: AuditRow, before: str) -> bool:
        values = {name: getattr(row, name) for name in AuditRow.__slots__}
        try:
            return hmac.compare_digest(self._link(row.chain.partition(":")[0], values, before), row.chain)
        except (SealError, TypeError, ValueError):
            return False

    def _link(self, key_id: str, row: Mapping[str, Any], before: str) -> str:
        """`key id:HMAC`: the id, so that rows of an older key can be checked after a new one was made."""
        return f"{key_id}:{self._keyring.authenticate(key_id, 'audit', _canonical(row, before))}"


def _canonical(row: Mapping[str, Any], before: str) -> bytes:
    at: datetime = row["at"]
    fields = [
        before,
        row["sequence"],
        at.astimezone(UTC).isoformat(timespec="microseconds"),
        *(row[name] for name in ("action", "phase", "actor", "subject", "details")),
    ]
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
