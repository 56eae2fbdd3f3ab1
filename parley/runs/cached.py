"""`@cached`: what automations read again and again is kept for a while, and how old it is can be told.

For data, and never for answers: a run is granted, looked at and answered each time. Values are kept in the process
that computed them, from one run to the next.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Callable, Coroutine, Hashable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from cachetools.keys import typedkey

from parley.errors import ConfigurationError
from parley.runs.confidential import is_confidential
from parley.runs.context import current_run, is_lost_in_a_thread
from parley.runs.kept import Entry, Flight, Kept, is_led_here

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aged(Generic[R_co]):
    """A value, and how many seconds ago reading it began: it is not older than that."""

    value: R_co = field(repr=False)
    age: float


class Cached(Protocol[P, R_co]):
    """A function whose values are kept."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The value for these arguments."""

    def with_age(self, *args: P.args, **kwargs: P.kwargs) -> Aged[R_co]:
        """The value with its age."""

    def age(self, *args: P.args, **kwargs: P.kwargs) -> float | None:
        """The age of what is kept for these arguments; None when nothing is."""

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Who asks from now on gets what was read after this."""

    def forget_all(self) -> None:
        """Forget what is kept for whatever arguments, and for everybody."""


class CachedAsync(Protocol[P, R_co]):
    """An async function whose values are kept."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """The value for these arguments."""

    def with_age(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Aged[R_co]]:
        """The value with its age."""

    def age(self, *args: P.args, **kwargs: P.kwargs) -> float | None:
        """The age of what is kept for these arguments; None when nothing is."""

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Who asks from now on gets what was read after this."""

    def forget_all(self) -> None:
        """Forget what is kept for whatever arguments, and for everybody."""


