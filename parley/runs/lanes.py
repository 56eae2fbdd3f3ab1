"""Lanes: queued runs in memory, a bounded number of each lane; the others wait in the store and are read in pages.

In a lane each automation has a line of its own, and the lines take turns: ten thousand requests for one automation do
not hold up the first for another, and what may share a flow run goes on at each of its turns. A line that has left runs
in the store takes everything from there, until nothing is left: what came later does not overtake what came before,
and a million waiting runs need no more memory than a thousand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people.sealing import Keyring
from parley.runs.catalogue import Lane
from parley.runs.requests import QueuedRun, count_waiting, waiting_by_automation, waiting_ids, waiting_runs
from parley.store.engine import Store

ORDER: Final = (Lane.CONTROL, Lane.ALERTS, Lane.PEOPLE, Lane.SCHEDULES)

MOST_WAITING: Final = 1000
"""Runs of one lane that wait in memory; of each line `FEW` may, whatever the others hold."""

FEW: Final = 20

PAGE: Final = 500
"""Runs that are read from the store at once."""

LOOKED_AT: Final = 16
"""Lines of a lane whose heads are looked at for one that there is room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The oldest runs of one line that wait in the store.

    `queued`: how many requests of it are queued in all, where there are more than these; 0 where these are all.
    """

    runs: tuple[QueuedRun, ...]
    queued: int


class Waiting(Protocol):
    """What waits in the store. Each method raises `StoreUnavailable`."""

    async def automations(self, lane: Lane) -> Mapping[str, int]:
        """How many requests are queued in this lane, by automation."""

    async def page(self, lane: Lane, automation: str, known: AbstractSet[str], most: int) -> Page:
        """The oldest runs of this line that are not `known`."""


@dataclass(slots=True)
class _Line:
    """The runs of one automation in one lane: those here, and how many were left in the store behind them.

    `changes`: of what is there, while a page is read.
    """

    runs: deque[QueuedRun] = field(default_factory=deque)
    left: int = 0
    behind: bool = False
    changes: int = 0

    def leave(self) -> None:
        """One more is in the store."""
        self.behind = True
        self.left += 1
        self.changes += 1


@dataclass(slots=True)
class _Lane:
    """Lines in the order of their turns. `unread`: which automations wait in the store is not known yet."""

    lines: dict[str, _Line] = field(default_factory=dict)
    here: int = 0
    unread: bool = False
    reading: bool = False

    def line(self, automation: str) -> _Line:
        return self.lines.setdefault(automation, _Line())

    def last(self, automation: str) -> None:
        """It has had its turn; a line in which nobody waits is gone."""
        line = self.lines.pop(automation)
        if line.runs or line.behind:
            self.lines[automation] = line

    def low(self, most: int, but: AbstractSet[str] = frozenset()) -> str | None:
        """The first line that left runs in the store and has room for some."""
        enough = PAGE if self.here <= most - PAGE else FEW // 2
        for name, line in self.lines.items():
            if line.behind and len(line.runs) <= enough and name not in but:
                return name
        return None


class Lanes:
    """The waiting runs. Without `waiting` nothing is ever left in the store.

    `under_way` says how many runs of an automation were taken and have not begun.
    """

    def __init__(
        self,
        waiting: Waiting | None = None,
        *,
        most: int = MOST_WAITING,
        under_way: Callable[[str], int] = lambda _automation: 0,
    ) -> None:
        self._waiting = waiting
        self._most = most
        self._under_way = under_way
        self._lanes: dict[Lane, _Lane] = {lane: _Lane() for lane in ORDER}
        self._where: dict[str, QueuedRun] = {}
        self._gone: set[str] = set()

    def __iter__(self) -> Iterator[QueuedRun]:
        for lane in self._lanes.values():
            for line in list(lane.lines.values()):
                yield from list(line.runs)

    def add(self, queued: QueuedRun) -> bool:
        """Take a run whose request is committed as queued; false when it is left in the store for now."""
        lane = self._lanes[queued.lane]
        line = lane.line(queued.automation)
        full = lane.here >= self._most and len(line.runs) >= FEW
        if self._waiting is not None and (lane.unread or line.behind or full):
            line.leave()
            return False
        self._append(lane, line, queued)
        return True

    def _append(self, lane: _Lane, line: _Line, queued: QueuedRun) -> None:
        line.runs.append(queued)
        lane.here += 1
        self._where[queued.run_id] = queued

    def put_back(self, queued: QueuedRun) -> None:
        """A run that was taken and could not be handed over: to its place among those that wait."""
        lane = self._lanes[queued.lane]
        runs, at = lane.line(queued.automation).runs, 0
        while at < len(runs) and runs[at].run_id < queued.run_id:
            at += 1
        runs.insert(at, queued)
        lane.here += 1
        self._where[queued.run_id] = queued
        # It had its turn, and nothing came of it.
        lane.lines = {queued.automation: lane.lines.pop(queued.automation), **lane.lines}

    def take(self, fits: Callable[[QueuedRun], bool]) -> QueuedRun | None:
        """The next run that fits, in the order of the lanes, and in turns within each."""
        for lane in self._lanes.values():
            waiting = [name for name, line in lane.lines.items() if line.runs][:LOOKED_AT]
            for name in waiting:
                found = lane.lines[name].runs[0]
                if fits(found):
                    self._take(found)
                    lane.last(name)
                    return found
        return None

    def take_like(self, first: QueuedRun, most: int) -> list[QueuedRun]:
        """The next runs of the line of `first` that may share a flow run with it."""
        line = self._lanes[first.lane].lines.get(first.automation)
        found = [one for one in line.runs if not one.alone][:most] if line else []
        for one in found:
            self._take(one)
        return found

    def _take(self, queued: QueuedRun) -> None:
        lane = self._lanes[queued.lane]
        runs = lane.lines[queued.automation].runs
        if runs[0] is queued:
            runs.popleft()
        else:
            runs.remove(queued)
        lane.here -= 1
        del self._where[queued.run_id]

    def drop(self, run_id: str) -> None:
        """A run has ended: it waits no more, and a page that is being read must not bring it back."""
        if any(lane.reading for lane in self._lanes.values()):
            self._gone.add(run_id)
        if (queued := self._where.get(run_id)) is not None:
            self._take(queued)

    def sizes(self) -> dict[str, int]:
        """How many wait, by lane, in memory and in the store."""
        return {
            name.value: lane.here + sum(line.left for line in lane.lines.values())
            for name, lane in self._lanes.items()
        }

    def first(self) -> dict[Lane, QueuedRun | None]:
        """The run of each lane that has waited longest; None where none waits."""
        return {
            name: min(
                (line.runs[0] for line in lane.lines.values() if line.runs),
                key=lambda one: one.queued_at,
                default=None,
            )
            for name, lane in self._lanes.items()
        }

    def look_in_store(self) -> None:
        """Runs may wait there that nobody brought: what an earlier hub left."""
        for lane in self._lanes.values():
            lane.unread = self._waiting is not None

    def low(self) -> list[Lane]:
        """Lanes in which there is something to read now."""
        return [
            name
            for name, lane in self._lanes.items()
            if not lane.reading and (lane.unread or lane.low(self._most) is not None)
        ]

    async def refill(self, of: Lane, known: AbstractSet[str]) -> list[QueuedRun]:
        """Read the next page of this lane; what came of it. Raises `StoreUnavailable`."""
        lane = self._lanes[of]
        if self._waiting is None or lane.reading:
            return []
        lane.reading = True
        try:
            if lane.unread:
                await self._read_lines(self._waiting, of, lane)
            empty: set[str] = set()
            while (automation := lane.low(self._most, empty)) is not None:
                if fresh := await self._read_page(self._waiting, of, lane, automation, known):
                    return fresh
                empty.add(automation)
            return []
        finally:
            lane.reading = False
            if not any(one.reading for one in self._lanes.values()):
                self._gone.clear()

    async def _read_lines(self, waiting: Waiting, of: Lane, lane: _Lane) -> None:
        for automation, count in (await waiting.automations(of)).items():
            line = lane.line(automation)
            line.behind, line.left = True, max(line.left, count - len(line.runs))
        lane.unread = False

    async def _read_page(
        self, waiting: Waiting, of: Lane, lane: _Lane, automation: str, known: AbstractSet[str]
    ) -> list[QueuedRun]:
        most = PAGE if lane.here <= self._most - PAGE else FEW
        lane.lines[automation].changes = 0
        page = await waiting.page(of, automation, known, most)
        line = lane.line(automation)
        fresh = [one for one in page.runs if one.run_id not in known and one.run_id not in self._gone]
        for one in fresh:
            self._append(lane, line, one)
        # What was left in the store while the page was read may not be in it.
        taken = len(line.runs) + self._under_way(automation)
        line.left = (max(1, page.queued - taken) if page.queued else 0) + line.changes
        line.behind = line.left > 0
        if not line.runs and not line.behind:
            del lane.lines[automation]
        return fresh


class _Store:
    """What waits in this store; what was there before this was made may have been handed over already."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store, self._keyring, self._since = store, keyring, now()

    async def automations(self, lane: Lane) -> Mapping[str, int]:
        return await self._store.read(lambda conn: waiting_by_automation(conn, lane))

    async def page(self, lane: Lane, automation: str, known: AbstractSet[str], most: int) -> Page:
        known = frozenset(known)

        async def fetch(conn: AsyncConnection) -> Page:
            runs = await waiting_runs(
                conn,
                self._keyring,
                lane,
                automation=automation,
                known=known,
                most=most,
                since=self._since,
            )
            ids = await waiting_ids(conn, lane, automation=automation, known=known, most=most + 1)
            more = len(ids) > most
            return Page(runs=tuple(runs), queued=await count_waiting(conn, lane, automation) if more else 0)

        return await self._store.read(fetch)


def reader(store: Store, keyring: Keyring) -> Waiting:
    """Reads pages of what waits in this store; what was there before this call may have been handed over already."""
    return _Store(store, keyring)
