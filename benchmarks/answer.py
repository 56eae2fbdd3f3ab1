"""Message -> answer: how long a person waits for `/order 1024`, over the REST API, warm, one after another.

Ours is the time of `POST /api/v1/messages?wait=30` as its caller sees it: received, committed, understood, allowed, run
as a Prefect flow run, answered. Beside it, in turn and on the same Prefect server, the same flow behind stock
`flow.serve()`: from the creation of a flow run to its completion by the server's own clock, which is less than a person
would wait. Its runs are created at moments spread evenly over its ten-second poll, so that it is neither lucky nor not.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks import stacks
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, percentile, scaled
from tests.stack import Stack

TEXT = "/order 1024"
ANSWERS, SERVED, WARM_UP = 150, 5, 30
POLL_SECONDS = 10.0
PEER = "flow.serve()"


def measure(effort: float = 1.0) -> list[Row]:
    """`answer.p50_ms`, `answer.p95_ms`, `answer.vs_serve`."""
    answers, served = Answers(), list[float]()
    rounds, warm_up = scaled(SERVED, effort), scaled(WARM_UP, effort, least=3)
    each = scaled(ANSWERS, effort, least=rounds) // rounds
    with watched() as conditions, stacks.stack(effort) as stack:
        Answers().take(stack, warm_up)
        with stacks.serving(effort, stack) as peer:
            began = time.monotonic()
            for turn in range(rounds):
                answers.take(stack, each)
                if rounds > 1:
                    _wait_for_phase(began, (turn + 0.5) / rounds)
                served.append(peer.run_order() * 1e3)
        conditions.update(answers.conditions | {"served": len(served), "warm_up": warm_up})
    return _rows(answers.milliseconds, served, conditions)


def _wait_for_phase(began: float, phase: float) -> None:
    time.sleep((phase * POLL_SECONDS - (time.monotonic() - began)) % POLL_SECONDS)


class Answers:
    """Times of answers, and what stands behind them."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._stations: dict[str, list[float]] = {}
        self._processor: list[dict[str, float]] = []

    def take(self, stack: Stack, count: int) -> None:
        """Ask so many times."""
        processor = ProcessorTime(stack)
        for _ in range(count):
            start = time.perf_counter()
            said = stack.say(TEXT)
            self.milliseconds.append((time.perf_counter() - start) * 1e3)
            _check(said)
            for name, value in said["timings"].items():
                self._stations.setdefault(name, []).append(value)
        self._processor.append(processor.each(count))

    @property
    def conditions(self) -> dict[str, Any]:
        """Medians of the stations on the way, and processor time of an answer by role."""
        roles = {role for one in self._processor for role in one}
        return {
            "stations_ms": {name: round(statistics.median(v), 1) for name, v in self._stations.items()},
            "processor_ms_each": {
                role: round(statistics.median(one.get(role, 0.0) for one in self._processor), 1)
                for role in sorted(roles)
            },
            "least_ms": round(min(self.milliseconds), 1),
        }


def _check(said: dict[str, Any]) -> None:
    texts = [reply["text"] for reply in said["replies"]]
    assert said["state"] == "done", said
    assert said["flow_run_id"], said
    assert any("1024" in text for text in texts), said


def _rows(ours: list[float], theirs: list[float], conditions: dict[str, Any]) -> list[Row]:
    rows = [_row(f"answer.p{share:g}_ms", ours, theirs, share / 100, conditions) for share in (50, 95)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    vs_serve = Row(
        name="answer.vs_serve",
        unit="times",
        ours=ratio,
        peer=PEER,
        theirs=1.0,
        ratio=ratio,
        n=len(theirs),
        conditions={
            "ours_p50_ms": statistics.median(ours),
            "theirs_p50_ms": statistics.median(theirs),
            "theirs_ms": [round(one) for one in theirs],
            **conditions,
        },
    )
    return [*rows, vs_serve]


def _row(name: str, ours: list[float], theirs: list[float], share: float, conditions: dict[str, Any]) -> Row:
    here, there = percentile(ours, share), percentile(theirs, share)
    return Row(
        name=name,
        unit="ms",
        ours=here,
        peer=PEER,
        theirs=there,
        ratio=there / here,
        n=len(ours),
        conditions=conditions,
    )
