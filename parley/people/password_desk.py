"""Passwords as people use them: to sign in, set, changed, taken away; each is audited, and ends what has to end."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import Denied, PolicyError
from parley.people import passwords, principals, sessions
from parley.people.audit import Audit
from parley.people.guesses import Guesses
from parley.people.principals import Principal, PrincipalKind
from parley.people.sealing import Keyring
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Origin, Session
from parley.store.engine import Store


class PasswordDesk:
    """One for a hub."""

    def __init__(
        self, store: Store, keyring: Keyring, audit: Audit, desk: SessionDesk, guesses: Guesses
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._sessions = desk
        self._guesses = guesses
        self._hasher = passwords.Hasher()

    async def sign_in(
        self, name: str, password: str, *, address: str, agent: str, mark: str
    ) -> tuple[str, str] | None:
        """A new session's secret, and the browser's mark; None when the name or the password is wrong.

        Which of the two, and whether there is such a person, is not told, nor by how long it takes. `mark` is what the
        browser kept. Raises `RateLimited`.
        """
        who, stored = await self._store.read(lambda conn: self._known(conn, name))
        known = self._guesses.is_known(mark, who.id) if who is not None else None
        # Before it counts: whoever floods the queue uses up nobody's tries, and drives no name out of what is counted.
        self._hasher.check_room()
        self._guesses.take(name, address, known)
        given = passwords.clean(password[: passwords.LONGEST + 1])
        right = await self._hasher.check(stored, given)
        if not right or who is None or stored is None:
            subject = f"person:{who.name}" if who is not None else "console"
            await self._store.write(lambda conn: self._guesses.tell(conn, by="password", subject=subject))
            return None
        fresh = await self._hasher.hash(given) if self._hasher.is_outdated(stored) else None
        secret = await self._store.write(lambda conn: self._enter(conn, who.id, stored, fresh, agent))
        return (secret, mark if known else self._guesses.mark(who.id)) if secret else None

    async def set(self, who: Principal, session: Session, password: str) -> None:
        """By themselves, just after signing in; their other sessions end. Raises `Denied`, `BadArguments`."""
        if not session.is_recent:
            raise Denied(sessions.SIGN_IN_AGAIN)
        await self._set(who.name, password, actor=who.name, but=session.id)

    async def set_at_the_machine(self, name: str, password: str, *, actor: str) -> None:
        """For somebody, by whoever is at the machine; all their sessions end. Raises PolicyError, `BadArguments`."""
        await self._set(name, password, actor=actor, but=None)

    async def remove(self, who: Principal, session: Session) -> bool:
        """Take one's password away; whether there was one. Their other sessions end. Raises `Denied`."""
        if not session.is_recent:
            raise Denied(sessions.SIGN_IN_AGAIN)

        async def write(conn: AsyncConnection) -> bool:
            if not await passwords.remove(conn, who.id):
                return False
            await self._tell(conn, "password-removed", who, who.name)
            await self._sessions.end_all(conn, who, why="password-removed", but=session.id)
            return True

        return await self._store.write(write)

    async def exists(self, who: Principal) -> bool:
        """Whether they have one."""
        return await self._store.read(lambda conn: passwords.exists(conn, who.id))

    async def _known(self, conn: AsyncConnection, name: str) -> tuple[Principal | None, str | None]:
        who = await passwords.by_sign_in_name(conn, name)
        return who, (await passwords.hash_of(conn, self._keyring, who.id) if who else None)

    async def _enter(
        self, conn: AsyncConnection, principal_id: str, checked: str, fresh: str | None, agent: str
    ) -> str | None:
        # Once more: the password may have been changed, or the person have left, while it was computed.
        who = await principals.get(conn, principal_id)
        if not who.enabled or await passwords.hash_of(conn, self._keyring, who.id) != checked:
            return None
        if fresh is not None:
            await passwords.put(conn, self._keyring, who.id, fresh)
        return await self._sessions.begin(conn, who, Origin(kind=Kind.PASSWORD, agent=agent))

    async def _set(self, name: str, password: str, *, actor: str, but: str | None) -> None:
        who = await self._store.read(lambda conn: _person(conn, name))
        hashed = await self._hasher.hash(passwords.check_new(password, who.name))

        async def write(conn: AsyncConnection) -> None:
            here = await _person(conn, name)
            await passwords.put(conn, self._keyring, here.id, hashed)
            await self._tell(conn, "password-set", here, actor)
            await self._sessions.end_all(conn, here, why="password-set", but=but)

        await self._store.write(write)

    async def _tell(self, conn: AsyncConnection, action: str, who: Principal, actor: str) -> None:
        await self._audit.record(conn, action=action, actor=actor, subject=f"person:{who.name}")


async def _person(conn: AsyncConnection, name: str) -> Principal:
    who = await principals.get_by_name(conn, name)
    if who.kind is not PrincipalKind.PERSON or not who.enabled:
        raise PolicyError("Only people who may sign in have a password.")
    return who


__all__ = ["PasswordDesk"]
