"""Grants: whose word lets a run start that nobody asked for in a chat, for as long as that person may run it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import Assurance, now
from parley.people import principals
from parley.people.rights import Decision, Origin, Rights
from parley.people.roles import meant
from parley.runs.catalogue import AutomationSpec
from parley.store import schema


async def in_force(
    conn: AsyncConnection, rights: Rights, spec: AutomationSpec, values: Mapping[str, Any]
) -> Sequence[Any]:
    """Rows of grants for this automation, the newest first, of people who may themselves run it with these values.

    They count where the giver is enabled and has the right now: who left takes what they gave along. What a role of the
    service denies is denied whoever granted it.
    """
    table, service = schema.grant, schema.principal
    live = sa.and_(
        table.c.revoked_at.is_(None), sa.or_(table.c.expires_at.is_(None), table.c.expires_at > now())
    )
    query = (
        sa.select(table)
        .join(service, service.c.id == table.c.principal_id)
        .where(table.c.automation == spec.command, live, service.c.enabled)
        .order_by(table.c.created_at.desc(), table.c.id.desc())
    )
    rows = (await conn.execute(query)).all()
    may: dict[str, bool] = {}
    for row in rows:
        if row.granted_by_id not in may:
            may[row.granted_by_id] = await _may(conn, rights, row.granted_by_id, spec, values)
    return [
        row
        for row in rows
        if may[row.granted_by_id] and not await _is_barred(conn, rights, row.principal_id, spec, values)
    ]


async def has_grant(
    conn: AsyncConnection, rights: Rights, spec: AutomationSpec, principal_id: str, values: Mapping[str, Any]
) -> bool:
    """Whether this service may start this automation outside of a chat, now."""
    return any(row.principal_id == principal_id for row in await in_force(conn, rights, spec, values))


async def _may(
    conn: AsyncConnection, rights: Rights, giver_id: str, spec: AutomationSpec, values: Mapping[str, Any]
) -> bool:
    return (await _decision(conn, rights, giver_id, spec, values)).allowed


async def _is_barred(
    conn: AsyncConnection, rights: Rights, service_id: str, spec: AutomationSpec, values: Mapping[str, Any]
) -> bool:
    return (await _decision(conn, rights, service_id, spec, values, approvals=True)).barred


async def _decision(
    conn: AsyncConnection,
    rights: Rights,
    principal_id: str,
    spec: AutomationSpec,
    values: Mapping[str, Any],
    *,
    approvals: bool = False,
) -> Decision:
    return rights.allows(
        await principals.get(conn, principal_id),
        spec.effect,
        spec.command,
        Origin.SCHEDULE,
        Assurance.VERIFIED,
        values=meant(spec, values, whole=True),
        approvals=approvals,
    )


__all__ = ["has_grant", "in_force"]
