"""Signing in by an OpenID provider: authorization code with PKCE, state and nonce; whom it brings, and their groups.

Somebody is known there by issuer and subject, never by a name or an address: a mail address counts only where
parley.toml names the account whose addresses do, and the provider says that it verified it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import BadArguments, Denied, ParleyError, Rejected, Unreachable
from parley.messages.model import now
from parley.people import groups, id_tokens, principals, sessions
from parley.people.audit import Audit
from parley.people.challenges import Challenge, Challenges, Purpose
from parley.people.free_names import free_name
from parley.people.group_lines import GroupLine
from parley.people.guesses import Door, Guesses
from parley.people.oidc_provider import Described, Provider, Send
from parley.people.principals import Principal, PrincipalKind
from parley.people.session_desk import SessionDesk
from parley.people.sessions import Kind, Origin, Session
from parley.store.engine import Store
from parley.store.insert_new import insert_new
from parley.store.schema import spent_challenge

logger = logging.getLogger(__name__)

ACCOUNT: Final = "oidc:"
"""Before the issuer: the account by which an identity of a provider is known."""

MOST_GROUPS: Final = 10_000
LONGEST_CODE: Final = 4000
_NAMES: Final = ("preferred_username", "name", "nickname")


class Settings(Described, Protocol):
    """`[sign_in.oidc.<name>]` of parley.toml."""

    @property
    def label(self) -> str:
        """What people read."""

    @property
    def groups_claim(self) -> str:
        """The claim that holds groups; empty for none."""

    @property
    def join(self) -> bool:
        """Whether somebody unknown becomes a person."""

    @property
    def mail_account(self) -> str:
        """The account by whose addresses people are known; empty for none."""


class Rules(Protocol):
    """What of parley.toml is looked at here."""

    @property
    def oidc(self) -> Mapping[str, Settings]:
        """Providers by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the provider's page sent the browser back with. Its `repr` hides the code."""

    code: str = field(default="", repr=False)
    state: str = field(default="", repr=False)
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class Entered:
    """A new session's secret; none where an account was connected to somebody who is signed in already."""

    secret: str | None = field(default=None, repr=False)


