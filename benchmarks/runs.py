"""Runs a second: eight people at once, each asking again as soon as the answer is there, a flow of one task.

Ours is the whole way, from message to answer, over the REST API; beside it plain `await flow()` of the same task, eight
at once in one warm process, with no message, no rights, no store and no answer: what a Prefect server on this machine
gives at the most. Both talk to the same server with the same settings. Blocks of both are measured in turn, and each
pair gives one ratio, so that what else the machine does weighs on both alike.

Once with everything in the embedded databases, once with both databases, Prefect's and ours, in a PostgreSQL that has
each commit on its disk, and our launcher of the server apart, as where several machines share the work.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks import stacks
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, scaled
from tests.postgres_fixture import installed_programs
from tests.stack import ROOT, Stack

AT_ONCE = 8
PAIRS, BLOCK, WARM_UP = 7, 64, 40
PEER = "await flow()"


def measure(effort: float = 1.0) -> list[Row]:
    """`runs.per_s`, `runs.vs_plain`, and where PostgreSQL is installed `runs.postgres`."""
    with stacks.stack(effort, stacks.TOML) as stack:
        embedded = _measured(stack, effort)
    rows = [embedded.row("runs.per_s"), embedded.ratio_row("runs.vs_plain")]
    if installed_programs() is None:
        sys.stderr.write("runs.postgres: skipped, PostgreSQL is not installed (make test-servers)\n")
        return rows
    # Where a dry run shares one stack, this one starts for itself: it is another kind of installation.
    with stacks.postgres(stacks.TOML) as stack:
        postgres = _measured(stack, effort)
    return [*rows, postgres.row("runs.postgres", peer=f"{PEER}, also on PostgreSQL")]


def _measured(stack: Stack, effort: float) -> _Pairs:
    count, block = scaled(PAIRS, effort), scaled(BLOCK, effort, least=AT_ONCE)
    warm_up = scaled(WARM_UP, effort, least=AT_ONCE)
    pairs, spent = _Pairs(block), list[dict[str, float]]()
    with watched() as conditions, plain(stack) as peer:
        asyncio.run(said(stack, warm_up))
        peer.run(warm_up)
        for _ in range(count):
            processor = ProcessorTime(stack)
            pairs.ours.append(block / asyncio.run(said(stack, block)))
            spent.append(processor.each(block))
            processor = ProcessorTime(stack)
            pairs.theirs.append(block / peer.run(block))
            peer.spent.append(processor.each(block) | {"flows": peer.processor_seconds * 1e3 / block})
        conditions |= {
            "at_once": AT_ONCE,
            "block": block,
            "ours_per_s": [round(one, 2) for one in pairs.ours],
            "theirs_per_s": [round(one, 2) for one in pairs.theirs],
            "processor_ms_each": _medians(spent),
            "theirs_processor_ms_each": _medians(peer.spent),
        }
    pairs.conditions = conditions
    return pairs


async def said(
    stack: Stack,
    runs: int,
    command: str = "/double {}",
    at_once: int = AT_ONCE,
    people: str = "bench",
) -> float:
    """How many seconds it takes until so many messages are answered, `at_once` under way at any time."""
    numbers = iter(range(runs))
    async with httpx.AsyncClient(
        base_url=stack.url, headers=stack.headers, timeout=130, trust_env=False
    ) as client:

        async def one_after_the_other(person: int) -> None:
            # A thread of one's own, because messages of one conversation are handled in their order.
            for number in numbers:
                body = {"text": command.format(number), "thread": f"{people}-{person}"}
                answer = await client.post("/api/v1/messages", params={"wait": 60}, json=body)
                message = answer.raise_for_status().json()
                assert message["state"] == "done", message

        start = time.perf_counter()
        await asyncio.gather(*[one_after_the_other(person) for person in range(at_once)])
        return time.perf_counter() - start


class Plain:
    """The peer's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.processor_seconds = 0.0
        self.spent: list[dict[str, float]] = []

    def run(self, runs: int) -> float:
        """How many seconds so many runs take there."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"runs": runs, "at_once": AT_ONCE}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.processor_seconds = answer["processor_seconds"]
        return float(answer["seconds"])


@contextmanager
def plain(stack: Stack) -> Iterator[Plain]:
    """The peer, on the stack's own Prefect server with the settings that our runs have."""
    with (
        (stack.folder / "plain.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain_runs"],
            env=_without_ours(stack) | stack.prefect_environment | {"PYTHONPATH": str(ROOT)},
            cwd=stack.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Plain(process)
        finally:
            process.terminate()


def _without_ours(stack: Stack) -> dict[str, str]:
    return {name: value for name, value in stack.environment.items() if not name.startswith("PARLEY_")}


def _medians(spent: list[dict[str, float]]) -> dict[str, float]:
    roles = sorted({role for one in spent for role in one})
    return {role: round(statistics.median(one.get(role, 0.0) for one in spent), 1) for role in roles}


@dataclass(slots=True)
class _Pairs:
    """Runs a second in each block, ours and theirs in turn."""

    block: int
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The median of the pairs'."""
        return statistics.median(here / there for here, there in zip(self.ours, self.theirs, strict=True))

    def row(self, name: str, peer: str = PEER) -> Row:
        """Runs a second."""
        return Row(
            name=name,
            unit="1/s",
            ours=statistics.median(self.ours),
            peer=peer,
            theirs=statistics.median(self.theirs),
            ratio=self.ratio,
            n=self.block * len(self.ours),
            conditions=self.conditions,
        )

    def ratio_row(self, name: str) -> Row:
        """How many times as many."""
        return Row(
            name=name,
            unit="times",
            ours=self.ratio,
            peer=PEER,
            theirs=1.0,
            ratio=self.ratio,
            n=len(self.ours),
            conditions=self.conditions,
        )
