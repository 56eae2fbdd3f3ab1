"""Events a second through each of our connectors, beside the vendor's SDK alone on the same events.

The platform (a fake that speaks its protocol, or a real Dovecot and a real Prosody) is a process of its own; ours and
theirs receive in this one, in turn, block by block, each with a fresh connection, and each pair of blocks gives one
ratio. Both sides count what they hear: what storing costs is the inbox's and stands beside it as `into_inbox_per_s`.
Mail and Exchange find their mails waiting when they connect; everybody else is connected when people begin to write.
The hooks are called over HTTP behind the same server for both.

A platform that is slower than its reader hides what the reader costs. So `processor_ratio` compares the processor time
that each event took in the receiving process; it is also the figure that a busy machine hardly changes.

`python -m benchmarks.connector slack websocket` measures these alone and prints their rows.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import receivers, sdks
from benchmarks.machine import watched
from benchmarks.rows import Row, scaled, table
from parley.messages import Accept, Accepted, Event
from parley.messages.inbox import Inbox
from parley.people.sealing import Keyring
from parley.settings import Limits, Retention
from parley.store.engine import Store
from tests.stack import ROOT, plain_environment

Json = dict[str, Any]

EVENTS: Final = {"mail": 250, "exchange": 150, "xmpp": 300}
USUAL_EVENTS, PAIRS, LEAST = 600, 9, 20
WAITING: Final = frozenset({"mail", "exchange"})
"""What is written before anybody is connected: the reader's pace counts, not the writer's."""

ACCEPTED: Final = Accepted(id="counted", new=True)
"""What our connectors are answered: made once, for to make it is the inbox's work."""

PATIENCE: Final = 90.0
WARM_UP: Final = 5

WHY: Final = {
    "github": "without an SDK of GitHub's: the peer makes no event of it, neither topic nor text of what happened",
    "alertmanager": "without an SDK for Python: the peer says what its library for Go would",
    "webhook": "the SDK verifies; form, topic and what people read are made by us alone",
    "exchange": "the peer is exchangelib on the same operations: sync, and twenty at once fetch and mark",
    "mail": "the peer fetches, reads and marks; IMAPClient itself stops at the bytes",
    "xmpp": "a real Prosody, which keeps every message in its archive, sets the pace of both",
}


def measure(effort: float = 1.0) -> list[Row]:
    """`connector.<name>.per_s` of every connector that receives from a platform or a service."""
    return asyncio.run(measured(list(sdks.PEERS), effort))


async def measured(names: Sequence[str], effort: float) -> list[Row]:
    """The rows of these connectors."""
    async with _Platform.process() as process:
        return [await _measure(name, effort, process) for name in names]


async def _measure(name: str, effort: float, process: asyncio.subprocess.Process) -> Row:
    events = scaled(EVENTS.get(name, USUAL_EVENTS), effort, least=LEAST)
    ours, theirs = list[_Block](), list[_Block]()
    peer, make_peer = sdks.PEERS[name]
    with watched() as conditions:
        platform, counter = await _Platform.started(name, process), _Counter()
        if effort:  # uncounted: the first use of an SDK imports it
            await _block(platform, receivers.listening(name, platform.about, counter.accept), counter, LEAST)
            await _block(platform, make_peer(platform.about, counter.heard), counter, LEAST)
        for _ in range(scaled(PAIRS, effort)):
            mine = receivers.listening(name, platform.about, counter.accept)
            ours.append(await _block(platform, mine, counter, events))
            other = make_peer(platform.about, counter.heard)
            theirs.append(await _block(platform, other, counter, events))
        async with _inbox(counter) as accept:
            mine = receivers.listening(name, platform.about, accept)
            stored = await _block(platform, mine, counter, events)
        conditions.update(_conditions(name, ours, theirs, stored))
    here, there = _median(ours), _median(theirs)
    pairs = [mine.per_s / other.per_s for mine, other in zip(ours, theirs, strict=True)]
    return Row(
        name=f"connector.{name}.per_s",
        unit="1/s",
        ours=here,
        peer=peer,
        theirs=there,
        ratio=statistics.median(pairs),
        n=events * len(ours),
        conditions=conditions,
    )


class _Block:
    """So many events: how long they took, and how much of it was work of this process."""

    def __init__(self, events: int, seconds: float, processor: float) -> None:
        self.per_s = events / seconds
        self.processor_us = processor * 1e6 / events
        self.busy = processor / seconds


