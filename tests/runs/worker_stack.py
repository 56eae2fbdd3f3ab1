"""A worker as its own process beside a real Prefect server, and a hub whose answers the test gives."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from parley.errors import ParleyError
from parley.link.calls import CancelOrder, RunOrder, Started
from parley.link.connection import Handler
from parley.link.server import LinkServer, Peer, make_tokens
from parley.runs.prefect_api import PrefectApi
from tests.prefect_fixture import PrefectServer, plain_environment

PATIENCE = 45.0
POOL = "parley"


class Hub:
    """Grants every start, keeps what it is told, and pushes orders to the one worker."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.worker: Peer | None = None
        self.refusals: dict[str, ParleyError] = {}
        self._changed = asyncio.Condition()

    async def wait_for(self, name: str, **wanted: Any) -> dict[str, Any]:
        """The first call of this name with these arguments, made or still to come."""

        def found() -> dict[str, Any] | None:
            hits = (args for called, args in self.calls if called == name)
            return next((args for args in hits if wanted.items() <= args.items()), None)

        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: found() is not None)
        found_args = found()
        assert found_args is not None
        return found_args

    def forget(self) -> None:
        """Forget all calls so far."""
        self.calls.clear()

    def handlers(self, peer: Peer) -> Mapping[str, Handler]:
        """Every call that a worker or a run makes."""
        if peer.role == "worker":
            self.worker = peer
        names = ("holding", "publish_catalogue", "run_ended", "register", "start", "beat", "say", "finish")
        return {name: self._handler(name) for name in names}

    def _handler(self, name: str) -> Handler:
        async def handle(args: dict[str, Any]) -> Any:
            async with self._changed:
                self.calls.append((name, args))
                self._changed.notify_all()
            if name in self.refusals:
                raise self.refusals[name]
            return self._answer(name, args)

        return handle

    def _answer(self, name: str, args: dict[str, Any]) -> Any:
        if name == "start":
            run_id = f"run-{args['flow_run_id']}"
            return Started(
                run_id=run_id, epoch=1, token=args["token"], command="c", origin="chat", principal="ada"
            )
        if name == "register":
            return {
                "run_id": f"run-{args['flow_run_id']}",
                "flow_run_id": args["flow_run_id"],
                "automation": "quick",
                "entrypoint": "tests.runs.worker_flows.quick",
                "token": "registered",
            }
        return True if name == "beat" else None


@dataclass
class Stack:
    """One worker process, its hub, and Prefect's API."""

    home: Path
    hub: Hub
    api: PrefectApi
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    pids: set[int] = field(default_factory=set)

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def notes(self) -> Path:
        return self.home / "notes"

    async def start_worker(self) -> None:
        """Start the worker and wait until its deployments are there and its catalogue is published."""
        self.hub.forget()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "parley.runs.worker", env=self.environment, cwd=Path.cwd()
        )
        await self.hub.wait_for("publish_catalogue")
        for name in ("quick", "lasting", "stubborn"):
            await self.deployment(name)

    async def deployment(self, name: str) -> str:
        """The id of this automation's deployment, once it is there."""
        from parley.runs.prefect_api import PrefectRefused

        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await self.api.deployment_id(f"{name.replace('_', '-')}/parley")
                except PrefectRefused:
                    await asyncio.sleep(0.1)

    async def create(self, name: str, *, pending: bool = True, **parameters: Any) -> dict[str, Any]:
        """A flow run, as the dispatcher creates it."""
        parameters = {"path": str(self.notes), **parameters}
        return await self.api.create_flow_run(
            await self.deployment(name),
            key=os.urandom(8).hex(),
            name=name,
            parameters=parameters,
            tags=("parley",),
            pending=pending,
        )

    async def push(self, flow_run: dict[str, Any], **more: Any) -> str:
        """Hand a flow run to the worker; returns its id."""
        order = RunOrder(
            run_id=f"run-{flow_run['id']}",
            flow_run_id=flow_run["id"],
            automation=flow_run["name"].replace("_", "-"),
            entrypoint=f"tests.runs.worker_flows.{flow_run['name']}",
            flow_run=flow_run,
            token=f"token-{flow_run['id']}",
            **more,
        )
        assert self.hub.worker
        await self.hub.worker.call("run", order, timeout=15)
        return str(flow_run["id"])

    async def order(
        self, name: str, *, limit: float | None = None, urgent: bool = False, **parameters: Any
    ) -> str:
        """Create and push."""
        return await self.push(await self.create(name, **parameters), time_limit=limit, urgent=urgent)

    async def cancel(self, flow_run_id: str) -> bool:
        """Cancel as the hub does."""
        assert self.hub.worker
        return bool(await self.hub.worker.call("cancel", CancelOrder(flow_run_id=flow_run_id), timeout=10))

    async def ended(self, flow_run_id: str) -> dict[str, Any]:
        """What the worker said of this run's end."""
        return await self.hub.wait_for("run_ended", flow_run_id=flow_run_id)

    async def state(self, flow_run_id: str) -> str:
        """Prefect's name of the run's state."""
        return str((await self.api.flow_run(flow_run_id))["state"]["name"])

    async def state_becomes(self, flow_run_id: str, *names: str) -> str:
        """Wait for one of these states."""
        async with asyncio.timeout(PATIENCE):
            while (name := await self.state(flow_run_id)) not in names:  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.1)
        return name

    async def noted(self, what: str, count: int = 1) -> list[tuple[int, float]]:
        """Wait until runs have noted this so often; pid and time of each."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.lines(what)) < count:  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.01)
        return found

    def lines(self, what: str) -> list[tuple[int, float]]:
        """Pid and time of each note of this kind, now."""
        text = self.notes.read_text() if self.notes.exists() else ""
        rows = (line.split() for line in text.splitlines())
        return [(int(pid), float(at)) for word, pid, at in rows if word == what]

    def change_modules(self, modules: str) -> None:
        """Have parley.toml name other modules."""
        config = Path(self.environment["PARLEY_CONFIG"])
        config.write_text(config.read_text().replace("tests.runs.worker_flows", modules))

    def family(self) -> list[psutil.Process]:
        """Every process below the worker."""
        found = psutil.Process(self.pid).children(recursive=True)
        self.pids |= {process.pid for process in found}
        return found

    async def stop(self) -> int:
        """SIGTERM to the worker; returns its exit code."""
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    async def all_gone(self, pids: set[int]) -> None:
        """Wait until none of these processes is left."""
        async with asyncio.timeout(PATIENCE):
            while any(_lives(pid) for pid in pids):  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def running(
    server: PrefectServer, home: Path, toml: str = "", start: bool = True
) -> AsyncIterator[Stack]:
    """A worker with its hub; both end with the block."""
    config = home / "parley.toml"
    config.write_text(f'[automations]\nmodules = ["tests.runs.worker_flows"]\nentry_points = false\n{toml}')
    environment = plain_environment() | {
        "PARLEY_HOME": str(home),
        "PARLEY_CONFIG": str(config),
        "PREFECT_API_URL": server.api,
        "PREFECT_API_AUTH_STRING": server.environment["PREFECT_API_AUTH_STRING"],
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    hub = Hub()
    link = LinkServer(make_tokens(home / "run"), hub.handlers)
    api = PrefectApi(server.api, server.environment["PREFECT_API_AUTH_STRING"])
    async with api, link.listen(home / "run" / "hub.sock"):
        stack = Stack(home, hub, api, environment)
        try:
            if start:
                await stack.start_worker()
            yield stack
        finally:
            if stack.process:
                await stack.stop()


def now() -> float:
    """The clock that notes are made by."""
    return time.time()
