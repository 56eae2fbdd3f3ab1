"""Work that comes in faster than it is done: begun in the order in which it came, several pieces at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Workers(Generic[T]):
    """Handles items, `most` at once. A worker is a task that takes one after the other while there are any.

    So an item that waits for nothing costs no task of its own, and one that waits keeps no other from being begun.
    """

    def __init__(self, handle: Callable[[T], Awaitable[None]], most: int) -> None:
        """`handle` should not raise: that ends its worker, and others go on."""
        self._handle, self._most = handle, most
        self._waiting: deque[T] = deque()
        self.open = 0
        """Items that are being handled, or wait for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._next: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """Whether one more would have to wait."""
        return self.open >= self._most

    def put(self, item: T) -> None:
        """Have an item handled."""
        self.open += 1
        if self.full:
            self._room.clear()
        self._waiting.append(item)
        self._call_one()

    async def room(self, within: float) -> None:
        """Wait until it is not full any more, but no longer than so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._room.wait()

    async def finish(self, grace: float) -> None:
        """Give what is open so many seconds, then end it; leaves no task."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    while grace and self._tasks:
                        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._close(len(self._waiting))
            self._waiting.clear()
            left = set(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _call_one(self) -> None:
        """Have one more worker look, if there is something to do and none is on its way."""
        if self._waiting and self._next is None and len(self._tasks) < self._most:
            self._next = asyncio.create_task(self._work())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._left)

    async def _work(self) -> None:
        self._next = None
        while self._waiting:
            item = self._waiting.popleft()
            self._call_one()
            try:
                await self._handle(item)
            finally:
                self._close(1)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._next is task:
            self._next = None
        self._call_one()

    def _close(self, items: int) -> None:
        self.open -= items
        if not self.full:
            self._room.set()
