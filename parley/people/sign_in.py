"""Signing in at the console: every way in, and the sessions that come of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import oidc, principals, tokens
from parley.people.audit import Audit
from parley.people.challenges import Challenges
from parley.people.group_lines import GroupLine
from parley.people.guesses import Door, Guesses
from parley.people.lifetime import Lifetime
from parley.people.oidc import OidcDesk
from parley.people.oidc_provider import Send
from parley.people.passkey_desk import PasskeyDesk
from parley.people.password_desk import PasswordDesk
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Origin
from parley.people.token_desk import TokenDesk
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
        reserved: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`lines` are `[[groups]]`, `send` calls OpenID providers; nobody who joins gets a name of `reserved`."""
        self._store = store
        self._guesses = Guesses(keyring, audit)
        challenges = Challenges(keyring)
        self.sessions: SessionDesk = SessionDesk(store, keyring, audit, lifetime=lambda: rules().lifetime)
        self.tokens: TokenDesk = TokenDesk(store, audit, self.sessions)
        self.passwords: PasswordDesk = PasswordDesk(store, keyring, audit, self.sessions, self._guesses)
        self.passkeys: PasskeyDesk = PasskeyDesk(
            store, keyring, audit, self.sessions, self._guesses, challenges
        )
        self.oidc: OidcDesk = OidcDesk(
            store,
            audit,
            self.sessions,
            self._guesses,
            challenges,
            rules=rules,
            lines=lines,
            reserved=reserved,
            send=send,
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

        Raises `RateLimited` for what is not good, after too much of it from this address; what is good always opens.
        """
        if await self._store.read(lambda conn: tokens.resolve(conn, secret, set(TokenKind))) is None:
            self._guesses.failed(Door.CODE, address)
            await self._store.write(lambda conn: self._guesses.tell(conn, by="code"))
            return None

        async def exchange(conn: AsyncConnection) -> str | None:
            who = await tokens.redeem(conn, secret, TokenKind.LOGIN)
            if who is not None:
                return await self.sessions.begin(conn, who, Origin(kind=Kind.CODE, agent=agent))
            token = await tokens.find(conn, secret, {TokenKind.BEARER})
            if token is None:
                await self._guesses.tell(conn, by="code")
                return None
            origin = Origin(kind=Kind.TOKEN, agent=agent, token_id=token.id, until=token.expires_at)
            return await self.sessions.begin(conn, await principals.get(conn, token.principal_id), origin)

        return await self._store.write(exchange)


__all__ = ["Rules", "SignIn"]
