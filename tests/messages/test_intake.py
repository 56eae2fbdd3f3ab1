"""Events are handled in order within their conversation, and conversations side by side."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from parley.messages import Message, Route, Sender
from parley.messages.inbox import Received
from parley.messages.intake import SIDE_BY_SIDE, Intake
from parley.messages.model import now
from tests.fakes._driver import eventually


def received(id_: str, conversation: str = "C1") -> Received:
    route = Route(account="team", conversation=conversation)
    event = Message(account="team", native_id=id_, sender=Sender(id="U1"), route=route)
    return Received(
        id=id_,
        event=event,
        conversation_id=conversation,
        principal_id=None,
        acting_for_id=None,
        received_at=now(),
        expires_at=now(),
    )


@dataclass
class Desk:
    """Handles what it is given as soon as its gate is open; some fail."""

    begun: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    shut: set[str] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0

    async def handle(self, one: Received) -> None:
        self.begun.append(one.id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if one.id in self.shut:
                await self.gates[one.id].wait()
            await asyncio.sleep(0)
            if one.id in self.failing:
                raise RuntimeError(f"{one.id} failed")
            self.done.append(one.id)
        finally:
            self.at_once -= 1


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest_asyncio.fixture
async def intake(desk: Desk) -> AsyncIterator[Intake]:
    made = Intake(desk.handle)
    yield made
    await made.aclose()


async def test_one_conversation_is_handled_in_order(intake: Intake, desk: Desk) -> None:
    ids = [str(number) for number in range(50)]
    for id_ in ids:
        intake.add(received(id_))
    await intake.empty()
    assert desk.done == ids
    assert desk.most_at_once == 1


async def test_a_conversation_that_waits_holds_up_no_other(intake: Intake, desk: Desk) -> None:
    desk.shut.add("slow")
    intake.add(received("slow", "C1"))
    intake.add(received("behind", "C1"))
    intake.add(received("quick", "C2"))
    await eventually(lambda: "quick" in desk.done, "the other conversation")
    assert desk.begun == ["slow", "quick"]
    desk.gates["slow"].set()
    await intake.empty()
    assert desk.done == ["quick", "slow", "behind"]


async def test_only_so_many_at_once(intake: Intake, desk: Desk) -> None:
    for number in range(4 * SIDE_BY_SIDE):
        intake.add(received(str(number), f"C{number}"))
    await intake.empty()
    assert desk.most_at_once == SIDE_BY_SIDE
    assert len(desk.done) == 4 * SIDE_BY_SIDE


async def test_what_is_urgent_does_not_wait_for_the_others(desk: Desk) -> None:
    intake = Intake(desk.handle, urgent=lambda received: received.id.startswith("urgent"))
    for number in range(2 * SIDE_BY_SIDE):
        desk.shut.add(str(number))
        intake.add(received(str(number), f"C{number}"))
    intake.add(received("urgent", "U"))
    await eventually(lambda: "urgent" in desk.done, "the urgent one")
    assert desk.done == ["urgent"]
    for gate in desk.gates.values():
        gate.set()
    await intake.aclose()


async def test_one_that_cannot_be_judged_is_handled_with_the_others(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def urgent(one: Received) -> bool:
        if one.id == "odd":
            raise LookupError("the catalogue is gone")
        return False

    intake = Intake(desk.handle, urgent=urgent)
    for id_ in ("before", "odd", "after"):
        intake.add(received(id_))
    await intake.empty()
    assert desk.done == ["before", "odd", "after"]
    assert len(intake) == 0
    assert "message odd" in caplog.text
    intake.add(received("odd"))  # and its conversation is not stuck
    await intake.empty()
    assert desk.done[-1] == "odd"


async def test_the_same_event_is_handled_once_while_it_is_in_hand(intake: Intake, desk: Desk) -> None:
    """The reconciler takes up what is in the inbox, which what is being handled still is."""
    desk.shut.add("one")
    for _ in range(3):
        intake.add(received("one"))
        intake.add(received("two"))
    assert len(intake) == 2
    desk.gates["one"].set()
    await intake.empty()
    assert desk.done == ["one", "two"]
    assert len(intake) == 0


async def test_what_could_not_be_handled_may_be_taken_up_again(
    intake: Intake, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.failing.add("one")
    intake.add(received("one"))
    intake.add(received("two"))
    await intake.empty()
    assert desk.done == ["two"]
    assert "stays in the inbox" in caplog.text
    desk.failing.clear()
    intake.add(received("one"))
    await intake.empty()
    assert desk.done == ["two", "one"]


async def test_what_arrives_while_the_last_one_is_handled_is_not_forgotten(
    intake: Intake, desk: Desk
) -> None:
    desk.shut.add("one")
    intake.add(received("one"))
    await eventually(lambda: desk.begun, "the first")
    intake.add(received("two"))
    desk.gates["one"].set()
    await intake.empty()
    assert desk.done == ["one", "two"]


async def test_after_the_end_nothing_is_left(intake: Intake, desk: Desk) -> None:
    before = asyncio.all_tasks()
    desk.shut.add("one")
    intake.add(received("one"))
    await eventually(lambda: desk.begun, "the first")
    await intake.aclose()
    assert asyncio.all_tasks() <= before
    assert desk.done == []
