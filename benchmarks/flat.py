"""Flat cost: what a message and a question cost with years of use behind them, beside the same in an empty system.

Two hubs in this process, without Prefect and without platforms: one with a handful of automations and people and
nothing said yet, and one with a thousand automations, ten thousand people and a million messages. Each thing is done in
both by turns. Messages are counted from the event at the hub to everything that it led to being committed. Figures are
processor time of the hub, SQLite's included, which a busy machine hardly changes; the time on the clock, in which
a commit waits for the disk, is told beside it. The goal is that the full one takes at most a fifth more.

Then the full one's retention has everything to thin at once, while messages keep coming: what a commit waits for it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.flat_store import ACCOUNT, catalogue, fill
from benchmarks.machine import watched
from benchmarks.rows import Row, percentile, scaled
from parley.messages.model import ConversationKind, Message, Route, Sender, now
from parley.people import principals
from parley.people.principals import Principal
from parley.processes import views
from parley.processes.hub import Hub, open_hub
from parley.settings import Account, File, Settings
from parley.store import schema
from parley.store.engine import Store
from parley.store.retention import Erased, sweep

FEW_MESSAGES, MESSAGES, AUTOMATIONS, PEOPLE = 1, 1_000_000, 1000, 10_000
FEW_AUTOMATIONS, FEW_PEOPLE = 10, 10
TIMES, BLOCKS = 40, 5
GOAL: Final = 1.2

COMMITS = 600
BETWEEN: Final = 0.01
"""Seconds between two writes of the others while retention works."""


def measure(effort: float = 1.0) -> list[Row]:
    """`flat.*`."""
    with watched() as conditions, tempfile.TemporaryDirectory(prefix="flat-") as folder:
        sizes = _Sizes(
            messages=scaled(MESSAGES, effort, least=2000),
            automations=scaled(AUTOMATIONS, effort, least=50),
            people=scaled(PEOPLE, effort, least=100),
        )
        times = scaled(TIMES, effort, least=3)
        timings = asyncio.run(_compare(Path(folder), sizes, times))
        thinned = asyncio.run(_thin(Path(folder), sizes, scaled(COMMITS, effort, least=50)))
        conditions |= {
            "messages": sizes.messages,
            "automations": [sizes.automations, FEW_AUTOMATIONS],
            "people": [sizes.people, FEW_PEOPLE],
            "goal": GOAL,
        }
    rows = [_row(name, full, few, conditions) for name, (full, few) in timings.items()]
    return [*rows, thinned.row(conditions)]


@dataclass(frozen=True, slots=True)
class _Sizes:
    messages: int
    automations: int
    people: int


def _row(name: str, full: _Taken, few: _Taken, conditions: dict[str, Any]) -> Row:
    here, there = statistics.median(full.processor), statistics.median(few.processor)
    return Row(
        name=f"flat.{name}_ms",
        unit="ms processor",
        ours=here,
        peer="the empty system",
        theirs=there,
        ratio=there / here,
        n=len(full.processor),
        conditions=conditions
        | {
            "times_as_much": round(here / there, 3),
            "clock_p50_ms": [round(statistics.median(one.wall), 2) for one in (full, few)],
        },
    )


# -- the same by turns in the full and in the empty hub


@dataclass(slots=True)
class _Taken:
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    async def by(self, work: Callable[[], Awaitable[None]]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        await work()
        self.wall.append((time.perf_counter() - wall) * 1e3)
        self.processor.append((time.process_time() - processor) * 1e3)


async def _compare(folder: Path, sizes: _Sizes, times: int) -> dict[str, tuple[_Taken, _Taken]]:
    async with (
        _hub(folder / "full", sizes.messages, sizes.automations, sizes.people) as full,
        _hub(folder / "few", FEW_MESSAGES, FEW_AUTOMATIONS, FEW_PEOPLE) as few,
    ):
        taken: dict[str, tuple[_Taken, _Taken]] = {name: (_Taken(), _Taken()) for name in WORK}
        for block in range(BLOCKS):
            for name, work in WORK.items():
                for bench in (full, few):
                    await work(bench)  # caches of pages and of plans
                # One by one in turns: what else the machine does meets both.
                for number in range(times):
                    turns = ((full, 0), (few, 1))
                    for bench, which in turns if (block + number) % 2 else turns[::-1]:
                        await taken[name][which].by(partial(work, bench))
        return taken


class _Bench:
    """One hub, and a person of it who has said a lot."""

    def __init__(self, hub: Hub, person: Principal) -> None:
        self.hub = hub
        self.person = person
        self._said = 0

    async def say(self, text: str) -> None:
        """Say it, and wait until everything that it leads to is committed."""
        self._said += 1
        message = Message(
            account=ACCOUNT,
            native_id=f"flat-{self._said}",
            sender=Sender(id="u0"),
            route=Route(account=ACCOUNT, conversation="u0", kind=ConversationKind.DIRECT),
            text=text,
        )
        accepted = await self.hub.inbox.accept(message)
        assert accepted.new
        await self.hub.intake_is_empty()

    async def history(self) -> None:
        """The last fifty things said in this person's conversation, as a page shows them."""
        found = await self.hub.store.read(
            lambda conn: views.history(conn, self.hub.keyring, ACCOUNT, "u0", 50)
        )
        assert len(found) == 50

    async def runs(self) -> None:
        """This person's last requests."""
        found = await self.hub.front.runs(self.person, limit=50, before=None)
        assert found


