"""The flow that answers several requests of one automation: a task for each, named after its request.

Everything that a request has of its own it has here too: the start that the hub grants (rights are looked at again),
the lease, what it says and asks, its end and its answer. The flow run only carries them. It says how many were
answered, and is completed also when some failed: each of them is a failed task, and its person was told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import anyio
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Cancelled, Completed, Failed

from parley.errors import ConfigurationError, StartRefused
from parley.runs.catalogue import batch_flow
from parley.runs.guard import SUSPENDED, Body, HeldElsewhere, Place, run_async, run_sync
from parley.runs.hub_thread import hub

_HOOKS: Final = ("on_completion", "on_failure", "on_cancellation", "on_crashed", "on_running")

_tokens: list[Mapping[str, str]] = []

_deadline: ContextVar[float] = ContextVar("parley_deadline", default=math.inf)


class NotSuspendable(StartRefused):
    """The automation suspended its flow run, which others share."""


@contextmanager
def handed(tokens: Mapping[str, str]) -> Iterator[None]:
    """Execute a flow run for these runs: tokens by run id. A process has one such flow run at a time."""
    _tokens.append(tokens)
    try:
        yield
    finally:
        _tokens.pop()


def together(flow: Flow[..., Any], body: Body, command: str) -> Flow[..., Any]:
    """The flow beside this one that takes `asked`: a list of `{"run": id, "request": short id, "parameters": {...}}`.

    Raises `ConfigurationError` for a flow with hooks, which would be called for all requests at once.
    """
    for hook in _HOOKS:
        if getattr(flow, f"{hook}_hooks", None):
            raise ConfigurationError(
                f"the flow {flow.name!r} has {hook} hooks, called once a flow run: it cannot have batch too."
            )
    answer = _answer_async(flow, body, command) if flow.isasync else _answer_sync(flow, body, command)
    return Flow(
        answer,
        name=batch_flow(flow.name),
        version=flow.version,
        description=f"Answers several requests of {flow.name} that waited for their turn.",
        timeout_seconds=flow.timeout_seconds,
        task_runner=flow.task_runner,
        validate_parameters=False,
        persist_result=False,
        log_prints=flow.log_prints,
    )


def _answer_sync(flow: Flow[..., Any], body: Body, command: str) -> Callable[..., Any]:
    def one(request: str, run: str, parameters: dict[str, Any]) -> Any:  # noqa: ARG001 - names its task run
        try:
            return run_sync(body, _place(flow, run), parameters)
        except (HeldElsewhere, StartRefused) as error:
            return _left(error)
        except Pause:
            raise NotSuspendable(SUSPENDED) from None

    task = _task(one, command)

    def answer_several(asked: list[dict[str, Any]]) -> State[Any]:
        futures = task.map(*_columns(_ours(asked)))
        futures.wait()
        return _summary([future.state for future in futures])

    return answer_several


def _answer_async(flow: Flow[..., Any], body: Body, command: str) -> Callable[..., Any]:
    async def one(request: str, run: str, parameters: dict[str, Any]) -> Any:  # noqa: ARG001 - names its task run
        try:
            # What ends the group ends each with the same error: only the clock tells a time-out from a cancellation.
            return await run_async(body, _place(flow, run, _noted_deadline()), parameters)
        except (HeldElsewhere, StartRefused) as error:
            return _left(error)
        except Pause:
            raise NotSuspendable(SUSPENDED) from None

    task = _task(one, command)

    async def answer_several(asked: list[dict[str, Any]]) -> State[Any]:
        states: list[State[Any]] = []
        _note_deadline()

        async def run(row: tuple[Any, ...]) -> None:
            states.append(await task(*row, return_state=True))

        # Prefect's `map` has a thread and an event loop for each; the clients of this process belong to this loop.
        async with anyio.create_task_group() as group:
            for row in zip(*_columns(_ours(asked)), strict=True):
                group.start_soon(run, row)
        return _summary(states)

    return answer_several


# By functions of the module: `flow.serve()` pickles what the flow's own function names, and these by their names alone.
def _note_deadline() -> None:
    _deadline.set(anyio.current_effective_deadline())


def _noted_deadline() -> float:
    return _deadline.get()


def _task(function: Callable[..., Any], command: str) -> Task[..., Any]:
    return Task(
        function,
        name=command,
        task_run_name=command + "-{request}",
        persist_result=False,
        cache_policy=NO_CACHE,
    )


def _ours(asked: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    tokens = _tokens[-1] if _tokens else {}
    if not tokens:
        raise StartRefused(
            "this flow answers requests that the hub hands to it; start the automation itself."
        )
    # What has no token was ended while the flow run was made.
    return [one for one in asked if one["run"] in tokens]


def _columns(asked: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    return (
        [one["request"] for one in asked],
        [one["run"] for one in asked],
        [one["parameters"] for one in asked],
    )


def _place(flow: Flow[..., Any], run_id: str, deadline: float | None = None) -> Place:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise StartRefused("this task belongs to a flow run.")
    return Place(
        hub(),
        context.flow_run,
        flow.name,
        flow.timeout_seconds,
        flow.isasync,
        run_id=run_id,
        token=_tokens[-1][run_id],
        deadline=deadline,
    )


def _left(error: HeldElsewhere | StartRefused) -> State[Any]:
    """What becomes of the task: the hub knows why, and has told whoever asked."""
    if isinstance(error, HeldElsewhere):
        return Cancelled(message=str(error))
    return Failed(name="Refused", message=str(error))


def _summary(states: Sequence[State[Any]]) -> State[Any]:
    counts = Counter(state.name for state in states)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return Completed(message=f"{len(states)} requests: {told}." if states else "Nothing was left to answer.")


__all__ = ["handed", "together"]
