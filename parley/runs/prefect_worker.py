"""The worker of the work pool type `parley`: Prefect's worker, with warm children and orders from the hub.

Orders come two ways. The hub pushes those of the chat (`run`), and they are in a child within milliseconds. Runs that a
schedule, the Prefect UI or its API made are found by Prefect's own polling; each is registered at the hub first, and
one that the hub refuses ends before its first task. Without the hub such runs stay Scheduled: nothing runs unguarded.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Type, cast  # noqa: UP035
from uuid import UUID

import anyio.abc
import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.types._datetime import now
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field

from parley import settings as all_settings
from parley.errors import LinkError, ParleyError
from parley.failpoints import failpoint
from parley.link.calls import CancelOrder, Holding, RegisterRun, Role, RunEnded, RunOrder
from parley.link.client import HubClient, default_address, role_token
from parley.runs import pool
from parley.runs.catalogue import Catalogue
from parley.runs.child import Work
from parley.runs.crew import Crew, Outcome
from parley.runs.settling import refuse, settle

if TYPE_CHECKING:
    from prefect.client.schemas.responses import WorkerFlowRunResponse

logger = logging.getLogger(__name__)

STOP_PATIENCE: Final = 20.0
"""Seconds that running runs get to finish when the worker is told to stop."""

HEAR_PATIENCE: Final = 5.0
"""Seconds after that within which the hub takes the ends of the last ones."""

SETTLE_PATIENCE: Final = 2.0
"""Seconds after that which Prefect gets to take their states."""

TOLD_FIRST: Final = frozenset({"crashed", "timed-out", "cancelled"})
"""Ends that are what they are, whatever Prefect's state says: told before that is put right when time is short."""

CANCELLING_SECONDS: Final = 2.0
"""How often Prefect is asked which of the runs here are to be cancelled."""

MOST_IDS: Final = 200

ABANDONED_SECONDS: Final = 15.0
"""A run that is Cancelling for so long and never started is at no worker."""

REGISTER_SECONDS: Final = 5.0
"""After which the catalogue is published although Prefect does not have the deployments yet."""

VARIABLES_SECONDS: Final = 60.0
"""How long a deployment's job variables are believed."""


class ParleyJobConfiguration(BaseJobConfiguration):
    """What a deployment may set for its runs: environment and time limit."""

    time_limit_seconds: int | None = Field(
        default=None, description="Seconds after which a run's process is ended."
    )


class ParleyVariables(BaseVariables):
    """The job variables of the pool."""

    time_limit_seconds: int | None = Field(
        default=pool.TIME_LIMIT_SECONDS, description="Seconds after which a run's process is ended.", ge=1
    )


class ParleyWorkerResult(BaseWorkerResult):
    """How a polled run left its child; its state is settled by then."""


