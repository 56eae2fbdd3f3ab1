"""Sessions: browsers that somebody is signed in with.

Of a session's secret only a keyed hash is kept, found by its first letters; a row of the database lets nobody in. A
session ends when nobody uses it for a while (`Lifetime.idle`), at the latest after `Lifetime.longest`, and at once when
it is ended: by its person, by an owner, with the person's rights, or with what they signed in by. What
ended is deleted.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people.lifetime import Lifetime
from parley.people.principals import get
from parley.people.sealing import Keyring
from parley.people.ways_in import has_own
from parley.store.ids import new_id
from parley.store.schema import principal, session

PREFIX: Final = "parley_"
SELECTOR: Final = 22
"""Letters of 16 random bytes, after the prefix; 32 random bytes follow."""

MOST: Final = 20
"""Sessions of one person; with one more the one that was unused for longest ends."""

MOST_PRUNED: Final = 200
TOUCHED_EVERY: Final = timedelta(minutes=1)
"""How exactly it is known when a session was last used."""

RECENT: Final = timedelta(minutes=15)
"""For so long after the sign-in a session may change what one signs in with."""

LEEWAY: Final = timedelta(minutes=1)
"""By so much a clock is corrected now and then."""

SIGN_IN_AGAIN: Final = (
    "Sign in once more: this can be changed within 15 minutes of it, and after coming by a token only "
    "as long as there is no other way in."
)
"""Why a session may not change what one signs in with."""


class Kind(StrEnum):
    """How somebody signed in. `code` is a link or code that is good once, `token` a program's token."""

    CODE = "code"
    TOKEN = "token"  # noqa: S105 - a kind, no secret
    PASSWORD = "password"  # noqa: S105 - a kind, no secret
    PASSKEY = "passkey"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a session came from, besides its kind. `until`: it ends then at the latest, as what it came from does."""

    kind: Kind
    agent: str = ""
    passkey_id: str | None = None
    issuer: str | None = None
    subject: str | None = None
    provider_session: str | None = None
    token_id: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that is good, as its person sees it. `expires_at`: when it ends at the latest.

    `proves`: whether it began with what only its person has. A token lies in files, and counts where there is nothing
    else.
    """

    id: str
    principal_id: str
    kind: Kind
    agent: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    proves: bool = True

    @property
    def is_recent(self) -> bool:
        """Whether it began a moment ago: whoever uses it has just shown who they are."""
        at = now()
        # One from the future began before the clock was set back, nobody knows when.
        return self.proves and at - RECENT < self.created_at <= at + LEEWAY


async def begin(
    conn: AsyncConnection, keyring: Keyring, principal_id: str, origin: Origin, lifetime: Lifetime
) -> str:
    """A new session's secret, which is kept nowhere here."""
    await get(conn, principal_id)
    await _prune(conn, lifetime)
    await _make_room(conn, principal_id)
    secret = PREFIX + secrets.token_urlsafe(16) + secrets.token_urlsafe(32)
    at = now()
    row = {
        "id": new_id(),
        "principal_id": principal_id,
        "kind": origin.kind,
        "selector": _selector(secret),
        "digest": keyring.keyed_hash(_hashed(secret)),
        "agent": coarse(origin.agent),
        "passkey_id": origin.passkey_id,
        "issuer": origin.issuer,
        # Of a session that began with a token this is the token's id; it has no issuer.
        "subject": origin.subject if origin.token_id is None else origin.token_id,
        "provider_session": origin.provider_session,
        "created_at": at,
        "used_at": at,
        "expires_at": min(at + lifetime.longest, origin.until or datetime.max.replace(tzinfo=UTC)),
    }
    await conn.execute(sa.insert(session).values(row))
    return secret


async def find(conn: AsyncConnection, keyring: Keyring, secret: str, lifetime: Lifetime) -> Session | None:
    """The session of this secret; None when there is none, it ended, or its person is disabled."""
    query = sa.select(session).join(principal, principal.c.id == session.c.principal_id)
    mine = sa.and_(session.c.selector == _selector(secret), principal.c.enabled, *_alive(lifetime))
    row = (await conn.execute(query.where(mine))).first()
    if row is None or not keyring.is_hash_of(row.digest, _hashed(secret)):
        return None
    (found,) = await _sessions(conn, [row])
    return found


async def touch(conn: AsyncConnection, session_id: str) -> None:
    """It was used just now."""
    await conn.execute(sa.update(session).where(session.c.id == session_id).values(used_at=now()))


