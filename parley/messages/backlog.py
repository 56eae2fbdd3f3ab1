"""The backlog: stored messages that are not handled yet, of which a bounded part is in memory.

Once there are more than that, what comes stays in the store and is read from there in its order, until nothing is
left: nobody overtakes, and a million waiting messages need no more memory than two thousand.

Only what is urgent (somebody stops a run, approves one, takes an alert) does not wait for the rest: it is read as soon
as it is stored, with what waits before it in its own conversation, so that each conversation keeps its order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Container
from typing import Final, TypeAlias

from parley.errors import ParleyError
from parley.messages.inbox import Received
from parley.messages.intake import Intake
from parley.messages.model import Notice

logger = logging.getLogger(__name__)

MOST_MESSAGES: Final = 2000
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of the messages in memory, their files included."""

MOST_URGENT: Final = 500
"""Of urgent messages that go before the others, in memory beside them; alerts fill half of that room at the most."""

_Waiting: TypeAlias = tuple[str, str]
"""A message in the store: its id and its conversation's."""


class Backlog:
    """Gives the intake what it can hold. `unhandled` reads the oldest from the store, leaving out those known.

    `unhandled_before` reads what waits in a conversation up to a message of it: its id, the conversation, those known.
    """

    def __init__(
        self,
        intake: Intake,
        unhandled: Callable[[Container[str]], AsyncIterator[Received]],
        unhandled_before: Callable[[str, str, Container[str]], AsyncIterator[Received]],
        *,
        most: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._intake = intake
        self._unhandled = unhandled
        self._unhandled_before = unhandled_before
        self._most = most
        self._most_bytes = most_bytes
        self._behind = False
        self._passed_by = 0
        self._wake = asyncio.Event()
        self._people: deque[_Waiting] = deque()
        self._alerts: deque[_Waiting] = deque()
        self._wake_for_urgent = asyncio.Event()
        self._reading = asyncio.Lock()
        intake.on_room = self._has_room

    @property
    def is_behind(self) -> bool:
        """Whether messages wait in the store alone."""
        return self._behind

    def add(self, received: Received) -> None:
        """A message that was just stored: to be handled now, or behind the others in the store."""
        if self._behind or self._is_full():
            self._behind = True
            self._passed_by += 1
            self._wake.set()
            self._prefer(received)
            return
        self._intake.add(received)

    async def take_up(self) -> None:
        """Read what waits in the store, as much of it as there is room for. Raises `StoreUnavailable`."""
        async with self._reading:
            tried: set[str] = set()  # one that cannot be handled now is not tried again at once
            while True:
                self._passed_by, taken = 0, 0
                async for received in self._unhandled(self._intake):
                    if self._is_full():
                        self._behind = True
                        return
                    if received.id not in tried:
                        tried.add(received.id)
                        taken += 1
                        self._intake.add(received)
                if not taken:
                    self._behind = self._passed_by > 0
                    return

    async def run(self) -> None:
        """Take up what waits as soon as there is room again, and at once what is urgent; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._follow_urgent())

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._behind or len(self._intake) > self._most // 2:
                continue
            try:
                await self.take_up()
            except ParleyError as error:
                logger.info("what waits in the inbox is read later: %s", error)

    def _prefer(self, received: Received) -> None:
        queue = self._alerts if isinstance(received.event, Notice) else self._people
        if len(queue) < MOST_URGENT and self._intake.is_urgent(received):
            # Its id alone: it may hold files of megabytes.
            queue.append((received.id, received.conversation_id))
            self._wake_for_urgent.set()

    async def _follow_urgent(self) -> None:
        while True:
            await self._wake_for_urgent.wait()
            self._wake_for_urgent.clear()
            while queue := self._next_urgent():
                message_id, conversation = queue.popleft()
                try:
                    async for received in self._unhandled_before(message_id, conversation, self._intake):
                        if not self._has_room_for(queue):
                            break  # what would come behind it stays behind it, in the store
                        self._intake.add(received)
                except ParleyError as error:
                    logger.info("message %s waits with the others: %s", message_id, error)

    def _next_urgent(self) -> deque[_Waiting] | None:
        for queue in (self._people, self._alerts):
            if queue and self._has_room_for(queue):
                return queue
        return None

    def _has_room_for(self, queue: deque[_Waiting]) -> bool:
        """Beyond what the others may fill; and people beyond what alerts may fill."""
        share = 1.0 if queue is self._people else 0.5
        most, most_bytes = self._most + share * MOST_URGENT, (1 + share) * self._most_bytes
        return len(self._intake) < most and self._intake.bytes < most_bytes

    def _is_full(self) -> bool:
        return len(self._intake) >= self._most or self._intake.bytes >= self._most_bytes

    def _has_room(self) -> None:
        if self._behind:
            self._wake.set()
        if self._people or self._alerts:
            self._wake_for_urgent.set()


__all__ = ["MOST_BYTES", "MOST_MESSAGES", "MOST_URGENT", "Backlog"]
