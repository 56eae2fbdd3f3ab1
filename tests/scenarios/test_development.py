"""docs/scenario-development.md, word for word; and what it says of calls that come twice, of a hub that dies, of cuts.

Real: the whole stack, and HTTP calls to the hooks' port with the forges' signatures. Discord is a fake of its gateway
and its REST interface.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes._driver import eventually
from tests.fakes.discord import DiscordDriver, DiscordFake
from tests.scenarios import development
from tests.scenarios.development import Places
from tests.scenarios.forges import GitHubRoom
from tests.scenarios.page import Page
from tests.scenarios.rooms_discord import DiscordRoom
from tests.stack import ROOT, Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(900)]

WITHIN = 60.0


@dataclass
class House:
    """Everything that the page needs, and the page."""

    page: Page
    stack: Stack
    places: Places

    @property
    def discord(self) -> DiscordDriver:
        return self.places.discord

    @property
    def dev(self) -> DiscordRoom:
        return self.places.dev

    @property
    def announcements(self) -> DiscordRoom:
        return self.places.announcements

    @property
    def github(self) -> GitHubRoom:
        return self.places.github


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """An installation with this page's settings, a Discord server, and two repositories."""
    async with AsyncExitStack() as there:
        discord = DiscordDriver()
        # The listeners are another process: they find their way by the system's own names.
        discord.fake = DiscordFake(host="127.0.0.1", heartbeat=1.0)
        await there.enter_async_context(discord)
        stack = Stack()
        there.callback(stack.close)
        for name, secret in development.SECRETS.items():
            (stack.folder / name).write_text(f"{secret}\n")
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = stack.environment | {"PATH": programs}
        page = Page(ROOT / "docs" / development.NAME, environment, folder=stack.folder)
        hooks = f"http://127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}/hooks"
        places = development.enter(page, discord, hooks)
        stack.configure(page.settings())
        await there.enter_async_context(stack)
        yield House(page, stack, places)


async def test_the_page_is_true(house: House) -> None:
    """And nothing is said that the page does not tell; a call made again says nothing new."""
    await house.page.follow()
    await house.places.nothing_else_was_said()


@pytest.mark.parametrize("how", ["rate_limited", "done_reset"])
async def test_what_is_told_while_the_hub_dies_is_said_once(house: House, how: str) -> None:
    """Between the call and the message: while Discord lets us wait, or when its answer is lost."""
    await house.page.follow(until="A push")
    before = len(house.dev.sent())
    house.discord.fake.fail_next(how, "send", retry_after=3)
    await house.github.says("alice", "opens pull request 12")
    killed = house.stack.kill("hub")
    await asyncio.to_thread(house.stack.back, "hub", killed)
    await eventually(lambda: len(house.dev.sent()) > before, "the pull request is told", WITHIN)
    assert await house.github.post(house.github.calls[-1]) == 200
    await house.github.says("alice", "publishes release v1.0.0")
    await eventually(lambda: len(house.announcements.sent()) == 1, "what comes after", WITHIN)
    await eventually(lambda: len(house.dev.sent()) == before + 2, "what comes after, here too", WITHIN)
    assert ["#12" in one.text for one in house.dev.sent()[before:]] == [True, False]


async def test_what_people_write_while_the_gateway_is_cut_is_answered_once(house: House) -> None:
    await house.page.follow(until="A push")
    before = len(house.dev.sent())
    gateway = house.discord.fake.gateway
    sessions = len(gateway.sessions)
    gateway.cut()
    for number in range(1000, 1005):
        await house.dev.says("bob", f"@parley /order {number}")
    await eventually(lambda: len(house.dev.sent()) == before + 5, "five answers", WITHIN)
    gateway.cut()
    await house.dev.says("bob", "@parley /order 9999")
    await eventually(lambda: len(house.dev.sent()) == before + 6, "one more", WITHIN)
    said = [one.text for one in house.dev.sent()[before:]]
    assert sorted(text.partition(":")[0].strip("*") for text in said[:5]) == [
        f"Order {number}" for number in range(1000, 1005)
    ]
    assert said[5] == "There is no order 9999."
    assert len(gateway.sessions) == sessions, "the session went on"
    assert gateway.sessions[-1].resumed_from
