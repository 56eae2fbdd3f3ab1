"""While somebody looks: flows of two tasks, four at a time for a minute, as two of Prefect's pages poll the server.

Ours is the whole way, from a message over the REST API to its answer, of four people who ask again as soon as they have
one. Beside it plain `await flow()` of the same two tasks, four at a time in one warm process, on a stock server: no
message, no rights, no store and no answer. The same plain flows on our server are in the conditions: what is the
server's in it. A page asks for what Prefect's do, the newest runs of flows and tasks, their counts and the history of
an hour, and again a tenth of a second after it has that.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from benchmarks import stacks, stock
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, percentile
from tests.stack import ROOT, Stack, plain_environment

AT_ONCE: Final = 4
PAGES: Final = 2
PAUSE: Final = 0.1
SECONDS, LEAST_SECONDS = 60.0, 1.0
WARM_UP: Final = 16
PATIENCE: Final = 130.0
PEER: Final = "await flow() on a stock server"
GOALS: Final = {"p95_ms": 500, "most_ms": 2000}


def measure(effort: float = 1.0) -> list[Row]:
    """`readers.p95_ms`, `readers.most_ms`."""
    seconds = max(LEAST_SECONDS, SECONDS * min(1.0, effort))
    with watched() as conditions:
        with stacks.stack(effort, stacks.TOML) as stack:
            asyncio.run(_asked(stack, WARM_UP))
            processor = ProcessorTime(stack)
            ours, read = asyncio.run(_while_read(stack.prefect_environment, _asked(stack, seconds=seconds)))
            conditions["processor_ms_each"] = processor.each(len(ours))
            with _plain(
                stock.stock_environment(stack.prefect_environment, stack.folder), stack.folder
            ) as peer:
                here, read_here = asyncio.run(_while_read(stack.prefect_environment, peer.take(seconds)))
        with stacks.stock_server(effort) as (environment, folder), _plain(environment, folder) as peer:
            theirs, read_there = asyncio.run(_while_read(environment, peer.take(seconds)))
        conditions |= {
            "at_once": AT_ONCE,
            "seconds": seconds,
            "goals": GOALS,
            "ours": _spread(ours) | read,
            "plain_on_our_server": _spread(here) | read_here,
            "theirs": _spread(theirs) | read_there,
        }
    return [
        _row("readers.p95_ms", percentile(ours, 0.95), percentile(theirs, 0.95), len(ours), conditions),
        _row("readers.most_ms", max(ours), max(theirs), len(ours), conditions),
    ]


async def _asked(stack: Stack, count: int = 0, seconds: float = 0.0) -> list[float]:
    """Milliseconds of each answer; so many, or until so many seconds are over."""
    end, took = time.monotonic() + seconds, list[float]()
    async with httpx.AsyncClient(
        base_url=stack.url, headers=stack.headers, timeout=PATIENCE, trust_env=False
    ) as client:

        async def one_after_the_other(person: int) -> None:
            while len(took) < count or time.monotonic() < end:
                # A thread of one's own, because messages of one conversation are handled in their order.
                body = {"text": f"/add-and-double {len(took)}", "thread": f"readers-{person}"}
                start = time.perf_counter()
                answer = await client.post("/api/v1/messages", params={"wait": 60}, json=body)
                took.append((time.perf_counter() - start) * 1e3)
                message = answer.raise_for_status().json()
                assert message["state"] == "done", message

        await asyncio.gather(*[one_after_the_other(person) for person in range(AT_ONCE)])
    return took


async def _while_read(
    environment: Mapping[str, str], working: Awaitable[list[float]]
) -> tuple[list[float], dict[str, Any]]:
    """What the work took, and how the pages fared meanwhile."""
    pages = [_Page(environment) for _ in range(PAGES)]
    reading = [asyncio.create_task(page.poll()) for page in pages]
    took: list[float] = await working
    for page in pages:
        page.closed = True
    await asyncio.gather(*reading)
    read = [one for page in pages for one in page.took]
    return took, {
        "pages": len(read),
        "page_p95_ms": round(percentile(read, 0.95)),
        "page_errors": sum(page.errors for page in pages),
    }


class _Page:
    """An open page of Prefect's, as the server knows it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.took: list[float] = []
        self.errors = 0
        self.closed = False

    async def poll(self) -> None:
        """Ask for all that it shows, until it is closed."""
        user, _, password = self._environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
        name = uuid4().hex
        async with httpx.AsyncClient(
            base_url=self._environment["PREFECT_API_URL"],
            auth=(user, password) if user else None,
            headers={"Prefect-Csrf-Client": name},
            timeout=60,
            trust_env=False,
        ) as client:
            token = await client.get("/csrf-token", params={"client": name})
            if token.is_success:  # a stock server wants none
                client.headers["Prefect-Csrf-Token"] = token.json()["token"]
            while not self.closed:
                start = time.perf_counter()
                await self._all(client)
                self.took.append((time.perf_counter() - start) * 1e3)
                await asyncio.sleep(PAUSE)

    async def _all(self, client: httpx.AsyncClient) -> None:
        for path, body in _shown():
            try:
                (await client.post(path, json=body)).raise_for_status()
            except httpx.HTTPError:
                self.errors += 1


def _shown() -> list[tuple[str, dict[str, Any]]]:
    now = datetime.now(UTC)
    hour = {
        "history_start": (now - timedelta(hours=1)).isoformat(),
        "history_end": now.isoformat(),
        "history_interval_seconds": 60,
    }
    newest = {"sort": "START_TIME_DESC", "limit": 50}
    return [
        ("/flow_runs/filter", newest),
        ("/flow_runs/count", {}),
        ("/flow_runs/history", hour),
        ("/task_runs/filter", {"limit": 50}),
        ("/task_runs/count", {}),
    ]


class _Plain:
    """The peer's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    async def take(self, seconds: float) -> list[float]:
        """Milliseconds of each of its runs."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"seconds": seconds, "at_once": AT_ONCE}) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout
        line = await asyncio.to_thread(self._process.stdout.readline)
        assert line, f"the plain flows ended with {self._process.poll()}"
        told: list[float] = json.loads(line)["milliseconds"]
        return told


@contextmanager
def _plain(environment: Mapping[str, str], folder: Path) -> Iterator[_Plain]:
    with (
        (folder / "plain-dags.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain_dags"],
            env=plain_environment() | dict(environment) | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield _Plain(process)
        finally:
            process.terminate()


def _spread(took: list[float]) -> dict[str, Any]:
    return {
        "n": len(took),
        "p50_ms": round(percentile(took, 0.5)),
        "p95_ms": round(percentile(took, 0.95)),
        "most_ms": round(max(took)),
    }


def _row(name: str, ours: float, theirs: float, n: int, conditions: dict[str, Any]) -> Row:
    return Row(
        name=name,
        unit="ms",
        ours=ours,
        peer=PEER,
        theirs=theirs,
        ratio=theirs / ours,
        n=n,
        conditions=conditions,
    )
