"""Names of people who join by themselves: none that means something already.

The audit, the rules of parley.toml and whoever types a name go by it, so that it is neither somebody else's, in
whatever letters, nor one of those that the audit or parley.toml use.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import Denied, PolicyError
from parley.people.principals import clean_name
from parley.settings import File
from parley.store.schema import principal

ACTORS: Final = frozenset(
    {
        "-",
        "bus",
        "command line",
        "console",
        "directory",
        "file",
        "nobody",
        "oidc",
        "owner",
        "parley",
        "prefect",
        "service",
        "stranger",
        "system",
        "unknown sender",
    }
)
"""As what the audit names whoever is no person, and what could be taken for such."""

MOST_ALIKE: Final = 200
_LONGEST: Final = 56
_CONSOLE: Final = "console:"


def names_in(file: File) -> set[str]:
    """The names that parley.toml gives a meaning: of people, of places of theirs, and of services that may come."""
    rules = file.approvals
    people = chain([file.owner.name], *(rule.people for rule in rules))
    places = chain(
        file.duty.conversations,
        *(rule.to for rule in rules),
        *(route.to for route in file.routes),
        *(bridge.rooms for bridge in file.bridges),
    )
    theirs = (place.removeprefix(_CONSOLE) for place in places if place.startswith(_CONSOLE))
    return {*people, *theirs, *file.accounts}


async def free_name(conn: AsyncConnection, said: str, reserved: Iterable[str] = ()) -> str:
    """What they are called elsewhere, with a number where that is taken or reserved. Raises `Denied` for too many."""
    base = _base(said)
    rows = await conn.execute(sa.select(principal.c.name))
    taken = {_alike(name) for name in chain(rows.scalars(), reserved, ACTORS)}
    for number in range(1, MOST_ALIKE):
        name = base if number == 1 else f"{base}-{number}"
        if _alike(name) not in taken:
            return name
    raise Denied("Too many people have this name.")


def _base(said: str) -> str:
    # A colon would make it look like an actor (`oidc:corp`) or a place.
    try:
        name = " ".join(clean_name(said[:_LONGEST]).replace(":", "-").split())
        return clean_name(name[:_LONGEST])
    except PolicyError:
        return "newcomer"


def _alike(name: str) -> str:
    """The same for names that one reads and types as one."""
    try:
        return " ".join(clean_name(name).casefold().split())
    except PolicyError:
        return name


__all__ = ["ACTORS", "free_name", "names_in"]
