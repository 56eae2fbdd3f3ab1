"""Runs a second: eight people at once, each asking again as soon as the answer is there, a flow of one task.

Ours is the whole way, from message to answer, over the REST API; beside it plain `await flow()` of the same task, eight
at once in one warm process, with no message, no rights, no store and no answer: what a Prefect server on this machine
gives at the most. Both talk to the same server with the same settings. Blocks of both are measured in turn, and each
pair gives one ratio, so that what else the machine does weighs on both alike.
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
from typing import Any

import httpx

from benchmarks import stacks
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, scaled
from tests.stack import ROOT, Stack

AT_ONCE = 8
PAIRS, BLOCK, WARM_UP = 7, 64, 40
PEER = "await flow()"


def measure(effort: float = 1.0) -> list[Row]:
    """`runs.per_s`, `runs.vs_plain`."""
    pairs, block = scaled(PAIRS, effort), scaled(BLOCK, effort, least=AT_ONCE)
    warm_up = scaled(WARM_UP, effort, least=AT_ONCE)
    ours, theirs, spent = list[float](), list[float](), list[dict[str, float]]()
    with watched() as conditions, stacks.stack(effort, stacks.TOML) as stack, plain(stack) as peer:
        asyncio.run(said(stack, warm_up))
        peer.run(warm_up)
        for _ in range(pairs):
            processor = ProcessorTime(stack)
            ours.append(block / asyncio.run(said(stack, block)))
            spent.append(processor.each(block))
            processor = ProcessorTime(stack)
            theirs.append(block / peer.run(block))
            peer.spent.append(processor.each(block) | {"flows": peer.processor_seconds * 1e3 / block})
        conditions |= {
            "at_once": AT_ONCE,
            "block": block,
            "ours_per_s": [round(one, 2) for one in ours],
            "theirs_per_s": [round(one, 2) for one in theirs],
            "processor_ms_each": _medians(spent),
            "theirs_processor_ms_each": _medians(peer.spent),
        }
    return _rows(ours, theirs, conditions)


async def said(stack: Stack, runs: int, command: str = "/double {}", at_once: int = AT_ONCE) -> float:
    """How many seconds it takes until so many messages are answered, `at_once` under way at any time."""
    numbers = iter(range(runs))
    async with httpx.AsyncClient(
        base_url=stack.url, headers=stack.headers, timeout=130, trust_env=False
    ) as client:

        async def one_after_the_other(person: int) -> None:
            # A thread of one's own, because messages of one conversation are handled in their order.
            for number in numbers:
                body = {"text": command.format(number), "thread": f"bench-{person}"}
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


def _rows(ours: list[float], theirs: list[float], conditions: dict[str, Any]) -> list[Row]:
    ratio = statistics.median(here / there for here, there in zip(ours, theirs, strict=True))
    per_s = Row(
        name="runs.per_s",
        unit="1/s",
        ours=statistics.median(ours),
        peer=PEER,
        theirs=statistics.median(theirs),
        ratio=ratio,
        n=conditions["block"] * len(ours),
        conditions=conditions,
    )
    vs_plain = Row(
        name="runs.vs_plain",
        unit="times",
        ours=ratio,
        peer=PEER,
        theirs=1.0,
        ratio=ratio,
        n=len(ours),
        conditions=conditions,
    )
    return [per_s, vs_plain]
