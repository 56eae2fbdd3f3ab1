"""Standing approvals: what the owner allowed beforehand, so that it may run when nobody is there to ask.

One allows one principal, mostly a service such as a source of alerts, to run one version of one automation with
parameters that fit its patterns, so many times in so long, until a day. What it does not name it does not allow: a
parameter without a pattern must be absent, and where one with a pattern is absent its default must fit. A change of
what would be run ends it.

Functions of one transaction; who may give and revoke is decided by the caller, and audited there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people.patterns import ANYTHING, matches
from parley.people.principals import Role
from parley.runs.catalogue import AutomationSpec
from parley.store import schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is allowed. `patterns`: a glob a parameter; at most `most` starts within `per`, until `expires_at`."""

    automation: str
    version: str
    principal_id: str
    patterns: Mapping[str, str]
    most: int
    per: timedelta
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingApproval:
    """Terms that somebody gave."""

    id: str
    terms: Terms
    principal: str
    given_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Cover:
    """Whether a run is covered: by which approval, or `reason` (a key of sentences) why by none."""

    approval: StandingApproval | None = None
    reason: str = ""


async def give(conn: AsyncConnection, terms: Terms, given_by_id: str, approval_id: str) -> None:
    """Write a new standing approval under this id."""
    row = {
        "id": approval_id,
        "automation": terms.automation,
        "automation_version": terms.version,
        "principal_id": terms.principal_id,
        "patterns": dict(terms.patterns),
        "most": terms.most,
        "per_seconds": int(terms.per.total_seconds()),
        "given_by_id": given_by_id,
        "created_at": now(),
        "expires_at": terms.expires_at,
    }
    await conn.execute(sa.insert(schema.standing_approval).values(row))


async def revoke(conn: AsyncConnection, approval_id: str, revoked_by_id: str) -> bool:
    """End it now; false when it had ended before."""
    table = schema.standing_approval
    done = await conn.execute(
        sa.update(table)
        .where(table.c.id == approval_id, table.c.revoked_at.is_(None))
        .values(revoked_at=now(), revoked_by_id=revoked_by_id)
    )
    return bool(done.rowcount)


async def in_force(conn: AsyncConnection, **where: Any) -> Sequence[StandingApproval]:
    """Those that are neither revoked nor expired, oldest first; `where` narrows by columns.

    One counts while whoever gave it may give one: who is no owner any more, or disabled, takes theirs along.
    """
    table, by, of = schema.standing_approval, schema.principal.alias(), schema.principal.alias()
    query = (
        sa.select(table, by.c.name.label("given_by"), of.c.name.label("principal"))
        .join(by, by.c.id == table.c.given_by_id)
        .join(of, of.c.id == table.c.principal_id)
        .where(table.c.revoked_at.is_(None), table.c.expires_at > now())
        .where(by.c.enabled, by.c.role == Role.OWNER)
        .where(*(table.c[name] == value for name, value in where.items()))
        .order_by(table.c.created_at, table.c.id)
    )
    return [_of(row) for row in (await conn.execute(query)).all()]


async def covering(
    conn: AsyncConnection,
    principal_id: str,
    spec: AutomationSpec,
    values: Mapping[str, Any],
    *,
    request_id: str = "",
    planned: Sequence[str] = (),
) -> Cover:
    """Whether this principal may run this by itself now. `request_id`: one that counts already, checked once more.

    Call it within the transaction that writes the request: what another one uses up meanwhile is then seen. `planned`:
    approvals under which requests will be written in it besides, each as often as it is used.
    """
    cover = Cover(reason="standing-none")
    for approval in await in_force(conn, principal_id=principal_id, automation=spec.command):
        cover = await _checked(conn, approval, spec, values, request_id, planned.count(approval.id))
        if cover.approval:
            return cover
    return cover


async def _checked(
    conn: AsyncConnection,
    approval: StandingApproval,
    spec: AutomationSpec,
    values: Mapping[str, Any],
    request_id: str,
    planned: int,
) -> Cover:
    if not fits(approval.terms.patterns, values, spec.defaults):
        return Cover(reason="standing-parameters")
    if approval.terms.version != spec.version_for(values):
        return Cover(reason="standing-version")
    if await _used(conn, approval, request_id) + planned >= approval.terms.most:
        return Cover(reason="standing-rate")
    return Cover(approval)


def fits(
    patterns: Mapping[str, str], values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> bool:
    """Whether each value has a pattern and each pattern its value; upper and lower case differ.

    Where none is given it is the default that counts, and one that is not known fits `*` only.
    """
    given = {name: value for name, value in values.items() if value is not None}
    meant = {**(defaults or {}), **given}
    return given.keys() <= patterns.keys() and all(
        matches(pattern, meant.get(name)) for name, pattern in patterns.items()
    )


async def _used(conn: AsyncConnection, approval: StandingApproval, request_id: str) -> int:
    if conn.dialect.name == "postgresql":
        # Two hubs that ask at once must not both find the last place free.
        table = schema.standing_approval
        await conn.execute(sa.select(table.c.id).where(table.c.id == approval.id).with_for_update())
    request = schema.request
    query = sa.select(sa.func.count()).where(
        request.c.standing_id == approval.id, request.c.created_at > now() - approval.terms.per
    )
    if request_id:
        # What was asked after it had to leave room for it, and not the other way round. (Ids are in order of time.)
        query = query.where(request.c.id < request_id)
    return int((await conn.execute(query)).scalar_one())


def _of(row: Any) -> StandingApproval:
    terms = Terms(
        automation=row.automation,
        version=row.automation_version,
        principal_id=row.principal_id,
        patterns=row.patterns,
        most=row.most,
        per=timedelta(seconds=row.per_seconds),
        expires_at=row.expires_at,
    )
    return StandingApproval(
        id=row.id, terms=terms, principal=row.principal, given_by=row.given_by, created_at=row.created_at
    )


__all__ = ["ANYTHING", "Cover", "StandingApproval", "Terms", "covering", "fits", "give", "in_force", "revoke"]
