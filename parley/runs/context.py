"""What an automation may do while it runs: speak, ask, look at the message that asked for it, leave a record.

Every name works alike in sync and async flows and in the threads of their tasks. `say` and `log_action` return at once
and are sent in order; a run does not end before they have arrived. `ask` returns a `Question`, used like a Prefect
future: `await ask(Model)` in an async flow, `ask(Model).result()` in a sync one. With no chat behind the run they log.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from parley.errors import ParleyError
from parley.link.calls import (
    LONGEST_ACTION,
    LONGEST_DETAIL,
    MOST_DETAILS,
    AskCall,
    BeatCall,
    FinishCall,
    LogActionCall,
    OpenRunSecret,
    PublishCall,
    SayCall,
    Started,
)
from parley.messages.model import Message, Reply
from parley.messages.published import Happening
from parley.messages.topics import is_topic
from parley.runs.answers import render
from parley.runs.hub_thread import HubThread

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

FINISH_WITHIN: Final = 600.0
"""Seconds that a finished run waits for a hub that is away before it gives up."""

_SAY_WITHIN: Final = 120.0
_ATTEMPTS: Final = 3
_EPOCH_ORDINALS: Final = 10_000


class AutomationError(ParleyError):
    """Raise it to fail a run with a sentence for the people in the chat; any other error is shown by its type only."""


class Question(Generic[M]):
    """A question that was put to a person: `await question`, or `question.result()` where nothing can be awaited."""

    def __init__(self, answer: Future[M], *, in_async_flow: bool = False) -> None:
        self._answer = answer
        self._in_async_flow = in_async_flow

    def result(self, timeout: float | None = None) -> M:
        """Wait for the answer. Raises `TimeoutError` after `timeout` seconds, and `AutomationError` in async code."""
        if self._in_async_flow and _in_event_loop():
            raise AutomationError(
                "ask(...).result() would stop the event loop: write `await ask(...)` in async code."
            )
        try:
            return self._answer.result(timeout)
        except FutureCancelled:
            raise asyncio.CancelledError("the run was cancelled while it waited for an answer") from None

    def __await__(self) -> Generator[Any, None, M]:
        return asyncio.wrap_future(self._answer).__await__()


class Run:
    """One granted run, as the code in it sees it; made by the guard, found by `current_run`."""

    def __init__(self, hub: HubThread, flow_run_id: str, started: Started, *, is_async: bool) -> None:
        self.started: Started = started
        self.flow_run_id: str = flow_run_id
        self.is_async: bool = is_async
        self.cancel_asked: threading.Event = threading.Event()
        self.alternatives: list[str] = []
        self._hub = hub
        # Unique within the run: a run that comes back after a suspension has another epoch and starts to count above.
        self._ordinals = itertools.count((started.epoch - 1) * _EPOCH_ORDINALS + 1)
        self._turn = asyncio.Lock()
        self._sent: set[Future[Any]] = set()
        self._asked: set[Future[Any]] = set()
        self._failed: list[ParleyError] = []
        self._beating: Future[None] | None = None
        self._closing = False

    @property
    def fence(self) -> dict[str, Any]:
        """What every call of this run carries."""
        started = self.started
        return {
            "token": started.token,
            "flow_run_id": self.flow_run_id,
            "run_id": started.run_id,
            "epoch": started.epoch,
        }

    def keep_alive(self, on_cancel: Callable[[], None]) -> None:
        """Beat until `stop`; `on_cancel` is called on another thread once cancellation was asked for."""
        self._beating = self._hub.submit(self._beat(on_cancel))

    def stop(self) -> None:
        """End the beats and whatever still waits for an answer."""
        for future in [self._beating, *self._asked]:
            if future is not None:
                future.cancel()

    def say(self, reply: Reply) -> None:
        """Queue progress for the thread."""
        self._queue(
            "say", SayCall(**self.fence, ordinal=next(self._ordinals), reply=reply), must_arrive=False
        )

    def log_action(self, action: str, details: dict[str, str]) -> None:
        """Queue a row for the audit log."""
        call = LogActionCall(**self.fence, ordinal=next(self._ordinals), action=action, details=details)
        self._queue("log_action", call, must_arrive=True)

    def publish(self, event: Happening) -> None:
        """Queue an event for the bus."""
        call = PublishCall(**self.fence, ordinal=next(self._ordinals), **event.model_dump())
        self._queue("publish", call, must_arrive=True)

    def ask(self, model: type[M], text: str) -> Question[M]:
        """Put a question."""
        answer = self._hub.submit(self._ask(model, text))
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)
        return Question(answer, in_async_flow=self.is_async)

    def open_secret(self, block_type: str, block_name: str, field: str, sealed: str) -> Future[str]:
        """Have the hub open a sealed field of a Block that the automation names."""
        about = {"block_type": block_type, "block_name": block_name, "field": field, "sealed": sealed}
        return self._hub.submit(
            self._hub.call("open_run_secret", OpenRunSecret(**self.fence, **about), timeout=30)
        )

    def finish(self, call: FinishCall) -> Future[None]:
        """Close the request, after everything that was said; raises what kept an audit row from being written."""
        self._closing = True
        return self._hub.submit(self._finish(call))

    def took_alternative(self, what: str) -> None:
        """Remember that an alternative was used instead of the usual way."""
        self.alternatives.append(what)

    def _queue(self, name: str, call: BaseModel, *, must_arrive: bool) -> None:
        sent = self._hub.submit(self._send(name, call, must_arrive=must_arrive))
        self._sent.add(sent)
        sent.add_done_callback(self._sent.discard)

    async def _send(self, name: str, call: BaseModel, *, must_arrive: bool) -> None:
        async with self._turn:
            try:
                await self._hub.insist(name, call, within=_SAY_WITHIN)
            except ParleyError as error:
                if must_arrive:
                    self._failed.append(error)
                logger.warning("%s did not reach the hub: %s", name, error)

    async def _ask(self, model: type[M], text: str) -> M:
        async with self._turn:
            pass  # whatever was said before the question is there first
        question = text
        for attempt in range(1, _ATTEMPTS + 1):
            call = AskCall(
                **self.fence,
                ordinal=next(self._ordinals),
                text=question,
                json_schema=model.model_json_schema(),
            )
            # Without a limit: how long a question stays open is for the hub to say.
            answer = await self._hub.call("ask", call, timeout=None)
            try:
                return model.model_validate(answer)
            except ValidationError as error:
                reason = _reason(error)
                if attempt == _ATTEMPTS:
                    raise AutomationError(
                        f"the answer does not fit after {_ATTEMPTS} attempts: {reason}."
                    ) from None
                question = f"{reason}. {text}"
        raise AssertionError

    async def _finish(self, call: FinishCall) -> None:
        async with self._turn:
            if self._failed and call.outcome == "done":
                raise self._failed[0]
            await self._hub.insist("finish", call, within=FINISH_WITHIN)

    async def _beat(self, on_cancel: Callable[[], None]) -> None:
        call = BeatCall(**self.fence)
        while True:
            await asyncio.sleep(self.started.lease / 3)
            if not await self._may_go_on(call):
                break
        if self._closing:
            return
        self.cancel_asked.set()
        for answer in list(self._asked):
            answer.cancel()
        on_cancel()

    async def _may_go_on(self, call: BeatCall) -> bool:
        try:
            return bool(await self._hub.call("beat", call, timeout=self.started.lease))
        except ParleyError as error:
            logger.warning("a beat was not taken: %s", error)
            return error.retryable


_current: ContextVar[Run | None] = ContextVar("parley_run", default=None)


_under_way: Final[set[Run]] = set()


@contextmanager
def entered(run: Run) -> Iterator[None]:
    """The code inside belongs to this run."""
    reset = _current.set(run)
    _under_way.add(run)
    try:
        yield
    finally:
        _under_way.discard(run)
        _current.reset(reset)


def current_run() -> Run | None:
    """The granted run that this code belongs to, or None outside one."""
    return _current.get()


def is_lost_in_a_thread() -> bool:
    """Whether this code cannot tell its run though one is under way: in a thread that was not given its context."""
    return _current.get() is None and bool(_under_way)


def say(text: str | Reply | Any) -> None:
    """Report progress in the thread, at once and in order. With no chat behind the run it is logged.

    Takes what an automation may return: text, a `Reply`, a table, a file.
    """
    run = _current.get()
    reply = render(text, run.started.language if run else "en")
    if run is None:
        _log("say: %s", reply.text or [file.name for file in reply.files])
        return
    run.say(reply)


def ask(model: type[M], text: str = "", *, default: M | None = None) -> Question[M]:
    """Ask the person who started this run for the fields of `model`, and give the answer validated as one.

    With no chat behind the run the answer is `default`, or the model's own defaults. Raises `AutomationError` when
    it has none.
    """
    run = _current.get()
    if run is not None:
        return run.ask(model, text or (model.__doc__ or model.__name__).strip())
    answer: Future[M] = Future()
    answer.set_result(default if default is not None else _defaults(model))
    _log("ask: nobody is there, going on with %s", type(answer.result()).__name__)
    return Question(answer)


def current_message() -> Message | None:
    """The message that asked for this run; None for schedules, the Prefect UI and plain calls."""
    run = _current.get()
    return run.started.message if run else None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_DETAIL else f"{text[: LONGEST_DETAIL - 1]}…"


def current_language() -> str:
    """The language of the person who asked, as in "en" or "zh"; English outside a run."""
    run = _current.get()
    return run.started.language if run else "en"


def log_action(action: str, details: dict[str, Any] | None = None) -> None:
    """Leave a row in the audit log; a run cannot end as done when its row was not written.

    Values of sealed parameters are kept as keyed hashes. Long texts are cut (an action at 200 characters, a detail at
    900), and the first 50 details are kept. Outside a run it is logged.
    """
    action = action[:LONGEST_ACTION]
    kept = list((details or {}).items())[:MOST_DETAILS]
    texts = {str(name)[:LONGEST_ACTION]: _cut(str(value)) for name, value in kept}
    run = _current.get()
    if run is None:
        _log("action: %s %s", action, texts)
        return
    run.log_action(action, texts)


def publish(
    topic: str,
    data: dict[str, Any] | None = None,
    *,
    title: str = "",
    text: str = "",
    key: str = "",
    closes: bool = False,
    url: str = "",
    severity: Literal["info", "warning", "critical"] = "info",
) -> None:
    """Publish an event: routes tell conversations of it and start automations. A run ends only when it is published.

    `topic` is lower-case words with dots between them; `data` small JSON for conditions and parameters. Events with
    the same `key` share a thread; `closes` ends what the key began. Outside a run it is logged. Raises
    `AutomationError` for what cannot be published.
    """
    try:
        event = Happening(
            topic=topic,
            data=data or {},
            title=title,
            text=text,
            key=key,
            closes=closes,
            url=url,
            severity=severity,
        )
    except (ValidationError, PydanticSerializationError) as error:
        reason = _reason(error) if isinstance(error, ValidationError) else "its data is not JSON"
        raise AutomationError(f"this event cannot be published: {reason}.") from None
    if not is_topic(topic):
        raise AutomationError(f"{topic!r} is no topic: write lower-case words with dots between them.")
    run = _current.get()
    if run is None:
        _log("publish: %s %s", topic, title or sorted(event.data))
        return
    run.publish(event)


def _defaults(model: type[M]) -> M:
    try:
        return model()
    except ValidationError:
        raise AutomationError(
            f"there is nobody to ask for {model.__name__}: run it from a chat, or give ask() a default."
        ) from None


def _reason(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)
    )


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _log(text: str, *args: Any) -> None:
    # To the run's log in Prefect's pages; only where Prefect is imported already, because this module must not do it.
    if "prefect" not in sys.modules:
        logger.info(text, *args)
        return
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        get_run_logger().info(text, *args)
    except MissingContextError:
        logger.info(text, *args)
