"""The worker of the pool `parley-containers`: Prefect's Docker worker, with each run shut into a container of its own.

What Docker is asked for is decided by `_container_job` and not by the pool. A run reaches Prefect and the hub through
sockets that exist as long as it does (see `container_gate`). A container that outlives this worker has lost them with
it: it is removed at the next start, and its run is reported as lost by the reconciler.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from contextlib import AsyncExitStack, closing, suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import anyio.abc
import httpx
from docker.errors import APIError, DockerException, NotFound  # type: ignore[import-untyped]
from docker.models.containers import Container  # type: ignore[import-untyped]
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateType as StateFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.utilities.asyncutils import run_sync_in_worker_thread
from prefect_docker.worker import (  # type: ignore[import-untyped]
    DockerWorker,
    DockerWorkerJobConfiguration,
    DockerWorkerResult,
)
from pydantic import ValidationError

from parley import settings as all_settings
from parley.errors import LinkError, ParleyError
from parley.link.calls import RegisterRun, RunEnded, RunOrder
from parley.link.client import HubClient
from parley.messages.model import Model
from parley.runs import _container_job, container_engine, container_gate, container_pool, container_run
from parley.runs._container_job import OF_INSTALLATION, OF_RUN, ContainerJob
from parley.runs.child import CANCEL, Ended
from parley.runs.container_rules import Rules
from parley.runs.crew import Outcome
from parley.runs.settling import refuse, settle
from parley.settings import ContainerLimits, Containers, Settings

if TYPE_CHECKING:
    from prefect.client.schemas.responses import WorkerFlowRunResponse

logger = logging.getLogger(__name__)

CANCELLING_SECONDS: Final = 2.0
END_SECONDS: Final = 10.0
"""What a run gets to come to its end after it was told to, before its container is killed."""

KILLED: Final = 137


class _Asked(Model):
    """That a run is to end, and in which of the words of `RunEnded`."""

    how: str
    reason: str


class ContainerWorker(DockerWorker):  # type: ignore[misc]
    """Runs flow runs in containers on this machine's engine."""

    job_configuration = ContainerJob

    def __init__(self, settings: Settings, hub: HubClient, *, name: str) -> None:
        self.settings = settings
        self.containers: Containers = settings.file.containers or Containers()
        super().__init__(
            work_pool_name=container_pool.POOL_NAME, name=name, limit=self.containers.most, prefetch_seconds=0
        )
        self._hub = hub
        self._orders: dict[UUID, RunOrder] = {}
        self._held: dict[UUID, Container | None] = {}
        self._asked: dict[UUID, _Asked] = {}
        self._server: httpx.AsyncClient | None = None

    @staticmethod
    def __dispatch_key__() -> str:
        """Another than Prefect's own Docker worker has, whose `type` this one keeps."""
        return "parley-docker"

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """The template with which the pool is made, by whoever makes it."""
        return container_pool.base_job_template()

    @property
    def installation(self) -> str:
        """By which our containers are known among those of others."""
        return hashlib.sha256(str(self.settings.home).encode()).hexdigest()[:16]

    async def setup(self) -> None:
        """Remove what an earlier worker left, and begin."""
        await run_sync_in_worker_thread(self._sweep)
        self._server = container_gate.server_client()
        await super().setup()

    async def teardown(self, *exc_info: Any) -> None:
        """End."""
        await super().teardown(*exc_info)
        if self._server is not None:
            await self._server.aclose()

    async def wind_down(self) -> None:
        """End every container, and have the hub told of each."""
        for flow_run_id in list(self._held):
            await self._end(flow_run_id, "crashed", "the worker of its container was told to end")
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS + 5):
                while self._held:  # noqa: ASYNC110 - they end in tasks of Prefect's
                    await asyncio.sleep(0.1)

    # -- polling

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Poll once; an absent Prefect is waited for as long as it takes."""
        try:
            found: list[FlowRun] = await super().get_and_submit_flow_runs()
            return found
        except httpx.HTTPError as error:
            logger.warning("Prefect does not answer: %r", error)
            return []

    async def _sync_and_initialize(self) -> None:
        try:
            await super()._sync_and_initialize()
        except httpx.HTTPError as error:
            logger.warning("Prefect does not answer: %r", error)

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        fresh = [entry for entry in flow_run_response if entry.flow_run.id not in self._held]
        taken: list[FlowRun] = await super()._submit_scheduled_flow_runs(fresh)
        return taken

    async def _submit_run(self, flow_run: FlowRun) -> None:
        if await self._is_registered(flow_run):
            await super()._submit_run(flow_run)
            self._orders.pop(flow_run.id, None)
            return
        self._release_limit_slot(flow_run.id)
        self._submitting_flow_run_ids.discard(flow_run.id)

    async def _is_registered(self, flow_run: FlowRun) -> bool:
        """Whether the hub gave a token for this run; refused ones end here, others are found by the next poll."""
        try:
            answer = await self._hub.call("register", RegisterRun(flow_run_id=str(flow_run.id)), timeout=15)
        except ParleyError as error:
            if isinstance(error, LinkError) or error.retryable:
                logger.warning("flow run %s waits for the hub: %s", flow_run.id, error)
            else:
                logger.warning("flow run %s is refused: %s", flow_run.id, error)
                await refuse(self.client, flow_run.id, str(error))
            return False
        self._orders[flow_run.id] = RunOrder.model_validate(
            {**answer, "flow_run": flow_run.model_dump(mode="json")}
        )
        return True

    # -- a run

    async def run(
        self,
        flow_run: FlowRun,
        configuration: DockerWorkerJobConfiguration,
        task_status: anyio.abc.TaskStatus[str] | None = None,
    ) -> DockerWorkerResult:
        """Run one in its container; returns when that is gone, Prefect's state is right and the hub was told."""
        if not isinstance(configuration, ContainerJob) or self._server is None:
            raise LinkError("this worker has not begun.")
        # Read anew for each run: scripts and limits may have changed. A file that is broken keeps the one of before.
        self.settings = await asyncio.to_thread(all_settings.load)
        self.containers = self.settings.file.containers or self.containers
        order = self._orders[flow_run.id]
        self._held[flow_run.id] = None
        try:
            async with AsyncExitStack() as stack:
                folder = self.settings.run_folder / "gate" / flow_run.id.hex[-12:]
                rules = Rules(
                    flow_run_id=str(flow_run.id),
                    flow_id=str(flow_run.flow_id),
                    deployment_id=str(flow_run.deployment_id),
                    work_queue_id=str(flow_run.work_queue_id),
                    blocks=tuple(configuration.blocks),
                )
                allowed = ContainerLimits(
                    network=tuple(configuration.egress)
                )  # what Prefect holds is checked again
                targets = allowed.network or ()
                hub = f"unix:{self.settings.socket}"
                await stack.enter_async_context(
                    container_gate.opened(folder, rules, self._server, hub, targets)
                )
                _container_job.write_order(folder, order, self.settings, targets)
                labels = {OF_INSTALLATION: self.installation, OF_RUN: str(flow_run.id)}
                _container_job.arrange(configuration, self.containers, folder, targets, labels)
                limit = order.time_limit or self.settings.file.worker.time_limit
                timer = asyncio.get_running_loop().call_later(limit, self._out_of_time, flow_run.id)
                stack.callback(timer.cancel)
                stack.push_async_callback(run_sync_in_worker_thread, self._remove, flow_run.id)
                result = await super().run(flow_run, configuration, task_status)
                outcome = await run_sync_in_worker_thread(self._outcome, flow_run.id, result.status_code)
            await self._tell(flow_run.id, outcome)
            return DockerWorkerResult(status_code=0, identifier=result.identifier)
        finally:
            self._held.pop(flow_run.id, None)
            self._asked.pop(flow_run.id, None)

    def _create_and_start_container(self, configuration: DockerWorkerJobConfiguration) -> Any:
        container, event = super()._create_and_start_container(configuration)
        self._held[UUID(configuration.labels[OF_RUN])] = container
        return container, event

    def _outcome(self, flow_run_id: UUID, code: int) -> Outcome:
        container, asked = self._held.get(flow_run_id), self._asked.get(flow_run_id)
        ended, killed = Ended(how="failed"), False
        if container is not None:
            with suppress(DockerException, ValidationError, ValueError, RecursionError):
                container.reload()
                killed = bool(container.attrs["State"].get("OOMKilled"))
                ended = _said(container.logs(tail=20))
        if asked is not None and ended.state != "Completed":
            return Outcome(asked.how, ended.state, asked.reason)  # type: ignore[arg-type]
        if code == KILLED and killed:
            return Outcome("crashed", reason="its container ran out of memory and was killed")
        if ended.how == "ended":
            return Outcome("finished", ended.state)
        if ended.how == "elsewhere" or (code == 1 and ended.reason):
            return Outcome("refused", ended.state, ended.reason, begun=ended.how != "elsewhere")
        return Outcome("crashed", reason=f"its container ended with code {code}")

    async def _tell(self, flow_run_id: UUID, outcome: Outcome) -> None:
        outcome = await settle(self.client, str(flow_run_id), outcome)
        logger.info("flow run %s: %s %s %s", flow_run_id, outcome.how, outcome.state, outcome.reason)
        ended = RunEnded(
            flow_run_id=str(flow_run_id), how=outcome.how, state=outcome.state, reason=outcome.reason
        )
        try:
            await self._hub.call("run_ended", ended, timeout=60)
        except LinkError as error:
            logger.warning("the hub was not told that flow run %s has ended: %s", flow_run_id, error)

    # -- ending

    def _out_of_time(self, flow_run_id: UUID) -> None:
        if self._runs_task_group is not None:
            self._runs_task_group.start_soon(self._end, flow_run_id, "timed-out", "it took too long")

    async def _end(self, flow_run_id: UUID, how: str, reason: str) -> None:
        if flow_run_id in self._asked or flow_run_id not in self._held:
            return
        self._asked[flow_run_id] = _Asked(how=how, reason=reason)
        await run_sync_in_worker_thread(self._stop, flow_run_id)

    def _stop(self, flow_run_id: UUID) -> None:
        container = self._held.get(flow_run_id)
        if container is None:
            return
        with suppress(DockerException):
            container.kill(signal=CANCEL)
            with suppress(Exception):
                container.wait(timeout=END_SECONDS)
                return
            container.kill()

    def _remove(self, flow_run_id: UUID) -> None:
        container = self._held.get(flow_run_id)
        if container is not None:
            with suppress(NotFound, APIError):
                container.remove(force=True, v=True)

    def _sweep(self) -> None:
        with closing(container_engine.connect()) as client:
            label = f"{OF_INSTALLATION}={self.installation}"
            for container in client.containers.list(all=True, ignore_removed=True, filters={"label": label}):
                logger.warning("container %s was left by an earlier worker and is removed", container.name)
                with suppress(NotFound, APIError):
                    container.remove(force=True, v=True)

    # -- cancel, from the chat or Prefect's pages

    async def _setup_cancellation_observer(self) -> None:
        """Prefect's observer leaves runs alone that this worker has started; `watch_cancelling` does not."""

    async def watch_cancelling(self) -> None:
        """End the containers of runs that Prefect holds for cancelled or about to be, until cancelled."""
        while True:
            await asyncio.sleep(CANCELLING_SECONDS)
            held = [one for one in self._held if one not in self._asked]
            if not held:
                continue
            try:
                found = await self.client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(
                        id=FlowRunFilterId(any_=held),
                        state=FlowRunFilterState(
                            type=StateFilter(any_=[StateType.CANCELLING, StateType.CANCELLED])
                        ),
                    )
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round asks again
                logger.warning("Prefect could not be asked for cancelled runs: %r", error)
                continue
            for flow_run in found:
                await self._end(flow_run.id, "cancelled", "cancelled on request")


def _said(output: bytes) -> Ended:
    """How the run ended by its container's last words."""
    for line in reversed(output.decode(errors="replace").splitlines()):
        if line.startswith(container_run.SAID):
            return Ended.model_validate(json.loads(line.removeprefix(container_run.SAID)))
    return Ended(how="failed")
