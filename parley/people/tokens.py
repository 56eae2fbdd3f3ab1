"""Tokens: what a person or a program shows instead of a password.

Secrets are 256 random bits, so that guessing is hopeless, and only their SHA-256 is stored. They are looked up by
that digest through an index: how long the look-up takes tells at most something about a digest, which nobody can
steer by choosing a secret; a comparison in constant time would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from enum import StrEnum

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
    wanted = sa.select(token.c.principal_id).join_from(token, principal)
    found = await conn.scalar(wanted.where(_live(secret, kinds), principal.c.enabled))
    return await get(conn, found) if found else None


async def redeem(conn: AsyncConnection, secret: str, kind: TokenKind = TokenKind.LOGIN) -> Principal | None:
    """As `resolve`, and the secret is used up: of two who come with it at once, one gets in."""
    found = await resolve(conn, secret, {kind})
    return found if found is not None and await revoke(conn, secret) else None


async def revoke(conn: AsyncConnection, secret: str) -> bool:
    """End this secret now; whether it was still good."""
    live = sa.and_(token.c.digest == _digest(secret), token.c.revoked_at.is_(None))
    done = await conn.execute(sa.update(token).where(live).values(revoked_at=datetime.now(UTC)))
    return done.rowcount == 1


async def revoke_all(
    conn: AsyncConnection, principal_id: str, kinds: Collection[TokenKind] = tuple(TokenKind)
) -> int:
    """End all of a principal's secrets of these kinds; how many there were."""
    live = sa.and_(
        token.c.principal_id == principal_id, token.c.kind.in_(list(kinds)), token.c.revoked_at.is_(None)
    )
    return (await conn.execute(sa.update(token).where(live).values(revoked_at=datetime.now(UTC)))).rowcount


def _live(secret: str, kinds: Collection[TokenKind]) -> sa.ColumnElement[bool]:
    return sa.and_(
        token.c.digest == _digest(secret),
        token.c.kind.in_(list(kinds)),
        token.c.revoked_at.is_(None),
        sa.or_(token.c.expires_at.is_(None), token.c.expires_at > datetime.now(UTC)),
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
