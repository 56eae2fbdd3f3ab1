"""How long a session lasts. A module of its own, so that the settings load nothing of the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Lifetime:
    """`idle`: it ends when it was unused for so long. `longest`: it ends after that in any case."""

    idle: timedelta = timedelta(hours=12)
    longest: timedelta = timedelta(days=7)


__all__ = ["Lifetime"]
