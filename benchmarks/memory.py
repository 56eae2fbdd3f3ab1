"""Memory of the whole stack at rest and at its peak, by process: proportional set size, shared pages counted once.

At rest is measured after the stack has worked, when every warm child has run something and those beyond the warm ones
are gone again: what a machine gives up for it from then on. Beside it the stock Prefect server with one `flow.serve()`,
which answers nobody, after one run. Pages of a library file count by the share of each process that has it mapped,
also of processes that are not ours: `file_mb` says how much of the sum that could touch.

The peak is the most that is seen, four times a second, while eight people ask again as soon as they have an answer,
every second time for a report with a PDF: as many runs at once as there may be children. Beside it the stock server and
`flow.serve()` with eight runs of the same order at once, without any report.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final, TypeVar

from benchmarks import stacks
from benchmarks.machine import watched
from benchmarks.rows import Row, scaled
from benchmarks.runs import AT_ONCE, said
from parley.processes.memory import descendants, pss_mb
from parley.runs.crew import SURPLUS_AGE
from tests.stack import Stack

T = TypeVar("T")

AT_WORK = 48
REST_SECONDS = SURPLUS_AGE + 15
READINGS = 5
AT_PEAK = 160
EVERY: Final = 0.25
"""Seconds between two looks at the peak."""

PEER: Final = "prefect server start, flow.serve()"


def measure(effort: float = 1.0) -> list[Row]:
    """`memory.rest_mb`, `memory.peak_mb`."""
    rests = REST_SECONDS * min(1.0, effort)
    with watched() as conditions:
        with stacks.stack(effort) as stack:
            asyncio.run(said(stack, scaled(AT_WORK, effort, least=8), "/order 1024"))
            time.sleep(rests)
            readings = [_reading(stack) for _ in range(scaled(READINGS, min(1.0, effort)))]
            with _watching(lambda: _now(stack)) as seen:
                asyncio.run(_both(stack, scaled(AT_PEAK, effort, least=AT_ONCE)))
        theirs, their_peak, their_looks = _stock(effort, rests)
        worst = max(readings, key=lambda reading: float(reading["mb"]))
    total, peak = sum(theirs.values()), max(seen, key=lambda reading: float(reading["mb"]))
    at_rest = conditions | worst | {"rested_s": round(rests, 1), "theirs_by_process": theirs}
    at_peak = conditions | peak | {"runs_at_once": AT_ONCE, "looks": len(seen), "their_looks": their_looks}
    return [
        _row("memory.rest_mb", worst["mb"], total, len(readings), at_rest),
        _row("memory.peak_mb", peak["mb"], their_peak, len(seen), at_peak),
    ]


def _row(name: str, ours: float, theirs: float, n: int, conditions: dict[str, Any]) -> Row:
    return Row(
        name=name,
        unit="MB",
        ours=ours,
        peer=PEER,
        theirs=theirs,
        ratio=theirs / ours,
        n=n,
        conditions=conditions,
    )


async def _both(stack: Stack, messages: int) -> None:
    """Half of the people ask for orders, half for reports, all at the same time."""
    half = messages // 2
    await asyncio.gather(
        said(stack, half, "/order 1024", AT_ONCE // 2),
        said(stack, half, "/report 1024", AT_ONCE // 2, "reports"),
    )


@contextmanager
def _watching(look: Callable[[], T]) -> Iterator[list[T]]:
    """What was seen while the block went on: at least its beginning and its end."""
    seen, over = [look()], Event()

    def watch() -> None:
        while not over.wait(EVERY):
            seen.append(look())

    with ThreadPoolExecutor(1, thread_name_prefix="bench-memory") as thread:
        watching = thread.submit(watch)
        try:
            yield seen
        finally:
            over.set()
            watching.result()
            seen.append(look())


def _reading(stack: Stack) -> dict[str, Any]:
    time.sleep(1)
    return _now(stack)


def _now(stack: Stack) -> dict[str, Any]:
    roles: dict[str, list[float]] = {}
    rows = stack.processes()
    for row in rows:
        roles.setdefault(row["role"], []).append(row["pss_mb"] or 0.0)
    return {
        "mb": sum(sum(each) for each in roles.values()),
        "by_role": {
            role: {"mb": round(sum(each), 1), "processes": len(each)} for role, each in roles.items()
        },
        "file_mb": round(_of_files([row["pid"] for row in rows]), 1),
    }


def _of_files(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_File:"))
    return total * 1024 / 1e6


def _stock(effort: float, rests: float) -> tuple[dict[str, float], float, int]:
    """At rest by process, the most with so many runs at once, and how often that was looked at."""
    with stacks.stock_alone(effort) as (server, serve):

        def now() -> dict[str, float]:
            return {"server": _family(server.pid), "serve": _family(serve.process.pid)}

        if not stacks.shared(effort):  # where it is shared, it has had a run
            serve.run_order()
        time.sleep(rests)
        resting = now()
        with _watching(now) as seen:
            serve.run_orders(AT_ONCE if effort else 1)
    return resting, max(sum(one.values()) for one in seen), len(seen)


def _family(pid: int) -> float:
    return round(sum(pss_mb(one) or 0.0 for one in (pid, *descendants(pid))), 1)
