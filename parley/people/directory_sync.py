"""What the directory says becomes what people have here: who joined, who left, whose accounts and groups changed.

A plan (parley.people.directory_plan) is carried out a part within one write, which looks again at what it changes: who
stops in the middle has done a part, and the next time does the rest. Whoever left goes first. What people did by hand
stays: whom they removed does not come back, what they linked and gave is not taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError
from parley.messages.model import now
from parley.people import groups, leaving, principals
from parley.people.audit import Audit
from parley.people.directory_people import Answer, DirectoryPerson
from parley.people.directory_plan import SOURCE, Known, links
from parley.people.directory_settings import Directory
from parley.people.group_lines import MOST_GROUPS, GroupLine
from parley.people.principals import Principal
from parley.store.ids import new_id
from parley.store.schema import directory_person, identity, principal

_MOST_NAMED_ALIKE: Final = 100

Leave = Callable[[AsyncConnection, Principal], Awaitable[None]]
"""Takes everything from somebody, as `parley.people.leaving.remove`. Raises PolicyError for the last owner."""


@dataclass(slots=True)
class Done:
    """What was done, and what could not be, in words."""

    joined: int = 0
    left: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)


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
            done.problems.append(f"entry {person.entry} is not let in: {error}")
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
        for account in await leaving.undone(conn, who.id):
            await self._tell(conn, "person-linked", who.name, account=account)
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
        wanted = links(self._directory, person, self._answer, Known(who.id, who.name, True, False, here))
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


async def recognise(conn: AsyncConnection, audit: Audit, name: str, entry: str) -> None:
    """Somebody who is known here already is this entry from now on. Raises `PolicyError`."""
    who = await unrecognised(conn, name, entry)
    row = {"id": new_id(), "entry": entry, "principal_id": who.id, "created_at": now()}
    await conn.execute(sa.insert(directory_person).values(row))
    await audit.record(conn, action="person-in-directory", actor="command line", subject=f"person:{who.name}")


async def unrecognised(conn: AsyncConnection, name: str, entry: str) -> Principal:
    """Somebody who may become known as this entry. Raises `PolicyError`."""
    who = await principals.get_by_name(conn, name)
    table = directory_person
    taken = sa.or_(table.c.entry == entry, table.c.principal_id == who.id)
    if (await conn.execute(sa.select(table.c.id).where(taken))).first() is not None:
        raise PolicyError(f"{who.name} or this entry is known as somebody of the directory already.")
    if not who.enabled or who.kind is not principals.PrincipalKind.PERSON:
        raise PolicyError(f"{who.name} is disabled, or no person.")
    return who


async def removed_by_hand(conn: AsyncConnection, principal_id: str) -> None:
    """People removed them: the directory does not let them in again, not even where it had removed them first."""
    mine = directory_person.c.principal_id == principal_id
    await conn.execute(sa.update(directory_person).where(mine).values(gone_at=None))


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


__all__ = ["Done", "Leave", "Syncing", "recognise", "removed_by_hand", "unrecognised"]
