"""Processes die while people write on real platforms: what was acknowledged is answered once, or reported.

What a platform cannot promise stands in `tests.system.platform_people` as data, with the reason; the checker
(`tests.system.platform_history`) excuses that much and no more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.fakes import alertmanager
from tests.fakes._alerting import alert, call
from tests.stack import Stack
from tests.system.conftest import made
from tests.system.effects import effects
from tests.system.history import History
from tests.system.load import Nemesis, crowding, open_flow_runs
from tests.system.platform_history import (
    PlatformHistory,
    Said,
    Seen,
    figures,
    unfinished,
    violations,
)
from tests.system.platform_people import (
    Bot,
    Conversation,
    Discord,
    Platform,
    Slack,
    Wecom,
    Xmpp,
    until,
)

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(600),
]

SEEDS = [int(seed) for seed in os.environ.get("PARLEY_TEST_SEEDS", "1").split(",")]
EACH, NOTICES = 11, 10
"""Messages of each of the eleven conversations, and alerts of a service."""

ROLES = ("listeners", "hub", "child", "worker", "listeners")
COMMANDS = {"look": "/look {}", "mark": "/mark {}", "linger": "/linger {} 1"}
"""A read, an effect, and one after which the run takes its time, to be killed in it."""

AHEAD, PATIENCE = 2, 10.0
"""People are up to two messages ahead of the answers, and wait no longer than so many seconds before they go on."""

QUIET_SECONDS = 75.0
"""A run whose process is gone with nobody to tell it ends when its lease does, 60 s after a hub's start."""

TOML = """
[duty]
conversations = ["console:owner"]

[automations]
modules = ["tests.system.effects"]

[[routes]]
from = "alerts.alert.#"
to = [{rooms}]
"""


class Town:
    """All platforms with all people, and what they saw."""

    def __init__(self, stack: Stack, platforms: list[Platform]) -> None:
        self.stack, self.platforms = stack, platforms
        self.history = PlatformHistory(rooms=[one.room for one in platforms])

    async def watch(self) -> None:
        """Note when what was shown, and when what was said was acknowledged, until cancelled."""
        shown = dict.fromkeys((one.name for one in self.platforms), 0)
        while True:
            moment = time.monotonic()
            for one in self.platforms:
                seen = one.seen()
                for place, text in seen[shown[one.name] :]:
                    self.history.seen.append(Seen(platform=one.name, place=place, text=text, at=moment))
                shown[one.name] = len(seen)
                for said in self.history.said:
                    waits = said.platform == one.name and said.acknowledged is None
                    if waits and one.acknowledged(said.native):
                        said.acknowledged = moment
            await asyncio.sleep(0.05)

    async def write(self, platform: Platform, who: Conversation, prefix: str, chance: random.Random) -> None:
        """One person says all they have to say."""
        keys: list[str] = []
        for number in range(EACH):
            key, command = f"{prefix}m{number:02}", chance.choice([*COMMANDS])
            moment = time.monotonic()
            spoken = await who.say(COMMANDS[command].format(key))
            self.history.said.append(
                Said(
                    key=key,
                    command=command,
                    platform=platform.name,
                    conversation=who.name,
                    place=spoken.place,
                    promise=who.promise,
                    at=moment,
                    native=spoken.native,
                    reached=spoken.reached,
                )
            )
            keys.append(key)
            await until(lambda: len(self._open(keys)) < AHEAD, PATIENCE * crowding())

    def _open(self, keys: list[str]) -> set[str]:
        return set(keys) - {seen.text for seen in self.history.seen}

    async def report(self, key: str, hooks: str, chance: random.Random) -> None:
        """A pair of Alertmanagers reports one alert, each again and again until it is taken."""
        for site in ("https://one.example", "https://two.example"):
            about = {"alertname": key, "severity": "critical"}
            one = alert(fingerprint=f"fingerprint-{key}", labels=about)
            request = alertmanager.delivery(call(one, externalURL=site))
            wait = 0.5
            while not await self._taken(hooks, request.body, request.headers):
                await asyncio.sleep(wait)
                wait = min(wait * 1.5, 10.0)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
        self.history.notices.append(key)

    async def _taken(self, hooks: str, body: bytes, headers: Mapping[str, str]) -> bool:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
                answer = await client.post(f"{hooks}/alerts", content=body, headers=dict(headers))
                assert answer.is_success or answer.status_code >= 500, answer.text
                return answer.is_success
        return False


