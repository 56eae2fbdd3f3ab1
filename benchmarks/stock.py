"""What a user has without us: Prefect's server as it comes, and `flow.serve()` in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from parley.errors import ParleyError
from parley.runs.prefect_api import PrefectApi, PrefectUnavailable
from tests.stack import ROOT, free_ports, plain_environment

PATIENCE = 120.0
MOST_CRASHES = 5
DEPLOYMENT = "order_status/stock"


@dataclass(frozen=True, slots=True)
class Stock:
    """A Prefect server with `flow.serve()` beside it; ours or Prefect's own, as `environment` says."""

    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]

    def run_order(self, number: int = 1024) -> float:
        """Have one order looked up; returns the seconds from created to completed, by the server's own times."""
        return asyncio.run(self._run_order(number))

    def run_orders(self, count: int) -> None:
        """So many at the same time, until the last of them has completed."""
        asyncio.run(self._run_orders(count))

    async def _run_orders(self, count: int) -> None:
        # Made one after another: a stock server refuses some of those that come at once.
        async with api(self.environment) as prefect:
            made = [await self._made(prefect, 1024) for _ in range(count)]
            for one in made:
                await self._completed(prefect, one, 1024)

    async def _run_order(self, number: int) -> float:
        async with api(self.environment) as prefect:
            made = await self._made(prefect, number)
            run = await self._completed(prefect, made, number)
        return (_time(run["end_time"]) - _time(made["created"])).total_seconds()

    async def _completed(self, prefect: PrefectApi, made: dict[str, Any], number: int) -> dict[str, Any]:
        """The run's end. One that a busy server let crash before its start is made anew, as its user would."""
        for _ in range(MOST_CRASHES):
            run = await _ended(prefect, made["id"])
            if run["state"]["type"] != "CRASHED":
                break
            made = await self._made(prefect, number)
        assert run["state"]["type"] == "COMPLETED", run["state"]
        return run

    async def _made(self, prefect: PrefectApi, number: int) -> dict[str, Any]:
        key, end = uuid4().hex, time.monotonic() + PATIENCE
        while True:
            try:
                return await prefect.create_flow_run(
                    await prefect.deployment_id(DEPLOYMENT),
                    key=key,
                    name="stock",
                    parameters={"order_id": number},
                    tags=(),
                    pending=False,
                )
            except PrefectUnavailable:
                # A busy stock server answers 503. Its time counts from the creation, and the key makes it one run.
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.5)


@contextmanager
def serving(
    environment: Mapping[str, str],
    folder: Path,
    module: str = "benchmarks.stock_serve",
    deployment: str = DEPLOYMENT,
) -> Iterator[Stock]:
    """`flow.serve()` of order_status with stock settings, once its deployment is there; ended by its pid.

    `module` is a program that serves something else, as `deployment`.
    """
    started = [sys.executable, "-m", module]
    with program(started, dict(environment) | {"PYTHONPATH": str(ROOT)}, folder, "serve.log") as process:
        stock = Stock(environment, process)
        until(
            lambda: asyncio.run(_deployed(environment, deployment)),
            process,
            "flow.serve() has its deployment",
        )
        yield stock


@contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`prefect server start` with stock settings in a home of its own; yields it and its clients' environment."""
    port = free_ports(1)[0]
    environment = plain_environment() | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [
        str(Path(sys.executable).with_name("prefect")),
        *("server", "start", "--host", "127.0.0.1", "--port", str(port)),
    ]
    with program(command, environment, folder, "server.log") as process:
        until(lambda: healthy(environment["PREFECT_API_URL"]), process, "the stock Prefect server answers")
        yield process, environment


def stock_environment(client: Mapping[str, str], folder: Path) -> dict[str, str]:
    """A client of the same server with nothing else of ours: no settings, no hub."""
    needed = {name: client[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING") if name in client}
    return plain_environment() | needed | {"PREFECT_HOME": str(folder / "stock"), "DO_NOT_TRACK": "1"}


def api(environment: Mapping[str, str]) -> PrefectApi:
    """Prefect's API of that server."""
    return PrefectApi(environment["PREFECT_API_URL"], environment.get("PREFECT_API_AUTH_STRING", ""))


@contextmanager
def program(
    command: list[str], environment: dict[str, str], folder: Path, log: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the length of the block, with its log in the folder; ended by its pid."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / log).open("ab") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _deployed(environment: Mapping[str, str], deployment: str) -> bool:
    async with api(environment) as prefect:
        try:
            await prefect.deployment(deployment)
        except ParleyError:
            return False
        return True


def healthy(url: str) -> bool:
    """Whether `<url>/health` answers."""
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def until(holds: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    """Wait for it, as long as the process lives."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE:g} s: {what} (exit code {process.poll()})")
        time.sleep(0.1)


async def _ended(prefect: PrefectApi, flow_run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            run = await prefect.flow_run(flow_run_id)
            if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return run
            await asyncio.sleep(0.25)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
