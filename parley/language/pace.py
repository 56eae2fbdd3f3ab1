"""Pace: how much one person, one conversation and one automation may ask of us.

Who asks more is told once when to try again; until then nothing of theirs is acted on, and nothing is answered, so that
a flood is not answered with another. What is urgent (`/cancel`, buttons, alerts) counts for itself: a flood of chatter
shuts nobody out of the controls.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from parley.messages.buckets import MOST_KEYS, Buckets
from parley.settings import Limits
from parley.settings import Pace as Allowed

ANY: Final = "*"
"""In `per_automation`: those that are not named."""


@dataclass(frozen=True, slots=True)
class TooFast:
    """`wait`: seconds until the next may come. `told`: they know already."""

    wait: float
    told: bool

    @property
    def spoken(self) -> str:
        """The wait as people read it."""
        for length, unit in ((3600, "h"), (60, "min")):
            if self.wait >= 2 * length:
                return f"{math.ceil(self.wait / length)} {unit}"
        return f"{max(1, math.ceil(self.wait))} s"


class Pacer:
    """Counts, in this hub's memory: a restart begins anew."""

    def __init__(self, limits: Callable[[], Limits], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: dict[str, tuple[Allowed, Buckets]] = {}
        self._told: OrderedDict[str, float] = OrderedDict()

    def said(self, person: str, conversation: str, *, urgent: bool) -> TooFast | None:
        """Count something that a person said in a conversation; None where there is room for it."""
        limits, lane = self._limits(), "urgent" if urgent else "usual"
        for kind, allowed, key in (
            ("person", limits.per_person, person),
            ("conversation", limits.per_conversation, conversation),
        ):
            if wait := self._of(f"{kind}:{lane}", allowed).take(key):
                return self._too_fast(f"{kind}:{lane}:{key}", wait)
        return None

    def asked(self, automation: str, person: str) -> TooFast | None:
        """Count a request for an automation, whoever makes it; None where there is room for it."""
        of: Mapping[str, Allowed] = self._limits().per_automation
        allowed = of.get(automation, of.get(ANY))
        if allowed is None:
            return None
        wait = self._of(f"automation:{automation}", allowed).take(automation)
        # Each who asks is told for themselves.
        return self._too_fast(f"automation:{automation}:{person}", wait) if wait else None

    def _of(self, name: str, allowed: Allowed) -> Buckets:
        known = self._buckets.get(name)
        if known is None or known[0] != allowed:
            made = Buckets(allowed.per_second, allowed.times, clock=self._clock)
            known = self._buckets[name] = (allowed, made)
        return known[1]

    def _too_fast(self, key: str, wait: float) -> TooFast:
        now = self._clock()
        told = self._told.get(key, now) > now
        if not told:
            self._told[key] = now + max(wait, 1.0)
            self._told.move_to_end(key)
            while len(self._told) > MOST_KEYS:
                self._told.popitem(last=False)
        return TooFast(wait, told)


__all__ = ["ANY", "Pacer", "TooFast"]
