"""Leaving: who leaves loses everything at once. What they did stays in the audit, and so does their name."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people import linking
from parley.people.audit import Audit, Phase
from parley.people.oidc import ACCOUNT
from parley.people.principals import (
    Role,
    disable,
    identities,
    leave_behind,
    set_role,
    take_up_again,
    unlink,
)
from parley.store import schema

LEFT = "the person who asked has left"
"""Why requests of theirs that waited for somebody are closed."""

_LEAVING = "leaving"
"""Of accounts that were left behind: not because their person disconnected them."""


async def remove(conn: AsyncConnection, audit: Audit, principal_id: str) -> None:
    """Take accounts, tokens, sessions, roles, what waits and what they allowed others. Raises PolicyError.

    It is refused for the last owner. Requests of theirs that are queued, and schedules that run by their word, are
    refused when they would start: nobody who is disabled has a right.
    """
    lent = schema.source_grant
    await conn.execute(sa.delete(lent).where(lent.c.principal_id == principal_id))
    await set_role(conn, principal_id, Role.NONE, automations=())
    await disable(conn, principal_id)
    for table, column in (
        (schema.role_grant, schema.role_grant.c.principal_id),
        (schema.follow, schema.follow.c.by_id),
        (schema.password, schema.password.c.principal_id),
        (schema.passkey, schema.passkey.c.principal_id),
    ):
        await conn.execute(sa.delete(table).where(column == principal_id))
    await _forget_accounts(conn, principal_id)
    await linking.void(conn, principal_id)
    await _revoke(conn, principal_id)
    await _close(conn, audit, principal_id)


async def undone(conn: AsyncConnection, principal_id: str) -> list[str]:
    """Whoever is taken in again, as the same person, signs in by the providers by which they did; by which accounts.

    What they had disconnected before they left stays so, as does what is somebody else's by now.
    """
    return await take_up_again(conn, principal_id, ACCOUNT, _LEAVING)


async def _forget_accounts(conn: AsyncConnection, principal_id: str) -> None:
    """Nobody is them any more. By what a sign-in elsewhere would know them again it is known that they left."""
    for account, user, _ in await identities(conn, principal_id):
        if account.startswith(ACCOUNT) or "@" in user[1:]:
            await leave_behind(conn, account, user, source=_LEAVING)
        else:
            await unlink(conn, account, user)


async def _revoke(conn: AsyncConnection, principal_id: str) -> None:
    grant, standing, delegation = schema.grant, schema.standing_approval, schema.delegation
    for table, theirs in (
        (grant, sa.or_(grant.c.granted_by_id == principal_id, grant.c.principal_id == principal_id)),
        (standing, sa.or_(standing.c.given_by_id == principal_id, standing.c.principal_id == principal_id)),
        (delegation, sa.or_(delegation.c.from_id == principal_id, delegation.c.to_id == principal_id)),
    ):
        live = sa.and_(theirs, table.c.revoked_at.is_(None))
        await conn.execute(sa.update(table).where(live).values(revoked_at=now()))


async def _close(conn: AsyncConnection, audit: Audit, principal_id: str) -> None:
    request, approval, vote = schema.request, schema.approval, schema.vote
    waiting = sa.and_(
        request.c.actor_id == principal_id, request.c.state.in_(("needs-input", "awaiting-approval"))
    )
    asked = sa.select(request.c.id).where(waiting)
    open_ones = sa.and_(approval.c.state == "open", approval.c.request_id.in_(asked))
    await conn.execute(
        sa.update(approval).where(open_ones).values(state="withdrawn", decided_at=now(), decided_by=None)
    )
    undecided = sa.select(approval.c.id).where(approval.c.state == "open")
    theirs = sa.and_(vote.c.principal_id == principal_id, vote.c.approval_id.in_(undecided))
    await conn.execute(sa.delete(vote).where(theirs))
    await _tell_audit(conn, audit, asked)
    await conn.execute(
        sa.update(request).where(waiting).values(state="cancelled", reason=LEFT, asking=None, ended_at=now())
    )


async def _tell_audit(conn: AsyncConnection, audit: Audit, asked: sa.Select[tuple[str]]) -> None:
    # Only what changes something was announced there.
    subjects = [f"request:{identifier}" for identifier in (await conn.execute(asked)).scalars()]
    table = schema.audit_open
    announced = sa.select(table.c.action, table.c.actor, table.c.subject).where(table.c.subject.in_(subjects))
    for row in (await conn.execute(announced)).all():
        details = {"state": "cancelled", "reason": LEFT}
        await audit.append(
            conn,
            action=row.action,
            phase=Phase.OUTCOME,
            actor=row.actor,
            subject=row.subject,
            details=details,
        )


__all__ = ["LEFT", "remove", "undone"]
