"""The peer of the peak is counted fairly: from planned moments, and what it loses is not left out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.burst import by_second
from benchmarks.burst_peer import PeerPeak
from tests.ports import free_port

REFUSED, SILENT = 2, 3
"""Numbers of messages: one is answered by an error, one not at all while anybody waits."""


async def message(request: Request) -> Response:
    """Answers a message by its number."""
    number = json.loads(await request.body())["number"]
    if number == SILENT:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    return Response(status_code=503 if number == REFUSED else 202)


async def count(_: Request) -> Response:
    """As Prefect tells how many flow runs have completed."""
    return JSONResponse(7)


@asynccontextmanager
async def endpoint() -> AsyncIterator[str]:
    """A real server with both; its origin."""
    port = free_port()
    routes = [
        Route("/messages", message, methods=["POST"]),
        Route("/api/flow_runs/count", count, methods=["POST"]),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes), port=port, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn says it by this alone
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@pytest.mark.timeout(60)
async def test_what_is_refused_or_silent_counts_with_the_time_that_it_waited() -> None:
    peak = PeerPeak([0.0, 0.1, 0.2, 0.3])
    async with endpoint() as url:
        await peak.take(url, {"PREFECT_API_URL": f"{url}/api"}, 0.4, "number", grace=2.0)
    assert peak.answered == 7
    assert [one is None for one in peak.took] == [False, False, True, True]
    about = peak.conditions
    assert (about["messages"], about["acknowledged"], about["errors"]) == (4, 2, 1)
    # Given up two seconds after the peak, which lasted 0.4 s: they waited since their own moments.
    assert peak.milliseconds[2] - peak.milliseconds[3] == pytest.approx(100)
    assert peak.milliseconds[3] >= 2000
    assert max(peak.milliseconds[:2]) < 2000


def test_a_second_of_the_peak_has_those_that_were_planned_in_it() -> None:
    moments = [0.0, 0.5, 0.9, 1.0, 3.2]
    assert by_second([10.0, 30.0, 20.0, 5.0, 8.4], moments) == [30, 5, 0, 8]
