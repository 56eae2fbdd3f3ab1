"""What somebody signs in with that is their own: a password, passkeys, an account at a provider."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.store.schema import identity, passkey, password

_PROVIDERS: Final = "oidc:"
"""Before the issuer in an account's name: see `parley.people.oidc.ACCOUNT`."""


async def has_own(conn: AsyncConnection, principal_id: str) -> bool:
    """Whether somebody has any of them."""
    connected = sa.and_(
        identity.c.principal_id == principal_id, identity.c.account.startswith(_PROVIDERS, autoescape=True)
    )
    there = sa.or_(
        sa.exists().where(password.c.principal_id == principal_id),
        sa.exists().where(passkey.c.principal_id == principal_id),
        sa.exists().where(connected),
    )
    return bool(await conn.scalar(sa.select(there)))


__all__ = ["has_own"]
