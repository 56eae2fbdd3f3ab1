"""Inbox commits a second: how fast a listener gets events acknowledged over the link, each one on disk before that.

Ours has 64 events on their way at a time, as at a peak; beside it the same link with one at a time, where every event
waits for a commit of its own: what group commit is worth. The events are automatic mail, which is stored and never
answered, so that the hub does the whole of receiving and none of answering; while a block goes on it handles, beside
accepting, what it has. Processor time is that of both.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from benchmarks import stacks
from benchmarks.machine import ProcessorTime, watched
from benchmarks.rows import Row, percentile, scaled
from parley.link.calls import AcceptCall, Role
from parley.link.client import HubClient, default_address, role_token
from parley.messages.model import ConversationKind, Message, Route, Sender
from tests.stack import Stack

AT_ONCE = 64
EVENTS, ALONE, BLOCKS = 2000, 200, 3
CONVERSATIONS = 50
ACCOUNT = "console"
"""One that every installation has: mail would need a server."""


def measure(effort: float = 1.0) -> list[Row]:
    """`accept.per_s`."""
    with watched() as conditions, stacks.stack(effort) as stack:
        bench = _Accepts(stack)
        asyncio.run(bench.measure(scaled(EVENTS, effort, least=AT_ONCE), scaled(ALONE, effort, least=10)))
        conditions |= {
            "at_once": AT_ONCE,
            "ack_p50_ms": round(percentile(bench.took, 0.5), 1),
            "ack_p99_ms": round(percentile(bench.took, 0.99), 1),
            "alone_ack_p50_ms": round(percentile(bench.took_alone, 0.5), 1),
            "processor_ms_each": bench.processor,
        }
    here, there = statistics.median(bench.together), statistics.median(bench.alone)
    return [
        Row(
            name="accept.per_s",
            unit="1/s",
            ours=here,
            peer="one at a time on the same link",
            theirs=there,
            ratio=here / there,
            n=len(bench.took),
            conditions=conditions,
        )
    ]


class _Accepts:
    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._sent = 0
        self.together: list[float] = []
        self.alone: list[float] = []
        self.took: list[float] = []
        self.took_alone: list[float] = []
        self.processor: dict[str, float] = {}

    async def measure(self, events: int, alone: int) -> None:
        chosen = self._stack.settings
        token = role_token(chosen, Role.LISTENERS)
        async with HubClient(default_address(chosen), Role.LISTENERS, token, name="bench") as hub:
            await self._block(hub, alone, 1, [])
            for _ in range(BLOCKS):
                processor = ProcessorTime(self._stack)
                self.together.append(await self._block(hub, events, AT_ONCE, self.took))
                await asyncio.to_thread(self._stack.until, self._all_handled, 120, "all events are handled")
                self.processor = processor.each(events)
                self.alone.append(await self._block(hub, alone, 1, self.took_alone))

    def _all_handled(self) -> bool:
        return not self._stack.admin("status")["queue"]["unhandled"]

    async def _block(self, hub: HubClient, events: int, at_once: int, took: list[float]) -> float:
        numbers = iter(range(events))

        async def one_after_the_other() -> None:
            for _ in numbers:
                self._sent += 1
                start = time.perf_counter()
                answer = await hub.call("accept", AcceptCall(event=_event(self._sent)))
                took.append((time.perf_counter() - start) * 1e3)
                assert answer["new"], answer

        start = time.perf_counter()
        await asyncio.gather(*[one_after_the_other() for _ in range(at_once)])
        return events / (time.perf_counter() - start)


def _event(number: int) -> Message:
    return Message(
        account=ACCOUNT,
        native_id=f"bench-{number}",
        sender=Sender(id="robot@example.org"),
        route=Route(
            account=ACCOUNT,
            conversation=f"robot-{number % CONVERSATIONS}@example.org",
            kind=ConversationKind.MAIL,
        ),
        text=f"Notice {number}: a machine wrote this, and nobody waits for an answer.",
        automatic=True,
    )
