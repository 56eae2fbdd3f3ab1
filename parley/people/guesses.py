"""Guesses at the door: how many are answered, and what the audit holds of them.

Of passwords, every name has a few tries a while, whether there is such a person or not, and so has every address.
Whoever has signed in with a browser before has tries of their own there: strangers who use up those of a name keep
nobody out who comes from a browser of theirs, and everybody else for a minute only. Nobody guesses what opens the other
doors: there only what fails is counted, by address and door, so that strangers make no work. Counted in memory, by each
hub.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
import secrets
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from time import monotonic
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import RateLimited, SealError
from parley.messages.buckets import Buckets
from parley.people.audit import Audit
from parley.people.sealing import Keyring

STRANGER: Final = "stranger"
"""Actor of what somebody did who did not get in."""


class Door(StrEnum):
    """A way in besides passwords, and the way on which a provider says that somebody left."""

    CODE = "code"
    PASSKEY = "passkey"
    PROVIDER = "provider"
    LOGOUT = "logout"


_PURPOSE: Final = "known browser"
_LONGEST_MARK: Final = 400


class Guesses:
    """One for a hub."""

    def __init__(self, keyring: Keyring, audit: Audit, *, clock: Callable[[], float] = monotonic) -> None:
        self._keyring = keyring
        self._audit = audit
        self._by_name = Buckets(1 / 60, 10, clock=clock)
        self._by_browser = Buckets(1 / 30, 10, clock=clock)
        self._by_address = Buckets(1 / 6, 30, clock=clock)
        self._failures = {door: Buckets(2, 60, clock=clock) for door in Door}
        self._told = Buckets(1 / 60, 20, clock=clock)
        self._untold = 0

    def take(self, name: str, address: str, known: str | None) -> None:
        """Count a password for this name. `known` is what `is_known` said. Raises `RateLimited`, with when to come."""
        if known is not None:
            _refuse(self._by_browser.take(known))
            return
        # Not the second one when the first one says no: a full room takes no further names.
        _refuse(self._by_address.take(network(address)))
        _refuse(self._by_name.take(_one_spelling(name)))

    def check(self, door: Door, address: str) -> None:
        """Before what costs others something too. Raises as `take` when too much failed at this door from there."""
        _refuse(self._failures[door].wait(network(address)))

    def failed(self, door: Door, address: str) -> None:
        """Count that something proved nobody. Raises as `take` for what is one too many."""
        _refuse(self._failures[door].take(network(address)))

    def mark(self, principal_id: str) -> str:
        """What a browser keeps in which this person has signed in."""
        key, nonce = self._keyring.newest, secrets.token_urlsafe(12)
        proof = self._keyring.authenticate(key, _PURPOSE, f"{principal_id}.{nonce}".encode())
        return f"{key}.{nonce}.{proof}"

    def is_known(self, mark: str, principal_id: str) -> str | None:
        """By what a browser is counted that kept a mark of this person; None for every other one."""
        key, _, rest = mark[:_LONGEST_MARK].partition(".")
        nonce, _, proof = rest.partition(".")
        try:
            right = self._keyring.authenticate(key, _PURPOSE, f"{principal_id}.{nonce}".encode())
        except (SealError, UnicodeEncodeError):
            return None
        given = proof.encode("utf-8", "replace")
        return f"{principal_id}.{nonce}" if hmac.compare_digest(right.encode(), given) else None

    async def tell(self, conn: AsyncConnection, *, by: str, subject: str = "console") -> None:
        """Put a refused sign-in into the audit, of many some; those that were left out are counted in the next."""
        if self._told.take(subject) or self._told.take(""):
            self._untold += 1
            return
        details: dict[str, str | int | bool | None] = {"by": by, "untold": self._untold}
        await self._audit.record(
            conn, action="log-in-refused", actor=STRANGER, subject=subject, details=details
        )
        self._untold = 0


def network(address: str) -> str:
    """Whose an address is: an IPv4 address is somebody's, of IPv6 a /64."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _one_spelling(name: str) -> str:
    # Whatever finds the same person counts as the same name: see `principals.clean_name` and `by_sign_in_name`.
    return unicodedata.normalize("NFKC", name).strip().casefold()[:100]


def _refuse(wait: float) -> None:
    if wait:
        seconds = math.ceil(wait)
        raise RateLimited(f"Too many tries: come again in {seconds} s.", retry_after=seconds)


__all__ = ["STRANGER", "Door", "Guesses", "network"]
