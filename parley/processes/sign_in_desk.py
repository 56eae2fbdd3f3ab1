"""Signing in, from the machine: a password for somebody, and who is signed in where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people import principals
from parley.people.sign_in import SignIn
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


__all__ = ["SignInDesk"]
