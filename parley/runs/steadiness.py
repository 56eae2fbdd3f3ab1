"""Whether something that is looked at again and again is away or back, said once each: flapping says nothing new."""

from __future__ import annotations

from typing import Final, Literal

AWAY_AFTER: Final = 30.0
"""Seconds without an answer after which it is away; half of each second with one counts against that."""

FIRST_AFTER: Final = 50.0
"""The same before the first answer of all: it may still be starting."""

BACK_AFTER: Final = 15.0
"""Seconds of nothing but answers after which it is back."""

LONGEST_BACK: Final = 600.0
"""The same at the most: it doubles with each time that it was away within the last hour."""

REMEMBERED: Final = 3600.0
LONGEST_STEP: Final = 10.0
"""Seconds that one look stands for at the most, however long nobody looked."""


class Steadiness:
    """`away` is what was said last; each look gives what is to be said now, if anything. Times are in seconds."""

    def __init__(self, *, away: bool = False) -> None:
        self.away: bool = away
        self._seen = False
        self._missing = 0.0
        self._good_since: float | None = None
        self._looked: float | None = None
        self._times: list[float] = []

    def look(self, answers: bool, at: float) -> Literal["away", "back"] | None:
        """One look at this moment: whether it answered."""
        step = min(LONGEST_STEP, at - self._looked) if self._looked is not None else 0.0
        self._looked = at
        if answers:
            self._seen = True
            self._missing = max(0.0, self._missing - step / 2)
            self._good_since = at if self._good_since is None else self._good_since
        else:
            self._missing += step
            self._good_since = None
        return self._said(at)

    def _said(self, at: float) -> Literal["away", "back"] | None:
        if not self.away and self._missing >= (AWAY_AFTER if self._seen else FIRST_AFTER):
            self.away = True
            self._times = [*(one for one in self._times if at - one < REMEMBERED), at]
            return "away"
        if self.away and self._good_since is not None and at - self._good_since >= self._back_after():
            self.away, self._missing = False, 0.0
            return "back"
        return None

    def _back_after(self) -> float:
        return float(min(LONGEST_BACK, BACK_AFTER * 2 ** max(0, len(self._times) - 1)))
