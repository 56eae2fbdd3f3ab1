"""Tokens as whoever looks after the machine sees them: which there are, and their end; each end is audited."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import PolicyError
from parley.people import principals, sessions, tokens
from parley.people.audit import Audit
from parley.people.principals import Principal
from parley.people.session_desk import SessionDesk
from parley.people.tokens import Token
from parley.store.engine import Store

_WHY = "token-revoked"


class TokenDesk:
    """One for a hub."""

    def __init__(self, store: Store, audit: Audit, desk: SessionDesk) -> None:
        self._store = store
        self._audit = audit
        self._sessions = desk

    async def good_ones(self, name: str | None = None) -> Sequence[Token]:
        """Tokens that are good, of one or of everybody, in the order in which they were made. Raises PolicyError."""

        async def read(conn: AsyncConnection) -> Sequence[Token]:
            whose = await principals.get_by_name(conn, name) if name else None
            return await tokens.good_ones(conn, whose.id if whose else None)

        return await self._store.read(read)

    async def revoke(self, code: str, *, actor: str) -> int:
        """End the token of this id, or of these last eight characters; how many sessions began with it, and end.

        Raises PolicyError where there is none, or more than one.
        """

        async def write(conn: AsyncConnection) -> int:
            found = await tokens.by_code(conn, code)
            if found is None:
                raise PolicyError("There is no such token that is good: `parley tokens list` shows them.")
            whose = await principals.get_by_name(conn, found.person)
            await tokens.revoke_one(conn, found.id)
            await self._tell(conn, whose, actor, {"token": found.id})
            ended = await sessions.end_of_tokens(conn, whose.id, found.id)
            return await self._ended(conn, whose, ended, actor)

        return await self._store.write(write)

    async def revoke_all(self, name: str, *, actor: str) -> tuple[int, int]:
        """End all of somebody's; how many tokens, and how many sessions that began with them. Raises PolicyError."""

        async def write(conn: AsyncConnection) -> tuple[int, int]:
            whose = await principals.get_by_name(conn, name)
            revoked = await tokens.revoke_all(conn, whose.id)
            if revoked:
                await self._tell(conn, whose, actor, {"count": revoked})
            ended = await sessions.end_of_tokens(conn, whose.id, None)
            return revoked, await self._ended(conn, whose, ended, actor)

        return await self._store.write(write)

    async def _tell(
        self, conn: AsyncConnection, whose: Principal, actor: str, details: dict[str, str | int | bool | None]
    ) -> None:
        await self._audit.record(
            conn, action=_WHY, actor=actor, subject=f"person:{whose.name}", details=details
        )

    async def _ended(self, conn: AsyncConnection, whose: Principal, ended: int, actor: str) -> int:
        if ended:
            await self._sessions.tell_ended(conn, whose, ended, actor=actor, why=_WHY)
        return ended


__all__ = ["TokenDesk"]