async def of_person(conn: AsyncConnection, principal_id: str, lifetime: Lifetime) -> list[Session]:
    """All sessions of a person that are good, the one that was used last first."""
    query = sa.select(session).where(session.c.principal_id == principal_id, *_alive(lifetime))
    rows = await conn.execute(query.order_by(session.c.used_at.desc(), session.c.id.desc()))
    return await _sessions(conn, rows.all())


async def end(conn: AsyncConnection, ids: Sequence[str]) -> int:
    """End these; how many there were."""
    return (await conn.execute(sa.delete(session).where(session.c.id.in_(ids)))).rowcount


async def end_all(
    conn: AsyncConnection, principal_id: str, *, but: str | None = None, passkey_id: str | None = None
) -> int:
    """End all of a person but this one, or those of one passkey; how many there were."""
    theirs = session.c.principal_id == principal_id
    if but is not None:
        theirs = sa.and_(theirs, session.c.id != but)
    if passkey_id is not None:
        theirs = sa.and_(theirs, session.c.passkey_id == passkey_id)
    return (await conn.execute(sa.delete(session).where(theirs))).rowcount


async def end_of_tokens(conn: AsyncConnection, principal_id: str, token_id: str | None) -> int:
    """End those of a person that began with this token, or with any; how many there were."""
    theirs = sa.and_(session.c.principal_id == principal_id, session.c.kind == Kind.TOKEN)
    if token_id is not None:
        # Those that began before it was kept with which one could be of any.
        theirs = sa.and_(theirs, sa.or_(session.c.subject == token_id, session.c.subject.is_(None)))
    return (await conn.execute(sa.delete(session).where(theirs))).rowcount


async def end_of_provider(
    conn: AsyncConnection, issuer: str, *, subject: str | None, provider_session: str | None
) -> list[str]:
    """End what began at this provider for this subject, or in this session of it; whose they were, by name."""
    conditions = [session.c.issuer == issuer]
    if subject is not None:
        conditions.append(session.c.subject == subject)
    if provider_session is not None:
        conditions.append(session.c.provider_session == provider_session)
    if len(conditions) == 1:
        return []
    query = sa.select(session.c.id, principal.c.name).join(principal).where(*conditions)
    rows = (await conn.execute(query)).all()
    await end(conn, [row.id for row in rows])
    return [row.name for row in rows]


_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("MicroMessenger", "WeChat"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("Chrome", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari", "Safari"),
)


def coarse(agent: str) -> str:
    """Browser and system of a User-Agent, without what would tell people apart; empty for one that is not known."""
    agent = agent[:1000]
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    return ", ".join(part for part in (browser, system) if part)


def _alive(lifetime: Lifetime) -> tuple[sa.ColumnElement[bool], ...]:
    at = now()
    # Both from the settings of now: who shortens them ends what is older.
    return (
        session.c.expires_at > at,
        session.c.created_at > at - lifetime.longest,
        session.c.used_at > at - lifetime.idle,
    )


async def _prune(conn: AsyncConnection, lifetime: Lifetime) -> None:
    dead = sa.select(session.c.id).where(sa.not_(sa.and_(*_alive(lifetime)))).limit(MOST_PRUNED)
    await end(conn, list((await conn.execute(dead)).scalars()))


async def _make_room(conn: AsyncConnection, principal_id: str) -> None:
    theirs = sa.select(session.c.id).where(session.c.principal_id == principal_id)
    oldest = theirs.order_by(session.c.used_at.desc(), session.c.id.desc()).offset(MOST - 1)
    await end(conn, list((await conn.execute(oldest)).scalars()))


def _selector(secret: str) -> str:
    return secret.removeprefix(PREFIX)[:SELECTOR].encode("utf-8", "replace").decode()


def _hashed(secret: str) -> str:
    # What is no text cannot be hashed, and is nobody's secret.
    return "session:" + re.sub(r"[^A-Za-z0-9_-]", "?", secret)


async def _sessions(conn: AsyncConnection, rows: Sequence[Any]) -> list[Session]:
    """These rows of one person."""
    by_token = next((row for row in rows if row.kind == Kind.TOKEN), None)
    counts = by_token is None or not await has_own(conn, by_token.principal_id)
    return [_session(row, proves=counts or row.kind != Kind.TOKEN) for row in rows]


def _session(row: Any, *, proves: bool) -> Session:
    return Session(
        id=row.id,
        principal_id=row.principal_id,
        kind=Kind(row.kind),
        agent=row.agent,
        created_at=row.created_at,
        used_at=row.used_at,
        expires_at=row.expires_at,
        proves=proves,
    )


__all__ = [
    "Kind",
    "Origin",
    "Session",
    "begin",
    "coarse",
    "end",
    "end_all",
    "end_of_provider",
    "end_of_tokens",
    "find",
    "of_person",
    "touch",
]
