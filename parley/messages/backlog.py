"""The backlog: stored messages that are not handled yet, of which a bounded part is in memory.

Once there are more than that, what comes stays in the store and is read from there in its order, until nothing is
left: nobody overtakes, and a million waiting messages need no more memory than two thousand.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Container
from typing import Final

from parley.errors import ParleyError
from parley.messages.inbox import Received
from parley.messages.intake import Intake

logger = logging.getLogger(__name__)

MOST_MESSAGES: Final = 2000
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of the messages in memory, their files included."""


class Backlog:
    """Gives the intake what it can hold. `unhandled` reads the oldest from the store, leaving out those known."""

    def __init__(
        self,
        intake: Intake,
        unhandled: Callable[[Container[str]], AsyncIterator[Received]],
        *,
        most: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._intake = intake
        self._unhandled = unhandled
        self._most = most
        self._most_bytes = most_bytes
        self._behind = False
        self._passed_by = 0
        self._wake = asyncio.Event()
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
        """Take up what waits as soon as there is room again; until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._behind or len(self._intake) > self._most // 2:
                continue
            try:
                await self.take_up()
            except ParleyError as error:
                logger.info("what waits in the inbox is read later: %s", error)

    def _is_full(self) -> bool:
        return len(self._intake) >= self._most or self._intake.bytes >= self._most_bytes

    def _has_room(self) -> None:
        if self._behind:
            self._wake.set()


__all__ = ["MOST_BYTES", "MOST_MESSAGES", "Backlog"]
