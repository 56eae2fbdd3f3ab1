"""The intake: stored events are handled in order within their conversation, and conversations side by side.

What is urgent has room of its own: at a peak somebody who stops a run, approves one or asks how it goes does not stand
in the queue of those who ask for another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable

from parley.messages.inbox import Received
from parley.messages.model import Edit, Message

logger = logging.getLogger(__name__)

SIDE_BY_SIDE = 8
"""Conversations at once: enough to share commits, few enough that each turn of the event loop stays short."""

URGENT_SIDE_BY_SIDE = 8


class Intake:
    """Gives each event to `handle`, one at a time a conversation; `urgent` ones are not kept waiting by the others."""

    def __init__(
        self,
        handle: Callable[[Received], Awaitable[None]],
        *,
        urgent: Callable[[Received], bool] = lambda _: False,
    ) -> None:
        self._handle = handle
        self._urgent = urgent
        self._queues: dict[str, deque[Received]] = defaultdict(deque)
        self._known: set[str] = set()
        self.bytes: int = 0
        """Text and files of the events that are here."""
        self.on_room: Callable[[], None] = _nothing
        """Called whenever an event has been handled."""
        self._room = asyncio.Semaphore(SIDE_BY_SIDE)
        self._urgent_room = asyncio.Semaphore(URGENT_SIDE_BY_SIDE)
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, received: Received) -> None:
        """Take an event; a second time changes nothing."""
        if received.id in self._known:
            return
        self._known.add(received.id)
        self.bytes += _weight(received)
        queue = self._queues[received.conversation_id]
        queue.append(received)
        if len(queue) == 1:
            task = asyncio.create_task(self._work_on(received.conversation_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def is_urgent(self, received: Received) -> bool:
        """Whether this does not stand in the queue of the others. One that cannot be judged does."""
        try:
            return self._urgent(received)
        except Exception:
            logger.exception("message %s: whether it is urgent cannot be told", received.id)
            return False

    async def empty(self) -> None:
        """Return once all that was taken is handled."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._known

    async def _work_on(self, conversation: str) -> None:
        queue = self._queues[conversation]
        while queue:
            async with self._urgent_room if self.is_urgent(queue[0]) else self._room:
                await self._handle_one(queue[0])
            handled = queue.popleft()
            self._known.discard(handled.id)
            self.bytes -= _weight(handled)
            self.on_room()
        del self._queues[conversation]

    async def _handle_one(self, received: Received) -> None:
        # What cannot be committed now (a full disk) stays received: it is taken up again by the reconciler.
        try:
            await self._handle(received)
        except Exception:
            logger.exception("message %s could not be handled now; it stays in the inbox", received.id)

    async def aclose(self) -> None:
        """Stop; what was not handled stays in the inbox."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _weight(received: Received) -> int:
    event = received.event
    if isinstance(event, Message):
        return len(event.text) + sum(len(file.content) for file in event.files)
    return len(event.text) if isinstance(event, Edit) else 0


def _nothing() -> None:
    """Nobody waits for room."""
