"""Message -> answer: how long a person waits for `/order 1024`, over the REST API, warm, one after another.

Ours is the time of `POST /api/v1/messages?wait=30` as its caller sees it: received, committed, understood, allowed, run
as a Prefect flow run, answered. Beside it, in turn and on the same Prefect server, the same flow behind stock
`flow.serve()`: from the creation of a flow run to its completion by the server's own clock, which is less than a person
would wait. Its runs are created at moments spread evenly over its ten-second poll, so that it is neither lucky nor not.
Then the same with a `serve` that was told to poll every second, the most often that it can.

In the end, with nothing of ours running, `airflow standalone`: from a run's being queued to its success, by its own
clock too, of a DAG with one operator that does what the flow does. The time of its command line is in the conditions.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import airflow, stacks
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, percentile, scaled
from tests.stack import Stack

TEXT = "/order 1024"
WARM_UP = 30
TRIGGERED, COMMANDED = 10, 2
PEER = "flow.serve()"


@dataclass(frozen=True, slots=True)
class _Peer:
    """One way to use `flow.serve()`, and how often both are measured; `poll` is in seconds."""

    name: str
    poll: float
    answers: int
    served: int
    extra: Mapping[str, str]


STOCK: Final = _Peer(PEER, 10.0, 150, 5, {})
EVERY_SECOND: Final = _Peer("flow.serve() that polls every second", 1.0, 50, 10, stacks.EVERY_SECOND)


def measure(effort: float = 1.0) -> list[Row]:
    """`answer.p50_ms`, `answer.p95_ms`, `answer.vs_serve`, `answer.beside_serve_1s`, `answer.beside_airflow`."""
    with tempfile.TemporaryDirectory(prefix="airflow-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with stacks.stack(effort) as stack:
            warm_up = scaled(WARM_UP, effort, least=3)
            Answers().take(stack, warm_up)
            stock, conditions = _beside(STOCK, stack, effort)
            conditions["warm_up"] = warm_up
            rows = _rows(*stock, conditions)
            soon, conditions = _beside(EVERY_SECOND, stack, effort)
            rows.append(_p50_row("answer.beside_serve_1s", EVERY_SECOND.name, *soon, conditions))
            # The sample is there because an order has been looked up.
            shutil.copyfile(stack.home / "samples" / "orders.db", folder / "orders.db")
        rows.append(beside_airflow(stock[0], folder, effort))
    return rows


def _beside(
    peer: _Peer, stack: Stack, effort: float
) -> tuple[tuple[list[float], list[float]], dict[str, Any]]:
    """Milliseconds of ours and of theirs, in turn, and their conditions."""
    answers, served = Answers(), list[float]()
    rounds = scaled(peer.served, effort)
    each = scaled(peer.answers, effort, least=rounds) // rounds
    with watched() as conditions, stacks.serving(effort, stack, peer.extra) as serve:
        began = time.monotonic()
        for turn in range(rounds):
            answers.take(stack, each)
            if rounds > 1:
                _wait_for_phase(began, (turn + 0.5) / rounds, peer.poll)
            served.append(serve.run_order() * 1e3)
    return (answers.milliseconds, served), conditions | answers.conditions | {"served": len(served)}


def _wait_for_phase(began: float, phase: float, poll: float) -> None:
    time.sleep((phase * poll - (time.monotonic() - began)) % poll)


def beside_airflow(ours: list[float], folder: Path, effort: float, installed: Path = airflow.FOLDER) -> Row:
    """The row, without a peer where there is none: a dry run starts none, and not every machine can install it.

    `folder` has the sample's orders.db; `installed` is where Airflow's programs are, or will be.
    """
    name, theirs, why = f"airflow {airflow.VERSION} standalone", list[float](), "a dry run starts none"
    with watched() as conditions:
        if effort:
            try:
                why, theirs = "", _triggered(folder, effort, conditions, installed)
            except airflow.NotInstalled as error:
                why = f"not installed: {error}"
                sys.stderr.write(f"answer.beside_airflow: skipped, {why}\n")
        conditions["ours_n"] = len(ours)
    if theirs:
        return _p50_row("answer.beside_airflow", name, ours, theirs, conditions)
    return Row(
        name="answer.beside_airflow",
        unit="ms",
        ours=percentile(ours, 0.5),
        peer=f"{name} ({'not installed' if effort else why})",
        n=len(ours),
        conditions=conditions | {"why": why},
    )


def _triggered(folder: Path, effort: float, conditions: dict[str, Any], installed: Path) -> list[float]:
    programs = airflow.install(installed)
    began = time.monotonic()
    with airflow.standalone(programs, folder / "orders.db", folder / "airflow") as peer:
        conditions["theirs_ready_s"] = round(time.monotonic() - began, 1)
        peer.run_order()
        theirs = [peer.run_order() * 1e3 for _ in range(scaled(TRIGGERED, effort))]
        commanded = [peer.command_order() * 1e3 for _ in range(scaled(COMMANDED, effort))]
    conditions["theirs_ms"] = [round(one) for one in theirs]
    conditions["theirs_by_command_ms"] = [round(one) for one in commanded]
    return theirs


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
    rows = [_row(f"answer.p{share}_ms", ours, theirs, share / 100, conditions) for share in (50, 95)]
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


def _p50_row(name: str, peer: str, ours: list[float], theirs: list[float], conditions: dict[str, Any]) -> Row:
    times = {"theirs_ms": [round(one) for one in theirs]}
    return _row(name, ours, theirs, 0.5, conditions | times, peer, len(theirs))


def _row(
    name: str,
    ours: list[float],
    theirs: list[float],
    share: float,
    conditions: dict[str, Any],
    peer: str = PEER,
    n: int = 0,
) -> Row:
    here, there = percentile(ours, share), percentile(theirs, share)
    return Row(
        name=name,
        unit="ms",
        ours=here,
        peer=peer,
        theirs=there,
        ratio=there / here,
        n=n or len(ours),
        conditions=conditions,
    )
