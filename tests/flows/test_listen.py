"""The listener flow: held accounts are running flow runs in Prefect, and Prefect's cancel lets go of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling
from pydantic import Field, SecretStr

from blocks._base import ConnectorBlock
from flows.listen import listen
from parley.errors import ConfigurationError
from parley.messages.connector import Connector
from parley.processes import account_blocks, listener_runs
from parley.processes.holding import PrefectAway
from parley.processes.listener_runs import ListenerRuns
from parley.processes.listening import Listening
from parley.runs.execute import execute, open_clients
from parley.settings import Settings, load
from tests.prefect_fixture import free_port
from tests.processes.listening_hub import Hub, Platform, Radio, account
from tests.runs.prefect_client import IN_PREFECT, prefect_api

__all__ = ["prefect_api"]

pytestmark = IN_PREFECT

PLATFORM = Platform()
"""Where the Block of these tests connects to: a Block is made by Prefect and can be handed nothing."""


class RadioAccount(ConnectorBlock):
    """An account of the tests."""

    _block_type_name = "Parley test account"
    _block_type_slug = "parley-test-account"

    password: SecretStr = Field(default=SecretStr(""), description="Password.")

    def connector(self, account: str) -> Connector:
        PLATFORM.blocks[account] = self.password.get_secret_value()
        return Radio(account, PLATFORM)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    monkeypatch.setenv("PARLEY_OWN_PREFECT", "1")
    monkeypatch.delenv("PARLEY_HUB", raising=False)
    monkeypatch.setattr(listener_runs, "EVERY_SECONDS", 0.1)
    monkeypatch.setattr(listener_runs, "AGAIN_SECONDS", 0.1)
    return load()


@pytest.fixture
async def hub(settings: Settings) -> AsyncIterator[Hub]:
    async with Hub(settings.run_folder).serving() as hub:
        hub.accounts = [account("one")]
        yield hub


@asynccontextmanager
async def shown(listening: Listening, settings: Settings) -> AsyncIterator[None]:
    """Flow runs beside what is held, ended as the listeners process does it."""
    runs = ListenerRuns(listening, settings)
    running = asyncio.create_task(runs.run())
    try:
        yield
    finally:
        await listening.stop()
        await runs.finish()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def runs_of(client: PrefectClient, name: str) -> list[FlowRun]:
    found = await client.read_flow_runs(limit=200)
    return [run for run in found if run.parameters.get("account") == name]


async def until(client: PrefectClient, name: str, right: Callable[[list[FlowRun]], bool]) -> list[FlowRun]:
    """Ask Prefect until the runs of an account are as they should be."""
    async with asyncio.timeout(20):
        while True:
            runs = await runs_of(client, name)
            if right(runs):
                return runs
            await asyncio.sleep(0.05)


async def states_of(client: PrefectClient, flow_run_id: UUID) -> list[str]:
    return [state.name or "" for state in await client.read_flow_run_states(flow_run_id)]


def running(runs: list[FlowRun]) -> bool:
    return any(run.state_type is StateType.RUNNING for run in runs)


async def test_a_held_account_is_a_running_flow_run_until_it_is_let_go(hub: Hub, settings: Settings) -> None:
    platform = Platform()
    hub.accounts = [account("seen"), account("too")]
    async with get_client() as client:
        async with platform.listening(hub) as listening, shown(listening, settings):
            (run,) = await until(client, "seen", running)
            await until(client, "too", running)
            assert {"parley", "listener", "test"} <= set(run.tags)
            assert run.deployment_id is not None
        assert await states_of(client, run.id) == ["Pending", "Running", "Completed"]
        assert hub.state_of("seen") == "stopped"


async def test_a_run_that_a_killed_process_left_is_set_crashed(hub: Hub, settings: Settings) -> None:
    platform = Platform()
    hub.accounts = [account("left")]
    async with get_client() as client:
        async with platform.listening(hub) as listening, shown(listening, settings):
            (old,) = await until(client, "left", running)
        # As if the process had been killed in the middle: Prefect still has the run as running.
        await client.set_flow_run_state(old.id, _running_again(old), force=True)
        async with platform.listening(hub) as listening, shown(listening, settings):
            runs = await until(client, "left", lambda runs: len(runs) == 2 and running(runs))
            states = {run.id: run.state_type for run in runs}
            assert states.pop(old.id) is StateType.CRASHED
            assert list(states.values()) == [StateType.RUNNING]


async def test_cancel_in_prefect_lets_go_of_the_account(hub: Hub, settings: Settings) -> None:
    platform = Platform()
    hub.accounts = [account("unwanted"), account("wanted")]
    async with get_client() as client, platform.listening(hub) as listening, shown(listening, settings):
        (run,) = await until(client, "unwanted", running)
        await until(client, "wanted", running)
        await client.set_flow_run_state(run.id, Cancelling())
        await hub.is_told("unwanted", "stopped")
        assert hub.reason_of("unwanted") == "cancelled in Prefect"
        await until(client, "unwanted", lambda runs: runs[0].state_type is StateType.CANCELLED)
        assert hub.state_of("wanted") == "listening"
        await hub.call("accounts_changed")
        await hub.is_told("unwanted", "listening")
        await until(client, "unwanted", lambda runs: len(runs) == 2 and running(runs))


async def test_a_run_that_prefect_ended_by_itself_is_replaced(hub: Hub, settings: Settings) -> None:
    """The account is held all the while."""
    platform = Platform()
    hub.accounts = [account("robust")]
    async with get_client() as client, platform.listening(hub) as listening, shown(listening, settings):
        (run,) = await until(client, "robust", running)
        connector = platform.connectors["robust"]
        await client.delete_flow_run(run.id)
        await until(client, "robust", lambda runs: run.id not in {one.id for one in runs} and running(runs))
        assert platform.connectors["robust"] is connector


async def test_accounts_are_held_without_prefect(hub: Hub, settings: Settings) -> None:
    platform = Platform()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with platform.listening(hub) as listening, shown(listening, settings):
            await hub.is_told("one", "listening")
            with pytest.raises(PrefectAway):
                await account_blocks.load(account("one", "parley-test-account/one"), listening._hub)


async def test_in_a_process_of_its_own_the_flow_holds_its_account(hub: Hub, settings: Settings) -> None:
    """As a worker of the user's own runs it; the Block comes from Prefect, and is sealed from then on."""
    await RadioAccount(password=SecretStr("geheim")).asave("own", overwrite=True)
    hub.accounts = [account("own", "parley-test-account/own")]
    async with open_clients() as client:
        flow_run = await _deployed(client, "own")
        holding = asyncio.create_task(execute(listen, flow_run))
        await hub.is_told("own", "listening")
        assert PLATFORM.blocks["own"] == "geheim", "the connector gets it in clear"
        saved: RadioAccount = await RadioAccount.aload("own")
        assert saved.password.get_secret_value() == "sealed:v1:geheim"
        hub.accounts = []
        await hub.call("accounts_changed")
        state = await holding
    assert (state.name, state.message) == ("Completed", "own was let go")


async def test_a_block_that_cannot_be_used_says_what_to_do(hub: Hub, settings: Settings) -> None:
    async with Platform().listening(hub) as listening:
        for block, reason in (
            ("no-slash", "<type>/<name>"),
            ("parley-test-account/absent", "parley connect"),
        ):
            with pytest.raises(ConfigurationError, match=reason):
                await account_blocks.load(account("one", block), listening._hub)


async def _deployed(client: PrefectClient, name: str) -> FlowRun:
    deployment_id = await client.create_deployment(await client.create_flow(listen), "test-listen")
    return await client.create_flow_run_from_deployment(deployment_id, parameters={"account": name})


def _running_again(run: FlowRun) -> Any:
    assert run.state is not None
    return run.state.fresh_copy()
