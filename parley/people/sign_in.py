"""Signing in at the console: every way in, and the sessions that come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import tokens
from parley.people.audit import Audit
from parley.people.lifetime import Lifetime
from parley.people.sealing import Keyring
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Origin
from parley.people.tokens import TokenKind
from parley.store.engine import Store


class Rules(Protocol):
    """`[sign_in]` of parley.toml."""

    @property
    def lifetime(self) -> Lifetime:
        """How long a session lasts."""


class SignIn:
    """One for a hub. `rules` are those in force."""

    def __init__(self, store: Store, keyring: Keyring, audit: Audit, *, rules: Callable[[], Rules]) -> None:
        self._store = store
        self.sessions: SessionDesk = SessionDesk(store, keyring, audit, lifetime=lambda: rules().lifetime)

    async def with_secret(self, secret: str, agent: str = "") -> str | None:
        """By a code that is good once, or a program's token: the new session's secret; None when it is not good."""

        async def exchange(conn: AsyncConnection) -> str | None:
            kind, who = Kind.CODE, await tokens.redeem(conn, secret, TokenKind.LOGIN)
            if who is None:
                kind, who = Kind.TOKEN, await tokens.resolve(conn, secret, {TokenKind.BEARER})
            if who is None:
                return None
            return await self.sessions.begin(conn, who, Origin(kind=kind, agent=agent))

        return await self._store.write(exchange)


__all__ = ["Rules", "SignIn"]