class _Decorator(Protocol):
    @overload  # the first that fits counts, and what is awaited fits the second too
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedAsync[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


def cached(*, max_age: float, most: int = 1000, shared: bool = False) -> _Decorator:
    """Keep a function's values for `max_age` seconds from when reading began, at most `most` of them.

    A value is for these arguments, for the automation that runs and for the person whose rights it has. With `shared`
    it is for whoever asks: say so only where the value depends on nothing but the arguments, and everybody who can
    make the function be called may see it. While a value is computed all others who want it wait for it. Errors are
    given to them and not kept. Arguments must be hashable (`TypeError`); the value is the same object for everybody
    and must not be changed. A call with a secret among its arguments, or whose value holds one, is computed each time.

    It stands below `@step`, so that each use is a task of the flow. Raises `ConfigurationError` where it cannot stand.
    """
    if not 0 < max_age < math.inf:
        raise ConfigurationError("@cached: max_age is a number of seconds, greater than 0.")
    if most < 1:
        raise ConfigurationError("@cached: most is a number of values, 1 or more.")

    def decorate(function: Callable[..., Any]) -> Any:
        _check(function)
        memory = _Memory(function, Kept(most, max_age), shared=shared)
        return _async(function, memory) if inspect.iscoroutinefunction(function) else _sync(function, memory)

    return cast("_Decorator", decorate)


class _Memory:
    """What is kept of one function."""

    def __init__(self, function: Callable[..., Any], kept: Kept[Any], *, shared: bool) -> None:
        self.kept = kept
        self._name = function.__qualname__
        self._signature = inspect.signature(function)
        self._shared = shared
        self._warned = False

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
        """The key of these arguments, None where nothing may be kept. Raises `TypeError`, as a call does."""
        given = self._signature.bind(*args, **kwargs)
        given.apply_defaults()
        # Whose it is, and what is secret in this run, is not known in a thread that the run's context did not reach.
        if is_lost_in_a_thread() or self.is_confidential(given.arguments):
            return None
        key = (self._whose(), typedkey(*given.args, **given.kwargs))
        try:
            hash(key)
        except TypeError:
            raise self._unhashable(given) from None
        return key

    def is_confidential(self, value: Any) -> bool:
        """Whether nothing of this may be kept; said once."""
        if not is_confidential(value):
            return False
        if not self._warned:
            self._warned = True
            logger.warning("%s has a secret in a call or a value: that is computed each time", self._name)
        return True

    def checked(self, value: Any) -> Any:
        """A value that can be given to several callers."""
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise TypeError(
                f"{self._name} gives something to be awaited: @cached needs an `async def` for that."
            )
        if isinstance(value, Iterator):
            raise TypeError(f"{self._name} gives what can be read only once: give a tuple to keep.")
        return value

    def entry(self, flight: Flight[Any], value: Any) -> Entry[Any]:
        """The end of a computation."""
        return flight.land(self.checked(value))

    def refuse_itself(self, flight: Flight[Any]) -> None:
        """Raises `RuntimeError` for a function that waits for what it is computing."""
        if is_led_here(flight):
            raise RuntimeError(f"{self._name} needs its own value for the same arguments.")

    def age(self, key: Hashable | None) -> float | None:
        entry = self.kept.find(key) if key is not None else None
        return self.aged(entry).age if entry else None

    def aged(self, entry: Entry[Any]) -> Aged[Any]:
        return Aged(entry.value, max(0.0, self.kept.clock() - entry.since))

    def _whose(self) -> Hashable:
        run = current_run()
        return (run.started.command, run.started.principal) if run and not self._shared else ()

    def _unhashable(self, given: inspect.BoundArguments) -> TypeError:
        for name, value in given.arguments.items():
            named = self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
            try:
                hash(tuple(value.items()) if named else value)
            except TypeError:
                return TypeError(
                    f"{self._name}: the argument {name!r} ({type(value).__name__}) cannot be a key. "
                    "Give what does not change: text, numbers, tuples, frozen models."
                )
        raise AssertionError("one of them has no hash")


def _sync(function: Callable[..., Any], memory: _Memory) -> Any:
    def compute(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry[Any]:
        kept, key = memory.kept, memory.key(args, kwargs)
        if key is None:
            since = kept.clock()
            return Entry(memory.checked(function(*args, **kwargs)), since)
        while True:
            found, mine = kept.board(key)
            if isinstance(found, Entry):
                return found
            if mine:
                with kept.lead(key, found, unless=memory.is_confidential):
                    return memory.entry(found, function(*args, **kwargs))
            memory.refuse_itself(found)
            if landed := found.ended.result():
                return landed

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compute(args, kwargs).value

    @wraps(function)
    def with_age(*args: Any, **kwargs: Any) -> Aged[Any]:
        return memory.aged(compute(args, kwargs))

    return _complete(call, with_age, memory)


def _async(function: Callable[..., Any], memory: _Memory) -> Any:
    async def compute(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Entry[Any]:
        kept, key = memory.kept, memory.key(args, kwargs)
        if key is None:
            since = kept.clock()
            return Entry(memory.checked(await function(*args, **kwargs)), since)
        while True:
            found, mine = kept.board(key)
            if isinstance(found, Entry):
                return found
            if mine:
                with kept.lead(key, found, unless=memory.is_confidential):
                    return memory.entry(found, await function(*args, **kwargs))
            memory.refuse_itself(found)
            # It may be computed on another thread's loop.
            if landed := await asyncio.wrap_future(found.ended):
                return landed

    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return (await compute(args, kwargs)).value

    @wraps(function)
    async def with_age(*args: Any, **kwargs: Any) -> Aged[Any]:
        return memory.aged(await compute(args, kwargs))

    return _complete(call, with_age, memory)


def _complete(call: Any, with_age: Any, memory: _Memory) -> Any:
    """The function with the names beside it. It stays a function, so that whatever wraps one can wrap it."""

    def age(*args: Any, **kwargs: Any) -> float | None:
        return memory.age(memory.key(args, kwargs))

    def forget(*args: Any, **kwargs: Any) -> None:
        key = memory.key(args, kwargs)
        if key is not None:
            memory.kept.forget(key)

    call.with_age, call.age, call.forget = with_age, age, forget
    call.forget_all = memory.kept.forget_all
    return call


def _check(function: Any) -> None:
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"@cached takes a function and not a {type(function).__name__}: write it below @step."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{function.__qualname__} is a generator, read only once: give a tuple to keep."
        )


__all__ = ["Aged", "Cached", "CachedAsync", "cached"]
