"""Challenges of a sign-in: what a passkey signs, and what an answer of a provider has to repeat.

The browser keeps a challenge in a cookie, proved with our key; the store keeps nothing until it is answered, so that
strangers who ask for challenges take no room. It is good for some minutes, in that browser, for that purpose, once.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages.model import now
from parley.people.sealing import Keyring
from parley.store.insert_new import insert_new
from parley.store.schema import spent_challenge

SECONDS: Final = 300
LONGEST: Final = 2000
"""Characters of the cookie."""

MOST_PRUNED: Final = 200


class Purpose(StrEnum):
    """What a challenge is for: one made for something else is none."""

    PASSKEY = "passkey"
    NEW_PASSKEY = "new-passkey"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge. `facts` are what it was made for; everything secret is derived, and stands in no cookie."""

    id: str
    key: str
    purpose: Purpose
    until: int
    facts: Mapping[str, str] = field(default_factory=dict)


class Challenges:
    """Makes and takes them."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def make(self, purpose: Purpose, facts: Mapping[str, str] | None = None) -> tuple[Challenge, str]:
        """A new challenge, and the cookie that the browser keeps."""
        made = Challenge(
            secrets.token_urlsafe(24),
            self._keyring.newest,
            purpose,
            int(time.time()) + SECONDS,
            dict(facts or {}),
        )
        body = json.dumps([made.id, made.key, made.purpose, made.until, dict(made.facts)]).encode()
        text = base64.urlsafe_b64encode(body).decode().rstrip("=")
        return made, f"{text}.{self._proof(made.key, text)}"

    def read(self, purpose: Purpose, cookie: str) -> Challenge | None:
        """The challenge of this cookie; None when we did not make it, for this, or it ran out."""
        text, _, proof = cookie.partition(".")
        if not text or len(cookie) > LONGEST or not cookie.isascii():
            return None
        try:
            raw = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            identifier, key, meant, until, facts = raw
            right = self._proof(str(key), text)
        except (binascii.Error, ValueError, TypeError, RecursionError, SealError):
            return None
        if not hmac.compare_digest(right, proof) or meant != purpose or until <= time.time():
            return None
        return Challenge(identifier, key, purpose, until, facts)

    def derived(self, challenge: Challenge, name: str) -> str:
        """A value of this challenge that nobody else can make: 64 hexadecimal digits."""
        return self._keyring.authenticate(challenge.key, f"sign-in {name}", challenge.id.encode())

    async def spend(self, conn: AsyncConnection, challenge: Challenge) -> bool:
        """Within a write: use it up; False when it was used before."""
        table = spent_challenge
        over = sa.select(table.c.id).where(table.c.expires_at < now()).limit(MOST_PRUNED)
        gone = list((await conn.execute(over)).scalars())
        if gone:
            await conn.execute(sa.delete(table).where(table.c.id.in_(gone)))
        row = {"id": challenge.id, "expires_at": datetime.fromtimestamp(challenge.until, UTC)}
        return (await conn.execute(insert_new(table, ("id",)), row)).rowcount == 1

    def _proof(self, key: str, text: str) -> str:
        return self._keyring.authenticate(key, "sign-in cookie", text.encode())


__all__ = ["SECONDS", "Challenge", "Challenges", "Purpose"]
