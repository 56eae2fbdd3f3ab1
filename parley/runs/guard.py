"""What stands between Prefect's engine and an automation's function.

In a flow run of a deployment it asks the hub for the start, keeps the lease, calls the function, and closes the request
with the answer before Prefect is told. Everywhere else (a script, a test, a sub-flow) the function runs as it is.

How a granted run ends:

=============================  ==========================================  ===========================
in the function                to the hub                                  to Prefect
=============================  ==========================================  ===========================
a value                        done, with the rendered answer              the value
bad parameters                 failed, kind `arguments`                    the error
any other error                failed, with a sentence that is public      the error, with its traceback
the flow's time-out            failed, kind `timeout`                      the time-out
suspended                      suspended                                   passed on
not called: answered in        nothing: the other one says so              state Cancelled
another flow run
cancelled by the hub           nothing: the hub asked for it               state Cancelled
ended by a signal, aborted     nothing: whoever did it says so             passed on
=============================  ==========================================  ===========================

An async flow is cancelled where it awaits. A sync one cannot be stopped from inside its process, except where it waits
for an answer: the worker ends the process.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import anyio
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, Pause
from prefect.states import Cancelled

from parley.errors import (
    AlreadyStarted,
    CommandError,
    ParleyError,
    RunError,
    StartedElsewhere,
    StartRefused,
)
from parley.failpoints import failpoint
from parley.link.calls import FinishCall, StartCall, Started
from parley.messages.model import Reply
from parley.runs import redaction
from parley.runs.answers import render
from parley.runs.context import Run, current_run, entered
from parley.runs.hub_thread import HubThread, hub, is_configured, run_token
from parley.runs.parameters import Parameters
from parley.runs.report import Report

logger = logging.getLogger(__name__)

TAG: Final = "parley"
"""Carried by every deployment that this project registers, and so by its runs."""

SUSPENDED: Final = "it suspended itself, which one that shares its flow run with others cannot do."

_START_WITHIN: Final = 120.0
_CANCELLED: Final = "Cancelled on request."

_WORDS = {
    "en": {
        "error": "The automation stopped with an error ({type}); the log of the run says more.",
        "timeout": "The automation was stopped: it took longer than {seconds:g} s.",
        "fallback": "The usual way failed, so the alternative was used: {what}",
    },
    "zh": {
        "error": "自动化因错误而停止（{type}），详情见运行日志。",
        "timeout": "自动化已停止：运行超过了 {seconds:g} 秒。",
        "fallback": "常规方式失败，已改用备用方式：{what}",
    },
}


class HeldElsewhere(Abort):
    """Another process has this run, or had it to its end: what becomes of it, in Prefect too, is not told from here."""


@dataclass(frozen=True)
class Body:
    """What is guarded: the function, what to do when it fails, and what it takes."""

    function: Callable[..., Any]
    fallback: Callable[..., Any] | None
    parameters: Parameters
    validate: bool = True

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call's parameters by name."""
        return dict(inspect.signature(self.function).bind(*args, **kwargs).arguments)

    def checked(self, given: Mapping[str, Any], opened: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that the function gets."""
        return self.parameters.validated(given, opened) if self.validate else {**given, **opened}


def guard(body: Body) -> Callable[..., Any]:
    """The function that takes the place of the flow's own: same signature, sync or async like it."""
    return _guard_async(body) if inspect.iscoroutinefunction(body.function) else _guard_sync(body)


def _guard_sync(body: Body) -> Callable[..., Any]:
    @wraps(body.function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        given = body.bound(args, kwargs)
        place = _place(guarded)
        if place is None:
            return _call_sync(body, body.checked(given, {}))
        try:
            return run_sync(body, place, given)
        except StartedElsewhere as error:
            return Cancelled(message=str(error))

    return guarded


def run_sync(body: Body, place: Place, given: Mapping[str, Any]) -> Any:
    """Start, call, end. Raises what the function does, and `StartRefused` or `HeldElsewhere` where it may not run."""
    with _starting():
        run = place.granted(place.ask_for_start().result())
    with _inside(run, _nothing):
        try:
            value = _call_sync(body, body.checked(given, run.started.sealed))
            reply = _reply(value, run)
        except BaseException as error:
            if call := _ending(error, run, place.timeout_of(error, run), shared=bool(place.run_id)):
                with _ending_of(run, failed=True):
                    run.finish(call).result()
            if _was_cancelled(error, run):
                return Cancelled(message=_CANCELLED)
            raise
        with _ending_of(run, failed=False):
            run.finish(_done(run, reply)).result()
        _publish(value)
        return value


def _guard_async(body: Body) -> Callable[..., Awaitable[Any]]:
    @wraps(body.function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        given = body.bound(args, kwargs)
        place = _place(guarded)
        if place is None:
            return await _call_async(body, body.checked(given, {}))
        try:
            return await run_async(body, place, given)
        except StartedElsewhere as error:
            return Cancelled(message=str(error))

    return guarded


async def run_async(body: Body, place: Place, given: Mapping[str, Any]) -> Any:
    """As `run_sync`, for a function that may be async."""
    with _starting():
        run = place.granted(await _awaited(place.ask_for_start()))
    with _inside(run, _canceller()):
        try:
            value = await _call_async(body, body.checked(given, run.started.sealed))
            reply = _reply(value, run)
        except BaseException as error:
            if call := _ending(error, run, place.timeout_of(error, run), shared=bool(place.run_id)):
                with _ending_of(run, failed=True):
                    await _awaited(run.finish(call))
            if _was_cancelled(error, run):
                _uncancel()
                return Cancelled(message=_CANCELLED)
            raise
        with _ending_of(run, failed=False):
            await _awaited(run.finish(_done(run, reply)))
        await _apublish(value)
        return value


# -- the start


@dataclass(frozen=True)
class Place:
    """Where the hub has to be asked before anything begins: a flow run, or one request's part of it.

    `run_id` and `token` are those of the request's own run where the flow run answers several; `deadline` is then the
    moment of anyio's clock at which the time of all of them is over.
    """

    hub: HubThread
    flow_run: FlowRun
    automation: str
    time_limit: float | None
    is_async: bool
    run_id: str = ""
    token: str = ""
    deadline: float | None = None

    def ask_for_start(self) -> Future[Any]:
        """The hub's answer, to come. Raises `StartRefused`."""
        failpoint("start.asked")
        call = StartCall(
            token=self.token or run_token(),
            run_id=self.run_id,
            flow_run_id=str(self.flow_run.id),
            holder=uuid.uuid4().hex,
            automation=self.automation,
            parameters={} if self.run_id else self.flow_run.parameters,
        )
        return self.hub.submit(self.hub.insist("start", call, within=_START_WITHIN))

    def granted(self, answer: Any) -> Run:
        """The run that this answer grants."""
        failpoint("run.started")
        started = Started.model_validate(answer)
        redaction.hide(started.sealed)
        return Run(self.hub, str(self.flow_run.id), started, is_async=self.is_async)

    def timeout_of(self, error: BaseException, run: Run) -> float | None:
        """The flow's time limit when this error means that it has passed."""
        if (
            self.time_limit is None
            or not isinstance(error, asyncio.CancelledError)
            or run.cancel_asked.is_set()
        ):
            return None
        over = _scope_is_cancelled() if self.deadline is None else anyio.current_time() >= self.deadline
        return self.time_limit if over else None


def _place(guarded: Callable[..., Any]) -> Place | None:
    """Where the hub has to be asked, or None for a plain call."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow.fn is not guarded or current_run() is not None:
        return None
    flow_run = context.flow_run
    if flow_run is None or flow_run.deployment_id is None:
        return None
    if not is_configured():
        _refuse_when_ours(flow_run)
        return None
    return Place(hub(), flow_run, context.flow.name, context.flow.timeout_seconds, context.flow.isasync)


def _refuse_when_ours(flow_run: FlowRun) -> None:
    if TAG in flow_run.tags:
        raise StartRefused(
            "this deployment belongs to parley, but its process does not know the hub: set PARLEY_HOME (same machine) "
            "or PARLEY_HUB in the environment of the worker."
        )


def _scope_is_cancelled() -> bool:
    """Whether the time-out that Prefect put around the flow is what ends it."""
    try:
        return anyio.current_effective_deadline() == -math.inf
    except (anyio.NoEventLoopError, RuntimeError):
        return True  # a sync flow: nothing else raises a CancelledError in it


# -- the call


def _call_sync(body: Body, values: dict[str, Any]) -> Any:
    try:
        return body.function(**values)
    except Exception as error:
        if body.fallback is None:
            raise
        _note_alternative(error)
        return body.fallback(**values)


async def _call_async(body: Body, values: dict[str, Any]) -> Any:
    try:
        return await body.function(**values)
    except Exception as error:
        if body.fallback is None:
            raise
        _note_alternative(error)
        result = body.fallback(**values)
        return await result if inspect.isawaitable(result) else result


def _note_alternative(error: Exception) -> None:
    logger.warning("the automation failed and goes on with its alternative", exc_info=error)
    if run := current_run():
        run.took_alternative(redaction.clean(public_reason(error, run.started.language)))


# -- the end


def public_reason(error: BaseException, language: str = "en") -> str:
    """What people may read of an error: its message if it was written for them, else its type in a neutral sentence."""
    if isinstance(error, ParleyError) and str(error):
        return str(error)
    return _word("error", language).format(type=type(error).__name__)


def _reply(value: Any, run: Run) -> Reply:
    language = run.started.language
    if isinstance(value, State):
        # A state that the author made: Prefect takes it as it is, people get what it says.
        if value.is_failed() or value.is_crashed():
            raise AutomationStateError(value.message or f"the run ended as {value.name}.")
        value = value.message
    reply = render(value, language)
    if not run.alternatives:
        return reply
    note = _word("fallback", language).format(what=" ".join(run.alternatives))
    return reply.model_copy(update={"text": f"{reply.text}\n\n*{note}*".strip()})


class AutomationStateError(ParleyError):
    """The automation returned a failed Prefect state; the text is that state's message."""


def _ending(
    error: BaseException, run: Run, timed_out: float | None, *, shared: bool = False
) -> FinishCall | None:
    """What the hub is told of this end; None when somebody else tells it."""
    language = run.started.language
    if isinstance(error, Pause):
        return _finish(run, "failed", reason=SUSPENDED, kind="error") if shared else _finish(run, "suspended")
    if timed_out is not None:
        return _finish(
            run, "failed", reason=_word("timeout", language).format(seconds=timed_out), kind="timeout"
        )
    if not isinstance(error, Exception):
        return None
    kind = "arguments" if isinstance(error, CommandError) else "error"
    reason = redaction.clean(public_reason(error, language))
    return _finish(run, "failed", reason=reason, kind=kind, fell_back=bool(run.alternatives))


def _done(run: Run, reply: Reply) -> FinishCall:
    failpoint("run.ended")
    return _finish(run, "done", reply=reply, fell_back=bool(run.alternatives))


def _finish(run: Run, outcome: str, **more: Any) -> FinishCall:
    return FinishCall.model_validate({**run.fence, "outcome": outcome, **more})


def _was_cancelled(error: BaseException, run: Run) -> bool:
    return run.cancel_asked.is_set() and isinstance(error, asyncio.CancelledError)


@contextmanager
def _inside(run: Run, on_cancel: Callable[[], None]) -> Iterator[None]:
    with entered(run):
        run.keep_alive(on_cancel)
        try:
            yield
        finally:
            run.stop()


def _nothing() -> None:
    """A sync flow is ended by its worker."""


def _canceller() -> Callable[[], None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def cancel() -> None:
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    return cancel


def _uncancel() -> None:
    # The request was honoured here: whatever Prefect awaits from now on must not see it again.
    if task := asyncio.current_task():
        task.uncancel()


# -- waiting for the hub, in both worlds


async def _awaited(future: Future[Any]) -> Any:
    # Shielded twice: a time-out or a cancellation must not tear a call that the hub may have carried out.
    with anyio.CancelScope(shield=True):
        return await asyncio.shield(asyncio.wrap_future(future))


@contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except StartRefused as error:
        # A run that another process holds is left alone, whatever its state; any other refusal is this run's end.
        if isinstance(error, AlreadyStarted):
            raise HeldElsewhere(str(error)) from None
        raise


@contextmanager
def _ending_of(run: Run, *, failed: bool) -> Iterator[None]:
    try:
        yield
        failpoint("run.closed")
    except RunError as error:
        # The lease is over and the run is somebody else's by now, so Prefect's state is too.
        raise HeldElsewhere(str(error)) from None
    except ParleyError as error:
        if not failed:
            raise
        logger.warning("the hub could not be told how run %s ended: %s", run.started.run_id, error)


# -- reports, kept after the answer has left: nobody waits for them


def _publish(value: Any) -> None:
    if not isinstance(value, Report) or value.sensitive:
        return
    from prefect.artifacts import create_markdown_artifact

    try:
        create_markdown_artifact(redaction.clean(value.markdown()), key=value.artifact_key)
    except Exception:
        logger.exception("the report was not kept as an artifact")


async def _apublish(value: Any) -> None:
    if not isinstance(value, Report) or value.sensitive:
        return
    from prefect.artifacts import acreate_markdown_artifact

    try:
        await acreate_markdown_artifact(redaction.clean(value.markdown()), key=value.artifact_key)
    except Exception:
        logger.exception("the report was not kept as an artifact")


def _word(key: str, language: str) -> str:
    return _WORDS.get(language[:2], _WORDS["en"])[key]