async def _block(
    platform: _Platform, receiver: AbstractAsyncContextManager[str], counter: _Counter, events: int
) -> _Block:
    if platform.name in WAITING:
        await platform.say(events)
        began, worked = time.perf_counter(), time.process_time()
        counter.expect(events)
        async with receiver:
            await counter.complete()
            return _Block(events, time.perf_counter() - began, time.process_time() - worked)
    async with receiver as url:
        await platform.prepare(events + WARM_UP, url)
        await _warm(platform, counter)
        counter.expect(events)
        began, worked = time.perf_counter(), time.process_time()
        saying = asyncio.create_task(platform.say(events))
        await counter.complete()
        block = _Block(events, time.perf_counter() - began, time.process_time() - worked)
        await saying
        return block


async def _warm(platform: _Platform, counter: _Counter) -> None:
    """Something is heard, and nothing is on its way any more: whoever connects has connected."""
    counter.expect(1)
    for _ in range(200):
        await platform.say(1)
        if await counter.completes_within(0.2):
            break
    seen = -1
    while seen != counter.count:
        seen = counter.count
        await asyncio.sleep(0.1)


class _Counter:
    """Counts what is heard, and says when it was enough."""

    def __init__(self) -> None:
        self.count = 0
        self._wanted = 0
        self._enough = asyncio.Event()

    def expect(self, events: int) -> None:
        """Begin anew."""
        self.count, self._wanted = 0, events
        self._enough.clear()

    def heard(self, text: str, sender: str) -> None:
        """One event of the peer's."""
        assert text
        assert sender
        self.count += 1
        if self.count == self._wanted:
            self._enough.set()

    async def accept(self, event: Event) -> Accepted:
        """One event of ours."""
        self.heard(getattr(event, "text", "") or getattr(event, "title", ""), event.sender.id)
        return ACCEPTED

    async def complete(self) -> None:
        """All that was expected was heard."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._enough.wait()
        except TimeoutError:
            raise AssertionError(f"{self.count} of {self._wanted} events were heard") from None

    async def completes_within(self, seconds: float) -> bool:
        """Whether it was enough by then."""
        try:
            async with asyncio.timeout(seconds):
                await self._enough.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def _inbox(counter: _Counter) -> AsyncIterator[Accept]:
    """A real inbox in a store of its own."""
    with tempfile.TemporaryDirectory(prefix="connector-") as folder:
        store = await Store.open(Path(folder) / "bench.db")
        try:
            inbox = Inbox(store, Keyring.generate(), Limits(), Retention(), lambda _: None)

            async def accept(event: Event) -> Accepted:
                accepted = await inbox.accept(event)
                await counter.accept(event)
                return accepted

            yield accept
        finally:
            await store.aclose()


class _Platform:
    """The source, in the process of all sources."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.about: Json = {}
        self._process = process
        self._asking = asyncio.Lock()

    @classmethod
    async def started(cls, name: str, process: asyncio.subprocess.Process) -> _Platform:
        """It runs, and the one before it does not any more."""
        platform = cls(name, process)
        platform.about = await platform._ask({"start": name})
        return platform

    @staticmethod
    @asynccontextmanager
    async def process() -> AsyncIterator[asyncio.subprocess.Process]:
        """The process, for the length of the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "benchmarks.sources"),
            env=plain_environment() | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 60)  # killed, it would leave its servers
            except TimeoutError:
                process.kill()
                await process.wait()

    async def prepare(self, events: int, url: str) -> None:
        """Have made what can be made before."""
        await self._ask({"prepare": events, "url": url})

    async def say(self, events: int) -> None:
        """People write so much."""
        await self._ask({"say": events})

    async def _ask(self, what: Json) -> Json:
        assert self._process.stdin
        assert self._process.stdout
        async with self._asking:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        assert line, f"the platform {self.name} has ended"
        told: Json = json.loads(line)
        return told


def _conditions(name: str, ours: Sequence[_Block], theirs: Sequence[_Block], stored: _Block) -> Json:
    here, there = _processor(ours), _processor(theirs)
    return {
        "ours_per_s": [round(one.per_s) for one in ours],
        "theirs_per_s": [round(one.per_s) for one in theirs],
        "processor_us_each": {"ours": round(here), "theirs": round(there)},
        "processor_ratio": round(there / here, 2),
        "busy": {
            "ours": round(statistics.median(one.busy for one in ours), 2),
            "theirs": round(statistics.median(one.busy for one in theirs), 2),
        },
        "into_inbox_per_s": round(stored.per_s),
    } | ({"note": WHY[name]} if name in WHY else {})


def _median(blocks: Sequence[_Block]) -> float:
    return statistics.median(block.per_s for block in blocks)


def _processor(blocks: Sequence[_Block]) -> float:
    # The least: what else the machine does only adds to it.
    return min(block.processor_us for block in blocks)


if __name__ == "__main__":
    rows = asyncio.run(measured(sys.argv[1:] or list(sdks.PEERS), 1.0))
    print(table(rows), *(f"{row.name}: {json.dumps(row.conditions)}" for row in rows), sep="\n")
