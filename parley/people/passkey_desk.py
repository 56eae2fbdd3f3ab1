"""Passkeys as people use them: made, used to sign in, taken away; each is audited, and ends what has to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, PolicyError
from parley.people import passkeys, principals, sessions
from parley.people.audit import Audit
from parley.people.challenges import Challenge, Challenges, Purpose
from parley.people.guesses import Door, Guesses
from parley.people.passkeys import Kept, Passkey, Place
from parley.people.principals import Principal, PrincipalKind
from parley.people.sealing import Keyring
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Origin, Session
from parley.store.engine import Store


class PasskeyDesk:
    """One for a hub."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        audit: Audit,
        desk: SessionDesk,
        guesses: Guesses,
        challenges: Challenges,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._audit = audit
        self._sessions = desk
        self._guesses = guesses
        self._challenges = challenges

    # -- signing in

    def ask(self, place: Place) -> tuple[dict[str, Any], str]:
        """Options for the browser, and the cookie that goes with them."""
        made, cookie = self._challenges.make(Purpose.PASSKEY, {"rp": place.rp_id})
        return passkeys.request_options(place, self._bytes(made)), cookie

    async def sign_in(
        self, answer: dict[str, Any], cookie: str, place: Place, *, address: str, agent: str
    ) -> str | None:
        """A new session's secret; None when the answer proves nobody.

        Raises `RateLimited` for what proves nobody, after too much of it from this address; a passkey always opens.
        """
        challenge = self._challenges.read(Purpose.PASSKEY, cookie)
        if challenge is None or challenge.facts.get("rp") != place.rp_id:
            self._guesses.failed(Door.PASSKEY, address)
            return None
        proved = await self._store.read(lambda conn: self._proved(conn, answer, place, challenge))
        if proved is None:
            self._guesses.failed(Door.PASSKEY, address)
        return await self._store.write(lambda conn: self._enter(conn, proved, challenge, agent))

    async def _proved(
        self, conn: AsyncConnection, answer: dict[str, Any], place: Place, challenge: Challenge
    ) -> tuple[Kept, int] | None:
        kept = await passkeys.find(conn, self._keyring, answer.get("id"))
        if kept is None or not passkeys.is_of(answer, kept.principal_id):
            return None
        count = passkeys.proved(answer, kept, place, self._bytes(challenge))
        return (kept, count) if count is not None else None

    async def _enter(
        self, conn: AsyncConnection, proved: tuple[Kept, int] | None, challenge: Challenge, agent: str
    ) -> str | None:
        # Whatever was answered, it was the answer: a challenge has one.
        if not await self._challenges.spend(conn, challenge):
            return None
        if proved is not None:
            kept, count = proved
            who = await principals.get(conn, kept.principal_id)
            if who.enabled and await passkeys.used(conn, kept, count):
                origin = Origin(kind=Kind.PASSKEY, agent=agent, passkey_id=kept.id)
                return await self._sessions.begin(conn, who, origin)
        await self._guesses.tell(conn, by="passkey")
        return None

    # -- one's own

    async def of(self, who: Principal) -> Sequence[Passkey]:
        """Theirs, the oldest first."""
        return await self._store.read(lambda conn: passkeys.of_person(conn, who.id))

    async def ask_for_new(self, who: Principal, session: Session, place: Place) -> tuple[dict[str, Any], str]:
        """Options for a new one, and the cookie that goes with them. Raises `Denied`, PolicyError."""
        _check_may(who, session)
        known = await self._store.read(lambda conn: passkeys.credentials(conn, who.id))
        made, cookie = self._challenges.make(
            Purpose.NEW_PASSKEY, {"rp": place.rp_id, "session": session.id, "who": who.id}
        )
        return passkeys.creation_options(who, place, self._bytes(made), known), cookie

    async def add(
        self, who: Principal, session: Session, answer: dict[str, Any], cookie: str, place: Place, name: str
    ) -> None:
        """Keep a new one. Raises `Denied`, PolicyError, `BadArguments`."""
        _check_may(who, session)
        challenge = self._challenges.read(Purpose.NEW_PASSKEY, cookie)
        meant = {"rp": place.rp_id, "session": session.id, "who": who.id}
        if challenge is None or dict(challenge.facts) != meant:
            raise BadArguments("That took too long, or was not asked for here: begin once more.")
        shown = passkeys.clean_name(name)
        if not await self._store.write(lambda conn: self._challenges.spend(conn, challenge)):
            raise BadArguments("That was answered before: begin once more.")
        made = passkeys.created(answer, place, self._bytes(challenge))

        async def keep(conn: AsyncConnection) -> None:
            if not (await principals.get(conn, who.id)).enabled:
                raise Denied("Nobody who is disabled gets a passkey.")
            await passkeys.add(conn, self._keyring, who.id, shown, made)
            await self._tell(conn, "passkey-added", who)

        await self._store.write(keep)

    async def remove(self, who: Principal, session: Session, passkey_id: str) -> bool:
        """Take one away; whether it was there. What was signed in with it ends. Raises `Denied`."""
        if not session.is_recent:
            raise Denied(sessions.SIGN_IN_AGAIN)

        async def write(conn: AsyncConnection) -> bool:
            if not await passkeys.remove(conn, who.id, passkey_id):
                return False
            await self._tell(conn, "passkey-removed", who)
            ended = await sessions.end_all(conn, who.id, passkey_id=passkey_id)
            if ended:
                await self._sessions.tell_ended(conn, who, ended, actor=who.name, why="passkey-removed")
            return True

        return await self._store.write(write)

    async def _tell(self, conn: AsyncConnection, action: str, who: Principal) -> None:
        await self._audit.record(conn, action=action, actor=who.name, subject=f"person:{who.name}")

    def _bytes(self, challenge: Challenge) -> bytes:
        return bytes.fromhex(self._challenges.derived(challenge, "passkey challenge"))


def _check_may(who: Principal, session: Session) -> None:
    if who.kind is not PrincipalKind.PERSON:
        raise PolicyError("Only people have passkeys.")
    if not session.is_recent:
        raise Denied(sessions.SIGN_IN_AGAIN)


__all__ = ["PasskeyDesk"]
