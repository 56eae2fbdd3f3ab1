"""`@step`: Prefect's `@task` with the first two levels of failure built in.

The operation is tried again while its errors may pass; when it has failed for good, the alternative is used once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, overload

from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.utilities.timeout import timeout as sync_timeout
from prefect.utilities.timeout import timeout_async

from parley.errors import ParleyError
from parley.runs.context import current_run

P = ParamSpec("P")
R = TypeVar("R")

RETRIES: Final = 3
BACK_OFF: Final = (1.0, 4.0, 15.0)
"""Seconds before each retry, before jitter."""

JITTER: Final = 0.3
_FINAL: Final = "__parley_final__"

_STAYS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSES = frozenset(
    {
        "httpx.TransportError",
        "aiohttp.client_exceptions.ClientConnectionError",
        "sqlalchemy.exc.OperationalError",
        "sqlalchemy.exc.InterfaceError",
        "sqlalchemy.exc.TimeoutError",
        "asyncpg.exceptions.PostgresConnectionError",
        "asyncpg.exceptions.CannotConnectNowError",
        "asyncpg.exceptions.TooManyConnectionsError",
        "asyncpg.exceptions.SerializationError",
        "asyncpg.exceptions.DeadlockDetectedError",
    }
)
_BUSY_STATUSES = frozenset({429, 502, 503, 504})

logger = logging.getLogger(__name__)


def may_pass(error: BaseException) -> bool:
    """Whether the same operation may succeed a little later: the network, an overloaded or restarting service."""
    if isinstance(error, ParleyError):
        return error.retryable
    if isinstance(error, _STAYS):
        return False
    if isinstance(error, OSError):  # ConnectionError and TimeoutError are among these
        return True
    if getattr(getattr(error, "response", None), "status_code", None) in _BUSY_STATUSES:
        return True
    # By name, because importing these libraries only to recognise their errors would cost every process.
    return any(
        f"{kind.__module__.removesuffix('._base')}.{kind.__qualname__}" in _PASSES
        for kind in type(error).__mro__
    )


@overload
def step(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = RETRIES,
    back_off: Sequence[float] = BACK_OFF,
    jitter: float = JITTER,
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None = None,
    fallback: Callable[..., Any] | None = None,
    timeout: float | None = None,
    tags: Sequence[str] = (),
    cache_policy: CachePolicy = NO_CACHE,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = RETRIES,
    back_off: Sequence[float] = BACK_OFF,
    jitter: float = JITTER,
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None = None,
    fallback: Callable[..., Any] | None = None,
    timeout: float | None = None,
    tags: Sequence[str] = (),
    cache_policy: CachePolicy = NO_CACHE,
) -> Any:
    """Make a task of a function; used bare or with arguments.

    It is tried once and up to `retries` times more, `back_off` seconds apart with `jitter`, while the error is one that
    `may_pass`; `retry_on` (error types, or a function of the error) replaces that judgement. `timeout` seconds is what
    one attempt may take. When it has failed for good, `fallback` is called once with the same arguments; its value
    counts, and the answer of the run says so. Results are not cached unless a `cache_policy` of Prefect is given.
    """

    def make(wrapped: Callable[..., Any]) -> Task[..., Any]:
        passes = _judgement(retry_on)
        attempts = _Attempts(retries, passes, fallback, timeout, name or wrapped.__name__)
        return Task(
            attempts.around(wrapped),
            name=name,
            tags=tags or None,
            cache_policy=cache_policy,
            retries=retries,
            retry_delay_seconds=[float(seconds) for seconds in back_off] or None,
            retry_jitter_factor=jitter or None,
            retry_condition_fn=_condition(passes),
        )

    return make if function is None else make(function)


class _Attempts:
    """Knows which attempt is the last one, and does the alternative after it."""

    def __init__(
        self,
        retries: int,
        passes: Callable[[BaseException], bool],
        fallback: Callable[..., Any] | None,
        timeout: float | None,
        name: str,
    ) -> None:
        self._retries = retries
        self._passes = passes
        self._fallback = fallback
        self._timeout = timeout
        self._name = name

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return (
            self._around_async(function)
            if inspect.iscoroutinefunction(function)
            else self._around_sync(function)
        )

    def _around_sync(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def attempt(*args: Any, **kwargs: Any) -> Any:
            try:
                with sync_timeout(self._timeout):
                    return function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - judged, and raised again unless there is an alternative
                fallback = self._last_resort(error)
                try:
                    return fallback(*args, **kwargs)
                except Exception as second:  # noqa: BLE001 - marked and raised again
                    raise _final(second) from error

        return attempt

    def _around_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def attempt(*args: Any, **kwargs: Any) -> Any:
            try:
                with timeout_async(self._timeout):
                    return await function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - judged, and raised again unless there is an alternative
                fallback = self._last_resort(error)
                try:
                    result = fallback(*args, **kwargs)
                    return await result if inspect.isawaitable(result) else result
                except Exception as second:  # noqa: BLE001 - marked and raised again
                    raise _final(second) from error

        return attempt

    def _last_resort(self, error: Exception) -> Callable[..., Any]:
        """The alternative, when it is its turn; else the error goes on to Prefect, which tries again or gives up."""
        if self._fallback is None or (self._passes(error) and _attempt_number() <= self._retries):
            raise error
        logger.warning(
            "the step %s failed for good and goes on with its alternative", self._name, exc_info=error
        )
        if run := current_run():
            run.took_alternative(f"{self._name}.")
        return self._fallback


def _attempt_number() -> int:
    """Which attempt of the task run this is, from 1; without a task run there is no other attempt."""
    context = TaskRunContext.get()
    return context.task_run.run_count if context else 2**31


def _judgement(
    retry_on: tuple[type[BaseException], ...] | Callable[[BaseException], bool] | None,
) -> Callable[[BaseException], bool]:
    if retry_on is None:
        return may_pass
    if isinstance(retry_on, tuple):
        kinds = retry_on
        return lambda error: isinstance(error, kinds)
    return retry_on


def _condition(passes: Callable[[BaseException], bool]) -> Callable[[Task[..., Any], TaskRun, State], bool]:
    def may_be_tried_again(_task: Task[..., Any], _task_run: TaskRun, state: State) -> bool:
        error = state.data
        # A failed state that the author returned has no error to judge: Prefect's own rule, to try again, holds.
        return not isinstance(error, BaseException) or (passes(error) and not getattr(error, _FINAL, False))

    return may_be_tried_again


def _final(error: Exception) -> Exception:
    """Mark the alternative's own failure: after it nothing is tried again."""
    setattr(error, _FINAL, True)
    return error
