"""Lanes: queued runs in memory, a bounded number of each lane; the others wait in the store and are read in pages.

A lane that has left runs in the store takes everything from there, until nothing is left: what came later does not
overtake what came before, and a million waiting runs need no more memory than a thousand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people.sealing import Keyring
from parley.runs.catalogue import Lane
from parley.runs.requests import QueuedRun, count_waiting, waiting_ids, waiting_runs
from parley.store.engine import Store

ORDER: Final = (Lane.CONTROL, Lane.ALERTS, Lane.PEOPLE, Lane.SCHEDULES)

MOST_WAITING: Final = 1000
"""Runs of one lane that wait in memory."""

PAGE: Final = 500
"""Runs that are read from the store at once."""

LOOKED_AT: Final = 16
"""Runs at the head of a lane among which one is looked for that there is room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The oldest runs of one lane that wait in the store. `left`: how many more wait there behind them."""

    runs: tuple[QueuedRun, ...]
    left: int


ReadPage = Callable[[Lane, AbstractSet[str], int], Awaitable[Page]]
"""(lane, runs that are known already, most of them) -> the oldest others. Raises `StoreUnavailable`."""


@dataclass(slots=True)
class _Beyond:
    """What a lane left in the store. `changes`: of what is there, while a page is read."""

    count: int = 0
    behind: bool = False
    changes: int = 0
    reading: bool = False


class Lanes:
    """The waiting runs. Without `read_page` nothing is ever left in the store."""

    def __init__(self, read_page: ReadPage | None = None, *, most: int = MOST_WAITING) -> None:
        self._read_page = read_page
        self._most = most
        self._queues: dict[Lane, deque[QueuedRun]] = {lane: deque() for lane in ORDER}
        self._beyond: dict[Lane, _Beyond] = {lane: _Beyond() for lane in ORDER}
        self._gone: set[str] = set()

    def __iter__(self) -> Iterator[QueuedRun]:
        for lane in ORDER:
            yield from list(self._queues[lane])

    def add(self, queued: QueuedRun) -> bool:
        """Take a run whose request is committed as queued; false when it is left in the store for now."""
        queue, beyond = self._queues[queued.lane], self._beyond[queued.lane]
        if self._read_page is not None and (beyond.behind or len(queue) >= self._most):
            beyond.behind = True
            beyond.count += 1
            beyond.changes += 1
            return False
        queue.append(queued)
        return True

    def put_back(self, queued: QueuedRun) -> None:
        """A run that was taken and could not be handed over: to its place among those that wait."""
        queue, at = self._queues[queued.lane], 0
        while at < len(queue) and queue[at].run_id < queued.run_id:
            at += 1
        queue.insert(at, queued)

    def take(self, fits: Callable[[QueuedRun], bool]) -> QueuedRun | None:
        """The next run that fits, in the order of the lanes."""
        for lane in ORDER:
            queue = self._queues[lane]
            for at in range(min(len(queue), LOOKED_AT)):
                if fits(queue[at]):
                    found = queue[at]
                    del queue[at]
                    return found
        return None

    def take_like(self, first: QueuedRun, most: int) -> list[QueuedRun]:
        """The next runs of the same automation in the lane of `first` that may share a flow run with it."""
        queue = self._queues[first.lane]
        found = [one for one in queue if one.automation == first.automation and not one.alone][:most]
        if found:
            taken = {one.run_id for one in found}
            self._queues[first.lane] = deque(one for one in queue if one.run_id not in taken)
        return found

    def drop(self, run_id: str) -> None:
        """A run has ended: it waits no more, and a page that is being read must not bring it back."""
        if any(beyond.reading for beyond in self._beyond.values()):
            self._gone.add(run_id)
        for queue in self._queues.values():
            for at, queued in enumerate(queue):
                if queued.run_id == run_id:
                    del queue[at]
                    break

    def sizes(self) -> dict[str, int]:
        """How many wait, by lane, in memory and in the store."""
        return {lane.value: len(queue) + self._beyond[lane].count for lane, queue in self._queues.items()}

    def first(self) -> dict[Lane, QueuedRun | None]:
        """The next run of each lane; None where none waits."""
        return {lane: queue[0] if queue else None for lane, queue in self._queues.items()}

    def look_in_store(self) -> None:
        """Runs may wait there that nobody brought: what an earlier hub left."""
        for beyond in self._beyond.values():
            beyond.behind = self._read_page is not None

    def low(self) -> list[Lane]:
        """Lanes that have room for a page and left runs in the store."""
        return [
            lane
            for lane, beyond in self._beyond.items()
            if beyond.behind and not beyond.reading and len(self._queues[lane]) <= self._most - PAGE
        ]

    async def refill(self, lane: Lane, known: AbstractSet[str]) -> list[QueuedRun]:
        """Read the next page of this lane; what came of it. Raises `StoreUnavailable`."""
        beyond = self._beyond[lane]
        if self._read_page is None or beyond.reading:
            return []
        beyond.reading, beyond.changes = True, 0
        try:
            page = await self._read_page(lane, known, PAGE)
            fresh = [one for one in page.runs if one.run_id not in known and one.run_id not in self._gone]
            self._queues[lane].extend(fresh)
            # What was left in the store while the page was read may not be in it.
            beyond.count = page.left + beyond.changes
            beyond.behind = beyond.count > 0
            return fresh
        finally:
            beyond.reading = False
            if not any(one.reading for one in self._beyond.values()):
                self._gone.clear()


def reader(store: Store, keyring: Keyring) -> ReadPage:
    """Reads pages of what waits in this store; what was there before this call may have been handed over already."""
    since = now()

    async def read_page(lane: Lane, known: AbstractSet[str], most: int) -> Page:
        known = frozenset(known)

        async def fetch(conn: AsyncConnection) -> Page:
            runs = await waiting_runs(conn, keyring, lane, known=known, most=most, since=since)
            more = len(await waiting_ids(conn, lane, known=known, most=most + 1)) > most
            left = await count_waiting(conn, lane) - len(known) - len(runs) if more else 0
            return Page(runs=tuple(runs), left=max(int(more), left))

        return await store.read(fetch)

    return read_page
