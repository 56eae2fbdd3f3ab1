"""The update that Prefect's engine sends at each start is left out where it says nothing, and only there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRunPolicy

from parley.runs import execute
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
            after = executor.call(executor.client.read_flow_run(run.id))
            seen[f"{wanted.name} {retries}"] = [state.name, len(patched), after.empirical_policy.retries or 0]
print(json.dumps(seen))
"""


class Told:
    """What a client was told, and the client that is told it."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.client = SimpleNamespace(update_flow_run=self._update)
        self.sync_client = SimpleNamespace(update_flow_run=self._update_sync)
        execute._be_brief(cast("Any", self.client), cast("Any", self.sync_client))

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
        "once None": ["Completed", 0, 0],
        "once 2": ["Completed", 1, 2],
        "once-sync None": ["Completed", 0, 0],
        "once-sync 2": ["Completed", 1, 2],
    }
