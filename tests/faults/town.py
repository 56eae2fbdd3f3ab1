"""A whole stack with accounts on platforms, the people there, and everything between them that may break."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx

from tests.fakes import alertmanager
from tests.fakes._alerting import alert, call
from tests.faults.arming import Arming
from tests.faults.duty import Duty
from tests.faults.load import crowding, open_flow_runs
from tests.faults.platform_history import PlatformHistory, Said, Seen, unfinished
from tests.faults.platform_people import Bot, Conversation, Discord, Platform, Slack, Wecom, Xmpp, until
from tests.faults.proxy import Proxy
from tests.stack import Stack
from tests.system.effects import FILE, effects

EVERYWHERE: Final = (Wecom, Bot, Discord, Slack, Xmpp)

COMMANDS: Final = {"look": "/look {}", "mark": "/mark {}", "linger": "/linger {} 1"}
"""A read, an effect, and one after which the run takes its time, to be killed in it."""

AHEAD, PATIENCE = 2, 10.0
"""People are up to two messages ahead of the answers, and wait no longer than so many seconds before they go on."""

TOML: Final = """
[duty]
conversations = ["console:owner"]

[automations]
modules = ["tests.system.effects", "tests.faults.levels", "tests.faults.together"]

[[routes]]
from = "alerts.alert.#"
to = [{rooms}]
"""


class Town:
    """All platforms with all people, and what they saw since `begin`."""

    def __init__(self, stack: Stack, platforms: Sequence[Platform], arming: Arming) -> None:
        self.stack, self.platforms, self.arming = stack, platforms, arming
        self.wires: dict[str, Proxy] = {}
        """What may break: between hub or worker and Prefect, between listeners and a platform."""
        self.history = PlatformHistory()
        self._shown: dict[str, int] = {}
        self.duty = Duty(stack)
        self._effects = 0
        self._began = 0.0
        self._after: int | None = None

    @property
    def effects_file(self) -> Path:
        """Where the effects are."""
        return Path(self.stack.environment[FILE])

    async def begin(self) -> PlatformHistory:
        """A new history, in which nothing is of what was before."""
        self.history = PlatformHistory(rooms=[one.room for one in self.platforms])
        self._shown = {one.name: len(one.seen()) for one in self.platforms}
        self._effects = len(effects(self.effects_file))
        self._began = time.monotonic()
        self._after, _ = await asyncio.to_thread(program, self.stack, None)
        return self.history

    async def end(self) -> PlatformHistory:
        """The history, with all that is only known in the end."""
        history = self.history
        history.effects = effects(self.effects_file)[self._effects :]
        history.open_runs = await asyncio.to_thread(open_flow_runs, self.stack, 30)
        history.duty = [one.text for one in self.duty.heard if one.at >= self._began]
        _, texts = await asyncio.to_thread(program, self.stack, self._after)
        keys = {one.key for one in history.said}
        # What people said in the console is another history's.
        history.heard = [key for key in (text.split()[1] for text in texts) if key in keys]
        history.effects = [key for key in history.effects if key in keys]
        history.crowding = crowding()
        return history

    async def watch(self) -> None:
        """Note when what was shown, and when what was said was acknowledged, until cancelled."""
        while True:
            moment = time.monotonic()
            for one in self.platforms:
                seen = one.seen()
                for place, text in seen[self._shown[one.name] :]:
                    self.history.seen.append(Seen(platform=one.name, place=place, text=text, at=moment))
                self._shown[one.name] = len(seen)
                for said in self.history.said:
                    waits = said.platform == one.name and said.acknowledged is None
                    if waits and one.acknowledged(said.native):
                        said.acknowledged = moment
            await asyncio.sleep(0.05)

    async def write(
        self,
        platform: Platform,
        who: Conversation,
        prefix: str,
        chance: random.Random,
        *,
        each: int,
        goes_on: Callable[[], bool] = lambda: True,
        commands: Sequence[str] = tuple(COMMANDS),
    ) -> None:
        """One person says all they have to say, or as long as it goes on."""
        keys: list[str] = []
        for number in range(each):
            if not goes_on():
                return
            key, command = f"{prefix}m{number:03}", chance.choice(commands)
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

    async def report(self, key: str, chance: random.Random) -> None:
        """A pair of Alertmanagers reports one alert, each again and again until it is taken."""
        for site in ("https://one.example", "https://two.example"):
            about = {"alertname": key, "severity": "critical"}
            one = alert(fingerprint=f"fingerprint-{key}", labels=about)
            request = alertmanager.delivery(call(one, externalURL=site))
            wait = 0.5
            while not await self._taken(request.body, request.headers):
                await asyncio.sleep(wait)
                wait = min(wait * 1.5, 10.0)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
        self.history.notices.append(key)

    async def _taken(self, body: bytes, headers: Mapping[str, str]) -> bool:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
                answer = await client.post(f"{hooks(self.stack)}/alerts", content=body, headers=dict(headers))
                assert answer.is_success or answer.status_code >= 500, answer.text
                return answer.is_success
        return False

    async def nothing_left(self, seconds: float) -> None:
        """Wait until everybody has what they are owed, or nothing is under way any more."""
        end, idle = time.monotonic() + seconds, 0
        while unfinished(self.history) and time.monotonic() < end and idle < 5:
            await asyncio.sleep(1)
            idle = 0 if await self._is_busy() else idle + 1
        await asyncio.sleep(1)  # what would come twice has a moment to do so

    async def _is_busy(self) -> bool:
        answer = await asyncio.to_thread(self.stack.client.get, "/api/v1/status")
        queue = answer.raise_for_status().json()["queue"]
        return any(queue[name] for name in ("waiting", "running", "unhandled", "undelivered"))


@asynccontextmanager
async def inhabited(
    folder: Path,
    kinds: Sequence[type[Any]] = EVERYWHERE,
    command: Sequence[str] | None = None,
    *,
    always: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> AsyncIterator[Town]:
    """A whole stack, with an account on each platform, which all listen. `always`: what processes of a role find."""
    async with AsyncExitStack() as everything:
        bot = Bot() if Bot in kinds else None
        arming = Arming(folder / "armed")
        for role, values in always.items():
            arming.always(role, values)
        rooms = ", ".join(f'"{kind.room.platform}:{kind.room.place.rstrip(":")}"' for kind in kinds)
        stack = Stack(
            folder=folder,
            toml=TOML.format(rooms=rooms),
            extra={FILE: str(folder / "effects"), "FAULTS_STATE": str(folder)} | arming.environment,
        )
        if command is not None:
            stack.command = tuple(command)
        if bot is not None:
            await everything.enter_async_context(bot)  # its certificate is there before the stack
            stack.environment["SSL_CERT_FILE"] = bot.fake.ca_file
        platforms: list[Platform] = []
        for kind in kinds:
            one = bot or kind() if kind is Bot else _made(kind, stack)
            if one is not bot:
                await everything.enter_async_context(one)
            platforms.append(one)
        town = Town(stack, platforms, arming)
        await wire_up(town, everything)
        await everything.enter_async_context(stack)
        everything.enter_context(town.duty)
        await asyncio.gather(*(settle(town, one) for one in platforms))
        token = {"token": alertmanager.TOKEN}
        account = ("alerts", "alertmanager", "parley-alertmanager-account")
        await asyncio.to_thread(add, stack, *account, token, {})
        await listening(stack, {"alerts", *(one.name for one in platforms)})
        await town.begin()
        yield town


def _made(kind: type[Any], stack: Stack) -> Any:
    return Wecom(f"{hooks(stack)}/wecom") if kind is Wecom else kind()


def hooks(stack: Stack) -> str:
    """Where platforms call."""
    return f"http://127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}/hooks"


async def wire_up(town: Town, everything: AsyncExitStack) -> None:
    """Lead what may break through a proxy: hub and worker to Prefect, and the platforms over one connection."""
    prefect = int(town.stack.environment["PARLEY_PREFECT_PORT"])
    for role in ("hub", "worker"):
        wire = town.wires[role] = await everything.enter_async_context(Proxy(prefect))
        town.arming.always(role, {"PARLEY_PREFECT_PORT": str(wire.port)})
    for one in town.platforms:
        if isinstance(one, Discord | Xmpp):
            wire = town.wires[one.name] = await everything.enter_async_context(Proxy(one.port))
            one.lead_through(wire.port)


async def settle(town: Town, platform: Platform) -> None:
    """Add the account, and link the owner to who writes there."""
    block_type, secrets, fields = platform.account()
    await asyncio.to_thread(add, town.stack, platform.name, platform.name, block_type, secrets, fields)
    for user_id in platform.user_ids:
        await asyncio.to_thread(
            town.stack.admin, "person_link", name="owner", account=platform.name, user_id=user_id
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


async def listening(stack: Stack, names: set[str], seconds: float = 120) -> None:
    """Return once these accounts listen."""
    states: dict[str, Any] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = {one["name"]: one for one in await asyncio.to_thread(stack.admin, "accounts")}
        if all(states.get(name, {}).get("state") == "listening" for name in names):
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{states}\n{stack.logs('listeners')}")


def program(stack: Stack, after: int | None) -> tuple[int, list[str]]:
    """What a program that subscribed hears that people said, since then."""
    query: dict[str, Any] = {"topic": "message.#", "limit": 500}
    texts: list[str] = []
    while True:
        asked = query | ({} if after is None else {"after": after})
        answer = stack.client.get("/api/v1/events", params=asked).raise_for_status().json()
        assert not answer["lost"]
        texts += [event["text"] for event in answer["items"]]
        if not answer["items"] or after is None:
            return answer["after"], texts
        after = answer["after"]
