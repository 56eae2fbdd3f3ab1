"""What is costly to look at, looked at once for all who ask and shown again for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Refreshed(Generic[T]):
    """The result of `look`, at most `usable` seconds old.

    Up to `fresh` seconds after a look it is shown as it is. Up to `usable` it is still shown, and looked at anew for
    whoever asks next; after that who asks waits. Two who wait, wait for the same look.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[T]],
        *,
        fresh: float,
        usable: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._fresh, self._usable, self._clock = look, fresh, usable, clock
        self._looking: asyncio.Task[tuple[float, T]] | None = None
        self._last: tuple[float, T] | None = None

    async def get(self, *, anew: bool = False) -> tuple[T, float]:
        """The result and its age in seconds; `anew`: of a look that begins now. Raises what `look` does."""
        if self._last is not None and not anew:
            age = self._clock() - self._last[0]
            if age > self._fresh:
                _ = self._begin()
            if age <= self._usable:
                return self._last[1], age
        if anew and self._looking is not None:
            await asyncio.wait([self._looking])  # it began before
        began, value = await asyncio.shield(self._begin())
        return value, self._clock() - began

    def _begin(self) -> asyncio.Task[tuple[float, T]]:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_now())
            self._looking.add_done_callback(self._done)
        return self._looking

    async def _look_now(self) -> tuple[float, T]:
        began = self._clock()
        return began, await self._look()

    def _done(self, task: asyncio.Task[tuple[float, T]]) -> None:
        self._looking = None
        if not task.cancelled() and task.exception() is None:
            self._last = task.result()


__all__ = ["Refreshed"]
