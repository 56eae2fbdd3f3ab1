"""The backlog: a bounded part of what waits is in memory, and all of it is handled in its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager

from parley.messages.backlog import Backlog
from parley.messages.inbox import Received
from parley.messages.intake import Intake
from parley.messages.model import File, Message, Route, Sender, now
from tests.fakes._driver import eventually


def received(number: int, size: int = 0) -> Received:
    files = (File(name="f", media_type="text/plain", content=b"x" * size),) if size else ()
    message = Message(
        account="chat",
        native_id=str(number),
        text="hi",
        sender=Sender(id="ann"),
        route=Route(account="chat", conversation="C1"),
        files=files,
    )
    return Received(
        id=f"m{number:06}",
        event=message,
        conversation_id="C1",
        principal_id=None,
        acting_for_id=None,
        received_at=now(),
        expires_at=now(),
    )


class Desk:
    """A store of messages, and a reception that takes its time."""

    def __init__(self, *, most: int = 10, most_bytes: int = 10_000) -> None:
        self.stored: list[Received] = []
        self.handled: list[str] = []
        self.open = asyncio.Event()
        self.broken: set[str] = set()
        self.attempts = 0
        self.peak = 0
        self.intake = Intake(self._handle)
        self.backlog = Backlog(self.intake, self._unhandled, most=most, most_bytes=most_bytes)

    def arrive(self, one: Received) -> None:
        self.stored.append(one)
        self.backlog.add(one)
        self.peak = max(self.peak, len(self.intake))

    async def _handle(self, one: Received) -> None:
        await self.open.wait()
        self.peak = max(self.peak, len(self.intake))
        self.attempts += 1
        if one.id in self.broken:
            raise RuntimeError("not now")
        await asyncio.sleep(0)
        self.stored.remove(one)
        self.handled.append(one.id)

    async def _unhandled(self, known: Container[str]) -> AsyncIterator[Received]:
        for one in list(self.stored):
            await asyncio.sleep(0)
            if one.id not in known and one in self.stored:
                yield one

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.backlog.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.intake.aclose()


async def test_thousands_wait_in_the_store_and_are_handled_in_their_order() -> None:
    desk = Desk()
    async with desk.at_work():
        for number in range(1000):
            desk.arrive(received(number))
        assert desk.backlog.is_behind
        desk.open.set()
        for number in range(1000, 1200):
            desk.arrive(received(number))
            await asyncio.sleep(0)
        await eventually(lambda: len(desk.handled) == 1200, "all are handled")
    assert desk.handled == [f"m{number:06}" for number in range(1200)]
    assert desk.peak <= 10
    assert (desk.backlog.is_behind, desk.intake.bytes) == (False, 0)


async def test_files_count_by_their_size() -> None:
    desk = Desk()
    async with desk.at_work():
        for number in range(8):
            desk.arrive(received(number, size=6000))
        assert len(desk.intake) == 2
        desk.open.set()
        await eventually(lambda: len(desk.handled) == 8, "all are handled")


async def test_one_that_cannot_be_handled_now_is_not_tried_without_end() -> None:
    desk = Desk(most=3)
    desk.open.set()
    desk.broken.add("m000000")
    async with desk.at_work():
        for number in range(20):
            desk.arrive(received(number))
        await eventually(lambda: len(desk.handled) == 19, "the others are handled")
        await eventually(lambda: not len(desk.intake), "nothing is in hand")
        await asyncio.sleep(0.1)
        assert desk.attempts < 40
        desk.broken.clear()
        await desk.backlog.take_up()  # as the reconciler does every few seconds
        await eventually(lambda: len(desk.handled) == 20, "all are handled")
