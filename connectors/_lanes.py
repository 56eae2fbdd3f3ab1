"""Work that has an order only among its like: one piece after the other in each lane, lanes beside each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

Work = Callable[[], Awaitable[None]]


class Lanes:
    """Does what it is given. `room` is set while fewer than `most` pieces are open; more are taken all the same."""

    def __init__(self, most: int) -> None:
        self._most, self._open = most, 0
        self._lanes: dict[str, deque[Work]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.room = asyncio.Event()
        self.room.set()

    def put(self, lane: str, work: Work) -> None:
        """Have something done after all that was put into this lane before. `work` should not raise."""
        self._open += 1
        if self._open >= self._most:
            self.room.clear()
        if lane in self._lanes:
            self._lanes[lane].append(work)
        else:
            self._lanes[lane] = deque([work])
            self._begin(lane)

    async def aclose(self) -> None:
        """End what is open; leaves no task."""
        self._lanes.clear()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, lane: str) -> None:
        task = asyncio.create_task(self._work(self._lanes[lane]))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._ended(lane, task))

    async def _work(self, waiting: deque[Work]) -> None:
        while waiting:
            try:
                await waiting[0]()
            finally:
                waiting.popleft()
                self._open -= 1
                if self._open < self._most:
                    self.room.set()

    def _ended(self, lane: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        waiting = self._lanes.get(lane)
        if waiting:  # put since the task looked, or behind what ended it
            self._begin(lane)
        elif waiting is not None:
            del self._lanes[lane]
