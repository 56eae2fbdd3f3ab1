"""Values that a process keeps for a while: so many, so long, and each computed once at a time.

Safe for threads and event loops. Nothing is kept across a fork: a child begins with none of its parent's values.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, Generic, NamedTuple, TypeVar
from weakref import WeakSet

from cachetools import TLRUCache

V = TypeVar("V")

_BOOT_TIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


def seconds() -> float:
    """A clock that only goes on, and while the machine sleeps too where the system has such a one."""
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)


class Entry(NamedTuple, Generic[V]):
    """A value, and when its computation began: it is at least as new as that."""

    value: V
    since: float


class Flight(Generic[V]):
    """One computation that is under way. `ended` gives its entry, its error, or None when it was broken off."""

    def __init__(self, since: float) -> None:
        self.since: float = since
        self.ended: Future[Entry[V] | None] = Future()
        self.entry: Entry[V] | None = None
        # From now on no one that stops waiting can cancel it for the others.
        self.ended.set_running_or_notify_cancel()

    def land(self, value: V) -> Entry[V]:
        """Note the value."""
        self.entry = Entry(value, self.since)
        return self.entry


class Kept(Generic[V]):
    """At most `most` values, the least recently used go first; each for `max_age` seconds from when it was begun."""

    def __init__(self, most: int, max_age: float, *, clock: Callable[[], float] = seconds) -> None:
        self.clock: Callable[[], float] = clock
        self._most = most
        self._max_age = max_age
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight[V]] = {}
        self._entries: TLRUCache[Hashable, Entry[V], float] = TLRUCache(self._most, self._until, self.clock)

    def _until(self, _key: Hashable, entry: Entry[V], _now: float) -> float:
        return entry.since + self._max_age

    def find(self, key: Hashable) -> Entry[V] | None:
        """What is kept under this key."""
        with self._lock:
            return self._find(key)

    def _find(self, key: Hashable) -> Entry[V] | None:
        self._entries.expire()  # what is too old is not only not given, it is gone
        return self._entries.get(key)

    def board(self, key: Hashable) -> tuple[Entry[V] | Flight[V], bool]:
        """What is kept, or else the computation under way; and whether it is the caller who has to compute."""
        with self._lock:
            if entry := self._find(key):
                return entry, False
            if flight := self._flights.get(key):
                return flight, False
            flight = self._flights[key] = Flight(self.clock())
            return flight, True

    @contextmanager
    def lead(self, key: Hashable, flight: Flight[V], *, unless: Callable[[V], bool]) -> Iterator[None]:
        """Compute: `flight.land(value)` within. All who wait get the value or the error; only a value is kept.

        Not one of which `unless` is true, nor one that was forgotten meanwhile. When the computation is broken off (a
        cancelled task), one of those who wait has to compute.
        """
        token = _led.set((*_led.get(), flight))
        try:
            yield
            if flight.entry is None:
                raise AssertionError("a flight ends with a value or an error")  # noqa: TRY301 - a fault of ours
            confidential = unless(flight.entry.value)
        except Exception as error:
            self._end(key, flight, None)
            flight.ended.set_exception(error)
            raise
        except BaseException:
            self._end(key, flight, None)
            flight.ended.set_result(None)
            raise
        else:
            self._end(key, flight, None if confidential else flight.entry)
            flight.ended.set_result(flight.entry)
        finally:
            _led.reset(token)

    def _end(self, key: Hashable, flight: Flight[V], entry: Entry[V] | None) -> None:
        with self._lock:
            if self._flights.get(key) is not flight:
                return
            del self._flights[key]
            if entry is not None:
                self._entries[key] = entry

    def forget(self, key: Hashable) -> None:
        """Whoever asks from now on gets a value that was begun after this."""
        with self._lock:
            self._flights.pop(key, None)
            with suppress(KeyError):
                del self._entries[key]

    def forget_all(self) -> None:
        """As `forget`, for every key."""
        with self._lock:
            self._flights.clear()
            self._entries.clear()

    def __len__(self) -> int:
        with self._lock:
            self._entries.expire()
            return len(self._entries)

    def begin_in_child(self) -> None:
        """After a fork: another thread of the parent may have held the lock, and may have been computing."""
        self._begin()


def is_led_here(flight: Flight[Any]) -> bool:
    """Whether this code is a part of that computation: it would wait for itself."""
    return flight in _led.get()


_led: ContextVar[tuple[Flight[Any], ...]] = ContextVar("parley_kept_led", default=())

_all: WeakSet[Kept[Any]] = WeakSet()


def _begin_in_child() -> None:
    for kept in list(_all):
        kept.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


__all__ = ["Entry", "Flight", "Kept", "is_led_here", "seconds"]
