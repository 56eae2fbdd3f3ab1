"""From nothing to the first answer: `parley up` in a fresh home until `/order 1024` is answered.

The clock starts with the command and stops with the answer; keys, databases, deployments and sample data are made in
between. Beside it, in turn, what a user does without us: `prefect server start` in a fresh home, `flow.serve()` of the
same flow once the server answers, and one run of it, created at once.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import stock
from benchmarks.machine import watched
from benchmarks.rows import Row, scaled
from tests.stack import READY_SECONDS, Stack

STARTS = 3
TEXT = "/order 1024"


def measure(effort: float = 1.0) -> list[Row]:
    """`start.first_answer_s`."""
    first, ready, theirs = list[float](), list[float](), list[float]()
    with watched() as conditions:
        for _ in range(scaled(STARTS, effort)):
            at_ready, at_answer = ours()
            ready.append(at_ready)
            first.append(at_answer)
            theirs.append(stock_start())
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


def ours() -> tuple[float, float]:
    """Seconds until every part is ready, and until the first answer."""
    stack = Stack()
    try:
        start = time.perf_counter()
        stack.launch()
        stack.until(stack.ready, READY_SECONDS, "the stack is ready")
        ready = time.perf_counter() - start
        stack.log_in()
        said = stack.say(TEXT)
        answered = time.perf_counter() - start
    finally:
        stack.close()
    assert said["state"] == "done", said
    assert said["flow_run_id"], said
    return ready, answered


def stock_start() -> float:
    """Seconds until the first completed run of a stock server with `flow.serve()`."""
    with tempfile.TemporaryDirectory(prefix="stock-", ignore_cleanup_errors=True) as name:
        folder, start = Path(name), time.perf_counter()
        with stock.server(folder) as (_, environment), stock.serving(environment, folder) as peer:
            peer.run_order()
            return time.perf_counter() - start
