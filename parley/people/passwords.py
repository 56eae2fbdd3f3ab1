"""Passwords: what one may be, and the row that proves it.

Argon2id with the parameters that the library recommends, RFC 9106's second ones (64 MiB, three passes, four lanes);
the hash is sealed besides, so that a stolen database has nothing to try guesses on. One is computed at a time, in a
thread, and few wait: guesses take neither memory nor processor from everybody else.
"""

from __future__ import annotations

import asyncio
import unicodedata
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, PolicyError, RateLimited
from parley.messages.model import now
from parley.people import principals
from parley.people.principals import Principal, PrincipalKind
from parley.people.sealing import Keyring
from parley.store.schema import password, principal

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LEAST: Final = 12
LONGEST: Final = 256
"""Characters."""

MOST_WAITING: Final = 8
"""Checks that wait for their turn; with more of them whoever comes is asked to come again."""

_DISTINCT: Final = 5
"""Different characters that a password has at the least."""


def clean(text: str) -> str:
    """The one spelling of a password: keyboards and systems write the same letters differently."""
    return unicodedata.normalize("NFKC", text)


def check_new(text: str, name: str) -> str:
    """The password as it is hashed. Raises `BadArguments`, which says what a password has to be, and not this one."""
    given = clean(text)
    if not LEAST <= len(given) <= LONGEST:
        raise BadArguments(f"A password has {LEAST} to {LONGEST} characters.")
    small = given.casefold()
    if small in _common() or len(set(small)) < _DISTINCT:
        raise BadArguments("That is one of the passwords that everybody tries first: choose another one.")
    bare = small.replace(clean(name).casefold(), "") if name else small
    if len(bare) < LEAST // 2:
        raise BadArguments("A password is more than one's own name: choose another one.")
    return given


@cache
def _common() -> frozenset[str]:
    text = (files("parley.people") / "common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


class Hasher:
    """Computes and checks hashes, one at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._nobodys = ""

    async def hash(self, text: str) -> str:
        """A new hash. Raises `RateLimited` when too many wait."""
        return str(await self._in_turn(lambda: _hasher().hash(text)))

    async def check(self, stored: str | None, text: str) -> bool:
        """Whether this is the password of that hash; without one it takes as long. Raises as `hash`."""
        if not self._nobodys:
            self._nobodys = await self.hash("nobody's")
        fits = bool(await self._in_turn(lambda: _fits(stored or self._nobodys, text)))
        return fits and stored is not None

    def check_room(self) -> None:
        """Raises `RateLimited` when too many wait: what is asked for at once would be refused."""
        if self._waiting >= MOST_WAITING:
            raise RateLimited("Many people sign in just now.", retry_after=5)

    @staticmethod
    def is_outdated(stored: str) -> bool:
        """Whether it was made with other parameters than are used now."""
        return _hasher().check_needs_rehash(stored)

    async def _in_turn(self, compute: Any) -> Any:
        self.check_room()
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(compute)
        finally:
            self._waiting -= 1


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


def _fits(stored: str, text: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(stored, text)
    except (VerificationError, InvalidHashError):
        return False


async def by_sign_in_name(conn: AsyncConnection, typed: str) -> Principal | None:
    """The enabled person whose name this is; capital letters make no difference where it is clear who is meant."""
    try:
        name = principals.clean_name(typed)
    except PolicyError:
        return None
    person = sa.and_(principal.c.enabled, principal.c.kind == PrincipalKind.PERSON)
    exact = await principals.list_principals(conn, sa.and_(person, principal.c.name == name), 1)
    if exact:
        return exact[0]
    alike = sa.func.lower(principal.c.name) == name.lower()
    found = await principals.list_principals(conn, sa.and_(person, alike), 2)
    return found[0] if len(found) == 1 else None


async def put(conn: AsyncConnection, keyring: Keyring, principal_id: str, hashed: str) -> None:
    """Let this be the hash of somebody's password."""
    await remove(conn, principal_id)
    sealed = keyring.seal("password", "hash_sealed", principal_id, hashed.encode())
    row = {"principal_id": principal_id, "hash_sealed": sealed, "changed_at": now()}
    await conn.execute(sa.insert(password).values(row))


async def hash_of(conn: AsyncConnection, keyring: Keyring, principal_id: str) -> str | None:
    """The hash of somebody's password; None when they have none. Raises SealError."""
    query = sa.select(password.c.hash_sealed).where(password.c.principal_id == principal_id)
    sealed = await conn.scalar(query)
    return None if sealed is None else keyring.open("password", "hash_sealed", principal_id, sealed).decode()


async def exists(conn: AsyncConnection, principal_id: str) -> bool:
    """Whether somebody has a password."""
    query = sa.select(password.c.principal_id).where(password.c.principal_id == principal_id)
    return (await conn.execute(query)).first() is not None


async def remove(conn: AsyncConnection, principal_id: str) -> bool:
    """Let somebody have no password; whether they had one."""
    theirs = password.c.principal_id == principal_id
    return bool((await conn.execute(sa.delete(password).where(theirs))).rowcount)


__all__ = ["Hasher", "by_sign_in_name", "check_new", "clean", "exists", "hash_of", "put", "remove"]
