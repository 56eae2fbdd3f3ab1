"""The same peak at what a user would write instead: a web endpoint that creates a flow run for each message.

The endpoint calls `run_deployment(timeout=0)` and then answers, against a stock Prefect server with `flow.serve()`; all
three on the machine, with nothing of ours. At most so many messages are at the endpoint at once, which spares it what
thousands of connections would do to it; the others wait here, and their time counts from their planned moment all the
same. Some seconds after the peak it is over: what is not acknowledged by then counts with the time that it has waited,
so that its percentiles are the least that they can be.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks import stacks, stock
from tests.stack import ROOT, free_ports

AT_ONCE: Final = 64
"""Of 4, 16, 64 and 256 the one with which most were acknowledged."""

GRACE: Final = 30.0
"""Seconds after the peak."""

DEPLOYMENT: Final = "plain_double/burst"
PEER: Final = "an endpoint with run_deployment(timeout=0), flow.serve()"
_DRY_MESSAGES: Final = 2


class PeerPeak:
    """What came of the messages: times of acknowledgement in milliseconds, and counts."""

    def __init__(self, moments: Sequence[float]) -> None:
        self.moments = moments
        self.took: list[float | None] = [None] * len(moments)
        self.errors = 0
        self.answered = 0
        self._given_up = 0.0

    @property
    def milliseconds(self) -> list[float]:
        """Of each message, from its planned moment; of one not acknowledged, until it was given up."""
        return [
            (self._given_up - moment) * 1e3 if took is None else took
            for took, moment in zip(self.took, self.moments, strict=True)
        ]

    @property
    def conditions(self) -> dict[str, Any]:
        """What stands behind its figures."""
        return {
            "messages": len(self.took),
            "acknowledged": sum(one is not None for one in self.took),
            "errors": self.errors,
            "at_the_endpoint_at_once": AT_ONCE,
            "given_up_after_s": round(self._given_up, 1),
        }

    async def take(
        self, url: str, environment: Mapping[str, str], seconds: float, parameter: str, grace: float = GRACE
    ) -> None:
        """Send all of it at its moments, and count what was answered when the peak is over."""
        room = asyncio.Semaphore(AT_ONCE)
        began = time.monotonic() + 0.1
        async with httpx.AsyncClient(base_url=url, timeout=seconds + grace, trust_env=False) as client:

            async def send(number: int) -> None:
                async with room:
                    try:
                        answer = await client.post("/messages", json={parameter: number})
                        answer.raise_for_status()
                    except httpx.HTTPError:
                        self.errors += 1
                        return
                self.took[number] = (time.monotonic() - began - self.moments[number]) * 1e3

            counting = asyncio.create_task(self._count(environment, began + seconds))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + 0.1 + seconds + grace):
                    await _each(self.moments, began, send)
            self._given_up = time.monotonic() - began
            await counting

    async def _count(self, environment: Mapping[str, str], at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        done = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
            counted = await client.post(f"{environment['PREFECT_API_URL']}/flow_runs/count", json=done)
            self.answered = int(counted.raise_for_status().json())


async def _each(moments: Sequence[float], began: float, send: Any) -> None:
    async with asyncio.TaskGroup() as group:
        for number, moment in enumerate(moments):
            await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
            group.create_task(send(number))


def measured(effort: float, moments: Sequence[float], seconds: float) -> PeerPeak:
    """The peak at the peer; in a dry run a few of its messages, at what all benchmarks share."""
    peak = PeerPeak(moments if effort else moments[:_DRY_MESSAGES])
    with _peer(effort) as (url, environment, parameter):
        asyncio.run(peak.take(url, environment, seconds, parameter))
    return peak


@contextmanager
def _peer(effort: float) -> Iterator[tuple[str, Mapping[str, str], str]]:
    with ExitStack() as everything:
        environment, folder = everything.enter_context(stacks.stock_server(effort))
        deployment, parameter = stock.DEPLOYMENT, "order_id"
        if effort:
            deployment, parameter = DEPLOYMENT, "number"
            everything.enter_context(
                stock.serving(environment, folder, module="benchmarks.burst_serve", deployment=deployment)
            )
        yield everything.enter_context(_endpoint(environment, folder, deployment)), environment, parameter


@contextmanager
def _endpoint(environment: Mapping[str, str], folder: Path, deployment: str) -> Iterator[str]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.burst_endpoint", str(port), deployment]
    with stock.program(
        command, dict(environment) | {"PYTHONPATH": str(ROOT)}, folder, "endpoint.log"
    ) as process:
        stock.until(lambda: stock.healthy(url), process, "the endpoint answers")
        yield url
