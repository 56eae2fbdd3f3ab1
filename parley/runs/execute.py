"""Run a flow run that exists already (PENDING, of a deployment) in this process, through Prefect's own engine.

Prefect opens a client, and a TLS context for it, for every run. An `Executor` opens one asynchronous and one
synchronous client, keeps them open, and runs one flow after another with them: the engine, tasks and `get_client()` in
a flow find them, since all of those look into Prefect's client contexts first.

These clients leave out two requests of each start that say or ask nothing: see `parley.runs.brief`. A connection that
is dead is left after seconds, not after Prefect's minute: see `parley.runs.dead_connections`.

Forking: importing this module, `prefect`, its engine and flows starts no thread (a test holds that), so a parent may
import all of it and fork. Threads start with the first log line of a run (`APILogWorkerThread`), the first event
(`EventsWorkerThread`), the first `run_coro_as_sync` (Prefect's global loop) and with a heartbeat. Prefect resets its
own after a fork, but nothing resets a lock that another thread held at that moment, and no client survives it: fork
first, then make the `Executor`, one in each child. The parent runs no flow, and uses no run logger, client or event.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self, TypeVar, cast

from prefect import Flow
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow_async, run_flow_sync
from prefect.logging.handlers import APILogWorker
from prefect.utilities.callables import get_call_parameters, parameters_to_args_kwargs

from parley.runs import lean, redaction
from parley.runs.brief import be_brief, starting
from parley.runs.dead_connections import doubting
from parley.runs.guard import HeldElsewhere

T = TypeVar("T")

FLUSH_SECONDS: Final = 5.0


class Relinquished(Exception):
    """The run is not, or no longer, this process's to end: it was over or running before the start, or is suspended.

    `state` is the state that says so, None when the server did not give one. `elsewhere`: the hub said that another
    process has, or had, the start.
    """

    def __init__(self, state: State[Any] | None, *, elsewhere: bool = False) -> None:
        super().__init__(f"the run is {state.name if state else 'not ours to run'}")
        self.state = state
        self.elsewhere = elsewhere


@asynccontextmanager
async def open_clients() -> AsyncIterator[PrefectClient]:
    """Open this process's two clients for the length of a block; tasks made inside find them too."""
    with SyncClientContext() as sync_clients:
        async with AsyncClientContext() as clients:
            be_brief(clients.client, sync_clients.client)
            doubting(clients.client._client)  # noqa: SLF001 - Prefect has no public name for it
            doubting(sync_clients.client._client)  # noqa: SLF001
            yield clients.client


async def execute(flow: Flow[..., Any], flow_run: FlowRun) -> State[Any]:
    """Run an asynchronous flow on this event loop and return its final state; to be awaited inside `open_clients`.

    What the flow raises is in the state, not raised. Raises Relinquished when the server did not let it start or go
    on, and passes cancellation on after the run has been set Crashed.
    """
    parameters = _startable(flow, flow_run)
    try:
        with starting(flow_run):
            state = await run_flow_async(flow, flow_run, parameters, return_type="state")
    except (Abort, Pause) as gone:
        raise _relinquished(gone) from gone
    return cast("State[Any]", state)


def execute_sync(flow: Flow[..., Any], flow_run: FlowRun) -> State[Any]:
    """Run a synchronous flow in this thread; as `execute` in all else. No event loop may be running in the thread."""
    parameters = _startable(flow, flow_run)
    try:
        with starting(flow_run):
            state = run_flow_sync(flow, flow_run, parameters, return_type="state")
    except (Abort, Pause) as gone:
        raise _relinquished(gone) from gone
    return cast("State[Any]", state)


def _relinquished(gone: Abort | Pause) -> Relinquished:
    return Relinquished(getattr(gone, "state", None), elsewhere=isinstance(gone, HeldElsewhere))


class Executor:
    """One process's engine for both kinds of flows, in the main thread, one run at a time.

    Installs the lean engine, which stays in the process. Between runs nothing is running: an exception of a flow, also
    a SystemExit in an asynchronous one, leaves it usable. Leaving the block sends the remaining logs and events.
    Entering it raises RuntimeError when the server cannot be reached.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._context = contextvars.copy_context()
        self._stack = AsyncExitStack()
        self.client: PrefectClient
        self.sync_client: SyncPrefectClient

    def __enter__(self) -> Self:
        lean.install()
        try:
            self.client = self.call(self._stack.enter_async_context(open_clients()))
        except BaseException:
            self._runner.close()
            raise
        self.sync_client = self._context[SyncClientContext.__var__].client  # opened by the line before
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stack.aclose())
        self._runner.close()
        flush()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this executor's event loop, with its clients, and return its result."""
        return self._runner.run(coroutine, context=self._context)

    def run(self, flow: Flow[..., Any], flow_run: FlowRun) -> State[Any]:
        """Run a flow of either kind and return its final state; see `execute`."""
        try:
            if flow.isasync:
                return self.call(execute(flow, flow_run))
            return self._context.run(execute_sync, flow, flow_run)
        finally:
            redaction.forget()


def flush() -> None:
    """Send this process's log lines and events that are still on their way; waits for at most `FLUSH_SECONDS`.

    Before `os._exit` nothing else does. Outside of an event loop only.
    """
    for sender in (APILogWorker, EventsWorker):
        sender.drain_all(timeout=FLUSH_SECONDS)


def _startable(flow: Flow[..., Any], flow_run: FlowRun) -> dict[str, Any]:
    """Return the run's parameters with the function's defaults, or raise Relinquished when it must not start.

    Prefect lets a cancelled and even a running run go to RUNNING: `flow_run` has to be as the server holds it now.
    Raises prefect.exceptions.SignatureMismatchError for parameters that the function does not take.
    """
    if flow_run.state and not (flow_run.state.is_pending() or flow_run.state.is_scheduled()):
        raise Relinquished(flow_run.state)
    arguments, keywords = parameters_to_args_kwargs(flow.fn, flow_run.parameters)
    return get_call_parameters(flow.fn, arguments, keywords, apply_defaults=True)
