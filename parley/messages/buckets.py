"""Token buckets: how often something may happen in the long run, and how often at once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MOST_KEYS: Final = 10_000
"""Keys that are remembered: one that is forgotten begins anew, with a full bucket."""


class Buckets:
    """A bucket for each key: `per_second` tokens come in the long run, `burst` fit in."""

    def __init__(
        self,
        per_second: float,
        burst: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = MOST_KEYS,
    ) -> None:
        self._per_second, self._burst, self._clock, self._most = per_second, burst, clock, most_keys
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one token; 0 when there was one, else the seconds until there is the next, and nothing is taken."""
        now, left = self._clock(), self._now_left(key)
        self._left.pop(key, None)
        empty = left < 1
        self._left[key] = (left if empty else left - 1, now)
        while len(self._left) > self._most:
            self._left.popitem(last=False)
        return (1 - left) / self._per_second if empty else 0.0

    def wait(self, key: str) -> float:
        """What `take` would say; nothing is taken."""
        left = self._now_left(key)
        return (1 - left) / self._per_second if left < 1 else 0.0

    def _now_left(self, key: str) -> float:
        now = self._clock()
        left, since = self._left.get(key, (self._burst, now))
        return min(self._burst, left + (now - since) * self._per_second)


__all__ = ["MOST_KEYS", "Buckets"]
