"""How much is tried, and what it may cost.

Few examples in everyday runs, more in CI (`CI` is set), most in `make pentest` (`PENTEST` is set).
"""

from __future__ import annotations

import gc
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

PENTEST: Final = bool(os.environ.get("PENTEST"))

EXAMPLES: Final = 10_000 if PENTEST else 500 if os.environ.get("CI") else 100
"""Generated cases a parser."""

MOST_SECONDS: Final = 1.0
"""Of processor, for one case."""

MOST_MEMORY: Final = 50 * 2**20
"""Bytes that a parser's cases may add, all of them together."""

MEASURED: Final = Path(__file__).parents[2] / "build" / "pentest" / "readers.jsonl"
"""Where `make pentest` leaves what each reader took: a line each, of what docs/security-tests.md is written from."""

_BATCH: Final = 500
# What was generated is remembered by Hypothesis until a batch ends: it would be taken for memory of the parser.

T = TypeVar("T")


@dataclass
class Cost:
    """What was measured of a parser: `slowest` in seconds of processor, `memory` in bytes above the beginning."""

    cases: int = 0
    slowest: float = 0.0
    memory: int = 0
    errors: list[str] = field(default_factory=list)
    """What was logged as an error meanwhile."""


def tried(strategy: SearchStrategy[T], do: Callable[[T], object], examples: int = EXAMPLES) -> Cost:
    """Do it with so many generated values. What it raises is raised, with the smallest value that raises it."""
    cost = Cost()
    gc.collect()
    before = resident()
    with _errors_logged(cost.errors):
        for number in range(0, examples, _BATCH):
            _batch(number, min(_BATCH, examples - number), strategy, do, cost)
            gc.collect()
            cost.memory = max(cost.memory, resident() - before)
    return cost


def _batch(
    number: int, examples: int, strategy: SearchStrategy[T], do: Callable[[T], object], cost: Cost
) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: T) -> None:
        began = time.process_time()
        try:
            do(value)
        finally:
            taken = time.process_time() - began
            cost.cases += 1
            cost.slowest = max(cost.slowest, taken)
        assert taken <= MOST_SECONDS, f"{taken:.2f} s of processor for one case"

    one()


def keep(name: str, cost: Cost) -> None:
    """Note what a reader took, when it is all of it that is tried."""
    if not PENTEST:
        return
    line = {
        "reader": name,
        "cases": cost.cases,
        "slowest_ms": round(cost.slowest * 1e3, 1),
        "memory_mb": round(cost.memory / 2**20, 1),
        "errors": len(cost.errors),
    }
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    with MEASURED.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def resident() -> int:
    """Bytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _errors_logged(kept: list[str]) -> Iterator[None]:
    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(f"{record.name}: {record.getMessage()[:300]}")

    handler = Keep(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
