"""Signing in at the console: every way in, and the sessions that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import oidc, tokens
from parley.people.audit import Audit
from parley.people.challenges import Challenges
from parley.people.group_lines import GroupLine
from parley.people.guesses import Guesses
from parley.people.lifetime import Lifetime
from parley.people.oidc import OidcDesk
from parley.people.oidc_provider import Send
from parley.people.passkey_desk import PasskeyDesk
from parley.people.password_desk import PasswordDesk
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Origin
from parley.people.tokens import TokenKind
from parley.store.engine import Store


class Rules(oidc.Rules, Protocol):
    """`[sign_in]` of parley.toml."""

    @property
    def lifetime(self) -> Lifetime:
        """How long a session lasts."""


class SignIn:
    """One for a hub. `rules` are those in force."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        audit: Audit,
        *,
        rules: Callable[[], Rules],
        lines: Callable[[], Sequence[GroupLine]],
        send: Send,
    ) -> None:
        """`lines` are `[[groups]]`, `send` calls OpenID providers."""
        self._store = store
        self._guesses = Guesses(keyring, audit)
        challenges = Challenges(keyring)
        self.sessions: SessionDesk = SessionDesk(store, keyring, audit, lifetime=lambda: rules().lifetime)
        self.passwords: PasswordDesk = PasswordDesk(store, keyring, audit, self.sessions, self._guesses)
        self.passkeys: PasskeyDesk = PasskeyDesk(
            store, keyring, audit, self.sessions, self._guesses, challenges
        )
        self.oidc: OidcDesk = OidcDesk(
            store, audit, self.sessions, self._guesses, challenges, rules=rules, lines=lines, send=send
        )

    @property
    def providers(self) -> Sequence[tuple[str, str]]:
        """Names and labels of those by which one may sign in elsewhere."""
        return self.oidc.providers

    async def connections(self, who: Principal) -> list[dict[str, object]]:
        """The providers, and whether this person is connected to each."""
        return await self.oidc.connections(who)

    async def with_secret(self, secret: str, *, agent: str = "", address: str = "") -> str | None:
        """By a code that is good once, or a program's token: the new session's secret; None when it is not good.

        Raises `RateLimited`.
        """
        self._guesses.take_visit(address)

        async def exchange(conn: AsyncConnection) -> str | None:
            kind, who = Kind.CODE, await tokens.redeem(conn, secret, TokenKind.LOGIN)
            if who is None:
                kind, who = Kind.TOKEN, await tokens.resolve(conn, secret, {TokenKind.BEARER})
            if who is None:
                await self._guesses.tell(conn, by="code")
                return None
            return await self.sessions.begin(conn, who, Origin(kind=kind, agent=agent))

        return await self._store.write(exchange)


__all__ = ["Rules", "SignIn"]
