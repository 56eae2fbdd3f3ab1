"""The owner's case: WeCom, mail and XMPP together, 2,000 messages of a day squeezed into ten minutes.

An open loop: the moments are fixed beforehand (`case_schedule`), nobody waits for an answer before they ask, and the
time of each answer is counted from its planned moment, so that a queue in front of us counts too. It ends when the
platform has the text of our answer. All of it runs on this machine: the stack, the platforms, and the people.

Beside it the same flow behind stock `flow.serve()` on the same Prefect server afterwards, one run at a time with nobody
else there, by the server's own clock: less than its users would wait, without chat, rights or a queue. Less effort is a
shorter excerpt around the first peak.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from benchmarks import stacks
from benchmarks.case_platforms import Platforms
from benchmarks.case_schedule import PLATFORMS, Asking, Platform, asking, busiest_minute, excerpt, whole_day
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, percentile, scaled
from tests.stack import Stack

MESSAGES, SECONDS, LEAST_SECONDS = 2000, 600.0, 2.0
GOAL_MS: Final = 480
SERVED = 3
PATIENCE: Final = 180.0
"""Seconds after the last message in which all are answered, or lost."""

_KINDS: Final = ("order", "report", "daily", "repair", "order")
"""What is asked on each platform before it counts: children, pools and caches are warm on a working day."""

PEER: Final = "flow.serve(), one run at a time with nothing else to do"


def measure(effort: float = 1.0) -> list[Row]:
    """`case.answer_p50_ms`, `case.answer_p95_ms`, `case.lost`."""
    seconds = max(LEAST_SECONDS, min(1.0, effort) * SECONDS)
    asked = excerpt(whole_day(MESSAGES, SECONDS), seconds, SECONDS)
    with watched() as conditions, stacks.stack(effort, stacks.UNAPPROVED) as stack:
        desk = Desk()
        asyncio.run(_day(stack, desk, asked, _KINDS if effort else _KINDS[:1]))
        stations = _stations(stack)
        with stacks.serving(effort, stack) as peer:
            served = [peer.run_order() * 1e3 for _ in range(scaled(SERVED, effort))]
        conditions.update(_conditions(asked, desk))
        conditions.update(
            goal_ms=GOAL_MS,
            excerpt_s=seconds,
            stations_ms=stations,
            theirs_ms=[round(one) for one in served],
        )
    return _rows(asked, desk, served, conditions)


@dataclass(slots=True)
class Waiting:
    """One message on its way; moments on the monotonic clock."""

    asking: Asking
    planned: float
    sent: float = 0.0
    answered: float | None = None

    @property
    def milliseconds(self) -> float:
        """From the planned moment to the answer."""
        assert self.answered is not None
        return (self.answered - self.planned) * 1e3


class Desk:
    """Who waits for what."""

    def __init__(self) -> None:
        self.all: list[Waiting] = []
        self.processor: dict[str, float] = {}
        self.unexpected = 0
        self._waiting: dict[tuple[Platform, int], deque[Waiting]] = {}
        self._nobody_waits = asyncio.Event()

    def begin(self, waiting: Waiting) -> None:
        """Somebody waits from now on."""
        self.all.append(waiting)
        who = (waiting.asking.platform, waiting.asking.person)
        self._waiting.setdefault(who, deque()).append(waiting)

    def answered(self, platform: Platform, person: int, text: str, at: float) -> None:
        """Something was said to this person: the answer to the first question that it fits, or no answer (a file)."""
        waiting = self._waiting.get((platform, person), deque())
        plain = text.replace("*", "")
        for one in waiting:
            if one.asking.answer in plain:
                one.answered = at
                waiting.remove(one)
                if not any(self._waiting.values()):
                    self._nobody_waits.set()
                return
        self.unexpected += bool(plain.strip())

    @property
    def lost(self) -> list[Waiting]:
        """Those without an answer."""
        return [one for one in self.all if one.answered is None]

    async def until_all_answered(self, seconds: float) -> None:
        """Wait until nobody waits, or it has taken too long."""
        self._nobody_waits.clear()
        if self.lost:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nobody_waits.wait(), seconds)


async def _day(stack: Stack, desk: Desk, asked: Sequence[Asking], kinds: Sequence[str]) -> None:
    people = {(one.platform, one.person) for one in asked} | {(platform, 0) for platform in PLATFORMS}
    async with Platforms(stack, people) as platforms:
        trial = platforms.desk = Desk()
        warm = [
            asking(0.3 * number, platform, 0, kind, 1024)
            for number, (platform, kind) in enumerate(
                (platform, kind) for kind in kinds for platform in PLATFORMS
            )
        ]
        await _say_all(platforms, trial, warm)
        assert not trial.lost, f"not answered: {[one.asking for one in trial.lost]}\n{stack.logs()}"
        platforms.desk = desk
        processor = ProcessorTime(stack)
        await _say_all(platforms, desk, asked)
        desk.processor = processor.each(len(asked))


async def _say_all(platforms: Platforms, desk: Desk, asked: Sequence[Asking]) -> None:
    began = time.monotonic() + 0.1
    saying: set[asyncio.Task[None]] = set()

    async def say(waiting: Waiting) -> None:
        await platforms.ask(waiting.asking)
        waiting.sent = time.monotonic()

    for one in asked:
        planned = began + one.at
        await asyncio.sleep(max(0.0, planned - time.monotonic()))
        waiting = Waiting(one, planned)
        desk.begin(waiting)
        task = asyncio.create_task(say(waiting))
        saying.add(task)
        task.add_done_callback(saying.discard)
    await asyncio.gather(*saying)
    await desk.until_all_answered(PATIENCE)


def _conditions(asked: Sequence[Asking], desk: Desk) -> dict[str, Any]:
    begin, most = busiest_minute(asked)
    busiest = [one for one in desk.all if begin <= one.asking.at < begin + 60]
    return {
        "messages": len(asked),
        "busiest_minute_messages": most,
        "busiest_minute": _spread(busiest),
        "by_platform": {
            name: _spread([o for o in desk.all if o.asking.platform == name]) for name in PLATFORMS
        },
        "by_kind": {
            kind: _spread([one for one in desk.all if one.asking.kind == kind])
            for kind in sorted({one.asking.kind for one in desk.all})
        },
        "p95_ms_by_minute": _by_minute(desk.all),
        "p95_ms_by_minute_of": {
            name: _by_minute([one for one in desk.all if one.asking.platform == name]) for name in PLATFORMS
        },
        "sent_late_p99_ms": round(percentile([(one.sent - one.planned) * 1e3 for one in desk.all], 0.99), 1),
        "within_goal": round(
            sum(one.milliseconds <= GOAL_MS for one in desk.all if one.answered) / len(desk.all), 3
        ),
        "not_understood_answers": desk.unexpected,
        "processor_ms_each": desk.processor,
    }


def _by_minute(waited: Sequence[Waiting]) -> list[float | None]:
    minutes: dict[int, list[Waiting]] = {}
    for one in waited:
        minutes.setdefault(int(one.asking.at // 60), []).append(one)
    return [_spread(minutes.get(number, []))["p95_ms"] for number in range(max(minutes, default=-1) + 1)]


def _spread(waited: Sequence[Waiting]) -> dict[str, float | None]:
    took = [one.milliseconds for one in waited if one.answered is not None]
    if not took:
        return {"n": 0, "p50_ms": None, "p95_ms": None, "most_ms": None}
    return {
        "n": len(took),
        "p50_ms": round(percentile(took, 0.5)),
        "p95_ms": round(percentile(took, 0.95)),
        "most_ms": round(max(took)),
    }


_STATIONS: Final = """
select m.account, m.received_at, m.handled_at, q.queued_at, r.created_at, r.started_at, r.ended_at,
       min(d.created_at), min(d.sent_at)