async def kill_all(stack: Stack, town: Town, total: int, chance: random.Random) -> None:
    """Kill a process of each role, in a drawn order, spread over what is said; watch their return."""
    seen = History()
    nemesis = Nemesis(stack, seen)
    roles = [*ROLES]
    chance.shuffle(roles)
    for number, role in enumerate(roles):
        due = total * (number + chance.uniform(0.3, 0.9)) / len(roles)
        await until(lambda due=due: len(town.history.said) >= due, 300)  # type: ignore[misc]
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        if role == "worker":  # its children die with it
            town.history.children_killed += len(await asyncio.to_thread(nemesis.pids, "child"))
        await asyncio.to_thread(nemesis.kill, role)
    await asyncio.to_thread(nemesis.close)
    town.history.children_killed += nemesis.processes_killed["child"]
    town.history.kills = seen.kills


@asynccontextmanager
async def inhabited(folder: Path) -> AsyncIterator[Town]:
    """A whole stack, with an account on each platform, which all listen."""
    async with AsyncExitStack() as everything:
        bot = Bot()
        await everything.enter_async_context(bot)  # its certificate is there before the stack
        rooms = [one.room for one in (Wecom, Bot, Discord, Slack, Xmpp)]
        listed = ", ".join(f'"{room.platform}:{room.place.rstrip(":")}"' for room in rooms)
        stack = made(folder, TOML.format(rooms=listed))
        stack.environment["SSL_CERT_FILE"] = bot.fake.ca_file
        hooks = f"http://127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}/hooks"
        platforms: list[Platform] = [Wecom(f"{hooks}/wecom"), bot, Discord(), Slack(), Xmpp()]
        for one in (platforms[0], *platforms[2:]):
            await everything.enter_async_context(one)
        await everything.enter_async_context(stack)
        town = Town(stack, platforms)
        await asyncio.gather(*(settle(stack, one) for one in platforms))
        await asyncio.to_thread(
            add,
            stack,
            "alerts",
            "alertmanager",
            "parley-alertmanager-account",
            {"token": alertmanager.TOKEN},
            {},
        )
        await listening(stack, {"alerts", *(one.name for one in platforms)})
        yield town


async def settle(stack: Stack, platform: Platform) -> None:
    """Add the account, and link the owner to who writes there."""
    block_type, secrets, fields = platform.account()
    await asyncio.to_thread(add, stack, platform.name, platform.name, block_type, secrets, fields)
    for user_id in platform.user_ids:
        await asyncio.to_thread(
            stack.admin, "person_link", name="owner", account=platform.name, user_id=user_id
        )


def add(
    stack: Stack,
    name: str,
    platform: str,
    block_type: str,
    secrets: Mapping[str, str],
    fields: Mapping[str, Any],
) -> None:
    """What `parley connect` does: seal the secrets, save the Block, add the account."""
    block = name.replace("_", "-")  # Prefect's names have no underscore
    sealed = {
        field: stack.admin("seal", block_type=block_type, block_name=block, field=field, value=value)[
            "sealed"
        ]
        for field, value in secrets.items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "blocks.save", platform],
        input=json.dumps({"name": block, "fields": {**fields, **sealed}}) + "\n",
        env=stack.environment | stack.prefect_environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    saved = json.loads(done.stdout.splitlines()[-1])
    assert "block" in saved, saved
    stack.admin("add_account", name=name, platform=platform, block=saved["block"])


