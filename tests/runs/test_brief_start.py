"""Two requests that Prefect's engine makes at each start are left out where they say nothing, and only there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAcceptDetails,
    StateRejectDetails,
)
from prefect.states import Cancelled, Running

from parley.runs.brief import be_brief, starting
from tests.prefect_fixture import PrefectServer, plain_environment

PROGRAM = """
import json

from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Pending

from parley.runs.execute import Executor


@flow
async def once(number: int) -> int:
    return number


@flow
def once_sync(number: int) -> int:
    return number


with Executor() as executor:
    asked = []

    async def note(request):
        asked.append(f"{request.method} {request.url.path.rsplit('/', 1)[-1]}")

    executor.client._client.event_hooks["request"].append(note)
    executor.sync_client._client.event_hooks["request"].append(
        lambda request: asked.append(f"{request.method} {request.url.path.rsplit('/', 1)[-1]}")
    )

    async def make(wanted, retries):
        client = executor.client
        deployment = await client.create_deployment(await client.create_flow(wanted), "brief")
        body = {"parameters": {"number": 7}, "state": {"type": "PENDING"}, "empirical_policy": {"retries": retries}}
        answer = await client.request("POST", f"/deployments/{deployment}/create_flow_run", json=body)
        return FlowRun.model_validate(answer.json())

    seen = {}
    for wanted in (once, once_sync):
        for retries in (None, 2):
            run = executor.call(make(wanted, retries))
            asked.clear()
            state = executor.run(wanted, run)
            patched = [one for one in asked if one.startswith("PATCH")]
            read = asked.count(f"GET {run.id}")
            after = executor.call(executor.client.read_flow_run(run.id))
            seen[f"{wanted.name} {retries}"] = [state.name, len(patched), read, after.empirical_policy.retries or 0]
print(json.dumps(seen))
"""


class Told:
    """What a client was told, and the client that is told it."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.reads: list[UUID] = []
        self.answer = OrchestrationResult[Any](
            state=Running(), status=SetStateStatus.ACCEPT, details=StateAcceptDetails()
        )
        self.client = SimpleNamespace(
            update_flow_run=self._update, set_flow_run_state=self._set_state, read_flow_run=self._read
        )
        self.sync_client = SimpleNamespace(
            update_flow_run=self._update_sync,
            set_flow_run_state=self._set_state_sync,
            read_flow_run=self._read_sync,
        )
        be_brief(cast("Any", self.client), cast("Any", self.sync_client))

    def start(self, run: FlowRun) -> list[FlowRun]:
        """What either client's first read after the start returns."""
        with starting(run):
            asyncio.run(self.client.set_flow_run_state(run.id, Running()))
            first = asyncio.run(self.client.read_flow_run(run.id))
        with starting(run):
            self.sync_client.set_flow_run_state(run.id, Running())
            return [first, self.sync_client.read_flow_run(run.id)]

    async def _set_state(self, *_: Any) -> OrchestrationResult[Any]:
        return self.answer

    def _set_state_sync(self, *_: Any) -> OrchestrationResult[Any]:
        return self.answer

    async def _read(self, run: UUID) -> FlowRun:
        return self._read_sync(run)

    def _read_sync(self, run: UUID) -> FlowRun:
        self.reads.append(run)
        return FlowRun(id=run, flow_id=uuid4(), name="read")

    async def _update(self, *_: Any, **told: Any) -> httpx.Response:
        return self._update_sync(**told)

    def _update_sync(self, *_: Any, **told: Any) -> httpx.Response:
        self.calls.append(told)
        return httpx.Response(204)


def at_start(**policy: Any) -> dict[str, Any]:
    """What the engine says of a run before its start."""
    return {
        "flow_run_id": uuid4(),
        "flow_version": "v1",
        "empirical_policy": FlowRunPolicy.model_validate(policy),
    }


@pytest.mark.parametrize("policy", [{}, {"retries": 0}, {"retries": 0, "retry_delay": 0}])
def test_no_retries_are_nothing_new(policy: dict[str, Any]) -> None:
    told = Told()
    assert asyncio.run(told.client.update_flow_run(**at_start(**policy))).is_success
    assert told.sync_client.update_flow_run(**at_start(**policy)).is_success
    assert told.calls == []


@pytest.mark.parametrize(
    "policy",
    [{"retries": 2}, {"retries": 0, "resuming": True}, {"pause_keys": {"1"}}, {"retry_type": "reschedule"}],
)
def test_what_the_server_could_not_know_is_sent(policy: dict[str, Any]) -> None:
    told = Told()
    asyncio.run(told.client.update_flow_run(**at_start(**policy)))
    told.sync_client.update_flow_run(**at_start(**policy))
    assert len(told.calls) == 2


def test_any_other_update_is_sent() -> None:
    told, run = Told(), uuid4()
    asyncio.run(told.client.update_flow_run(run, name="another"))
    told.sync_client.update_flow_run(**at_start(), tags=["new"])
    assert len(told.calls) == 2


def run(**values: Any) -> FlowRun:
    return FlowRun.model_validate({"flow_id": uuid4(), "name": "handed"} | values)


def test_a_run_that_has_just_been_handed_over_is_not_read_again() -> None:
    told, handed = Told(), run()

    for known in told.start(handed):
        assert (known.id, known.name, known.run_count) == (handed.id, "handed", 1)
        assert known.state == told.answer.state
        assert known.start_time
    assert told.reads == []


def test_the_second_read_asks_the_server() -> None:
    told, handed = Told(), run()
    with starting(handed):
        asyncio.run(told.client.set_flow_run_state(handed.id, Running()))
        names = [asyncio.run(told.client.read_flow_run(handed.id)).name for _ in range(2)]

    assert names == ["handed", "read"]


@pytest.mark.parametrize("values", [{"run_count": 1}, {"start_time": "2026-01-01T00:00:00Z"}])
def test_a_run_that_has_run_before_is_read(values: dict[str, Any]) -> None:
    told, handed = Told(), run(**values)

    assert [known.name for known in told.start(handed)] == ["read", "read"]


def test_a_run_that_was_not_let_start_is_read() -> None:
    told, handed = Told(), run()
    told.answer = OrchestrationResult[Any](
        state=Cancelled(), status=SetStateStatus.REJECT, details=StateRejectDetails(reason="cancelled")
    )

    assert [known.name for known in told.start(handed)] == ["read", "read"]


def test_nothing_is_known_once_the_run_is_over() -> None:
    told, handed = Told(), run()
    with starting(handed):
        asyncio.run(told.client.set_flow_run_state(handed.id, Running()))

    assert asyncio.run(told.client.read_flow_run(handed.id)).name == "read"


@pytest.mark.prefect
def test_a_run_starts_without_the_update_and_keeps_retries_that_were_asked_for(
    prefect_server: PrefectServer,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=plain_environment() | prefect_server.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "once None": ["Completed", 0, 0, 0],
        "once 2": ["Completed", 1, 0, 2],
        "once-sync None": ["Completed", 0, 0, 0],
        "once-sync 2": ["Completed", 1, 0, 2],
    }
