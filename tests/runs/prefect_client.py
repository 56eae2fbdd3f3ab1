"""Prefect in the test's own process: settings of the session's server, and runs of real deployments."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import run_flow
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from tests.prefect_fixture import PrefectServer

# Prefect leaves sockets of its client to the garbage collector, which tells pytest in whatever test comes next.
IN_PREFECT = [
    pytest.mark.prefect,
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def prefect_api(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """This process talks to the session's Prefect server."""
    with temporary_settings(
        {
            PREFECT_API_URL: prefect_server.api,
            PREFECT_API_AUTH_STRING: prefect_server.environment["PREFECT_API_AUTH_STRING"],
            PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True,
            PREFECT_LOGGING_TO_API_ENABLED: False,
        }
    ):
        yield prefect_server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def deployed_run(flow: Flow[..., Any], tags: list[str] | None = None, **parameters: Any) -> FlowRun:
    """A flow run of a deployment of this flow, as the dispatcher makes it."""
    async with get_client() as client:
        flow_id = await client.create_flow(flow)
        deployment = await client.create_deployment(flow_id, name="parley", tags=tags or ["parley"])
        return await client.create_flow_run_from_deployment(deployment, parameters=parameters)


async def read_run(flow_run: FlowRun) -> FlowRun:
    """The run as the server has it now."""
    async with get_client() as client:
        return await client.read_flow_run(flow_run.id)


async def executed(flow: Flow[..., Any], flow_run: FlowRun) -> State[Any]:
    """Run it as a worker's process does; a sync flow on another thread, without a loop."""
    if flow.isasync:
        running: Any = run_flow(flow, flow_run=flow_run, return_type="state")
        return await running  # type: ignore[no-any-return]
    return await asyncio.to_thread(run_flow, flow, flow_run=flow_run, return_type="state")  # type: ignore[arg-type]


async def run_deployed(flow: Flow[..., Any], **parameters: Any) -> State[Any]:
    """Deploy, create a run, run it; return its final state."""
    return await executed(flow, await deployed_run(flow, **parameters))
