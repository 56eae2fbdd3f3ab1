"""docs/scenario-operations.md, word for word, in English and in Chinese; and what it says of a process that dies.

Real: the whole stack, Alertmanager with the page's own alertmanager.yml, Prosody, the scripts. WeCom is a fake of its
gateway, over TLS.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.fakes.wecom_bot import BOT_ID, SECRET, WecomBotDriver
from tests.fakes.xmpp import BOT, PASSWORD, Person
from tests.scenarios.alerting import alertmanager, free_port
from tests.scenarios.page import Page
from tests.scenarios.rooms_wecom import WecomRoom
from tests.scenarios.rooms_xmpp import XmppRoom
from tests.servers.prosody import Prosody
from tests.stack import ROOT, Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]

CHAT = "wrOgQhDgAAMYQiS5ol9G7gK9JVAAAA"
PEOPLE = {"ann": "ChenAn", "bob": "LiBo", "chenan": "ChenAn", "libo": "LiBo"}
"""WeCom's user ids of those who speak in the pages."""
TOKEN = "an-alert-token-of-one's-own"
FOLDER = "/usr/local/bin/"

# What the page calls "programs of yours": each writes down what it did; web2 does not restart, web3 is lost.
RESTART = """#!/bin/sh
echo "restart $1" >>"{folder}/effects"
while [ -e "{folder}/hold" ]; do sleep 0.1; done
case $1 in
web2 | web3) echo "Job for web.service failed."; exit 1 ;;
esac
echo "web on $1 is running."
"""
MOVE = """#!/bin/sh
echo "move $1" >>"{folder}/effects"
if [ "$1" = web3 ]; then echo "no such backend: web3"; exit 2; fi
echo "$1 takes no traffic."
"""


@dataclass
class House:
    """Everything that the page needs, and the page."""

    page: Page
    stack: Stack
    wecom: WecomBotDriver
    group: WecomRoom

    @property
    def effects(self) -> list[str]:
        """What the scripts did, in order."""
        file = self.stack.folder / "effects"
        return file.read_text().splitlines() if file.exists() else []


@asynccontextmanager
async def house(name: str) -> AsyncIterator[House]:
    """An installation with this page's settings, and all the others that it talks to."""
    async with AsyncExitStack() as there:
        wecom = await there.enter_async_context(WecomBotDriver())
        prosody = await there.enter_async_context(Prosody({"parley": PASSWORD, "ann": PASSWORD}))
        reader = Person("ann", PASSWORD, prosody.port)
        await reader.enter()
        there.push_async_callback(reader.leave)
        # The listeners trust the gateway's certificate as they would trust WeCom's: by the system's own setting.
        stack = Stack(extra={"SSL_CERT_FILE": wecom.fake.ca_file})
        there.callback(stack.close)
        page = _page(name, stack, prosody.port, wecom.fake.url, free_port())
        group = WecomRoom(wecom, CHAT, PEOPLE)
        page.rooms = dict.fromkeys(("WeCom group", "企业微信群"), group) | {
            room: XmppRoom(reader, BOT) for room in ("XMPP, ann@example.org", "XMPP，ann@example.org")
        }
        await asyncio.to_thread(_furnish, stack.folder)
        await there.enter_async_context(stack_with(stack, page.settings()))
        port = int(page.instead["127.0.0.1:9093"].partition(":")[2])
        await there.enter_async_context(alertmanager(stack.folder, page.file("yaml"), port))
        yield House(page, stack, wecom, group)


@asynccontextmanager
async def stack_with(stack: Stack, toml: str) -> AsyncIterator[None]:
    """The stack, running with these settings."""
    stack.configure(toml)
    async with stack:
        yield


def _page(name: str, stack: Stack, xmpp: int, gateway: str, port: int) -> Page:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return Page(
        ROOT / "docs" / name,
        environment=stack.environment | {"PATH": programs, "TZ": "UTC"},
        folder=stack.folder,
        instead={
            "127.0.0.1:8081": f"127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}",
            "127.0.0.1:9093": f"127.0.0.1:{port}",
            "/etc/alertmanager/parley-token": str(stack.folder / "alertmanager-token"),
            FOLDER: f"{stack.folder}/bin/",
        },
        more={
            "parley connect wecom_bot": f"--field url={gateway}",
            "parley connect xmpp": f"--field host=127.0.0.1 --field port={xmpp}"
            " --field allow_plain_on_loopback=true",
        },
    )


def _furnish(folder: Path) -> None:
    """The files that the page's reader has."""
    for name, secret in {
        "wecom-secret": SECRET,
        "alertmanager-token": TOKEN,
        "jabber-password": PASSWORD,
    }.items():
        (folder / name).write_text(f"{secret}\n")
    (folder / "bin").mkdir()
    for name, program in {"restart-web": RESTART, "move-traffic": MOVE}.items():
        path = folder / "bin" / name
        path.write_text(program.format(folder=folder))
        path.chmod(0o755)


@pytest.mark.parametrize("name", ["scenario-operations.md", "scenario-operations.zh-CN.md"])
async def test_the_page_is_true(name: str) -> None:
    async with house(name) as there:
        assert BOT_ID in there.page.path.read_text(encoding="utf-8")
        (receiver,) = YAML(typ="safe").load(there.page.file("yaml"))["receivers"]
        (hook,) = receiver["webhook_configs"]
        assert hook["send_resolved"] is True
        await there.page.follow()
        assert there.effects == [
            "restart web1",
            *("restart web2", "move web2"),
            *("restart web3", "move web3"),
        ]
