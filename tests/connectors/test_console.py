"""The console and its desk beyond the contract: who is told what when it closes, and what is shown to whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connectors import console
from connectors.console import Console, Desk, Post, parse, render
from parley.errors import AuthError, BadSignature, Rejected, StoreUnavailable, Unreachable, Unsupported
from parley.messages import Accepted, Button, Event, Message, Reply, Route, Table

ROUTE = Route(account="console", conversation="alice")


def said(text: str = "hello", native_id: str = "p:1") -> dict[str, Any]:
    return {
        "type": "message",
        "native_id": native_id,
        "sender": {"id": "p", "name": "alice"},
        "route": ROUTE,
        "text": text,
    }


async def accept(event: Event) -> Accepted:
    return Accepted(id=event.native_id, new=True)


async def test_what_is_said_is_answered_with_what_was_stored() -> None:
    made = Console("console")
    listening = asyncio.create_task(made.listen(accept))
    assert await made.desk.say(said()) == Accepted(id="p:1", new=True)
    listening.cancel()
    await asyncio.wait({listening})


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"type": "message"},
        said() | {"text": "x" * 2_000_000},
        said() | {"nonsense": 1},
        said() | {"native_id": "a\0b"},
    ],
)
async def test_junk_is_refused_and_the_next_is_heard(raw: dict[str, Any]) -> None:
    made = Console("console")
    listening = asyncio.create_task(made.listen(accept))
    with pytest.raises(BadSignature):
        await made.desk.say(raw)
    assert (await made.desk.say(said())).new
    listening.cancel()
    await asyncio.wait({listening})


async def test_who_waits_when_listening_ends_is_told_that_nothing_was_stored() -> None:
    made = Console("console")
    begun = asyncio.Event()

    async def stuck(event: Event) -> Accepted:
        begun.set()
        await asyncio.Event().wait()
        return await accept(event)

    listening = asyncio.create_task(made.listen(stuck))
    saying = asyncio.create_task(made.desk.say(said()))
    await begun.wait()
    listening.cancel()
    await asyncio.wait({listening})
    with pytest.raises(StoreUnavailable):
        await saying


async def test_a_closed_desk_takes_nothing_and_tells_who_waited() -> None:
    desk = Desk()
    waiting = asyncio.create_task(desk.say(said()))
    await asyncio.sleep(0)
    desk.close()
    with pytest.raises(StoreUnavailable):
        await waiting
    with pytest.raises(StoreUnavailable):
        await desk.say(said())


async def test_whoever_left_is_not_listened_to() -> None:
    """A request that was given up is made again under the same id: taking both would be harmless, and for nothing."""
    made = Console("console")
    heard: list[str] = []

    async def note(event: Event) -> Accepted:
        heard.append(event.native_id)
        return await accept(event)

    gone = asyncio.create_task(made.desk.say(said(native_id="p:gone")))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    listening = asyncio.create_task(made.listen(note))
    await made.desk.say(said(native_id="p:here"))
    listening.cancel()
    await asyncio.wait({listening})
    assert heard == ["p:here"]


async def test_a_console_of_its_own_closes_its_desk_and_no_other() -> None:
    own, desk = Console("console"), Desk("key")
    await own.aclose()
    with pytest.raises(Unreachable):
        await own.check()
    guest = Console("console", desk, "key")
    await guest.aclose()
    await Console("console", desk, "key").check()


async def test_another_key_is_refused() -> None:
    with pytest.raises(AuthError):
        await Console("console", Desk()).check()


async def test_only_those_who_look_at_a_conversation_see_it() -> None:
    made = Console("console")
    async with made.desk.watching("alice") as alice, made.desk.watching("bob") as bob:
        await made.send_message(Reply(text="for alice"), ROUTE, token="t")
        assert alice.get_nowait() == Post(id="t", route=ROUTE, reply=Reply(text="for alice"))
        assert bob.empty()


async def test_who_is_far_behind_misses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MOST_BEHIND", 2)
    made = Console("console")
    async with made.desk.watching("alice") as alice:
        for number in range(3):
            await made.send_message(Reply(text=str(number)), ROUTE)
        assert [alice.get_nowait().reply.text for _ in range(alice.qsize())] == ["1", "2"]


async def test_what_was_shown_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_REMEMBERED", 1)
    made = Console("console")
    async with made.desk.watching("alice") as alice:
        for token in ("1", "2", "2", "1"):
            await made.send_message(Reply(text="x"), ROUTE, token=token)
        assert alice.qsize() == 3


def test_an_event_is_stamped_with_the_account() -> None:
    event = parse(said(), "another")
    assert isinstance(event, Message)
    assert (event.account, event.route.account) == ("another", "another")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(), Rejected),
        (Reply(table=Table(columns=("a",), rows=())), Unsupported),
        (Reply(buttons=(Button(label="x", value="x"),) * 26), Unsupported),
    ],
)
def test_what_cannot_be_shown_is_refused(reply: Reply, error: type[Exception]) -> None:
    with pytest.raises(error):
        render(reply, ROUTE, "t")