class ParleyWorker(BaseWorker[ParleyJobConfiguration, ParleyVariables, ParleyWorkerResult]):
    """Runs flow runs in warm processes on this machine; takes orders from the hub and, as a safety net, polls."""

    type = pool.POOL_TYPE
    job_configuration = ParleyJobConfiguration
    # `type` is the worker type here, so the built-in goes by its older name.
    job_configuration_variables: Type[ParleyVariables] | None = ParleyVariables  # noqa: UP006
    _display_name = "Parley"
    _description = pool.POOL_DESCRIPTION
    _documentation_url = "https://docs.prefect.io/v3/concepts/workers"

    def __init__(
        self,
        work_pool_name: str,
        *args: Any,
        settings: all_settings.Settings | None = None,
        stem: socket.socket | None = None,
        **kwargs: Any,
    ) -> None:
        """Take Prefect's own arguments, and a stem that was forked before this process had threads."""
        self.settings = settings or all_settings.load()
        # Nothing is gained by taking a run early: a child would only hold its place until the time has come.
        kwargs["prefetch_seconds"] = kwargs.get("prefetch_seconds") or 0
        kwargs["limit"] = kwargs.get("limit") or max(1, self.settings.file.worker.children - 1)
        super().__init__(work_pool_name, *args, **kwargs)
        self.crew = Crew(self.settings.file.worker, stem=stem, on_catalogue=self._has_catalogue)
        self.hub: HubClient | None = None
        self._catalogue: Catalogue | None = None
        self._registering: asyncio.Task[Any] | None = None
        self._told_of_hub = False
        self._registered: dict[UUID, RunOrder] = {}
        self._following: set[str] = set()
        self._ending: set[str] = set()
        self._told: set[str] = set()
        self._was_told = asyncio.Event()
        self._winding_down = False
        self._variables: dict[str, tuple[float, dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def work_pool_name(self) -> str:
        """The pool whose runs this worker takes."""
        return self._work_pool_name

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """The template with which the pool is made, by whoever makes it."""
        return pool.base_job_template()

    # -- begin and end

    async def setup(self) -> None:
        """Make children ready and reach for the hub at once, then for Prefect."""
        # Children reach the hub of the same installation, wherever this worker was started from.
        os.environ.setdefault("PARLEY_HOME", str(self.settings.home))
        self.crew.start()
        self._spawn(self._connect())
        await super().setup()
        self._spawn(self._watch_cancelling())

    async def teardown(self, *exc_info: Any) -> None:
        """Let running runs finish for a while, end the rest, and leave no process behind."""
        await self.wind_down()
        await super().teardown(*exc_info)

    async def wind_down(self) -> None:
        """Stop taking orders, see the running ones to their end, and tell the hub of each."""
        self._winding_down = True
        await self.crew.stop(STOP_PATIENCE)
        await self._hub_heard_of_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_PATIENCE):
                await self._none_of(lambda: self._ending)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.hub is not None:
            await self.hub.aclose()
            self.hub = None

    async def _hub_heard_of_all(self) -> None:
        try:
            async with asyncio.timeout(HEAR_PATIENCE):
                await self._none_of(self._untold)
        except TimeoutError:
            logger.warning("the hub could not be told of %d ended runs", len(self._untold()))

    async def _none_of(self, left: Callable[[], set[str]]) -> None:
        while left():
            self._was_told.clear()
            await self._was_told.wait()

    def _untold(self) -> set[str]:
        return (self._ending | self._following) - self._told

    # -- the hub

    async def _connect(self) -> None:
        while not self._has_token():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(1)
        self.hub = HubClient(
            default_address(self.settings),
            Role.WORKER,
            partial(role_token, self.settings, Role.WORKER),
            handlers={
                "run": self._on_run,
                "cancel": self._on_cancel,
                "reload": self._on_reload,
                "crew": self._on_crew,
            },
            name=self.name,
            on_connected=self._on_connected,
        )
        await self.hub.start()

    def _has_token(self) -> bool:
        try:
            role_token(self.settings, Role.WORKER)
            return True
        except LinkError as error:
            if not self._told_of_hub:
                logger.warning("waiting for the hub: %s", error)
            self._told_of_hub = True
            return False

    async def _on_connected(self, hub: HubClient) -> None:
        try:
            await hub.call("holding", Holding(flow_run_ids=(*self.crew.holding(), *self._ending)), timeout=10)
            if self._catalogue is not None:
                await hub.call("publish_catalogue", self._catalogue, timeout=10)
        except (LinkError, TimeoutError) as error:
            logger.warning("the hub did not take this worker's state: %s", error)

    async def _on_run(self, args: dict[str, Any]) -> None:
        failpoint("order.taken")
        _ = await self.take(RunOrder.model_validate(args))

    async def _on_cancel(self, args: dict[str, Any]) -> bool:
        return self.crew.end(
            CancelOrder.model_validate(args).flow_run_id, "cancelled", "cancelled on request"
        )

    async def _on_crew(self, _args: dict[str, Any]) -> dict[str, int]:
        return self.crew.counts()

    async def _on_reload(self, args: dict[str, Any]) -> None:
        self.settings = all_settings.load()
        await self.crew.reload(self.settings.file.worker)

    def _has_catalogue(self, catalogue: Catalogue) -> None:
        for broken in catalogue.broken:
            logger.warning("%s is not offered: %s", broken.source, broken.reason)
        if self._registering is not None:
            self._registering.cancel()
        self._registering = asyncio.create_task(self._register(catalogue))
        self._keep(self._registering)

    async def _register(self, catalogue: Catalogue) -> None:
        # With their deployments, and with existing deployments as commands; without, where Prefect is slow to come.
        unregistered = asyncio.get_running_loop().call_later(REGISTER_SECONDS, self._offer, catalogue)
        wait = 0.5
        while True:
            try:
                full = await self.crew.register(catalogue)
                break
            except (LinkError, OSError) as error:
                self._logger.warning("the deployments are not ensured yet: %s", error)
            await asyncio.sleep(wait)
            wait = min(wait * 2, 10.0)
        unregistered.cancel()
        self._offer(full)

    def _offer(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        if self.hub is not None:
            self._spawn(self._publish(self.hub, catalogue))

    async def _publish(self, hub: HubClient, catalogue: Catalogue) -> None:
        try:
            await hub.call("publish_catalogue", catalogue)
        except LinkError as error:
            logger.warning("the catalogue is published when the hub is back: %s", error)

    # -- a run's way

    async def take(self, order: RunOrder) -> asyncio.Future[Outcome]:
        """Queue an order at a child. Raises `LinkError` while the worker stops: the hub keeps the order."""
        variables = await self._variables_of(order)
        env = {name: str(value) for name, value in (variables.get("env") or {}).items() if value is not None}
        limit = (
            order.time_limit or variables.get("time_limit_seconds") or self.settings.file.worker.time_limit
        )
        outcome = self.crew.submit(Work(order=order, env=env), time_limit=limit)
        if order.flow_run_id not in self._following:
            self._following.add(order.flow_run_id)
            self._spawn(self._follow(order.flow_run_id, outcome))
        return outcome

    async def _follow(self, flow_run_id: str, future: asyncio.Future[Outcome]) -> None:
        outcome = await asyncio.shield(future)
        failpoint("order.ended")
        self._ending.add(flow_run_id)
        self._following.discard(flow_run_id)
        try:
            if self._winding_down and outcome.how in TOLD_FIRST:
                # There is little time left, and Prefect may need all of it: its state the hub can mend later.
                await self._tell(flow_run_id, outcome)
                await self._settled(flow_run_id, outcome)
            else:
                await self._tell(flow_run_id, await self._settled(flow_run_id, outcome))
        finally:
            self._ending.discard(flow_run_id)
            self._told.discard(flow_run_id)
            self._was_told.set()

    async def _tell(self, flow_run_id: str, outcome: Outcome) -> None:
        logger.info("flow run %s: %s %s %s", flow_run_id, outcome.how, outcome.state, outcome.reason)
        ended = RunEnded(flow_run_id=flow_run_id, how=outcome.how, state=outcome.state, reason=outcome.reason)
        try:
            if self.hub is not None:
                await self.hub.call("run_ended", ended, timeout=None)
        except LinkError as error:
            logger.warning("the hub was not told that flow run %s has ended: %s", flow_run_id, error)
        finally:
            self._told.add(flow_run_id)
            self._was_told.set()

    async def _settled(self, flow_run_id: str, outcome: Outcome) -> Outcome:
        if self._client is None:
            return outcome
        try:
            return await settle(self.client, flow_run_id, outcome)
        except Exception:
            logger.exception("flow run %s: its state in Prefect could not be set", flow_run_id)
            return outcome

    async def _variables_of(self, order: RunOrder) -> dict[str, Any]:
        """The deployment's job variables with the run's own over them, as read at most a minute ago."""
        deployment_id = order.flow_run.get("deployment_id")
        of_run = order.flow_run.get("job_variables") or {}
        if deployment_id is None or self._client is None:
            return dict(of_run)
        until, known = self._variables.get(deployment_id, (0.0, None))
        if known is None:
            known = await self._read_variables(deployment_id)
        elif until < asyncio.get_running_loop().time():
            self._spawn(self._read_variables(deployment_id))
        env = {**(known.get("env") or {}), **(of_run.get("env") or {})}
        return {**known, **of_run, "env": env}

    async def _read_variables(self, deployment_id: str) -> dict[str, Any]:
        loop, known = asyncio.get_running_loop(), self._variables.get(deployment_id, (0.0, {}))[1]
        try:
            async with asyncio.timeout(2):
                known = dict((await self.client.read_deployment(UUID(deployment_id))).job_variables or {})
        except Exception as error:  # noqa: BLE001 - a run does not wait for its deployment's extras
            logger.warning("the job variables of deployment %s are not known: %r", deployment_id, error)
        self._variables[deployment_id] = (loop.time() + VARIABLES_SECONDS, known)
        return known

    # -- polling, the safety net

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll once; an absent Prefect is waited for as long as it takes, since children may be at work."""
        try:
            return await super().get_and_submit_flow_runs()
        except httpx.HTTPError as error:
            self._logger.warning("Prefect does not answer: %r", error)
            return []

    async def _sync_and_initialize(self) -> None:
        try:
            await super()._sync_and_initialize()
        except httpx.HTTPError as error:
            self._logger.warning("Prefect does not answer: %r", error)

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        held = {*self.crew.holding(), *self._ending}
        fresh = [entry for entry in flow_run_response if str(entry.flow_run.id) not in held]
        return await super()._submit_scheduled_flow_runs(fresh)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        if await self._is_registered(flow_run):
            await super()._submit_run(flow_run)
            self._registered.pop(flow_run.id, None)
            return
        self._release_limit_slot(flow_run.id)
        self._submitting_flow_run_ids.discard(flow_run.id)

    async def _is_registered(self, flow_run: FlowRun) -> bool:
        """Whether the hub gave a token for this run; refused ones end here, others are found by the next poll."""
        if self.hub is None:
            return False
        try:
            answer = await self.hub.call("register", RegisterRun(flow_run_id=str(flow_run.id)), timeout=15)
            self._registered[flow_run.id] = _order(answer, flow_run)
            return True
        except ParleyError as error:
            if error.retryable:
                self._logger.warning("flow run %s waits for the hub: %s", flow_run.id, error)
                return False
            self._logger.warning("flow run %s is refused: %s", flow_run.id, error)
            await refuse(self.client, flow_run.id, str(error))
            return False

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ParleyJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ParleyWorkerResult:
        """Run a polled flow run in a child; returns when it has left it."""
        order = self._registered.pop(flow_run.id)
        future = await self.take(order)
        identifier = f"{socket.gethostname()}:{os.getpid()}"
        if task_status is not None:
            task_status.started(cast("int", identifier))  # text, as Prefect's own workers give it
        await asyncio.shield(future)
        return ParleyWorkerResult(status_code=0, identifier=identifier)

    # -- cancel from Prefect's pages

    async def _setup_cancellation_observer(self) -> None:
        """Prefect's observer leaves runs alone that this worker has started; `_watch_cancelling` does not."""

    async def _watch_cancelling(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(CANCELLING_SECONDS)
            rounds += 1
            try:
                await self._cancel_held()
                if rounds % 5 == 0:
                    await self._cancel_abandoned()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round asks again
                self._logger.warning("Prefect could not be asked for cancelled runs: %r", error)

    async def _cancel_held(self) -> None:
        if not (held := self.crew.holding()):
            return
        # Cancelled, too: one that had not started is set so at once, and would be started from the queue.
        state = _in_state(StateType.CANCELLING, StateType.CANCELLED)
        ids = FlowRunFilterId(any_=[UUID(flow_run_id) for flow_run_id in held[:MOST_IDS]])
        for flow_run in await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(id=ids, state=state)):
            self.crew.end(str(flow_run.id), "cancelled", "cancelled in Prefect")

    async def _cancel_abandoned(self) -> None:
        of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[self.work_pool_name]))
        cancelling = FlowRunFilter(state=_in_state(StateType.CANCELLING))
        for flow_run in await self.client.read_flow_runs(
            flow_run_filter=cancelling, work_pool_filter=of_pool
        ):
            if str(flow_run.id) not in self.crew.holding() and _abandoned(flow_run):
                await settle(self.client, str(flow_run.id), Outcome("cancelled", reason="it had not started"))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        self._keep(asyncio.create_task(work))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _order(answer: dict[str, Any], flow_run: FlowRun) -> RunOrder:
    return RunOrder.model_validate({**answer, "flow_run": flow_run.model_dump(mode="json")})


def _in_state(*types: StateType) -> FlowRunFilterState:
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def _abandoned(flow_run: FlowRun) -> bool:
    state = flow_run.state
    if state is None or flow_run.start_time is not None:
        return False
    return (now("UTC") - state.timestamp).total_seconds() > ABANDONED_SECONDS
