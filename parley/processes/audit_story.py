"""One request from the message to the answer's delivery, told in the order in which it happened.

What the store says of the message, the request, its runs and deliveries, and what the audit says of them; never what
people wrote. Where retention has erased the former, the latter is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.runs.requests import principal_name
from parley.store import schema

Line = dict[str, Any]
"""`at` (ISO 8601), `what`, `who`, `details`, and `sequence` for a row of the audit."""


async def tell(conn: AsyncConnection, identifier: str) -> list[Line]:
    """Everything about the request of this id, or of these last eight characters of it; nothing when there is none."""
    request_id = await _find(conn, identifier)
    if request_id is None:
        return []
    request = await _one(conn, schema.request, request_id)
    runs = await _all(conn, schema.run, schema.run.c.request_id == request_id)
    lines = [
        *(await _of_audit(conn, request_id, [run.id for run in runs])),
        *(await _of_message(conn, request)),
        *(line for run in runs for line in _of_run(run)),
        *(await _of_deliveries(conn, request_id, [run.id for run in runs])),
    ]
    if request is not None:
        lines += await _of_request(conn, request)
    # What is of the same moment stays in the order of the audit.
    return [line for _, line in sorted(lines, key=lambda pair: (pair[0], pair[1].get("sequence") or 0))]


async def _find(conn: AsyncConnection, identifier: str) -> str | None:
    wanted = identifier.strip().strip("`").lower().replace("-", "")
    if not 8 <= len(wanted) <= 32 or not wanted.isalnum():
        return None
    request, audit = schema.request, schema.audit
    there = sa.select(request.c.id).where(request.c.id.like(f"%{wanted[-8:]}")).limit(10)
    found = {str(one) for one in (await conn.execute(there)).scalars()}
    if not found:
        said = sa.select(audit.c.subject).where(audit.c.subject.like(f"request:%{wanted[-8:]}")).limit(10)
        found = {str(one).removeprefix("request:") for one in (await conn.execute(said)).scalars()}
    fitting = [one for one in found if one.replace("-", "").endswith(wanted)]
    return fitting[0] if len(fitting) == 1 else None


async def _of_audit(
    conn: AsyncConnection, request_id: str, run_ids: Sequence[str]
) -> list[tuple[datetime, Line]]:
    table, approval = schema.audit, schema.approval
    approvals = sa.select(sa.literal("approval:") + approval.c.id).where(approval.c.request_id == request_id)
    about = sa.or_(
        table.c.subject == f"request:{request_id}",
        table.c.subject.in_(approvals),
        *(
            sa.and_(table.c.subject > f"run:{run_id}:", table.c.subject < f"run:{run_id};")
            for run_id in run_ids
        ),
    )
    rows = (await conn.execute(sa.select(table).where(about).order_by(table.c.sequence))).all()
    return [
        (
            row.at,
            _line(row.at, f"{row.action} {row.phase}", row.actor, row.details) | {"sequence": row.sequence},
        )
        for row in rows
    ]


async def _of_message(conn: AsyncConnection, request: Any) -> list[tuple[datetime, Line]]:
    row = await _one(conn, schema.message, request.message_id) if request and request.message_id else None
    if row is None:
        return []
    details = {"message": row.id, "account": row.account, "type": row.type}
    return [(row.received_at, _line(row.received_at, "message received", None, details))]


async def _of_request(conn: AsyncConnection, row: Any) -> list[tuple[datetime, Line]]:
    who = await principal_name(conn, row.actor_id)
    asked = {"request": row.id, "origin": row.origin, "version": row.automation_version, "state": row.state}
    lines = [(row.created_at, _line(row.created_at, f"asked for {row.automation}", who, asked))]
    if row.ended_at is not None:
        lines.append((row.ended_at, _line(row.ended_at, f"request {row.state}", None, {"request": row.id})))
    return lines


def _of_run(row: Any) -> list[tuple[datetime, Line]]:
    told = {"run": row.id, "flow_run": row.flow_run_id}
    moments: tuple[tuple[datetime | None, str, Line], ...] = (
        (row.created_at, "run made", {}),
        (row.started_at, "run started", {"epoch": row.epoch}),
        (row.ended_at, f"run {row.state}", {"outcome": row.outcome}),
    )
    return [(at, _line(at, what, None, told | more)) for at, what, more in moments if at is not None]


async def _of_deliveries(
    conn: AsyncConnection, request_id: str, run_ids: Sequence[str]
) -> list[tuple[datetime, Line]]:
    table = schema.delivery
    sources = [f"request:{request_id}", *(f"run:{run_id}" for run_id in run_ids)]
    lines = []
    for row in await _all(conn, table, table.c.source.in_(sources)):
        at = row.sent_at or row.created_at
        details = {"delivery": row.id, "account": row.account, "attempts": row.attempts}
        lines.append((at, _line(at, f"answer {row.state}", None, details)))
    return lines


def _line(at: datetime, what: str, who: str | None, details: Any) -> Line:
    return {"at": at.isoformat(), "what": what, "who": who, "details": dict(details)}


async def _one(conn: AsyncConnection, table: sa.Table, row_id: str) -> Any:
    return (await conn.execute(sa.select(table).where(table.c.id == row_id))).first()


async def _all(conn: AsyncConnection, table: sa.Table, condition: Any) -> Sequence[Any]:
    return (await conn.execute(sa.select(table).where(condition).order_by(table.c.created_at))).all()


__all__ = ["Line", "tell"]
