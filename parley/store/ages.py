"""How old a row is, by a column of times that a clock may have written which was wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from parley.messages.model import now

AHEAD: Final = timedelta(seconds=5)
"""How far the clocks of several hubs may be apart: what lies further in the future was written by a wrong clock."""


def long_ago(column: Any, age: timedelta) -> sa.ColumnElement[bool]:
    """Whether it is older than that; so is what the future wrote: the clock was set back, and nobody knows its age."""
    at = now()
    return sa.or_(column < at - age, column > at + AHEAD)


__all__ = ["AHEAD", "long_ago"]
