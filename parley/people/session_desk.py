"""Sessions as people use them: begun by a sign-in, looked at, ended by oneself or an owner; each change is audited."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import Denied
from parley.messages.model import now
from parley.people import principals, sessions
from parley.people.audit import Audit
from parley.people.lifetime import Lifetime
from parley.people.principals import Principal, Role
from parley.people.sealing import Keyring
from parley.people.sessions import TOUCHED_EVERY, Origin, Session
from parley.store.engine import Store


class SessionDesk:
    """One for a hub. `lifetime` is that of the settings in force."""

    def __init__(
        self, store: Store, keyring: Keyring, audit: Audit, *, lifetime: Callable[[], Lifetime]
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._lifetime = lifetime

    async def begin(self, conn: AsyncConnection, who: Principal, origin: Origin) -> str:
        """Within a write: a new session's secret. Raises PolicyError for somebody who is disabled."""
        if not who.enabled:
            raise Denied("Nobody can be signed in as somebody who is disabled.")
        secret = await sessions.begin(conn, self._keyring, who.id, origin, self._lifetime())
        details = {"by": origin.kind.value, "agent": sessions.coarse(origin.agent)}
        await self._audit.record(
            conn, action="log-in", actor=who.name, subject=f"person:{who.name}", details=details
        )
        return secret

    async def resolve(self, secret: str, *, touches: bool) -> tuple[Principal, Session] | None:
        """Whose session this is, and which. `touches`: it is used now, and lives on; looking at it alone does not."""

        async def read(conn: AsyncConnection) -> tuple[Principal, Session] | None:
            found = await sessions.find(conn, self._keyring, secret, self._lifetime())
            return (await principals.get(conn, found.principal_id), found) if found else None

        found = await self._store.read(read)
        if found and touches and found[1].used_at < now() - TOUCHED_EVERY:
            await self._store.write(lambda conn: sessions.touch(conn, found[1].id))
        return found

    async def of(self, asker: Principal, name: str = "") -> tuple[Principal, Sequence[Session]]:
        """Whose sessions, and these in the order in which they began. Raises `Denied`, PolicyError."""

        async def read(conn: AsyncConnection) -> tuple[Principal, Sequence[Session]]:
            whose = await self._whose(conn, asker, name)
            found = await self.open_ones(conn, whose)
            return whose, sorted(found, key=lambda one: (one.created_at, one.id))

        return await self._store.read(read)

    async def end(
        self, asker: Principal, ids: Sequence[str], name: str = "", *, actor: str | None = None
    ) -> int:
        """End these sessions of oneself, or of somebody as an owner; how many there were. Raises as `of`."""

        async def write(conn: AsyncConnection) -> int:
            whose = await self._whose(conn, asker, name)
            return await self.end_in(conn, whose, ids, actor=actor or asker.name)

        return await self._store.write(write)

    async def end_in(self, conn: AsyncConnection, whose: Principal, ids: Sequence[str], *, actor: str) -> int:
        """Within a write, when the right was looked at before; sessions of others are left alone."""
        theirs = {one.id for one in await self.open_ones(conn, whose)}
        ended = await sessions.end(conn, [one for one in ids if one in theirs])
        if ended:
            await self.tell_ended(conn, whose, ended, actor=actor, why="asked")
        return ended

    async def open_ones(self, conn: AsyncConnection, whose: Principal) -> Sequence[Session]:
        """Somebody's sessions that are good, the one that was used last first."""
        return await sessions.of_person(conn, whose.id, self._lifetime())

    async def end_all(
        self, conn: AsyncConnection, whose: Principal, *, why: str, but: str | None = None
    ) -> int:
        """Within a write: all of somebody's sessions, but this one; how many there were."""
        ended = await sessions.end_all(conn, whose.id, but=but)
        if ended:
            await self.tell_ended(conn, whose, ended, actor=whose.name, why=why)
        return ended

    async def tell_ended(
        self, conn: AsyncConnection, whose: Principal, count: int, *, actor: str, why: str
    ) -> None:
        """Put into the audit that so many sessions ended."""
        await self._audit.record(
            conn,
            action="sessions-ended",
            actor=actor,
            subject=f"person:{whose.name}",
            details={"count": count, "why": why},
        )

    async def log_out(self, secret: str) -> None:
        """End the session of this secret, if it is one."""

        async def write(conn: AsyncConnection) -> None:
            found = await sessions.find(conn, self._keyring, secret, self._lifetime())
            if found is not None and await sessions.end(conn, [found.id]):
                whose = await principals.get(conn, found.principal_id)
                await self.tell_ended(conn, whose, 1, actor=whose.name, why="log-out")

        await self._store.write(write)

    @staticmethod
    async def _whose(conn: AsyncConnection, asker: Principal, name: str) -> Principal:
        if not name or name == asker.name:
            return await principals.get(conn, asker.id)
        if asker.role is not Role.OWNER:
            raise Denied("Only the owner sees and ends other people's sessions.")
        return await principals.get_by_name(conn, name)


__all__ = ["SessionDesk"]
