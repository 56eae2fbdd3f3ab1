"""Reading the audit: the newest rows, or all of them page by page, by who did what and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people.anchors import Head
from parley.people.audit import AuditRow
from parley.store.schema import audit

MOST: Final = 1000
"""Rows of one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows: from `since` on, before `until`; `action`, `actor` and `subject` may have `*` for any characters."""

    since: datetime | None = None
    until: datetime | None = None
    action: str | None = None
    actor: str | None = None
    subject: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """For a query of `audit`."""
        found: list[sa.ColumnElement[bool]] = []
        if self.since is not None:
            found.append(audit.c.at >= self.since)
        if self.until is not None:
            found.append(audit.c.at < self.until)
        for name in ("action", "actor", "subject"):
            pattern = getattr(self, name)
            if pattern:
                found.append(_like(audit.c[name], pattern))
        return found


async def newest(
    conn: AsyncConnection, wanted: Wanted, *, limit: int, before: int | None = None
) -> Sequence[AuditRow]:
    """The newest rows of these, newest first; of those before the number `before`."""
    older = [audit.c.sequence < before] if before is not None else []
    query = sa.select(audit).where(*wanted.conditions(), *older)
    return await _rows(conn, query.order_by(audit.c.sequence.desc()).limit(min(limit, MOST)))


async def following(
    conn: AsyncConnection, wanted: Wanted, *, after: int = 0, limit: int = MOST
) -> Sequence[AuditRow]:
    """The rows of these behind the number `after`, oldest first."""
    query = sa.select(audit).where(audit.c.sequence > after, *wanted.conditions())
    return await _rows(conn, query.order_by(audit.c.sequence).limit(min(limit, MOST)))


async def head(conn: AsyncConnection) -> Head | None:
    """The newest row."""
    query = sa.select(audit.c.sequence, audit.c.chain).order_by(audit.c.sequence.desc()).limit(1)
    row = (await conn.execute(query)).first()
    return Head(row.sequence, row.chain) if row else None


async def chain_of(conn: AsyncConnection, sequence: int) -> str | None:
    """The chain of this row; None when it is not there."""
    query = sa.select(audit.c.chain).where(audit.c.sequence == sequence)
    found: str | None = (await conn.execute(query)).scalar()
    return found


def as_json(row: AuditRow) -> dict[str, Any]:
    """As it is printed, exported and given out over REST."""
    return {
        "sequence": row.sequence,
        "at": row.at.isoformat(),
        "action": row.action,
        "phase": row.phase,
        "actor": row.actor,
        "subject": row.subject,
        "details": dict(row.details),
        "chain": row.chain,
    }


async def _rows(conn: AsyncConnection, query: Any) -> Sequence[AuditRow]:
    return [AuditRow.of(row) for row in (await conn.execute(query)).all()]


def _like(column: sa.Column[Any], pattern: str) -> sa.ColumnElement[bool]:
    if "*" not in pattern:
        return column == pattern
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.like(escaped.replace("*", "%"), escape="\\")


__all__ = ["MOST", "Wanted", "as_json", "chain_of", "following", "head", "newest"]
