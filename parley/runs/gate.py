"""The gate to Prefect: how many flow runs are asked for at once, and how often while it does not answer.

While Prefect answers, a bounded number of creations is under way; while it does not, one run at a time tries, later
each time, and all others wait in their order. The first success opens the gate.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

MOST_AT_ONCE: Final = 8
"""Flow runs that Prefect is asked for at the same time: its server on SQLite makes some twenty a second."""

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 5.0


class Gate:
    """Times are those of `clock`, in seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wait = FIRST_WAIT
        self._again_at = 0.0
        self._shut_since: float | None = None
        self._answered_at: float | None = None
        self._under_way: set[str] = set()

    @property
    def is_shut(self) -> bool:
        """Whether the last attempts failed because Prefect does not answer."""
        return self._shut_since is not None

    def shut_for(self) -> float:
        """Seconds since the first of the attempts that failed; 0 while the gate is open."""
        return 0.0 if self._shut_since is None else self._clock() - self._shut_since

    def answered_within(self, seconds: float) -> bool:
        """Whether Prefect answered an attempt so lately."""
        return self._answered_at is not None and self._clock() - self._answered_at < seconds

    def lets_in(self, more: int = 0) -> bool:
        """Whether another run may be asked for now; `more`: places beyond the ordinary ones."""
        if self._shut_since is not None:
            return not self._under_way and self._clock() >= self._again_at
        return len(self._under_way) < MOST_AT_ONCE + more

    def enter(self, run_id: str) -> None:
        """Prefect is being asked for this run."""
        self._under_way.add(run_id)

    def leave(self, run_id: str, *, answered: bool) -> float | None:
        """Prefect answered, or did not; in how many seconds the gate is worth another look, if it is shut."""
        asked = run_id in self._under_way
        self._under_way.discard(run_id)
        if answered:
            if not asked:
                return None
            self._shut_since, self._wait, self._answered_at = None, FIRST_WAIT, self._clock()
            return None
        at = self._clock()
        self._shut_since = at if self._shut_since is None else self._shut_since
        if at >= self._again_at:  # several that were under way fail together: that is one failure
            self._again_at = at + self._wait * random.uniform(0.75, 1.0)  # noqa: S311 - jitter, no secret
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        return max(0.0, self._again_at - at)
