"""Signing in, from the machine: a password for somebody, who is signed in where, and tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import principals
from parley.people.sign_in import SignIn
from parley.runs.requests import short
from parley.store.engine import Store

ACTOR = "command line"


class SignInDesk:
    """Administrative verbs; each change is in the audit."""

    def __init__(self, store: Store, sign_in: SignIn) -> None:
        self._store = store
        self._sign_in = sign_in

    @property
    def verbs(self) -> Mapping[str, Callable[..., Awaitable[Any]]]:
        """By name, as the command line calls them."""
        return {
            "person_password": self.password,
            "person_sessions": self.sessions,
            "person_sessions_end": self.end,
            "tokens": self.tokens,
            "token_revoke": self.revoke,
            "tokens_revoke_all": self.revoke_all,
        }

    async def password(self, name: str, password: str) -> None:
        """Set somebody's password; all their sessions end. Raises PolicyError, `BadArguments`."""
        await self._sign_in.passwords.set_at_the_machine(name, password, actor=ACTOR)

    async def sessions(self, name: str) -> list[dict[str, str]]:
        """Where somebody is signed in. Raises PolicyError."""
        who = await self._store.read(lambda conn: principals.get_by_name(conn, name))
        _, found = await self._sign_in.sessions.of(who)
        return [
            {
                "id": one.id,
                "by": one.kind.value,
                "with": one.agent,
                "since": one.created_at.isoformat(timespec="seconds"),
                "used": one.used_at.isoformat(timespec="seconds"),
            }
            for one in found
        ]

    async def end(self, name: str) -> int:
        """End all sessions of somebody; how many there were. Raises PolicyError."""

        async def write(conn: AsyncConnection) -> int:
            who = await principals.get_by_name(conn, name)
            ids = [one.id for one in await self._sign_in.sessions.open_ones(conn, who)]
            return await self._sign_in.sessions.end_in(conn, who, ids, actor=ACTOR)

        return await self._store.write(write)

    async def tokens(self, name: str | None = None) -> list[dict[str, str | None]]:
        """Tokens that are good, of one or of everybody; never their secrets. Raises PolicyError."""
        return [
            {
                "id": one.id,
                "code": short(one.id),
                "person": one.person,
                "kind": one.kind.value,
                "label": one.label,
                "since": one.created_at.isoformat(timespec="seconds"),
                "until": one.expires_at.isoformat(timespec="seconds") if one.expires_at else None,
            }
            for one in await self._sign_in.tokens.good_ones(name)
        ]

    async def revoke(self, code: str) -> int:
        """End a token, and the sessions that began with it; how many these were. Raises PolicyError."""
        return await self._sign_in.tokens.revoke(code, actor=ACTOR)

    async def revoke_all(self, name: str) -> dict[str, int]:
        """End all tokens of somebody, and the sessions that began with them. Raises PolicyError."""
        revoked, ended = await self._sign_in.tokens.revoke_all(name, actor=ACTOR)
        return {"tokens": revoked, "sessions": ended}


__all__ = ["SignInDesk"]
