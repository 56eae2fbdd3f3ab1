"""Shows each held account as a running flow run in Prefect, and lets it be cancelled there.

The holding comes first and does not wait: Prefect may be starting, restarting or gone while messages come in. A flow
run of `listen/parley` is attached as soon as Prefect answers, joins the holding in this process, and ends with it; if
the run is lost, the account is held on and gets another run. In a worker of the user's own the same flow holds the
account by itself: see flows/listen.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any, Final
from uuid import UUID, uuid4

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Pending

from parley.errors import ConfigurationError
from parley.processes.holding import Ended, Holding
from parley.processes.listening import Listening
from parley.runs import lean
from parley.runs.describe import DEPLOYMENT
from parley.runs.execute import Relinquished, execute, open_clients
from parley.runs.guard import TAG
from parley.runs.register import entrypoint_of_listener
from parley.settings import Settings

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 3.0
"""How often Prefect is asked whether a run is to be cancelled."""

CREATE_SECONDS: Final = 10.0
AGAIN_SECONDS: Final = 5.0
END_SECONDS: Final = 2.5
"""What runs get to reach their last state when the process stops."""

UNFINISHED: Final = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


class ListenerRuns:
    """Keeps a flow run beside every account that `listening` holds; `run` does it until cancelled."""

    def __init__(self, listening: Listening, settings: Settings) -> None:
        self._listening = listening
        self._settings = settings
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._ids: dict[UUID, str] = {}
        self._not_before: dict[str, float] = {}

    async def run(self) -> None:
        """Attach, watch for cancellation, attach again; Prefect may come and go."""
        lean.install()
        flow = _listen_flow()
        told = ""
        while True:
            try:
                async with open_clients() as client:
                    told = ""
                    await self._attend(client, flow)
            except Exception as error:  # noqa: BLE001 - Prefect's absence has many faces; accounts are held meanwhile
                text = f"{type(error).__name__}: {error}"
                if text != told:
                    logger.warning("accounts are held without a flow run until Prefect answers (%s)", text)
                told = text
            await asyncio.sleep(AGAIN_SECONDS)

    async def finish(self) -> None:
        """Wait until the runs of accounts that were let go have reached their last state, but not for long."""
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=END_SECONDS)

    async def _attend(self, client: PrefectClient, flow: Flow[..., Any]) -> None:
        deployment_id = await self._deployment(client, flow)
        try:
            while True:
                self._attach_missing(client, flow, deployment_id)
                self._listening.changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_SECONDS):
                        await self._listening.changed.wait()
                await self._obey(client)
        finally:
            for task in self._runs.values():
                task.cancel()
            await asyncio.gather(*self._runs.values(), return_exceptions=True)

    def _attach_missing(self, client: PrefectClient, flow: Flow[..., Any], deployment_id: UUID) -> None:
        now = asyncio.get_running_loop().time()
        for name, holding in self._listening.holdings.items():
            if name in self._runs or not holding.confirmed or now < self._not_before.get(name, 0):
                continue
            self._not_before[name] = now + AGAIN_SECONDS
            task = asyncio.create_task(self._accompany(client, flow, deployment_id, holding))
            self._runs[name] = task
            task.add_done_callback(lambda _, name=name: self._detached(name))  # type: ignore[misc]

    def _detached(self, name: str) -> None:
        self._runs.pop(name, None)
        for flow_run_id in [one for one, account in self._ids.items() if account == name]:
            del self._ids[flow_run_id]

    async def _accompany(
        self, client: PrefectClient, flow: Flow[..., Any], deployment_id: UUID, holding: Holding
    ) -> None:
        """One flow run from its creation to its last state."""
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                # The hub lets one process hold an account: whatever run is unfinished belongs to a dead one.
                await _set_crashed(client, deployment_id, holding.name)
                flow_run = await _create(client, deployment_id, holding)
            self._ids[flow_run.id] = holding.name
            state = await execute(flow, flow_run)
            logger.info("account %s: its flow run %s is %s", holding.name, flow_run.name, state.name)
        except Relinquished as gone:
            logger.warning("account %s: its flow run was ended from outside: %s", holding.name, gone)
        except Exception as error:  # noqa: BLE001 - the account is held; another run is attached later
            logger.warning("account %s has no flow run for now: %r", holding.name, error)

    async def _obey(self, client: PrefectClient) -> None:
        """Let go of the accounts whose run is to be cancelled; give up runs that Prefect has ended by itself."""
        asked = dict(self._ids)
        if not asked:
            return
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                runs = await client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(asked)))
                )
        except Exception as error:  # noqa: BLE001 - asked again in a moment
            logger.info("Prefect could not be asked about the listeners' runs: %r", error)
            return
        states = {flow_run.id: flow_run.state for flow_run in runs}
        for flow_run_id, account in asked.items():
            state = states.get(flow_run_id)
            if state and (state.is_cancelling() or state.is_cancelled()):
                logger.info("account %s: cancelled in Prefect", account)
                await self._listening.release(account, Ended.CANCELLED, "cancelled in Prefect")
            elif (state is None or state.is_final()) and account in self._listening.holdings:
                logger.info(
                    "account %s: its flow run was ended by somebody else (%s); it gets another",
                    account,
                    state.name if state else "deleted",
                )
                self._give_up(account)

    def _give_up(self, account: str) -> None:
        if task := self._runs.get(account):
            task.cancel()

    async def _deployment(self, client: PrefectClient, flow: Flow[..., Any]) -> UUID:
        """The deployment `listen/parley`; made when `parley.runs.register` has not been here yet."""
        with suppress(ObjectNotFound):
            return (await client.read_deployment_by_name(f"{flow.name}/{DEPLOYMENT}")).id
        return await client.create_deployment(
            await client.create_flow(flow),
            DEPLOYMENT,
            description=flow.description,
            tags=[TAG, "listener"],
            work_pool_name=self._settings.file.prefect.pool,
            entrypoint=_found()[1],
            enforce_parameter_schema=True,
            parameter_openapi_schema=flow.parameters.model_dump_for_openapi(),
            pull_steps=[],
        )


async def _create(client: PrefectClient, deployment_id: UUID, holding: Holding) -> FlowRun:
    return await client.create_flow_run_from_deployment(
        deployment_id,
        parameters={"account": holding.name},
        name=f"{holding.name}-{os.getpid()}",
        tags=[holding.account.platform],
        # Pending from the start: a worker's polling must not take it as well.
        state=Pending(message="taken by the listeners"),
        idempotency_key=f"listen:{holding.name}:{uuid4()}",
    )


async def _set_crashed(client: PrefectClient, deployment_id: UUID, account: str) -> None:
    left = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))),
    )
    for flow_run in left:
        if flow_run.parameters.get("account") == account:
            await client.set_flow_run_state(
                flow_run.id, Crashed(message="the process that held the account is gone"), force=True
            )


def _found() -> tuple[Flow[..., Any], str]:
    found = entrypoint_of_listener()
    if found is None:
        raise ConfigurationError("there is no flow that listens: flows/listen.py is missing.")
    return found


def _listen_flow() -> Flow[..., Any]:
    return _found()[0]
