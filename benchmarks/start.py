"""From nothing to the first answer: `parley up` in a fresh home until `/order 1024` is answered.

The clock starts with the command and stops with the answer; keys, databases, deployments and sample data are made in
between. Beside it, in turn, what a user does without us: `prefect server start` in a fresh home, `flow.serve()` of the
same flow once the server answers, and one run of it, created at once.
"""

from __future__ import annotations

import statistics
import time

from benchmarks import stacks
from benchmarks.machine import watched
from benchmarks.rows import Row, scaled
from tests.stack import Stack

STARTS = 3


def measure(effort: float = 1.0) -> list[Row]:
    """`start.first_answer_s`."""
    first, ready, theirs = list[float](), list[float](), list[float]()
    with watched() as conditions:
        for _ in range(scaled(STARTS, effort)):
            at_ready, at_answer = ours(effort)
            ready.append(at_ready)
            first.append(at_answer)
            theirs.append(stock_start(effort))
        conditions |= {
            "ours_s": [round(one, 1) for one in first],
            "ready_s": [round(one, 1) for one in ready],
            "theirs_s": [round(one, 1) for one in theirs],
        }
    here, there = statistics.median(first), statistics.median(theirs)
    return [
        Row(
            name="start.first_answer_s",
            unit="s",
            ours=here,
            peer="prefect server start, flow.serve()",
            theirs=there,
            ratio=there / here,
            n=len(first),
            conditions=conditions,
        )
    ]


def ours(effort: float) -> tuple[float, float]:
    """Seconds until every part is ready, and until the first answer."""
    if dry := stacks.shared(effort):
        _ = dry.stack
        return dry.started
    stack = Stack()
    try:
        return stacks.first_answer(stack)
    finally:
        stack.close()


def stock_start(effort: float) -> float:
    """Seconds until the first completed run of a stock server with `flow.serve()`."""
    if dry := stacks.shared(effort):
        _ = dry.alone
        return dry.stock_started
    start = time.perf_counter()
    with stacks.stock_alone(effort) as (_, peer):
        peer.run_order()
        return time.perf_counter() - start
