"""Who may approve what, now: owners, holders of roles, people who are named, and those whom they let do it.

Only people approve, and only those whose access is on. Functions of one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import delegations
from parley.people.approval_rules import Terms
from parley.people.principals import PrincipalKind, Role
from parley.runs.catalogue import AutomationSpec
from parley.settings import File
from parley.store import schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """Somebody who may approve: `own`, by a right of theirs; else in the place of those in `lent_by` (ids)."""

    id: str
    name: str
    role: str
    language: str | None
    time_zone: str | None
    own: bool
    lent_by: tuple[str, ...] = ()

    @property
    def voices(self) -> tuple[str, ...]:
        """Whose right a vote of theirs may use."""
        return (self.id,) if self.own else self.lent_by


class Approvers:
    """Finds them, by the roles and rules of parley.toml as they are now."""

    def __init__(self, file: Callable[[], File]) -> None:
        self._file = file

    async def of(
        self, conn: AsyncConnection, spec: AutomationSpec, terms: Terms, *, excluded: Collection[str] = ()
    ) -> Mapping[str, Approver]:
        """Who may approve this under these terms, by id. Those who are `excluded` neither approve nor let others."""
        own = await self._own(conn, self._roles(spec, terms), terms.people, spec.command)
        found = {id_: one for id_, one in own.items() if id_ not in excluded}
        lent: dict[str, list[str]] = {}
        if found:
            for one in await delegations.in_force(conn):
                if one.from_id in found and one.to_id not in own and one.to_id not in excluded:
                    lent.setdefault(one.to_id, []).append(one.from_id)
        for row in await _people(conn, schema.principal.c.id.in_(lent)) if lent else ():
            found[row.id] = _approver(row, own=False, lent_by=tuple(lent[row.id]))
        return found

    async def has_a_right(self, conn: AsyncConnection, principal_id: str) -> bool:
        """Whether this person may approve anything by a right of their own."""
        rules = self._file().approvals
        roles = {Role.OWNER.value, *(role for rule in rules for role in rule.roles)}
        roles |= {name for name, role in _roles_of(self._file()).items() if role}
        people = tuple(name for rule in rules for name in rule.people)
        return principal_id in await self._own(conn, roles, people)

    def _roles(self, spec: AutomationSpec, terms: Terms) -> set[str]:
        if terms.roles or terms.people:
            return set(terms.roles)
        approving = {
            name
            for name, globs in _roles_of(self._file()).items()
            if any(fnmatchcase(spec.command, glob) for glob in globs)
        }
        return {Role.OWNER.value, *approving}

    async def _own(
        self,
        conn: AsyncConnection,
        roles: Collection[str],
        people: Sequence[str],
        command: str | None = None,
    ) -> dict[str, Approver]:
        table, grant = schema.principal, schema.role_grant
        granted = sa.select(grant.c.principal_id).where(grant.c.role.in_(sorted(roles)))
        held = sa.or_(table.c.role.in_(sorted(roles)), table.c.name.in_(people), table.c.id.in_(granted))
        given = set((await conn.execute(granted)).scalars())
        return {
            row.id: _approver(row, own=True)
            for row in await _people(conn, held)
            if row.name in people or row.id in given or command is None or _covers(row, command)
        }


def voices(votes: Collection[str], able: Mapping[str, Approver]) -> int:
    """How many approvals these votes are: nobody's right counts twice, whoever uses it."""
    used: dict[str, Approver] = {}

    def find(approver: Approver, seen: set[str]) -> bool:
        # Whoever holds a voice already gives way where they have another one: so none is counted less than could be.
        for voice in approver.voices:
            if voice not in seen:
                seen.add(voice)
                if voice not in used or find(used[voice], seen):
                    used[voice] = approver
                    return True
        return False

    return sum(find(able[one], set()) for one in votes if one in able)


async def _people(conn: AsyncConnection, condition: sa.ColumnElement[bool]) -> Sequence[Any]:
    table = schema.principal
    person = sa.and_(table.c.enabled, table.c.kind == PrincipalKind.PERSON)
    return (await conn.execute(sa.select(table).where(person, condition).order_by(table.c.name))).all()


def _covers(row: Any, command: str) -> bool:
    # Their own globs narrow the built-in role, as in parley.people.rights; the owner's is never narrowed here.
    globs = row.automations or ()
    return row.role == Role.OWNER or not globs or any(fnmatchcase(command, glob) for glob in globs)


def _approver(row: Any, *, own: bool, lent_by: tuple[str, ...] = ()) -> Approver:
    return Approver(
        id=row.id,
        name=row.name,
        role=row.role,
        language=row.language,
        time_zone=row.time_zone,
        own=own,
        lent_by=lent_by,
    )


def _roles_of(file: File) -> Mapping[str, tuple[str, ...]]:
    """What each role of parley.toml approves."""
    return {name: role.approves for name, role in file.roles.items()}


__all__ = ["Approver", "Approvers", "voices"]