async def listening(stack: Stack, names: set[str]) -> None:
    """Return once these accounts listen."""
    states: dict[str, Any] = {}
    for _ in range(240):
        states = {one["name"]: one for one in await asyncio.to_thread(stack.admin, "accounts")}
        if all(states.get(name, {}).get("state") == "listening" for name in names):
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{states}\n{stack.logs('listeners')}")


def program(stack: Stack, after: int | None) -> tuple[int, list[str]]:
    """What a program that subscribed hears that people said, since then."""
    query: dict[str, Any] = {"topic": "message.#", "limit": 500} | ({} if after is None else {"after": after})
    answer = stack.client.get("/api/v1/events", params=query).raise_for_status().json()
    assert not answer["lost"]
    return answer["after"], [event["text"] for event in answer["items"]]


def heard_on_duty(stack: Stack) -> list[str]:
    """What the people on duty read in the console."""
    address = stack.url.replace("http", "ws", 1) + "/ws"
    with connect(address, additional_headers=stack.headers, proxy=None) as page:
        events = iter(lambda: json.loads(page.recv(timeout=10)), None)
        history = next(event for event in events if event["type"] == "history")
    return [str(line.get("text", "")) for line in history["lines"] if line["who"] == "parley"]


async def nothing_left(stack: Stack, history: PlatformHistory, seconds: float) -> None:
    """Wait until everybody has what they are owed, or nothing is under way any more."""
    end, idle = time.monotonic() + seconds, 0
    while unfinished(history) and time.monotonic() < end and idle < 5:
        await asyncio.sleep(1)
        status = (await asyncio.to_thread(stack.client.get, "/api/v1/status")).raise_for_status().json()
        queue = status["queue"]
        busy = any(queue[name] for name in ("waiting", "running", "unhandled", "undelivered"))
        idle = 0 if busy else idle + 1
    await asyncio.sleep(1)  # what would come twice has a moment to do so


@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_while_people_write(tmp_path: Path, seed: int) -> None:
    """121 messages on five platforms and ten alerts, while listeners (twice), hub, children and worker are killed."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    async with inhabited(tmp_path) as town:
        stack, history = town.stack, town.history
        hooks = f"http://127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}/hooks"
        after, _ = await asyncio.to_thread(program, stack, None)
        began = time.monotonic()
        everybody = [(one, who) for one in town.platforms for who in one.conversations()]
        async with asyncio.TaskGroup() as watching:
            watch = watching.create_task(town.watch())
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(kill_all(stack, town, len(everybody) * EACH, chance))
                for number, (one, who) in enumerate(everybody):
                    draws = random.Random(chance.random())  # noqa: S311
                    group.create_task(town.write(one, who, f"s{seed}c{number:02}", draws))
                reports = group.create_task(report_all(town, hooks, f"s{seed}n", chance))
            assert killing.done()
            assert reports.done()
            await nothing_left(stack, history, QUIET_SECONDS * crowding())
            watch.cancel()
        seconds = time.monotonic() - began
        history.effects = effects(Path(stack.environment["EFFECTS_FILE"]))
        history.open_runs = await asyncio.to_thread(open_flow_runs, stack, 30)
        history.duty = await asyncio.to_thread(heard_on_duty, stack)
        _, texts = await asyncio.to_thread(program, stack, after)
        history.heard = [text.split()[1] for text in texts]
        history.crowding = crowding()
        print(json.dumps({"seconds": round(seconds, 1), **figures(history)}))
        assert {kill.role for kill in history.kills} == set(ROLES)
        assert violations(history) == [], stack.logs(lines=40)


async def report_all(town: Town, hooks: str, prefix: str, chance: random.Random) -> None:
    """Alerts come while people write."""
    async with asyncio.TaskGroup() as group:
        for number in range(NOTICES):
            group.create_task(town.report(f"{prefix}{number:02}", hooks, random.Random(number)))  # noqa: S311
            await asyncio.sleep(chance.uniform(1.0, 4.0))
