"""Mail loops: a mailbox that answers by itself and does not say so is not answered for ever.

What says that it is automatic is never answered; this is about the rest, of which only its ways can be seen. Such a
mailbox says the same again and again, or what nobody can understand, as often as it is answered. So what is no command
is answered a few times an hour, less often where it was not understood, and the same words twice. Commands, such as
`/order 1024`, always count: no machine writes them by chance.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from parley.messages.buckets import MOST_KEYS, Buckets

SAME_WITHIN: Final = 600.0
"""Seconds: the same words as before, sooner than this after the last time, are counted with them."""

SAME: Final = 2
"""So often the same words are answered; more often once they have not come for `SAME_WITHIN` seconds."""

ANSWERED: Final = 30
MISUNDERSTOOD: Final = 5
"""Mails of one address that are answered at once, and in each hour after that: understood ones, and others."""

_HOUR: Final = 3600.0


class MailLoops:
    """Counts what addresses write, in this hub's memory: a restart begins anew."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most_keys: int = MOST_KEYS) -> None:
        self._clock, self._most = clock, most_keys
        self._answered = Buckets(ANSWERED / _HOUR, ANSWERED, clock=clock, most_keys=most_keys)
        self._misunderstood = Buckets(MISUNDERSTOOD / _HOUR, MISUNDERSTOOD, clock=clock, most_keys=most_keys)
        self._said: OrderedDict[tuple[str, bytes], tuple[int, float]] = OrderedDict()

    def is_one(self, address: str, text: str, *, awaited: bool = False) -> bool:
        """Count a mail that is no command; whether it is one too many, so that it is neither answered nor acted on.

        `awaited`: it answers a question of ours, so that the same words as before mean nothing.
        """
        return (not awaited and self._is_the_same(address, text)) or bool(self._answered.take(address))

    def not_understood(self, address: str) -> bool:
        """Count one that was not understood; whether it is one too many, so that it is not answered."""
        return bool(self._misunderstood.take(address))

    def _is_the_same(self, address: str, text: str) -> bool:
        words = " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")
        key, now = (address, hashlib.sha256(words).digest()), self._clock()
        times, last = self._said.pop(key, (0, now))
        times = times + 1 if now - last < SAME_WITHIN else 1
        self._said[key] = (times, now)
        if len(self._said) > self._most:
            self._said.popitem(last=False)
        return times > SAME


__all__ = ["ANSWERED", "MISUNDERSTOOD", "SAME", "SAME_WITHIN", "MailLoops"]