WORK: Final[dict[str, Callable[[_Bench], Awaitable[None]]]] = {
    "command": lambda bench: bench.say("/show-order 1024"),
    "example": lambda bench: bench.say("show the order with number 1024"),
    "similar": lambda bench: bench.say("which order has the number 1024, please compare"),
    "mistyped": lambda bench: bench.say("/shwo-order 1024"),
    "help": lambda bench: bench.say("/help"),
    "help_one": lambda bench: bench.say("/help show-order"),
    "my_runs": lambda bench: bench.say("/runs"),
    "why": lambda bench: bench.say("/why"),
    "history": _Bench.history,
    "runs": _Bench.runs,
}


@asynccontextmanager
async def _hub(home: Path, messages: int, automations: int, people: int) -> AsyncIterator[_Bench]:
    _make_home(home, automations)
    # No Prefect: what is queued stays queued, in both.
    settings = Settings(
        home=home,
        config=home / "parley.toml",
        key_file=home.parent / f"{home.name}-key",
        prefect_api_url="http://127.0.0.1:9/api",
        file=File(accounts={ACCOUNT: Account(platform="mail", block="parley-mail-account/team")}),
    )
    async with _open(settings) as hub:
        await _begin(hub)
    fill(home / "parley.db", messages, people)
    async with _open(settings) as hub:
        link = await hub.store.read(lambda conn: principals.find_by_identity(conn, ACCOUNT, "u0"))
        assert link is not None
        bench = _Bench(hub, link.principal)
        for _ in range(60):  # what is read back was said through the hub
            await bench.say("/whoami")
        yield bench


def _make_home(home: Path, automations: int) -> None:
    home.mkdir(mode=0o700)
    (home / "catalogue.json").write_text(catalogue(automations).model_dump_json())


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[Hub]:
    hub = await open_hub(settings)
    try:
        yield hub
    finally:
        await hub.intake.aclose()
        await hub.outbox.aclose()
        await hub.prefect.aclose()
        await hub.store.aclose()


async def _begin(hub: Hub) -> None:
    """One message that leaves a row of each kind: a start compares the newest with the key."""
    for number, text in enumerate(("/show-order 1024", "/whoami")):
        message = Message(
            account="console",
            native_id=f"first-{number}",
            sender=Sender(id=hub.owner_id),
            route=Route(account="console", conversation="owner"),
            text=text,
        )
        await hub.inbox.accept(message, principal_id=hub.owner_id)
        await hub.intake_is_empty()


# -- retention


@dataclass(frozen=True, slots=True)
class _Thinned:
    quiet: list[float]
    during: list[float]
    rows_per_s: float

    def row(self, conditions: dict[str, Any]) -> Row:
        here, there = percentile(self.during, 0.99), percentile(self.quiet, 0.99)
        return Row(
            name="flat.retention_commit_p99_ms",
            unit="ms",
            ours=here,
            peer="the same writes while nothing is due",
            theirs=there,
            ratio=there / here,
            n=len(self.during),
            conditions=conditions
            | {
                "commit_p50_ms": [round(statistics.median(one), 2) for one in (self.during, self.quiet)],
                "messages_forgotten_per_s": round(self.rows_per_s),
            },
        )


async def _thin(folder: Path, sizes: _Sizes, commits: int) -> _Thinned:
    store = await Store.open(folder / "full" / "parley.db")
    try:
        await _commits(store, 20)
        quiet = await _commits(store, commits)
        began = time.perf_counter()
        before = await _messages(store)
        cleaning = asyncio.create_task(sweep(store, now()))
        during = await _commits(store, commits)
        seconds = time.perf_counter() - began
        assert _is_measured(cleaning, sizes), "retention was done before the commits were"
        cleaning.cancel()
        await asyncio.gather(cleaning, return_exceptions=True)
        forgotten = before - await _messages(store)
    finally:
        await store.aclose()
    return _Thinned(quiet, during, forgotten / seconds)


def _is_measured(cleaning: asyncio.Task[Erased], sizes: _Sizes) -> bool:
    """In a dry run there is too little to thin to measure beside it."""
    return not cleaning.done() or sizes.messages < MESSAGES // 2


async def _messages(store: Store) -> int:
    count = sa.select(sa.func.count()).select_from(schema.message)

    async def fetch(conn: AsyncConnection) -> int:
        return int((await conn.execute(count)).scalar_one())

    return await store.read(fetch)


async def _commits(store: Store, count: int) -> list[float]:
    """Milliseconds of one small write after the other, as an arriving message makes it."""

    async def write(conn: AsyncConnection) -> None:
        row = {"topic": "bench", "body_sealed": os.urandom(600), "created_at": now()}
        await conn.execute(sa.insert(schema.event).values(row))

    took = []
    for _ in range(count):
        began = time.perf_counter()
        await store.write(write)
        took.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(BETWEEN)
    return took
