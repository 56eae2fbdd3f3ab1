"""What follows from a directory's answer, compared with what the store has. Nothing is changed here.

What may be a mistake is held: very many are missing at once, or lose what groups gave them, or the accounts by which
they are known. Who is disabled expressly leaves even then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people.directory_people import Answer, DirectoryPerson
from parley.people.directory_settings import Directory
from parley.people.group_lines import MOST_GROUPS, GroupLine, roles_by
from parley.store.schema import directory_person, identity, principal, source_grant

SOURCE: Final = "directory"
"""Who did it, in the audit, and whose the roles and links are."""

FEWEST_MISSING: Final = 5
"""Fewer people than these may be missing at once, or lose something, whatever share of all they are."""


@dataclass(slots=True)
class Known:
    """Somebody of the directory as the store has them."""

    principal_id: str
    name: str
    enabled: bool
    gone: bool
    identities: dict[tuple[str, str], bool] = field(default_factory=dict, repr=False)
    roles: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done. `held`: why nothing is done but what the directory says expressly, that somebody is disabled.

    `leave` are principals; `join` and `change` people of the answer, who are new, or are known.
    """

    people: int
    leave: Sequence[str] = ()
    join: Sequence[DirectoryPerson] = ()
    change: Sequence[DirectoryPerson] = ()
    held: tuple[int, int] | None = None


async def known(conn: AsyncConnection) -> dict[str, Known]:
    """Everybody of the directory whom the store knows, by entry."""
    rows = await conn.execute(
        sa.select(
            directory_person.c.entry,
            directory_person.c.gone_at,
            principal.c.id,
            principal.c.name,
            principal.c.enabled,
        ).join_from(directory_person, principal, principal.c.id == directory_person.c.principal_id)
    )
    found = {row.entry: Known(row.id, row.name, row.enabled, row.gone_at is not None) for row in rows}
    by_id = {one.principal_id: one for one in found.values()}
    links = sa.select(
        identity.c.principal_id, identity.c.account, identity.c.native_user_id, identity.c.verified
    )
    for row in await conn.execute(links.where(identity.c.source == SOURCE)):
        if row.principal_id in by_id:
            by_id[row.principal_id].identities[row.account, row.native_user_id] = row.verified
    given = sa.select(source_grant.c.principal_id, source_grant.c.role)
    for row in await conn.execute(given.where(source_grant.c.source == SOURCE)):
        if row.principal_id in by_id:
            by_id[row.principal_id].roles.add(row.role)
    return found


def plan(
    directory: Directory,
    lines: Sequence[GroupLine],
    answer: Answer,
    here: Mapping[str, Known],
    *,
    anyway: bool = False,
) -> Plan:
    """What follows from an answer. `anyway`: although so many are missing, or lose what it gave them."""
    live = {entry: one for entry, one in here.items() if one.enabled and not one.gone}
    missing = [entry for entry in live if entry not in answer.people]
    disabled = [entry for entry in live if entry in answer.people and answer.people[entry].disabled]
    stay = [answer.people[entry] for entry in live if entry in answer.people and entry not in disabled]
    roles = {one.entry: _roles(lines, one) for one in stay}
    accounts = {one.entry: links(directory, one, answer, live[one.entry]) for one in stay}
    mapped = {role for line in lines if line.source == SOURCE for role in line.roles}
    holders = [one.entry for one in stay if live[one.entry].roles & mapped]
    losers = [entry for entry in holders if (live[entry].roles & mapped) - roles[entry]]
    linked = [one.entry for one in stay if live[one.entry].identities]
    unlinked = [entry for entry in linked if live[entry].identities.keys() - accounts[entry].keys()]
    held = None
    if not anyway:
        held = (
            _too_many(directory, missing, live)
            or _too_many(directory, losers, holders)
            or _too_many(directory, unlinked, linked)
            or _without_groups(answer, losers, holders)
        )
    if held:
        leave = [live[entry].principal_id for entry in disabled]
        return Plan(people=len(answer.people), leave=leave, held=held)
    return Plan(
        people=len(answer.people),
        leave=[live[entry].principal_id for entry in (*disabled, *missing)],
        join=[
            one
            for one in answer.people.values()
            if not one.disabled and (one.entry not in here or here[one.entry].gone)
        ],
        change=[
            one
            for one in stay
            if roles[one.entry] != live[one.entry].roles or accounts[one.entry] != live[one.entry].identities
        ],
    )


def links(
    directory: Directory, person: DirectoryPerson, answer: Answer, here: Known
) -> dict[tuple[str, str], bool]:
    """How somebody is to be known. A user id that several claim stays with whom it was linked to before."""
    kept = {one for one in here.identities if one in answer.contested}
    return {one: one[0] in directory.verified for one in (*person.identities, *kept)}


def _roles(lines: Sequence[GroupLine], person: DirectoryPerson) -> set[str]:
    return set(roles_by(lines, SOURCE, person.groups[:MOST_GROUPS]))


def _too_many(
    directory: Directory, few: Sequence[str], all_of_them: Collection[str]
) -> tuple[int, int] | None:
    if len(few) < FEWEST_MISSING or len(few) <= directory.most_missing * len(all_of_them):
        return None
    return len(few), len(all_of_them)


def _without_groups(answer: Answer, losers: Sequence[str], holders: Sequence[str]) -> tuple[int, int] | None:
    """Nobody at all is in a group any more: the groups are hidden, or elsewhere, rather than all of them empty."""
    if not losers or any(one.groups for one in answer.people.values()):
        return None
    return len(losers), len(holders)


__all__ = ["FEWEST_MISSING", "SOURCE", "Known", "Plan", "known", "links", "plan"]
