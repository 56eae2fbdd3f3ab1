"""How much is tested: `make faults` what fits into minutes, `make faults-long` hours."""

from __future__ import annotations

import os
from typing import Final, TypeVar

T = TypeVar("T")

LONG: Final = bool(os.environ.get("FAULTS_LONG"))

SEEDS: Final = [int(seed) for seed in os.environ.get("FAULTS_SEEDS", "1,2,3,4,5" if LONG else "1").split(",")]


def size(short: T, long: T) -> T:
    """The one or the other."""
    return long if LONG else short
