"""What docs/scenario-operations.md is followed with, wherever the installation runs: WeCom, XMPP, the scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fakes.wecom_bot import SECRET, WecomBotDriver
from tests.fakes.xmpp import BOT, PASSWORD, Person
from tests.scenarios.page import Page
from tests.scenarios.rooms_wecom import WecomRoom
from tests.scenarios.rooms_xmpp import XmppRoom
from tests.servers.prosody import Prosody

CHAT: Final = "wrOgQhDgAAMYQiS5ol9G7gK9JVAAAA"
PEOPLE: Final = {"ann": "ChenAn", "bob": "LiBo", "chenan": "ChenAn", "libo": "LiBo"}
"""WeCom's user ids of those who speak in the pages."""
SECRETS: Final = {
    "wecom-secret": SECRET,
    "alertmanager-token": "an-alert-token-of-one's-own",
    "jabber-password": PASSWORD,
}
"""The files that the page's reader has."""
FOLDER: Final = "/usr/local/bin/"
ALERTMANAGER: Final = "127.0.0.1:9093"

# What the page calls "programs of yours": each writes down what it did; web2 does not restart, web3 is lost.
_RESTART = """#!/bin/sh
echo "restart $1" >>"{folder}/effects"
while [ -e "{folder}/hold" ]; do sleep 0.1; done
case $1 in
web2 | web3) echo "Job for web.service failed."; exit 1 ;;
esac
echo "web on $1 is running."
"""
_MOVE = """#!/bin/sh
echo "move $1" >>"{folder}/effects"
if [ "$1" = web3 ]; then echo "no such backend: web3"; exit 2; fi
echo "$1 takes no traffic."
"""
EFFECTS: Final = [
    "restart web1",
    *("restart web2", "move web2"),
    *("restart web3", "move web3"),
]
"""What the scripts did when the whole page was followed."""


@dataclass
class Neighbours:
    """Those that the installation talks to."""

    wecom: WecomBotDriver
    xmpp_port: int
    reader: Person


@asynccontextmanager
async def neighbours() -> AsyncIterator[Neighbours]:
    """A gateway of WeCom, and a Prosody where ann reads; both on loopback."""
    async with WecomBotDriver() as wecom, Prosody({"parley": PASSWORD, "ann": PASSWORD}) as prosody:
        reader = Person("ann", PASSWORD, prosody.port)
        await reader.enter()
        try:
            yield Neighbours(wecom, prosody.port, reader)
        finally:
            await reader.leave()


def enter(
    page: Page, there: Neighbours, *, hooks: str, alertmanager: int, folder: str
) -> tuple[WecomRoom, XmppRoom]:
    """Let the page be held there; returns WeCom's group, and where the person on duty reads.

    `hooks` and `alertmanager` are ports, `folder` is where the installation has the programs.
    """
    page.instead = {
        "127.0.0.1:8081": f"127.0.0.1:{hooks}",
        ALERTMANAGER: f"127.0.0.1:{alertmanager}",
        "/etc/alertmanager/parley-token": str(page.folder / "alertmanager-token"),
        FOLDER: f"{folder}/",
    }
    page.more = {
        "parley connect wecom_bot": f"--field url={there.wecom.fake.url}",
        "parley connect xmpp": f"--field host=127.0.0.1 --field port={there.xmpp_port}"
        " --field allow_plain_on_loopback=true",
    }
    group, duty = WecomRoom(there.wecom, CHAT, PEOPLE), XmppRoom(there.reader, BOT)
    page.rooms = dict.fromkeys(("WeCom group", "企业微信群"), group) | dict.fromkeys(
        ("XMPP, ann@example.org", "XMPP，ann@example.org"), duty
    )
    return group, duty


def put_programs(folder: Path, notes: str) -> None:
    """The two programs of the page; they write down what they do in `notes`, a folder where they run."""
    folder.mkdir(exist_ok=True)
    for name, program in {"restart-web": _RESTART, "move-traffic": _MOVE}.items():
        path = folder / name
        path.write_text(program.format(folder=notes))
        path.chmod(0o755)


def effects(notes: Path) -> list[str]:
    """What the programs did, in order."""
    file = notes / "effects"
    return file.read_text().splitlines() if file.exists() else []
