"""What the engine asks and tells the server at each start although both know it, left out by the clients.

It tells the retries and the version of the flow: an automation has no flow-level retries, which is what the server
assumes without being told, and the run names its deployment's version. And it reads the run that it was handed a moment
ago and has just set Running: nothing in it is new but what that means. Every other request is made as ever; the read is
made too where the run has run before, or where the server's answer was not a plain yes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus

_TOLD_AT_START: Final = frozenset({"flow_run_id", "flow_version", "empirical_policy"})

_starting: dict[UUID, FlowRun] = {}
_started: dict[UUID, FlowRun] = {}


@contextmanager
def starting(flow_run: FlowRun) -> Iterator[None]:
    """Within it `flow_run`, as the server holds it now, is begun by this process."""
    if not flow_run.run_count and flow_run.start_time is None:
        _starting[flow_run.id] = flow_run
    try:
        yield
    finally:
        _starting.pop(flow_run.id, None)
        _started.pop(flow_run.id, None)


def be_brief(client: PrefectClient, sync_client: SyncPrefectClient) -> None:
    """Have both clients leave out what says nothing and what is known."""
    _be_brief(client)
    _be_brief_sync(sync_client)


def _be_brief(client: Any) -> None:
    update, set_state, read = client.update_flow_run, client.set_flow_run_state, client.read_flow_run

    async def update_flow_run(*args: Any, **told: Any) -> httpx.Response:
        return httpx.Response(204) if _says_nothing(args, told) else await update(*args, **told)

    async def set_flow_run_state(flow_run_id: Any, *args: Any, **told: Any) -> OrchestrationResult[Any]:
        return _note(flow_run_id, await set_state(flow_run_id, *args, **told))

    async def read_flow_run(flow_run_id: UUID) -> FlowRun:
        known = _started.pop(flow_run_id, None)
        return known if known is not None else await read(flow_run_id)

    client.update_flow_run, client.set_flow_run_state = update_flow_run, set_flow_run_state
    client.read_flow_run = read_flow_run


def _be_brief_sync(client: Any) -> None:
    update, set_state, read = client.update_flow_run, client.set_flow_run_state, client.read_flow_run

    def update_flow_run(*args: Any, **told: Any) -> httpx.Response:
        return httpx.Response(204) if _says_nothing(args, told) else update(*args, **told)

    def set_flow_run_state(flow_run_id: Any, *args: Any, **told: Any) -> OrchestrationResult[Any]:
        return _note(flow_run_id, set_state(flow_run_id, *args, **told))

    def read_flow_run(flow_run_id: UUID) -> FlowRun:
        known = _started.pop(flow_run_id, None)
        return known if known is not None else read(flow_run_id)

    client.update_flow_run, client.set_flow_run_state = update_flow_run, set_flow_run_state
    client.read_flow_run = read_flow_run


def _note(flow_run_id: UUID | str, result: OrchestrationResult[Any]) -> OrchestrationResult[Any]:
    """Keep the run as it is once the server has let it start."""
    state = result.state
    run = _starting.pop(UUID(str(flow_run_id)), None)
    if (
        run is not None
        and result.status is SetStateStatus.ACCEPT
        and state is not None
        and state.is_running()
    ):
        _started[run.id] = run.model_copy(
            update={
                "state": state,
                "state_id": state.id,
                "state_type": state.type,
                "state_name": state.name,
                "run_count": 1,
                "start_time": state.timestamp,
            }
        )
    return result


def _says_nothing(args: tuple[Any, ...], told: dict[str, Any]) -> bool:
    """Whether this is the engine's update at a start, with a policy that means the same as an empty one.

    One with retries that whoever made the run asked for, or that has seen a pause, is not.
    """
    policy = told.get("empirical_policy")
    if args or told.keys() != _TOLD_AT_START or not isinstance(policy, FlowRunPolicy):
        return False
    return not (policy.retries or policy.pause_keys or policy.resuming or policy.retry_type)
