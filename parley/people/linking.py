"""Linking: one-time codes by which an account on a platform becomes somebody's, or a stranger becomes somebody.

A code has twelve letters. By the first four it is found; the eight others are the secret, some 35 bits, of which five
wrong ones end it. Only a keyed hash of it is stored. Functions of one transaction; who may ask for a code and where it
may be said is decided by the caller, and audited there.
"""

from __future__ import annotations

import hmac
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError, SealError
from parley.messages.model import now
from parley.people.principals import BY_CODE, Principal, get, link_identity
from parley.people.sealing import Keyring
from parley.store.ids import new_id
from parley.store.schema import link_code, principal

ALPHABET: Final = "34679ACDEFHJKMNPQRTWXY"
"""Letters and digits that nobody takes for one another."""

SELECTOR: Final = 4
LENGTH: Final = 12
MOST_TRIES: Final = 5

_PURPOSE: Final = "link code"


class CodeKind(StrEnum):
    """`link` by the person themselves, for ten minutes; `invitation` by an owner, for three days."""

    LINK = "link"
    INVITATION = "invitation"


LASTS: Final = {CodeKind.LINK: timedelta(minutes=10), CodeKind.INVITATION: timedelta(days=3)}


@dataclass(frozen=True, slots=True)
class Redeemed:
    """Whose the account is now."""

    principal: Principal
    kind: CodeKind


async def issue(conn: AsyncConnection, keyring: Keyring, principal_id: str, kind: CodeKind) -> str:
    """A new code for this person, as `ABCD-EFGH-JKMN`; the one that they had before is void."""
    await void(conn, principal_id)
    theirs = sa.and_(link_code.c.principal_id == principal_id, link_code.c.expires_at < now())
    await conn.execute(sa.delete(link_code).where(theirs))
    code = await _unused(conn)
    at = now()
    row = {
        "id": new_id(),
        "principal_id": principal_id,
        "kind": kind,
        "selector": code[:SELECTOR],
        "digest": _digest(keyring, keyring.newest, code),
        "tries": 0,
        "created_at": at,
        "expires_at": at + LASTS[kind],
    }
    await conn.execute(sa.insert(link_code).values(row))
    return "-".join(code[at : at + 4] for at in range(0, LENGTH, 4))


async def is_good(conn: AsyncConnection, keyring: Keyring, said: str) -> bool:
    """Whether this code could be redeemed now; nothing is counted."""
    row = await _open(conn, said)
    return row is not None and _fits(keyring, row, _read(said))


async def redeem(
    conn: AsyncConnection,
    keyring: Keyring,
    said: str,
    account: str,
    native_user_id: str,
    *,
    proven: bool = False,
) -> Redeemed | None:
    """Use a code up and link this account's user to its person; None for a wrong one, which counts as a try.

    Of two who come with it at once one is linked. The link is not verified: what a platform only claims stays claimed.
    `proven`: the platform vouches for who said it. Otherwise the address may be somebody else's, which the link tells
    by its source (`BY_CODE`).
    Raises PolicyError when the account's user is somebody else's already.
    """
    row = await _open(conn, said)
    if row is None:
        return None
    if not _fits(keyring, row, _read(said)):
        await _count(conn, row)
        return None
    if not await _end(conn, row.id):
        return None
    source = None if proven else BY_CODE
    await link_identity(conn, row.principal_id, account, native_user_id, source=source)
    return Redeemed(await get(conn, row.principal_id), CodeKind(row.kind))


async def tried(conn: AsyncConnection, keyring: Keyring, said: str) -> None:
    """Count a wrong code; a good one is left alone."""
    row = await _open(conn, said)
    if row is not None and not _fits(keyring, row, _read(said)):
        await _count(conn, row)


async def void(conn: AsyncConnection, principal_id: str) -> None:
    """End every code of this person."""
    open_ones = sa.and_(link_code.c.principal_id == principal_id, link_code.c.ended_at.is_(None))
    await conn.execute(sa.update(link_code).where(open_ones).values(ended_at=now()))


async def void_said(conn: AsyncConnection, keyring: Keyring, said: str) -> bool:
    """End this code, which others have seen; whether it was good."""
    row = await _open(conn, said)
    return row is not None and _fits(keyring, row, _read(said)) and await _end(conn, row.id)


async def _unused(conn: AsyncConnection) -> str:
    for _ in range(100):
        code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        taken = sa.select(link_code.c.id).where(link_code.c.selector == code[:SELECTOR])
        if (await conn.execute(taken)).first() is None:
            return code
    raise PolicyError("Too many codes are open just now. Try again later.")


async def _open(conn: AsyncConnection, said: str) -> Any:
    code = _read(said)
    if len(code) != LENGTH or not set(code) <= set(ALPHABET):
        return None
    query = (
        sa.select(link_code)
        .join(principal, principal.c.id == link_code.c.principal_id)
        .where(
            link_code.c.selector == code[:SELECTOR],
            link_code.c.ended_at.is_(None),
            link_code.c.expires_at > now(),
            principal.c.enabled,
        )
    )
    return (await conn.execute(query)).first()


async def _count(conn: AsyncConnection, row: Any) -> None:
    spent = row.tries + 1 >= MOST_TRIES
    values = {"tries": link_code.c.tries + 1, **({"ended_at": now()} if spent else {})}
    await conn.execute(sa.update(link_code).where(link_code.c.id == row.id).values(values))


async def _end(conn: AsyncConnection, code_id: str) -> bool:
    open_one = sa.and_(link_code.c.id == code_id, link_code.c.ended_at.is_(None))
    return bool((await conn.execute(sa.update(link_code).where(open_one).values(ended_at=now()))).rowcount)


def _read(said: str) -> str:
    """The letters of a code as it was typed."""
    text = unicodedata.normalize("NFKC", said[:100]).upper()
    return "".join(letter for letter in text if letter not in " -`")


def _fits(keyring: Keyring, row: Any, code: str) -> bool:
    try:
        expected = _digest(keyring, row.digest.partition(":")[0], code)
    except SealError:
        return False
    return hmac.compare_digest(expected, row.digest)


def _digest(keyring: Keyring, key_id: str, code: str) -> str:
    # With its key's id, so that a code outlives a change of keys.
    return f"{key_id}:{keyring.authenticate(key_id, _PURPOSE, code.encode())}"


__all__ = ["CodeKind", "Redeemed", "is_good", "issue", "redeem", "tried", "void", "void_said"]
