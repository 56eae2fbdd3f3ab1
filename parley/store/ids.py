"""Ids of our rows: uuid7, so that they sort by the moment of their making."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

MOST_AHEAD: Final = timedelta(days=1)

_COUNTER_BITS = 12
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new uuid7 as text; within this process each is greater than all before it, whatever the clock does."""
    return str(uuid.UUID(int=_layout(_tick())))


def _tick() -> int:
    """Milliseconds and a 12-bit counter in one number (RFC 9562, 6.2, method 1) that only ever grows.

    The counter starts at random in its lower half; when it overflows, or the clock went back, the number simply
    counts on and so borrows from the next millisecond.
    """
    global _last  # noqa: PLW0603  the one thing that this module remembers
    fresh = time.time_ns() // 1_000_000 << _COUNTER_BITS | secrets.randbits(_COUNTER_BITS - 1)
    with _lock:
        _last = fresh if fresh >> _COUNTER_BITS > _last >> _COUNTER_BITS else _last + 1
        return _last


def go_on_after(identifier: str) -> None:
    """Have every id that this process makes from now on be greater than this one.

    So ids go on in their order where the clock was set back while no process of ours ran. One from more than
    `MOST_AHEAD` in the future says that the clock was wrong when it was made: nothing goes on from there.
    """
    global _last  # noqa: PLW0603
    made = made_at(identifier)
    if made is None or made - datetime.now(UTC) > MOST_AHEAD:
        return
    number = uuid.UUID(identifier).int
    with _lock:
        _last = max(_last, number >> 80 << _COUNTER_BITS | number >> 64 & (1 << _COUNTER_BITS) - 1)


def _layout(tick: int) -> int:
    milliseconds, counter = tick >> _COUNTER_BITS, tick & (1 << _COUNTER_BITS) - 1
    return milliseconds << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | secrets.randbits(62)


def made_at(identifier: str) -> datetime | None:
    """The moment that a uuid7 was made, to the millisecond; None for anything else."""
    text = identifier.replace("-", "")
    if len(text) != 32 or text[12] != "7":
        return None
    try:
        return datetime.fromtimestamp(int(text[:12], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
