"""A warm child: takes one order at a time over its channel, runs it, says how it ended, and waits for the next.

Both kinds of flow run in the main thread, so that a signal reaches either: `CANCEL` is Prefect's own cancellation
(`on_cancellation` hooks, state Cancelled), `END` is what Prefect calls a crash. An async flow is cancelled; a sync one
has `TerminationSignal` raised in it, as has an async one that blocks its loop until a second signal comes. A child that
was signalled, or whose worker is gone, leaves after its run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx
from pydantic import Field

from parley import settings
from parley.link.calls import RunOrder
from parley.messages.model import Model
from parley.runs.catalogue import Catalogue
from parley.runs.channel import Channel, adopt

if TYPE_CHECKING:
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

    from parley.runs.execute import Executor

logger = logging.getLogger(__name__)

CANCEL: Final = signal.SIGUSR1
END: Final = signal.SIGUSR2
"""Both end a child's run; a child without a run takes no notice."""


class Work(Model):
    """What the worker hands to a child: the order, and what its deployment wants in the environment.

    `waited`: so long that somebody may have cancelled the run meanwhile.
    """

    order: RunOrder
    waited: bool = False
    env: dict[str, str] = Field(default_factory=dict)


class Ended(Model):
    """What a child says of its run.

    `ended`: the engine came to its end. `failed`: it did not (Prefect is gone, the flow is not to be found, the server
    refused the start). `elsewhere`: another process has the run. `signalled`: a signal ended it. `state` is Prefect's
    state name, where known.
    """

    how: Literal["ended", "failed", "elsewhere", "signalled"]
    state: str = ""
    reason: str = ""


def serve(channel: Channel, flows: Mapping[str, Flow[..., Any]]) -> None:
    """Run what comes until the worker is gone or a signal ended a run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (CANCEL, END):
        signal.signal(number, signal.SIG_IGN)
    with ExitStack() as stack:
        executor = _entered(stack, channel)
        if executor is None:
            return
        child = Child(flows, executor)
        for number in (CANCEL, END):
            signal.signal(number, child.interrupt)
        channel.send({"ready": os.getpid()})
        while not child.signalled and (received := channel.receive()) is not None:
            if "register" in received[0]:
                channel.send(child.register(Catalogue.model_validate(received[0]["register"])))
                continue
            work = Work.model_validate(received[0]["work"])
            ended = child.run(work, lambda: channel.send({"begun": True}))
            channel.send({"ended": ended.model_dump(mode="json"), "memory_mb": _memory_mb()})


def _entered(stack: ExitStack, channel: Channel) -> Executor | None:
    """The engine with its clients, as soon as Prefect answers; None when the worker is gone before that."""
    from parley.runs.execute import Executor

    while True:
        try:
            return stack.enter_context(Executor())
        except (RuntimeError, httpx.HTTPError) as error:
            logger.warning("child %d waits for Prefect: %s", os.getpid(), error)
        # Nothing is sent to a child that is not ready: what can be read is the end.
        if select.select([channel], [], [], 1.0)[0]:
            return None


class Child:
    """Runs orders one after another; knows whether a signal came."""

    def __init__(self, flows: Mapping[str, Flow[..., Any]], executor: Executor) -> None:
        self._flows = flows
        self._executor = executor
        self._running = False
        self._task: asyncio.Task[Any] | None = None
        self.signalled = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler of `CANCEL` and `END`. Raises `TerminationSignal` where a task cannot be cancelled."""
        from prefect._internal import control_listener
        from prefect.exceptions import TerminationSignal

        if not self._running:
            return
        if number == CANCEL:
            # What Prefect's own runner would have told the engine: this termination is a cancellation.
            control_listener._set_intent("cancel")  # noqa: SLF001
        again, self.signalled = self.signalled, True
        if self._task is not None and not again:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        elif self._task is not None or not again:
            raise TerminationSignal(signal.SIGTERM)

    def run(self, work: Work, begun: Callable[[], None]) -> Ended:
        """Run one order to its end, whatever that is; `begun` is called when signals count."""
        from prefect.exceptions import TerminationSignal

        from parley.runs.execute import Relinquished

        try:
            with _environment(work.env):
                return Ended(how="ended", state=self._run(work, begun).name or "")
        except Relinquished as gone:
            if gone.elsewhere:
                return Ended(how="elsewhere", reason="another process has this run")
            over = gone.state is not None and (gone.state.is_final() or gone.state.is_paused())
            return Ended(how="ended" if over else "failed", state=_name(gone.state), reason=str(gone))
        except (TerminationSignal, asyncio.CancelledError):
            self.signalled = True
            return Ended(how="signalled")
        except BaseException as error:
            # A child outlives whatever a flow does, SystemExit and KeyboardInterrupt too; the worker judges.
            logger.exception("flow run %s: the engine did not come to its end", work.order.flow_run_id)
            return Ended(how="failed", reason=f"{type(error).__name__}: {error}"[:500])
        finally:
            self._running = False
            self._task = None

    def register(self, catalogue: Catalogue) -> dict[str, Any]:
        """Make sure that every automation has its deployment; `{"registered": catalogue}` or `{"failed": reason}`."""
        from parley.runs.register import ensure

        try:
            full = self._executor.call(ensure(self._flows, catalogue, settings.load()))
            return {"registered": full.model_dump(mode="json")}
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker asks again
            return {"failed": f"{type(error).__name__}: {error}"[:500]}

    def _run(self, work: Work, begun: Callable[[], None]) -> State[Any]:
        from prefect.client.schemas.objects import FlowRun

        order = work.order

        flow, flow_run = self._flow(order), FlowRun.model_validate(order.flow_run)
        if work.waited:
            flow_run = self._executor.sync_client.read_flow_run(flow_run.id)
        with self._handed(order):
            self._running = True
            begun()
            if flow.isasync:
                return self._executor.call(self._tracked(flow, flow_run))
            return self._executor.run(flow, flow_run)

    @contextmanager
    def _handed(self, order: RunOrder) -> Iterator[None]:
        from parley.runs import together
        from parley.runs.hub_thread import handed

        # The executor runs flows in a context of its own: the token has to be put there, not into ours.
        with ExitStack() as stack:
            self._executor.call(_enter(stack, handed(order.token)))
            if order.tokens:
                self._executor.call(_enter(stack, together.handed(order.tokens)))
            try:
                yield
            finally:
                self._executor.call(_close(stack))

    async def _tracked(self, flow: Flow[..., Any], flow_run: FlowRun) -> State[Any]:
        from parley.runs.execute import execute

        self._task = asyncio.current_task()
        return await execute(flow, flow_run)

    def _flow(self, order: RunOrder) -> Flow[..., Any]:
        from prefect.flows import load_flow_from_entrypoint

        from parley.runs.automation import declaration_of

        flow: Flow[..., Any] = self._flows.get(order.automation) or load_flow_from_entrypoint(
            order.entrypoint, use_placeholder_flow=False
        )
        declared = declaration_of(flow)
        return declared.together if order.tokens and declared and declared.together else flow


async def _enter(stack: ExitStack, entered: AbstractContextManager[None]) -> None:
    stack.enter_context(entered)


async def _close(stack: ExitStack) -> None:
    stack.close()


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _name(state: State[Any] | None) -> str:
    return (state.name if state else None) or ""


def _memory_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


if __name__ == "__main__":
    from parley.runs.nursery import preload

    serve(Channel(adopt(int(sys.argv[1]))), preload()[0])
