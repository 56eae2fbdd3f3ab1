"""What every connector is given by the base: the iterator, the callback, and honest answers for what it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar, cast

import pytest

from parley.errors import AuthError, Unknown, Unsupported
from parley.messages import (
    Accept,
    Accepted,
    CommandEntry,
    Connector,
    Event,
    HookRequest,
    Message,
    Receipt,
    Reply,
    Route,
    Sender,
)
from tests.fakes._driver import eventually

ROUTE = Route(account="radio", conversation="all")


def message(text: str) -> Message:
    return Message(account="radio", native_id=text, sender=Sender(id="U1"), route=ROUTE, text=text)


class Radio(Connector):
    """Says what it is given, one after the other, and notes what was acknowledged."""

    name: ClassVar[str] = "radio"

    def __init__(self, *texts: str, end: Exception | None = None) -> None:
        super().__init__("radio")
        self.texts, self.end = texts, end
        self.acknowledged: list[str] = []
        self.closed = 0
        self.listening = False

    async def listen(self, accept: Accept) -> None:
        self.listening = True
        try:
            for text in self.texts:
                taken = await accept(message(text))
                assert taken == Accepted(id=text, new=True)
                self.acknowledged.append(text)
            if self.end:
                raise self.end
            await asyncio.Event().wait()
        finally:
            self.listening = False

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        return Receipt(native_ids=(token,))

    async def check(self) -> None:
        pass

    async def aclose(self) -> None:
        self.closed += 1


def events(radio: Radio) -> aclosing[AsyncGenerator[Event]]:
    return aclosing(cast("AsyncGenerator[Event]", radio.receive_messages()))


async def test_events_come_in_order_and_are_acknowledged_when_the_next_is_asked_for() -> None:
    radio = Radio("one", "two", "three")
    async with events(radio) as received:
        assert (await anext(received)).native_id == "one"
        await asyncio.sleep(0)
        assert radio.acknowledged == []
        assert (await anext(received)).native_id == "two"
        assert radio.acknowledged == ["one"]
        assert (await anext(received)).native_id == "three"
        assert radio.acknowledged == ["one", "two"]


async def test_the_one_in_hand_when_the_iterator_is_left_is_not_acknowledged() -> None:
    """Whoever left in the middle may not have dealt with it: the platform brings it again."""
    radio = Radio("one", "two")
    async with events(radio) as received:
        await anext(received)
    assert radio.acknowledged == []
    assert not radio.listening


async def test_leaving_the_iterator_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    radio = Radio("one")
    async with events(radio) as received:
        await anext(received)
        waiting = asyncio.create_task(anext(received))
        await eventually(lambda: radio.acknowledged == ["one"], "the acknowledgement")
        waiting.cancel()
        await asyncio.wait({waiting})
    assert asyncio.all_tasks() <= before
    assert not radio.listening


async def test_the_iterator_ends_as_listening_ends() -> None:
    radio = Radio("one", end=AuthError("revoked"))
    async with events(radio) as received:
        assert (await anext(received)).native_id == "one"
        with pytest.raises(AuthError, match="revoked"):
            await anext(received)
    assert radio.acknowledged == ["one"]


async def test_a_callback_is_awaited_before_the_acknowledgement() -> None:
    radio = Radio("one", "two")
    go_on = asyncio.Event()
    heard: list[str] = []

    async def handler(event: Event) -> None:
        heard.append(event.native_id)
        await go_on.wait()

    task = asyncio.create_task(radio.register_callback(handler))
    await eventually(lambda: heard, "the event")
    assert radio.acknowledged == []
    go_on.set()
    await eventually(lambda: radio.acknowledged == ["one", "two"], "both acknowledgements")
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_what_a_callback_raises_is_not_acknowledged() -> None:
    radio = Radio("one")

    async def handler(event: Event) -> None:
        raise RuntimeError(event.native_id)

    with pytest.raises(RuntimeError, match="one"):
        await radio.register_callback(handler)
    assert radio.acknowledged == []


async def test_it_is_closed_with_its_block() -> None:
    async with Radio() as radio:
        assert radio.closed == 0
    assert radio.closed == 1


async def test_what_it_lacks_is_unsupported_or_nothing() -> None:
    radio = Radio()

    async def accept(event: Event) -> Accepted:
        return Accepted(id=event.native_id, new=True)

    with pytest.raises(Unsupported, match="radio"):
        await radio.edit_message("1", Reply(text="x"), ROUTE)
    with pytest.raises(Unsupported, match="radio"):
        await radio.handle_hook(HookRequest(method="GET", path="/", headers={}), accept)
    with pytest.raises(Unknown, match="radio"):
        await radio.find_sent("t", ROUTE)
    await radio.show_typing(ROUTE)
    await radio.catalogue_changed((CommandEntry(name="order", summary="Show it."),))
