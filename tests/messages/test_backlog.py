"""The backlog: a bounded part of what waits is in memory, and all of it is handled in its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from typing import Any

from parley.messages.backlog import MOST_URGENT, Backlog
from parley.messages.inbox import Received
from parley.messages.intake import Intake
from parley.messages.model import Event, File, Message, Notice, Route, Sender, now
from tests.fakes._driver import eventually


def received(
    number: int, size: int = 0, *, text: str = "hi", conversation: str = "C1", alert: bool = False
) -> Received:
    about: dict[str, Any] = {
        "account": "chat",
        "native_id": str(number),
        "sender": Sender(id="ann"),
        "route": Route(account="chat", conversation=conversation),
    }
    files = (File(name="f", media_type="text/plain", content=b"x" * size),) if size else ()
    message: Event = Message(**about, text=text, files=files)
    if alert:
        message = Notice(**about, topic="alert.firing", title="disk", severity="critical")
    return Received(
        id=f"m{number:06}",
        event=message,
        conversation_id=conversation,
        principal_id=None,
        acting_for_id=None,
        received_at=now(),
        expires_at=now(),
    )


def _is_urgent(one: Received) -> bool:
    return isinstance(one.event, Notice) or (isinstance(one.event, Message) and one.event.text == "/cancel")


class Desk:
    """A store of messages, and a reception that takes its time."""

    def __init__(self, *, most: int = 10, most_bytes: int = 10_000) -> None:
        self.stored: list[Received] = []
        self.handled: list[str] = []
        self.open = asyncio.Event()
        self.broken: set[str] = set()
        self.attempts = 0
        self.peak = 0
        self.intake = Intake(self._handle, urgent=_is_urgent)
        self.backlog = Backlog(
            self.intake, self._unhandled, self._unhandled_before, most=most, most_bytes=most_bytes
        )

    def arrive(self, one: Received) -> None:
        self.stored.append(one)
        self.backlog.add(one)
        self.peak = max(self.peak, len(self.intake))

    async def _handle(self, one: Received) -> None:
        if one.event.type != "message" or one.event.text != "/cancel":
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

    async def _unhandled_before(
        self, message_id: str, conversation: str, known: Container[str]
    ) -> AsyncIterator[Received]:
        here = [one for one in self.stored if one.conversation_id == conversation]
        ids = [one.id for one in here]
        if message_id in ids:
            for one in here[: ids.index(message_id) + 1]:
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


async def test_what_is_urgent_does_not_wait_for_what_is_in_the_store() -> None:
    desk = Desk()
    async with desk.at_work():
        for number in range(100):
            desk.arrive(received(number, conversation=f"C{number}"))
        assert desk.backlog.is_behind
        desk.arrive(received(100, text="/cancel", conversation="ops"))
        await eventually(lambda: desk.handled == ["m000100"], "the urgent one, while nothing else moves")
        desk.open.set()
        await eventually(lambda: len(desk.handled) == 101, "all are handled, once")
    assert sorted(desk.handled[1:]) == [f"m{number:06}" for number in range(100)]


async def test_in_its_own_conversation_it_comes_when_it_was_said() -> None:
    """`/cancel` behind the request that it is about."""
    desk = Desk()
    async with desk.at_work():
        for number in range(50):
            desk.arrive(received(number, conversation=f"C{number}"))
        desk.arrive(received(50, conversation="ops"))
        desk.arrive(received(51, text="/cancel", conversation="ops"))
        desk.arrive(received(52, conversation="ops"))
        await eventually(lambda: "m000051" in desk.intake, "it is read, and what was said before it")
        assert "m000050" in desk.intake
        assert "m000052" not in desk.intake
        desk.open.set()
        await eventually(lambda: len(desk.handled) == 53, "all are handled")
    there = [id_ for id_ in desk.handled if id_ >= "m000050"]
    assert there == ["m000050", "m000051", "m000052"]


async def test_alerts_without_end_leave_room_for_people() -> None:
    desk = Desk()
    async with desk.at_work():
        for number in range(3 * MOST_URGENT):
            desk.arrive(received(number, conversation=f"A{number}", alert=True))
            await asyncio.sleep(0)
        assert len(desk.intake) <= 10 + MOST_URGENT / 2
        desk.arrive(received(9999, text="/cancel", conversation="ops"))
        await eventually(lambda: "m009999" in desk.intake, "it is read while no alert moves")
        assert desk.handled == []
        desk.open.set()
        await eventually(lambda: len(desk.handled) == 3 * MOST_URGENT + 1, "all are handled", within=60)


async def test_large_ones_before_it_stay_in_the_store() -> None:
    desk = Desk()
    async with desk.at_work():
        for number in range(20):
            desk.arrive(received(number, size=6000, conversation="ops"))
        desk.arrive(received(20, text="/cancel", conversation="ops"))
        await eventually(lambda: desk.intake.bytes >= 20_000, "as many as there is room for")
        assert desk.intake.bytes < 26_100
        assert "m000020" not in desk.intake
        desk.open.set()
        await eventually(lambda: len(desk.handled) == 21, "all are handled")
    assert desk.handled == [f"m{number:06}" for number in range(21)]
