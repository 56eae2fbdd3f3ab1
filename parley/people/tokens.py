"""Tokens: what a person or a program shows instead of a password.

Secrets are 256 random bits, so that guessing is hopeless, and only their SHA-256 is stored. They are looked up by
that digest through an index: how long the look-up takes tells at most something about a digest, which nobody can
steer by choosing a secret; a comparison in constant time would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people.principals import Principal, get
from parley.store.ids import new_id
from parley.store.schema import principal, token

PREFIX = "parley_"
"""How every secret begins, so that scanners for leaked secrets know it."""


class TokenKind(StrEnum):
    """`bearer` for programs, `login` for one log-in by link; sessions are in `parley.people.sessions`."""

    BEARER = "bearer"
    LOGIN = "login"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that is good, without its secret. `expires_at`: None for one that is good until it is revoked."""

    id: str
    principal_id: str
    person: str
    kind: TokenKind
    label: str | None
    created_at: datetime
    expires_at: datetime | None


async def issue(
    conn: AsyncConnection,
    principal_id: str,
    kind: TokenKind,
    label: str | None = None,
    ttl: timedelta | None = None,
) -> str:
    """A new secret, shown this once; valid for `ttl`, or until it is revoked."""
    await get(conn, principal_id)
    secret = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    row = {
        "id": new_id(),
        "principal_id": principal_id,
        "kind": TokenKind(kind),
        "digest": _digest(secret),
        "label": label,
        "created_at": now,
        "expires_at": now + ttl if ttl is not None else None,
    }
    await conn.execute(sa.insert(token).values(row))
    return secret


async def resolve(conn: AsyncConnection, secret: str, kinds: Collection[TokenKind]) -> Principal | None:
    """Whose secret this is; None when it is unknown, of another kind, expired, revoked, or its owner disabled."""
    found = await find(conn, secret, kinds)
    return await get(conn, found.principal_id) if found else None


async def find(conn: AsyncConnection, secret: str, kinds: Collection[TokenKind]) -> Token | None:
    """As `resolve`: the token."""
    row = (await conn.execute(_tokens().where(_live(secret, kinds)))).first()
    return _token(row) if row is not None else None


async def good_ones(conn: AsyncConnection, principal_id: str | None = None) -> Sequence[Token]:
    """Tokens that are good, of one or of everybody, in the order in which they were made."""
    query = _tokens().where(_good())
    if principal_id is not None:
        query = query.where(token.c.principal_id == principal_id)
    return [_token(row) for row in await conn.execute(query.order_by(token.c.id))]


async def by_code(conn: AsyncConnection, code: str) -> Token | None:
    """The good one with this id, or with these last eight characters of it; None when it is not clear which."""
    wanted = code.strip().lower().replace("-", "")
    if not 8 <= len(wanted) <= 32 or not wanted.isalnum() or not wanted.isascii():
        return None
    query = _tokens().where(_good(), token.c.id.like(f"%{wanted[-8:]}")).limit(10)
    rows = (await conn.execute(query)).all()
    fitting = [row for row in rows if row.id.replace("-", "").endswith(wanted)]
    return _token(fitting[0]) if len(fitting) == 1 else None


async def redeem(conn: AsyncConnection, secret: str, kind: TokenKind = TokenKind.LOGIN) -> Principal | None:
    """As `resolve`, and the secret is used up: of two who come with it at once, one gets in."""
    found = await resolve(conn, secret, {kind})
    return found if found is not None and await revoke(conn, secret) else None


async def revoke(conn: AsyncConnection, secret: str) -> bool:
    """End this secret now; whether it was still good."""
    live = sa.and_(token.c.digest == _digest(secret), token.c.revoked_at.is_(None))
    done = await conn.execute(sa.update(token).where(live).values(revoked_at=datetime.now(UTC)))
    return done.rowcount == 1


async def revoke_one(conn: AsyncConnection, token_id: str) -> bool:
    """As `revoke`, by the token's id."""
    live = sa.and_(token.c.id == token_id, token.c.revoked_at.is_(None))
    done = await conn.execute(sa.update(token).where(live).values(revoked_at=datetime.now(UTC)))
    return done.rowcount == 1


async def revoke_all(
    conn: AsyncConnection, principal_id: str, kinds: Collection[TokenKind] = tuple(TokenKind)
) -> int:
    """End all of a principal's secrets of these kinds; how many there were that were good."""
    live = sa.and_(token.c.principal_id == principal_id, token.c.kind.in_(list(kinds)), _good())
    return (await conn.execute(sa.update(token).where(live).values(revoked_at=datetime.now(UTC)))).rowcount


def _live(secret: str, kinds: Collection[TokenKind]) -> sa.ColumnElement[bool]:
    return sa.and_(
        token.c.digest == _digest(secret),
        token.c.kind.in_(list(kinds)),
        _good(),
    )


def _good() -> sa.ColumnElement[bool]:
    lasts = sa.or_(token.c.expires_at.is_(None), token.c.expires_at > datetime.now(UTC))
    return sa.and_(token.c.revoked_at.is_(None), lasts)


def _tokens() -> sa.Select[Any]:
    # Sessions were tokens of a third kind once.
    known = sa.and_(principal.c.enabled, token.c.kind.in_(list(TokenKind)))
    return sa.select(token, principal.c.name).join_from(token, principal).where(known)


def _token(row: Any) -> Token:
    return Token(
        id=row.id,
        principal_id=row.principal_id,
        person=row.name,
        kind=TokenKind(row.kind),
        label=row.label,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
