"""docs/scenario-operations.md, word for word, in English and in Chinese; and what it says of a process that dies.

Real: the whole stack, Alertmanager with the page's own alertmanager.yml, Prosody, the scripts. WeCom is a fake of its
gateway, over TLS.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from tests.fakes._driver import eventually
from tests.fakes.wecom_bot import BOT_ID
from tests.scenarios import operations
from tests.scenarios.alerting import alertmanager, free_port
from tests.scenarios.page import Page
from tests.scenarios.rooms_wecom import WecomRoom
from tests.scenarios.rooms_xmpp import XmppRoom
from tests.stack import ROOT, Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]


@dataclass
class House:
    """Everything that the page needs, and the page."""

    page: Page
    stack: Stack
    group: WecomRoom
    duty: XmppRoom

    async def hears(self, *texts: str, within: float = 180) -> list[str]:
        """All that is said in the group until each of these was said, in whatever order."""
        said: list[str] = []
        async with asyncio.timeout(within):
            while not all(any(text in one for one in said) for text in texts):
                said.append((await self.group.next()).text.replace("`", ""))
        return said

    @property
    def effects(self) -> list[str]:
        """What the scripts did, in order."""
        return operations.effects(self.stack.folder)


@asynccontextmanager
async def house(name: str) -> AsyncIterator[House]:
    """An installation with this page's settings, and all the others that it talks to."""
    async with AsyncExitStack() as there:
        others = await there.enter_async_context(operations.neighbours())
        # The listeners trust the gateway's certificate as they would trust WeCom's: by the system's own setting.
        stack = Stack(extra={"SSL_CERT_FILE": others.wecom.fake.ca_file})
        there.callback(stack.close)
        port = free_port()
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = stack.environment | {"PATH": programs, "TZ": "UTC"}
        page = Page(ROOT / "docs" / name, environment, folder=stack.folder)
        hooks, bin_ = stack.environment["PARLEY_HOOKS_PORT"], stack.folder / "bin"
        group, duty = operations.enter(page, others, hooks=hooks, alertmanager=port, folder=str(bin_))
        operations.put_programs(bin_, str(stack.folder))
        for file, secret in operations.SECRETS.items():
            (stack.folder / file).write_text(f"{secret}\n")
        await there.enter_async_context(stack_with(stack, page.settings()))
        await there.enter_async_context(alertmanager(stack.folder, page.file("yaml"), port))
        yield House(page, stack, group, duty)


@asynccontextmanager
async def stack_with(stack: Stack, toml: str) -> AsyncIterator[None]:
    """The stack, running with these settings."""
    stack.configure(toml)
    async with stack:
        yield


@pytest.mark.parametrize("name", ["scenario-operations.md", "scenario-operations.zh-CN.md"])
async def test_the_page_is_true(name: str) -> None:
    async with house(name) as there:
        assert BOT_ID in there.page.path.read_text(encoding="utf-8")
        (receiver,) = YAML(typ="safe").load(there.page.file("yaml"))["receivers"]
        (hook,) = receiver["webhook_configs"]
        assert hook["send_resolved"] is True
        await there.page.follow()
        assert there.effects == operations.EFFECTS


async def test_whatever_dies_the_repair_runs_once_and_the_alerts_stay() -> None:
    """The hub, the listeners and the worker's children are killed while a repair runs under a standing approval.

    It is not begun again, and the group and the people on duty are told that it was interrupted. An alert that is
    raised meanwhile is not lost, and its repair runs; the end of the first one arrives, too.
    """
    async with house("scenario-operations.md") as there:
        stack, hold = there.stack, there.stack.folder / "hold"
        await there.page.follow(until="When the repair fails")
        await asyncio.to_thread(hold.touch)
        await asyncio.to_thread(_raise, there, "web4")
        await there.hears("firing", "Running restart-web host=web4 by itself")
        await eventually(lambda: "restart web4" in there.effects, "the repair", 60)

        killed = {role: await asyncio.to_thread(stack.kill, role) for role in ("hub", "listeners")}
        for pid in await asyncio.to_thread(_children, stack):
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(_raise, there, "web5")  # nobody is there: Alertmanager sends it again
        await asyncio.to_thread(hold.unlink)
        for role, pid in killed.items():
            await asyncio.to_thread(stack.back, role, pid, 120)

        said = await there.hears(
            "/repair was interrupted", "instance=web5", "restart-web host=web5 succeeded", within=240
        )
        duty = (await there.duty.next()).text  # asked once: nothing else is told of the same end
        assert "may have had effects" in duty
        assert "/dlq replay" in duty
        ended = datetime.now(UTC).isoformat("T", "seconds")
        await asyncio.to_thread(_raise, there, "web4", f"--end={ended}")
        said += await there.hears("resolved")
        assert "instance=web4" in said[-1]
        assert sum("firing" in one for one in said) == 1
        assert there.effects == ["restart web1", "restart web4", "restart web5"]


def _raise(there: House, host: str, *more: str) -> None:
    command = [
        *("amtool", "alert", "add", "ServiceDown", f"instance={host}", "severity=critical", *more),
        f"--alertmanager.url=http://{there.page.instead['127.0.0.1:9093']}",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _children(stack: Stack) -> list[int]:
    """The processes in which automations run: those of the worker's nurseries."""
    worker = psutil.Process(stack.pid("worker"))
    return [
        child.pid for stem in worker.children() for nursery in stem.children() for child in nursery.children()
    ]
