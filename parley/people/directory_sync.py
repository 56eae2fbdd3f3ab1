"""What the directory says becomes what people have here: who joined, who left, whose accounts and groups changed.

`plan` compares, and changes nothing; `carry_out` does a part of it within one write, and looks again at what it
changes: who stops in the middle has done a part, and the next time does the rest. Whoever left goes first. What people
did by hand stays: whom they removed does not come back, what they linked and gave is not taken.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError
from parley.messages.model import now
from parley.people import groups, principals
from parley.people.audit import Audit
from parley.people.directory_people import Answer, DirectoryPerson
from parley.people.directory_settings import Directory
from parley.people.group_lines import MOST_GROUPS, GroupLine, roles_by
from parley.people.principals import Principal
from parley.store.ids import new_id
from parley.store.schema import directory_person, identity, principal, source_grant

logger = logging.getLogger(__name__)

SOURCE: Final = "directory"
"""Who did it, in the audit, and whose the roles and links are."""

FEWEST_MISSING: Final = 5
"""Fewer people than these may be missing at once, whatever share of all they are."""

_MOST_NAMED_ALIKE: Final = 100

Leave = Callable[[AsyncConnection, Principal], Awaitable[None]]
"""Takes everything from somebody, as `parley.people.leaving.remove`. Raises PolicyError for the last owner."""


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


@dataclass(slots=True)
class Done:
    """What was done, and what could not be, in words."""

    joined: int = 0
    left: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)


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
    """What follows from an answer. `anyway`: although so many are missing, or lose what groups gave them."""
    live = {entry: one for entry, one in here.items() if one.enabled and not one.gone}
    missing = [entry for entry in live if entry not in answer.people]
    disabled = [entry for entry in live if entry in answer.people and answer.people[entry].disabled]
    stay = [answer.people[entry] for entry in live if entry in answer.people and entry not in disabled]
    wanted = {one.entry: _roles(lines, one) for one in stay}
    mapped = {role for line in lines if line.source == SOURCE for role in line.roles}
    holders = [one.entry for one in stay if live[one.entry].roles & mapped]
    losers = [entry for entry in holders if (live[entry].roles & mapped) - wanted[entry]]
    if not anyway:
        for few, all_of_them in ((missing, live), (losers, holders)):
            if len(few) >= FEWEST_MISSING and len(few) > directory.most_missing * len(all_of_them):
                leave = [live[entry].principal_id for entry in disabled]
                return Plan(people=len(answer.people), leave=leave, held=(len(few), len(all_of_them)))
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
            if wanted[one.entry] != live[one.entry].roles
            or _links(directory, one, answer, live[one.entry]) != live[one.entry].identities
        ],
    )


class Syncing:
    """Carries a plan out, a few people in one write. `leave` takes everything from somebody."""

    def __init__(
        self, audit: Audit, directory: Directory, lines: Sequence[GroupLine], answer: Answer, *, leave: Leave
    ) -> None:
        self._audit = audit
        self._directory = directory
        self._lines = tuple(lines)
        self._answer = answer
        self._leave = leave

    async def remove(self, conn: AsyncConnection, principal_ids: Iterable[str], done: Done) -> None:
        """Take everything from these, whom the directory has no more."""
        for principal_id in principal_ids:
            who = await principals.get(conn, principal_id)
            if not who.enabled:
                continue
            if who.role is principals.Role.OWNER and not await principals.has_other_owner(conn, who.id):
                done.problems.append(f"{who.name} is in the directory no more, and stays: the last owner")
                continue
            await self._leave(conn, who)
            mine = directory_person.c.principal_id == principal_id
            await conn.execute(sa.update(directory_person).where(mine).values(gone_at=now()))
            await self._tell(conn, "person-removed", who.name)
            done.left += 1

    async def join(self, conn: AsyncConnection, people: Iterable[DirectoryPerson], done: Done) -> None:
        """Let these in, who are new in the directory, or are there again."""
        for person in people:
            row = await _row(conn, person.entry)
            if row is None:
                who = await self._new(conn, person, done)
            elif row.gone_at is not None:
                who = await self._again(conn, row)
            else:
                who = await principals.get(conn, row.principal_id)
            if who is not None and who.enabled:
                await self._settle(conn, who, person, done)
                done.joined += 1

    async def change(self, conn: AsyncConnection, people: Iterable[DirectoryPerson], done: Done) -> None:
        """Let these have the accounts and roles that the directory says now."""
        for person in people:
            row = await _row(conn, person.entry)
            who = await principals.get(conn, row.principal_id) if row else None
            if who is not None and who.enabled and await self._settle(conn, who, person, done):
                done.changed += 1

    async def _new(self, conn: AsyncConnection, person: DirectoryPerson, done: Done) -> Principal | None:
        try:
            name = await _free_name(conn, person.name)
        except PolicyError as error:
            done.problems.append(f"entry {person.entry[:40]} is not let in: {error}")
            return None
        principal_id = await principals.add_principal(conn, name)
        row = {"id": new_id(), "entry": person.entry, "principal_id": principal_id, "created_at": now()}
        await conn.execute(sa.insert(directory_person).values(row))
        await self._tell(conn, "person-added", name)
        return await principals.get(conn, principal_id)

    async def _again(self, conn: AsyncConnection, row: Any) -> Principal:
        await principals.enable(conn, row.principal_id)
        mine = directory_person.c.id == row.id
        await conn.execute(sa.update(directory_person).where(mine).values(gone_at=None))
        who = await principals.get(conn, row.principal_id)
        await self._tell(conn, "person-returned", who.name)
        return who

    async def _settle(
        self, conn: AsyncConnection, who: Principal, person: DirectoryPerson, done: Done
    ) -> bool:
        linked = await self._link(conn, who, person, done)
        if len(person.groups) > MOST_GROUPS:
            done.problems.append(f"{who.name} is in more than {MOST_GROUPS} groups: none of them counts anew")
            return linked
        changes = await groups.apply(conn, self._audit, self._lines, who.id, SOURCE, person.groups)
        if changes.kept:
            done.problems.append(f"{who.name} is in no group of owners any more, and stays: the last owner")
        return linked or bool(changes)

    async def _link(self, conn: AsyncConnection, who: Principal, person: DirectoryPerson, done: Done) -> bool:
        theirs = sa.and_(identity.c.principal_id == who.id, identity.c.source == SOURCE)
        rows = (await conn.execute(sa.select(identity).where(theirs))).all()
        here = {(row.account, row.native_user_id): row.verified for row in rows}
        wanted = _links(self._directory, person, self._answer, Known(who.id, who.name, True, False, here))
        changed = False
        for account, native in here.keys() - wanted.keys():
            changed |= await principals.unlink(conn, account, native)
            await self._tell(conn, "person-unlinked", who.name, account=account)
        for (account, native), verified in wanted.items():
            if here.get((account, native)) == verified:
                continue
            found = await principals.find_by_identity(conn, account, native)
            if found is not None and (account, native) not in here:
                if found.principal.id != who.id:
                    done.problems.append(
                        f"{who.name} would be known on {account} as somebody who is {found.principal.name} already"
                    )
                continue
            await principals.link_identity(conn, who.id, account, native, verified=verified, source=SOURCE)
            await self._tell(conn, "person-linked", who.name, account=account)
            changed = True
        return changed

    async def _tell(self, conn: AsyncConnection, action: str, name: str, **details: str) -> None:
        await self._audit.record(
            conn, action=action, actor=SOURCE, subject=f"person:{name}", details={**details, "source": SOURCE}
        )


def _roles(lines: Sequence[GroupLine], person: DirectoryPerson) -> set[str]:
    return set(roles_by(lines, SOURCE, person.groups[:MOST_GROUPS]))


def _links(
    directory: Directory, person: DirectoryPerson, answer: Answer, here: Known
) -> dict[tuple[str, str], bool]:
    """How somebody is to be known. A user id that several claim stays with whom it was linked to before."""
    kept = {one for one in here.identities if one in answer.contested}
    return {one: one[0] in directory.verified for one in (*person.identities, *kept)}


async def _row(conn: AsyncConnection, entry: str) -> Any:
    return (await conn.execute(sa.select(directory_person).where(directory_person.c.entry == entry))).first()


async def _free_name(conn: AsyncConnection, wanted: str) -> str:
    """The name, with a number where somebody who has left had it. Raises PolicyError where somebody has it."""
    name = principals.clean_name(wanted)
    for number in range(1, _MOST_NAMED_ALIKE):
        tried = principals.clean_name(name if number == 1 else f"{name}-{number}")
        row = (await conn.execute(sa.select(principal.c.enabled).where(principal.c.name == tried))).first()
        if row is None:
            return tried
        if row.enabled:
            raise PolicyError(
                f"there is somebody called {tried} already. If it is the same person: `parley people in-directory`"
            )
    raise PolicyError("too many had this name.")


__all__ = ["FEWEST_MISSING", "SOURCE", "Done", "Known", "Leave", "Plan", "Syncing", "known", "plan"]
