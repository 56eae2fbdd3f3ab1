"""Privileged actions while the hub is killed again and again: one intent and one outcome each, and a whole chain."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from parley.errors import ParleyError
from parley.link.calls import AdminCall, Role, RunOrder, Started
from parley.link.client import HubClient, role_token
from parley.messages.model import Reply
from parley.settings import Settings
from tests.faults import figures
from tests.faults.sizes import LONG
from tests.hub.house import deploy, settings_for, worker_at
from tests.prefect_fixture import PrefectServer, running_server

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(1800 if LONG else 600)]

ACTIONS, KILLS = (1000, 10) if LONG else (100, 3)
SIDE_BY_SIDE = 8
PATIENCE = 240.0


class HubProcess:
    """A hub of its own process, which is killed and started again."""

    def __init__(self, settings: Settings, server: PrefectServer, log: Path) -> None:
        self.settings = settings
        self.kills = 0
        self._log = log
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PARLEY_", "PREFECT_"))
            },
            "PARLEY_HOME": str(settings.home),
            "PARLEY_KEY_FILE": str(settings.key_file),
            "PARLEY_PORT": str(settings.port),
            "PARLEY_HOOKS_PORT": str(settings.hooks_port),
            "PARLEY_METRICS_PORT": str(settings.metrics_port),
            "PREFECT_API_URL": server.api,
            "PREFECT_API_AUTH_STRING": server.environment["PREFECT_API_AUTH_STRING"],
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-m", "parley.processes.hub"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, env=self._environment, stdout=log, stderr=log, cwd=self.settings.home.parent
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    async def admin(self, verb: str, **arguments: Any) -> Any:
        """As the command line does."""
        token = role_token(self.settings, Role.COMMAND_LINE)
        async with HubClient(f"unix:{self.settings.socket}", Role.COMMAND_LINE, token) as client:
            return await client.call("admin", AdminCall(verb=verb, arguments=arguments), timeout=PATIENCE)

    async def is_up(self) -> None:
        """Return once it answers."""
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient() as client:
            while True:
                with suppress(httpx.TransportError):
                    await client.get(f"http://127.0.0.1:{self.settings.port}/healthz")
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectServer]:
    """A Prefect server of its own: no other hub's runs are in it."""
    with running_server(tmp_path / "prefect", measured=False) as running:
        yield running


@asynccontextmanager
async def living(home: Path, server: PrefectServer) -> AsyncIterator[HubProcess]:
    hub = HubProcess(settings_for(home, server), server, home.parent / f"{home.name}.log")
    hub.start()
    try:
        await hub.is_up()
        yield hub
    finally:
        hub.stop()


class Actions:
    """Asks for privileged things, each until it is answered; who asks twice says that it is the same."""

    def __init__(self, hub: HubProcess, token: str) -> None:
        self.hub = hub
        self.done = 0
        self.states: Counter[str] = Counter()
        self._headers = {"authorization": f"Bearer {token}"}
        self._room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def act(self, number: int) -> None:
        async with self._room:
            if number % 5 == 4:
                await self._add_person(number)
            else:
                await self._change(number)
            self.done += 1

    async def _change(self, number: int) -> None:
        url = f"http://127.0.0.1:{self.hub.settings.port}/api/v1/messages?wait=10"
        headers = self._headers | {"idempotency-key": f"action-{number}"}
        body = {"text": f"/change web{1 + number % 2}"}
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=30) as client:
            while True:
                with suppress(httpx.TransportError):
                    answer = await client.post(url, headers=headers, json=body)
                    if answer.status_code == 200:
                        self.states[answer.json()["state"]] += 1
                        return
                    assert answer.status_code in (202, 429, 503), answer.text
                await asyncio.sleep(0.1)

    async def _add_person(self, number: int) -> None:
        try:
            await self.hub.admin("person_add", name=f"p{number}")
        except ParleyError as error:
            # The answer of the first time was lost with the hub.
            assert f"p{number}" in str(error)  # noqa: PT017  it may as well not be raised
        self.states["added"] += 1


async def test_one_intent_and_one_outcome_each(
    tmp_path_factory: pytest.TempPathFactory, server: PrefectServer
) -> None:
    home = tmp_path_factory.mktemp("k") / "h"
    deploy(server)
    effects: Counter[str] = Counter()

    async def effect(_order: RunOrder, started: Started) -> dict[str, Any]:
        effects[started.run_id] += 1
        return {"outcome": "done", "reply": Reply(text="ok")}

    async with living(home, server) as hub, worker_at(hub.settings) as worker:
        worker.answer, worker.patience = effect, PATIENCE  # a machine that others use too starts a hub slowly
        actions = Actions(hub, (await hub.admin("token"))["token"])
        asked = [asyncio.create_task(actions.act(number)) for number in range(ACTIONS)]
        for turn in range(1, KILLS + 1):
            while actions.done < turn * ACTIONS // (KILLS + 1):  # noqa: ASYNC110  what ends is counted, not told
                await asyncio.sleep(0.005)
            hub.kill()
            hub.start()
        await asyncio.gather(*asked)
        found = await hub.admin("audit_verify")
        assert (found["problems"], found["next"]) == ([], None)
    assert hub.kills == KILLS
    changes = ACTIONS - ACTIONS // 5
    assert actions.states == {"done": changes, "added": ACTIONS // 5}
    with closing(sqlite3.connect(home / "parley.db")) as store:
        trail = store.execute("SELECT action, subject, phase FROM audit ORDER BY sequence").fetchall()
        open_ones = store.execute("SELECT count(*) FROM audit_open").fetchone()[0]
        requests = {f"request:{row[0]}" for row in store.execute("SELECT id FROM request")}
    by_subject: dict[str, list[str]] = {}
    for action, subject, phase in trail:
        if action.startswith(("run:", "person-added")):
            by_subject.setdefault(subject, []).append(phase)
    figures.keep("audit_kills", actions=ACTIONS, kills=hub.kills, rows=len(trail), open=open_ones)
    assert len(requests) == changes
    assert set(by_subject) == requests | {f"person:p{number}" for number in range(4, ACTIONS, 5)}
    assert {
        subject: phases for subject, phases in by_subject.items() if phases != ["intent", "outcome"]
    } == {}
    assert open_ones == 0
    assert set(effects.values()) == {1}
