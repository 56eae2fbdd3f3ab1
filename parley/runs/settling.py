"""After a run has left its child: what Prefect should say of it, and what really happened as far as Prefect knows.

=============  ===============================================  ===================================================
the child      Prefect's state by then                          set here, and told to the hub
=============  ===============================================  ===================================================
ended          final                                            nothing; `finished` (`cancelled` if it is Cancelled)
cancelled      Crashed, Cancelled, or whatever it was           Cancelled; `cancelled`
over its time  Crashed, or whatever it was                      TimedOut (a failure); `timed-out`
died           Running                                          Crashed; `crashed`
died, failed   final                                            nothing; `finished`: only the word of it was lost
failed         Running: the engine fell over after the start    Crashed; `crashed`
failed         Pending: it never started                        nothing; `refused`: it can be ordered again
elsewhere      another process's to set                         nothing; `refused`: that process tells the end
=============  ===============================================  ===================================================

Where Prefect does not answer, the hub is told what the child's end says, and its reconciler mends the state later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Crashed, Failed
from prefect.utilities.engine import propose_state

from parley.runs.crew import Outcome

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that Prefect is asked again before the hub is told without it."""


async def settle(client: PrefectClient, flow_run_id: str, outcome: Outcome) -> Outcome:
    """Put Prefect's state right, and return what to tell the hub."""
    if outcome.how == "finished":
        return replace(outcome, how="cancelled") if outcome.state == "Cancelled" else outcome
    if outcome.how == "refused" and not outcome.begun:
        return outcome
    run_id = UUID(flow_run_id)
    try:
        async with asyncio.timeout(PATIENCE):
            return await insist(lambda: _settle(client, run_id, outcome))
    except TimeoutError:
        logger.warning(
            "Prefect does not answer: flow run %s stays as it is there (%s)", flow_run_id, outcome.how
        )
        return outcome


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask Prefect again and again while its errors may pass."""
    wait = 0.2
    while True:
        try:
            return await ask()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                raise
        await asyncio.sleep(wait)
        wait = min(wait * 2, 5.0)


async def refuse(client: PrefectClient, flow_run_id: UUID, reason: str) -> None:
    """End a run before its first task, with the reason in its state."""
    await client.set_flow_run_state(flow_run_id, Failed(name="Refused", message=reason), force=True)


async def _settle(client: PrefectClient, run_id: UUID, outcome: Outcome) -> Outcome:
    try:
        state = (await client.read_flow_run(run_id)).state
    except ObjectNotFound:
        return outcome
    settled = _SETTLE[outcome.how]
    return await settled(client, run_id, state, outcome)


async def _cancelled(
    client: PrefectClient, run_id: UUID, state: State[Any] | None, outcome: Outcome
) -> Outcome:
    if state is None or state.type is not StateType.CANCELLED:
        await client.set_flow_run_state(run_id, Cancelled(message=outcome.reason), force=True)
    return replace(outcome, state="Cancelled")


async def _timed_out(client: PrefectClient, run_id: UUID, _: State[Any] | None, outcome: Outcome) -> Outcome:
    await client.set_flow_run_state(run_id, Failed(name="TimedOut", message=outcome.reason), force=True)
    return replace(outcome, state="TimedOut")


async def _lost(client: PrefectClient, run_id: UUID, state: State[Any] | None, outcome: Outcome) -> Outcome:
    if state is not None and state.is_crashed():
        return replace(outcome, how="crashed", state="Crashed")
    if state is not None and state.is_final():
        return replace(
            outcome, how="cancelled" if state.is_cancelled() else "finished", state=state.name or ""
        )
    if outcome.how == "refused" and (state is None or not state.is_running()):
        return outcome
    try:
        proposed = await propose_state(client, Crashed(message=outcome.reason), flow_run_id=run_id)
    except Abort:
        return outcome
    return replace(outcome, how="crashed", state=proposed.name or "")


_SETTLE: Final = {"cancelled": _cancelled, "timed-out": _timed_out, "crashed": _lost, "refused": _lost}
