"""Roles by groups: what a directory, or the claim of a sign-in, says of somebody's groups gives them roles.

Which group gives what is written in parley.toml, in `[[groups]]`. A source takes back only what it gave: what people
gave by hand stays, and what another source gives as well. The store keeps both: `source_grant` is what each source
says, `principal.role` and `role_grant` are what follows from all of it, and rights are asked by these alone. Nothing
is cached: whatever hub asks next has the new roles.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError
from parley.messages.model import now
from parley.people import principals
from parley.people.audit import Audit
from parley.people.group_lines import GroupLine, Source, roles_by
from parley.people.principals import Principal, Role
from parley.store.ids import new_id
from parley.store.schema import source_grant

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a source changed of somebody: roles it gave and took. `kept`: not taken, since nobody else is an owner."""

    given: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.given or self.taken)


async def apply(
    conn: AsyncConnection,
    audit: Audit,
    lines: Iterable[GroupLine],
    principal_id: str,
    source: Source,
    groups: Collection[object],
) -> Changes:
    """Let somebody have the roles that this source's groups give, and no other ones of this source any more.

    To be called within a write, at each sign-in or sync, with `[[groups]]` as they are in force and all groups that
    the source says now; none takes everything back that it gave. `groups` come from outside: what is not text is left
    out. Each role that changes is in the audit, given or taken by `source`. Of our own roles somebody has one: the
    first of owner, operator, auditor, user that people by hand or any source give. The last owner stays one, whatever
    the source says.

    Raises PolicyError for somebody unknown or disabled, for a service, and for more than `MOST_GROUPS` groups.
    """
    who = await principals.get(conn, principal_id)
    if not who.enabled or who.kind is not principals.PrincipalKind.PERSON:
        raise PolicyError(f"{who.name} is disabled, or no person: groups give them nothing.")
    try:
        said = roles_by(lines, source, [group for group in groups if isinstance(group, str)])
    except ValueError as error:
        raise PolicyError(f"{who.name}: {error}") from None
    had = await given_by(conn, principal_id, source)
    kept = await _last_owner(conn, who, source, had - said)
    changes = Changes(
        given=tuple(sorted(said - had)), taken=tuple(sorted(had - said - kept)), kept=tuple(sorted(kept))
    )
    if changes:
        await _store(conn, principal_id, source, changes)
        await principals.settle_roles(conn, principal_id)
        await _tell(conn, audit, who, source, changes)
    if kept:
        logger.warning("%s says that %s is no owner; they are the last one, and stay one", source, who.id)
    return changes


async def given_by(conn: AsyncConnection, principal_id: str, source: Source) -> frozenset[str]:
    """The roles that they have from this source."""
    table = source_grant
    theirs = sa.and_(table.c.principal_id == principal_id, table.c.source == source)
    return frozenset((await conn.execute(sa.select(table.c.role).where(theirs))).scalars())


async def _last_owner(
    conn: AsyncConnection, who: Principal, source: Source, taken: frozenset[str]
) -> frozenset[str]:
    """The role of an owner, where taking it would leave nobody who is one."""
    if Role.OWNER not in taken or await principals.is_owner_without(conn, who.id, source):
        return frozenset()
    return frozenset() if await principals.has_other_owner(conn, who.id) else frozenset({Role.OWNER.value})


async def _store(conn: AsyncConnection, principal_id: str, source: Source, changes: Changes) -> None:
    table = source_grant
    theirs = sa.and_(table.c.principal_id == principal_id, table.c.source == source)
    if changes.taken:
        await conn.execute(sa.delete(table).where(theirs, table.c.role.in_(changes.taken)))
    rows = [
        {"id": new_id(), "principal_id": principal_id, "source": source, "role": role, "created_at": now()}
        for role in changes.given
    ]
    if rows:
        await conn.execute(sa.insert(table), rows)


async def _tell(
    conn: AsyncConnection, audit: Audit, who: Principal, source: Source, changes: Changes
) -> None:
    for action, roles in (("role-given", changes.given), ("role-taken", changes.taken)):
        for role in roles:
            await audit.record(
                conn,
                action=action,
                actor=source,
                subject=f"person:{who.name}",
                details={"role": role, "source": source, "was": who.role.value},
            )


__all__ = ["Changes", "apply", "given_by"]
