"""An account that another process holds is not fought for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from parley.errors import ConnectorError, Superseded
from parley.link.calls import Role
from parley.processes.holding import Patience
from parley.processes.listening import Listening
from tests.processes.listening_hub import QUICK, Hub, Platform, account

TAKEN = "another process holds this bot"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path).serving() as hub:
        hub.accounts = [account("one"), account("two")]
        yield hub


def listening(hub: Hub, platform: Platform, superseded: float) -> Listening:
    patience = Patience(
        first=QUICK.first, longest=QUICK.longest, prefect_away=QUICK.prefect_away, superseded=superseded
    )
    token = hub.tokens[Role.LISTENERS]
    return Listening(hub.address, token, everything=True, load=platform.load, patience=patience)


def loaded(platform: Platform, name: str, times: int) -> bool:
    return platform.loads.count(name) == times


async def test_it_is_shown_as_failed_and_left_alone(hub: Hub) -> None:
    platform = Platform()
    async with listening(hub, platform, superseded=60):
        await hub.is_told("one", "listening")
        await hub.is_told("two", "listening")
        platform.connectors["one"].fail(Superseded(TAKEN))
        await hub.is_told("one", "failed")
        assert hub.reason_of("one") == TAKEN
        for again in range(2, 5):  # meanwhile another account comes back from its failures, each time
            platform.connectors["two"].fail(ConnectorError("lost"))
            await hub.until(partial(loaded, platform, "two", again))
            await hub.is_told("two", "listening")
        assert platform.loads.count("one") == 1
        assert hub.state_of("one") == "failed"


async def test_it_is_tried_again_in_the_end(hub: Hub) -> None:
    platform = Platform()
    async with listening(hub, platform, superseded=0.05):
        await hub.is_told("one", "listening")
        platform.connectors["one"].fail(Superseded(TAKEN))
        await hub.is_told("one", "failed")
        await hub.is_told("one", "listening")


def test_it_is_tried_every_few_minutes() -> None:
    assert 120 <= Patience().superseded <= 600


async def test_a_person_who_saves_the_block_anew_does_not_wait(hub: Hub) -> None:
    platform = Platform()
    async with listening(hub, platform, superseded=60):
        await hub.is_told("one", "listening")
        platform.connectors["one"].fail(Superseded(TAKEN))
        await hub.is_told("one", "failed")
        await hub.call("accounts_changed")
        await hub.is_told("one", "listening")