class OidcDesk:
    """One for a hub. `rules` and `lines` (`[[groups]]`) are those in force, `reserved` names that no newcomer gets."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        desk: SessionDesk,
        guesses: Guesses,
        challenges: Challenges,
        *,
        rules: Callable[[], Rules],
        lines: Callable[[], Sequence[GroupLine]],
        reserved: Callable[[], Collection[str]],
        send: Send,
    ) -> None:
        self._store = store
        self._audit = audit
        self._sessions = desk
        self._guesses = guesses
        self._challenges = challenges
        self._rules = rules
        self._lines = lines
        self._reserved = reserved
        self._send = send
        self._known: dict[str, Provider] = {}

    @property
    def providers(self) -> Sequence[tuple[str, str]]:
        """Names and labels."""
        return [(name, one.label or name) for name, one in self._rules().oidc.items()]

    async def connections(self, who: Principal) -> list[dict[str, object]]:
        """The providers, and whether this person is connected to each."""
        known = await self._store.read(lambda conn: principals.identities(conn, who.id))
        accounts = {account for account, _, _ in known}
        return [
            {"name": name, "label": one.label or name, "connected": ACCOUNT + one.issuer in accounts}
            for name, one in self._rules().oidc.items()
        ]

    # -- there and back

    async def begin(
        self, name: str, redirect: str, *, address: str, link: tuple[Principal, Session] | None = None
    ) -> tuple[str, str]:
        """Where the browser goes, and the cookie that it keeps. `link`: to connect what is there to who is here.

        Raises `BadArguments` for no provider of ours, `Denied`, `RateLimited`, `Unreachable`, `Rejected`.
        """
        self._guesses.check(Door.PROVIDER, address)
        provider = self._provider(name)
        facts = {"provider": name, "issuer": provider.about.issuer, "redirect": redirect}
        if link is not None:
            who, session = link
            if who.kind is not PrincipalKind.PERSON or not session.is_recent:
                raise Denied(sessions.SIGN_IN_AGAIN)
            facts |= {"who": who.id, "session": session.id}
        made, cookie = self._challenges.make(Purpose.PROVIDER, facts)
        verifier = self._challenges.derived(made, "verifier")
        digest = hashlib.sha256(verifier.encode()).digest()
        try:
            where = await provider.address(
                redirect=redirect,
                state=self._challenges.derived(made, "state"),
                nonce=self._challenges.derived(made, "nonce"),
                challenge=base64.urlsafe_b64encode(digest).decode().rstrip("="),
            )
        except ParleyError:
            self._guesses.failed(Door.PROVIDER, address)
            raise
        return where, cookie

    async def come_back(
        self, name: str, answer: Answer, cookie: str, *, address: str, agent: str
    ) -> Entered | None:
        """Who signed in there, signed in here; None when this is nobody who may. Raises `RateLimited`."""
        challenge = self._challenges.read(Purpose.PROVIDER, cookie)
        if challenge is None:
            return None
        self._guesses.check(Door.PROVIDER, address)
        if not await self._is_answered(name, answer, challenge):
            self._guesses.failed(Door.PROVIDER, address)
            return None
        try:
            claims = await self._claims(name, answer, challenge)
            return await self._store.write(lambda conn: self._enter(conn, name, claims, challenge, agent))
        except ParleyError:
            self._guesses.failed(Door.PROVIDER, address)
            await self._store.write(lambda conn: self._guesses.tell(conn, by=f"oidc:{name}"))
            return None

    async def disconnect(self, who: Principal, session: Session, name: str) -> bool:
        """Let what is there be nobody here; whether it was this person. What began with it ends. Raises `Denied`.

        It does not join as somebody new either: whoever wants it back connects it.
        """
        if not session.is_recent:
            raise Denied(sessions.SIGN_IN_AGAIN)
        account = ACCOUNT + self._provider(name).about.issuer

        async def write(conn: AsyncConnection) -> bool:
            theirs = [user for one, user, _ in await principals.identities(conn, who.id) if one == account]
            for user in theirs:
                # Not forgotten: with `join` they would be a second person at the next sign-in.
                await principals.leave_behind(conn, account, user)
                await sessions.end_of_provider(
                    conn, account.removeprefix(ACCOUNT), subject=user, provider_session=None
                )
            if theirs:
                await self._tell(conn, "person-unlinked", who, who.name, name)
            return bool(theirs)

        return await self._store.write(write)

    async def end_there(self, name: str, token: str, *, address: str) -> int:
        """Back-channel logout: the provider ends what began there; how many sessions. Raises `Rejected` ..."""
        # Only a provider that cannot be asked: strangers keep no word of one from being heard.
        self._guesses.check(Door.LOGOUT, address)
        provider = self._provider(name)
        about = provider.about
        try:
            claims = await provider.checked(token)
        except Unreachable:
            self._guesses.failed(Door.LOGOUT, address)
            raise
        subject, session, identifier = id_tokens.check_logout_token(
            claims, issuer=about.issuer, client_id=about.client_id
        )

        async def write(conn: AsyncConnection) -> int:
            used = hashlib.sha256(f"{about.issuer} {identifier}".encode()).hexdigest()
            row = {"id": used, "expires_at": now() + timedelta(seconds=2 * id_tokens.MOST_AGE)}
            if not (await conn.execute(insert_new(spent_challenge, ("id",)), row)).rowcount:
                raise Rejected("This logout token was used before.")
            whose = await sessions.end_of_provider(
                conn, about.issuer, subject=subject, provider_session=session
            )
            for person in sorted(set(whose)):
                who = await principals.get_by_name(conn, person)
                await self._sessions.tell_ended(
                    conn, who, whose.count(person), actor=f"oidc:{name}", why="logout-there"
                )
            return len(whose)

        return await self._store.write(write)

    # -- within

    async def _is_answered(self, name: str, answer: Answer, challenge: Challenge) -> bool:
        """Whether this browser asked this provider, and this is the first answer."""
        state = self._challenges.derived(challenge, "state")
        given = answer.state.encode("utf-8", "replace")
        if not hmac.compare_digest(given, state.encode()) or challenge.facts.get("provider") != name:
            return False
        return await self._store.write(lambda conn: self._challenges.spend(conn, challenge))

    async def _claims(self, name: str, answer: Answer, challenge: Challenge) -> dict[str, Any]:
        provider = self._provider(name)
        if provider.about.issuer != challenge.facts["issuer"]:
            raise Rejected("Another provider has this name meanwhile.")
        await provider.check_answering(answer.issuer)
        if not 0 < len(answer.code) <= LONGEST_CODE:
            raise Rejected("The provider let nobody in.")
        return await provider.claims(
            code=answer.code,
            redirect=challenge.facts["redirect"],
            verifier=self._challenges.derived(challenge, "verifier"),
            nonce=self._challenges.derived(challenge, "nonce"),
        )

    async def _enter(
        self, conn: AsyncConnection, name: str, claims: Mapping[str, Any], challenge: Challenge, agent: str
    ) -> Entered:
        about = self._rules().oidc[name]
        subject = id_tokens.subject_of(claims)
        account = ACCOUNT + about.issuer
        if "who" in challenge.facts:
            await self._connect(conn, name, account, subject, challenge)
            return Entered()
        found = await principals.find_by_identity(conn, account, subject)
        who = found.principal if found else await self._newcomer(conn, name, about, account, claims)
        if not who.enabled or who.kind is not PrincipalKind.PERSON:
            raise Denied("This person is disabled.")
        if about.groups_claim:
            await groups.apply(conn, self._audit, self._lines(), who.id, "oidc", _groups(claims, about))
        sid = claims.get("sid")
        origin = Origin(
            kind=Kind.OIDC,
            agent=agent,
            issuer=about.issuer,
            subject=subject,
            provider_session=sid if isinstance(sid, str) and len(sid) <= 500 else None,
        )
        return Entered(await self._sessions.begin(conn, who, origin))

    async def _connect(
        self, conn: AsyncConnection, name: str, account: str, subject: str, challenge: Challenge
    ) -> None:
        who = await principals.get(conn, challenge.facts["who"])
        open_ones = await self._sessions.open_ones(conn, who)
        if not who.enabled or not any(
            one.id == challenge.facts["session"] and one.is_recent for one in open_ones
        ):
            raise Denied("The session that asked for this is over.")
        await principals.link_identity(conn, who.id, account, subject, verified=True)
        await self._tell(conn, "person-linked", who, who.name, name)

    async def _newcomer(
        self, conn: AsyncConnection, name: str, about: Settings, account: str, claims: Mapping[str, Any]
    ) -> Principal:
        """Somebody who is not known by this provider. Raises `Denied` where parley.toml lets nobody join.

        Whoever left, or was removed, does not join: somebody who may lets them in.
        """
        subject = id_tokens.subject_of(claims)
        who = await _by_mail(conn, about, claims)
        if who is None and (not about.join or await _has_left(conn, account, subject, claims)):
            raise Denied("Nobody here is known by this account.")
        if who is None and about.mail_account and _mail(claims) is None:
            raise Denied("Without an address it cannot be told whether this is somebody who is known here.")
        if who is None:
            made = await principals.add_principal(
                conn, await free_name(conn, _called(claims, subject), self._reserved())
            )
            who = await principals.get(conn, made)
            await self._tell(conn, "person-added", who, f"oidc:{name}", name)
        await principals.link_identity(conn, who.id, account, subject, verified=True)
        await self._tell(conn, "person-linked", who, f"oidc:{name}", name)
        return who

    async def _tell(self, conn: AsyncConnection, action: str, who: Principal, actor: str, by: str) -> None:
        subject = f"person:{who.name}"
        await self._audit.record(conn, action=action, actor=actor, subject=subject, details={"by": by})

    def _provider(self, name: str) -> Provider:
        about = self._rules().oidc.get(name)
        if about is None:
            raise BadArguments("parley.toml has no such provider.")
        known = self._known.get(name)
        if known is None or known.about != about:
            known = self._known[name] = Provider(about, self._send)
        return known


async def _by_mail(conn: AsyncConnection, about: Settings, claims: Mapping[str, Any]) -> Principal | None:
    mail = _mail(claims)
    if not about.mail_account or mail is None:
        return None
    found = await principals.find_by_identity(conn, about.mail_account, mail)
    if found is not None and found.source == principals.BY_CODE and not found.verified:
        # Whoever forges a sender links the address of another to themselves: only its owner's account may not follow.
        logger.warning(
            "An address that only a code said is %s: their provider's account is not", found.principal.id
        )
        raise Denied("The link of this address was never checked.")
    return found.principal if found else None


def _mail(claims: Mapping[str, Any]) -> str | None:
    """The address that the provider says it verified."""
    mail = claims.get("email")
    return mail.lower() if isinstance(mail, str) and mail and claims.get("email_verified") is True else None


async def _has_left(conn: AsyncConnection, account: str, subject: str, claims: Mapping[str, Any]) -> bool:
    """Whether who comes was here: known by this account, or by the address, whether the provider verified it or not."""
    mail = claims.get("email")
    if isinstance(mail, str) and await principals.has_left(conn, mail.lower()):
        return True
    return await principals.has_left(conn, subject, account)


def _called(claims: Mapping[str, Any], subject: str) -> str:
    """What the provider calls them."""
    return next(
        (str(claims[key]) for key in _NAMES if isinstance(claims.get(key), str) and claims[key]), subject
    )


def _groups(claims: Mapping[str, Any], about: Settings) -> list[str]:
    said = claims.get(about.groups_claim)
    listed = said if isinstance(said, list) else [said] if isinstance(said, str) else []
    if len(listed) > MOST_GROUPS:
        raise Denied("The provider says too many groups.")
    return [one for one in listed if isinstance(one, str)]


__all__ = ["ACCOUNT", "Answer", "Entered", "OidcDesk", "Rules", "Settings"]
