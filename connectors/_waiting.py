"""How long to wait before the next attempt: by our own back-off, or as a peer asks. Seconds, always finite."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

DEFAULT_WAIT = 5.0
"""Where a peer wants us to wait and does not say for how long."""

LONGEST_WAIT = 3600.0
"""Nobody has us wait for longer: then it is looked whether it is so still."""


def pause(failures: int, *, first: float = 0.25, longest: float = 30.0) -> float:
    """Before the next connection: doubling, with jitter, so that many do not come back at once."""
    whole: float = min(longest, first * 2.0 ** min(failures, 16))
    return whole * random.uniform(0.2, 1.0)  # noqa: S311 - no secret


def bounded(*stated: object) -> float:
    """A wait that a peer states, from the first of these that can be read."""
    for value in stated:
        try:
            seconds = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT)
    return DEFAULT_WAIT


def retry_after(header: str | None, now: datetime) -> float:
    """A wait by a Retry-After header: a number, a date, or nothing that can be read."""
    return bounded(header, _until(header, now))


def _until(header: str | None, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(header or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.nan
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