from message m join request q on q.message_id = m.id join run r on r.request_id = q.id
     left join delivery d on d.source = 'request:' || q.id
where r.outcome is not null
group by r.id
"""
_LEGS: Final = ("understood", "queued", "created", "started", "ended", "written", "delivered")


def _stations(stack: Stack) -> dict[str, dict[str, list[float]]]:
    """Milliseconds from one station to the next, median and 95th percentile, by platform: from our own store."""
    found: dict[str, dict[str, list[float]]] = {}
    (path,) = stack.home.glob("*.db")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for account, *moments in database.execute(_STATIONS):
            times = [datetime.fromisoformat(one).timestamp() if one else None for one in moments]
            legs = found.setdefault(account, {})
            for leg, before, after in zip(_LEGS, times[:-1], times[1:], strict=True):
                if before is not None and after is not None:
                    legs.setdefault(leg, []).append((after - before) * 1e3)
    return {
        account: {
            leg: [round(statistics.median(times), 1), round(percentile(times, 0.95), 1)]
            for leg, times in legs.items()
        }
        for account, legs in found.items()
    }


def _rows(asked: Sequence[Asking], desk: Desk, served: list[float], conditions: dict[str, Any]) -> list[Row]:
    took = [one.milliseconds for one in desk.all if one.answered is not None]
    rows = [
        Row(
            name=f"case.answer_p{share}_ms",
            unit="ms",
            ours=percentile(took, share / 100),
            peer=PEER,
            theirs=percentile(served, share / 100),
            ratio=percentile(served, share / 100) / percentile(took, share / 100),
            n=len(took),
            conditions=conditions,
        )
        for share in (50, 95)
    ]
    lost = Row(
        name="case.lost", unit="messages", ours=float(len(desk.lost)), n=len(asked), conditions=conditions
    )
    return [*rows, lost]
