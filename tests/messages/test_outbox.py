"""The outbox against a real store: what is known of a failed send decides what becomes of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import (
    AuthError,
    LinkError,
    RateLimited,
    Rejected,
    StoreUnavailable,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.link.calls import DeliverCall
from parley.link.connection import Disconnected
from parley.messages import Button, Capabilities, File, Receipt, Reply, Route
from parley.messages.outbox import MOST_DEATHS, Delivery, Outbox, back_off
from parley.messages.waiting_list import WaitingList
from parley.people.sealing import Keyring
from parley.settings import Retention
from parley.store import schema
from parley.store.engine import Store
from tests.fakes._driver import eventually

PLAIN = Capabilities(max_text=100, max_file=1000)
REMOVES_DUPLICATES = Capabilities(max_text=100, idempotent_send=True)

Step = Exception | Callable[[DeliverCall], Awaitable[None]]
"""What happens to one call: it fails so, or it does this and then arrives."""


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "parley.db")
    yield opened
    await opened.aclose()


@dataclass
class Line:
    """A holder that follows a script, account by account and text by text, and otherwise delivers."""

    calls: list[DeliverCall] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)
    script: dict[str, deque[Step]] = field(default_factory=lambda: defaultdict(deque))

    def expect(self, text: str, *steps: Step) -> None:
        self.script[text].extend(steps)

    async def deliver(self, call: DeliverCall) -> Receipt:
        self.calls.append(call)
        steps = self.script[call.reply.text]
        if steps:
            step = steps.popleft()
            if isinstance(step, Exception):
                raise step
            await step(call)
        self.arrived.append(call.reply.text)
        return Receipt(native_ids=(f"n-{call.reply.text}",))

    def of(self, text: str) -> list[DeliverCall]:
        return [call for call in self.calls if call.reply.text == text]


@dataclass
class Office:
    """A store, a key, the line to the accounts, and an outbox that may be made anew, as by a new hub."""

    store: Store
    keyring: Keyring
    line: Line = field(default_factory=Line)
    can: dict[str, Capabilities] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    ended: list[tuple[str, str]] = field(default_factory=list)
    pauses: list[int] = field(default_factory=list)
    pause: float = 0.0

    waiting: WaitingList | None = None

    def open(self) -> Outbox:
        return Outbox(
            self.store,
            self.keyring,
            Retention(),
            holder_of=lambda account: None if account in self.away else self.line,
            capabilities_of=lambda account: self.can.get(account, PLAIN),
            changed=self._changed,
            back_off=self._back_off,
            waiting=self.waiting,
        )

    async def _changed(self, one: Delivery, state: str) -> None:
        self.ended.append((one.reply.text, state))

    def _back_off(self, attempts: int) -> float:
        self.pauses.append(attempts)
        return self.pause

    async def write(
        self, outbox: Outbox, *texts: str | Reply, route: Route | None = None, source: str = ""
    ) -> list[Delivery]:
        replies = [Reply(text=text) if isinstance(text, str) else text for text in texts]
        where = route or place()
        return await self.store.write(
            lambda conn: outbox.write(conn, source or f"run:{texts}:{where}", replies, where)
        )

    async def send(self, outbox: Outbox, *texts: str | Reply, route: Route | None = None) -> list[Delivery]:
        written = await self.write(outbox, *texts, route=route)
        outbox.send(written)
        return written

    async def rows(self) -> dict[str, Any]:
        table = schema.delivery

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(sa.select(table).order_by(table.c.created_at, table.c.ordinal))).all()

        opener = self.open()
        return {opener.opened(row).reply.text: row for row in await self.store.read(fetch)}

    async def state(self, text: str) -> str:
        return str((await self.rows())[text].state)

    async def ends(self, text: str, state: str) -> None:
        await eventually(lambda: (text, state) in self.ended, f"{text} is {state}; {self.ended}")
        assert await self.state(text) == state


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store, Keyring.generate())


@pytest_asyncio.fixture
async def outbox(office: Office) -> AsyncIterator[Outbox]:
    made = office.open()
    yield made
    await made.aclose()


@asynccontextmanager
async def hub(office: Office) -> AsyncIterator[Outbox]:
    """An outbox that resumes what is stored, as a hub does when it starts."""
    made = office.open()
    await made.resume()
    try:
        yield made
    finally:
        await made.aclose()


def place(conversation: str = "C1", account: str = "team") -> Route:
    return Route(account=account, conversation=conversation)


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_a_reply_is_rendered_down_sealed_and_numbered(office: Office, outbox: Outbox) -> None:
    table_and_file = Reply(text="x" * 150, buttons=(Button(label="Yes", value="/yes 1"),))
    written = await office.write(outbox, "first", table_and_file, Reply())
    assert [one.ordinal for one in written] == list(range(len(written)))
    assert all(len(one.reply.text) <= 100 and not one.reply.buttons for one in written)
    assert len({one.token for one in written}) == len(written)
    rows = await office.rows()
    assert {row.state for row in rows.values()} == {"pending"}
    assert not [row for row in rows.values() if b"xxx" in row.body_sealed]


async def test_the_same_source_is_written_once(office: Office, outbox: Outbox) -> None:
    first = await office.write(outbox, "one", "two", source="run:1")
    assert len(first) == 2
    assert await office.write(outbox, "one", "two", source="run:1") == []
    assert len(await office.write(outbox, "three", source="run:2")) == 1


async def test_nothing_is_sent_before_it_is_committed(office: Office, outbox: Outbox) -> None:
    async def fail(conn: AsyncConnection) -> None:
        await outbox.write(conn, "run:1", [Reply(text="never")], place())
        raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        await office.store.write(fail)
    await outbox.account_is_back("team")
    assert office.line.calls == []
    assert await office.rows() == {}


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_what_was_sent_is_known_with_its_receipt(office: Office, outbox: Outbox) -> None:
    (one,) = await office.send(outbox, "hello")
    await office.ends("hello", "sent")
    row = (await office.rows())["hello"]
    assert row.receipt["native_ids"] == ["n-hello"]
    assert row.sent_at is not None
    (call,) = office.line.calls
    assert (call.delivery_id, call.token, call.again) == (one.id, one.token, False)
    assert outbox.waiting == 0


async def test_a_conversation_keeps_its_order_whatever_fails(office: Office, outbox: Outbox) -> None:
    texts = [f"{number}" for number in range(20)]
    for text in texts[::3]:
        office.line.expect(text, Unreachable("down"), RateLimited("slowly", 0))
    for text in texts:
        await office.send(outbox, text)
    await office.ends(texts[-1], "sent")
    assert office.line.arrived == texts


async def test_one_slow_conversation_holds_up_no_other(office: Office, outbox: Outbox) -> None:
    go_on = asyncio.Event()

    async def hang(_: DeliverCall) -> None:
        await go_on.wait()

    office.line.expect("slow", hang)
    await office.send(outbox, "slow", "behind", route=place("C1"))
    await office.send(outbox, "quick", route=place("C2"))
    await office.ends("quick", "sent")
    assert await office.state("slow") == "sending"
    go_on.set()
    await office.ends("behind", "sent")
    assert office.line.arrived == ["quick", "slow", "behind"]


async def test_a_conversation_that_waits_holds_up_no_other(office: Office, outbox: Outbox) -> None:
    for number in range(20):
        office.line.expect(f"limited {number}", RateLimited("an hour", 3600))
        await office.send(outbox, f"limited {number}", route=place(f"L{number}"))
    await office.send(outbox, "free", route=place("free"))
    await office.ends("free", "sent")


async def test_a_platform_that_asks_us_to_wait_is_given_that_time(office: Office, outbox: Outbox) -> None:
    office.line.expect("hello", RateLimited("wait", 0.3))
    loop = asyncio.get_running_loop()
    await office.send(outbox, "hello")
    await eventually(lambda: office.line.calls, "the first attempt")
    began = loop.time()
    await outbox.account_is_back("team")  # a holder that comes back knows nothing of the platform's wish
    await office.ends("hello", "sent")
    assert loop.time() - began >= 0.25
    assert office.pauses == []


@pytest.mark.parametrize("error", [Unreachable("down"), AuthError("revoked")])
async def test_what_never_left_is_sent_again_with_back_off(
    office: Office, outbox: Outbox, error: Exception
) -> None:
    office.line.expect("hello", *[error] * 5)
    await office.send(outbox, "hello")
    await office.ends("hello", "sent")
    assert office.pauses == [0, 1, 2, 3, 4]
    assert {call.token for call in office.line.calls} == {office.line.calls[0].token}
    assert not any(call.again for call in office.line.calls)


def test_back_off_grows_to_a_minute_and_no_further() -> None:
    pauses = [max(back_off(attempts) for _ in range(200)) for attempts in (0, 3, 100)]
    assert 0.25 < pauses[0] <= 0.5 < pauses[1] <= 4 < pauses[2] <= 60


async def test_it_is_given_up_after_a_day(
    office: Office, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    await office.write(outbox, "old")
    await age(office, timedelta(days=2))
    office.line.expect("old", Unreachable("still down"))
    await outbox.account_is_back("team")
    await office.ends("old", "dead")
    assert "still down" in (await office.rows())["old"].reason
    assert "is dead" in caplog.text


async def test_an_old_one_whose_fate_is_unknown_is_ambiguous_not_dead(office: Office, outbox: Outbox) -> None:
    office.can["team"] = REMOVES_DUPLICATES
    await office.write(outbox, "old")
    await age(office, timedelta(days=2))
    office.line.expect("old", Unknown("lost"))
    await outbox.account_is_back("team")
    await office.ends("old", "ambiguous")


async def age(office: Office, by: timedelta) -> None:
    table = schema.delivery

    async def change(conn: AsyncConnection) -> None:
        for row in (await conn.execute(sa.select(table.c.id, table.c.created_at))).all():
            moved = sa.update(table).where(table.c.id == row.id).values(created_at=row.created_at - by)
            await conn.execute(moved)

    await office.store.write(change)


@pytest.mark.parametrize("error", [Rejected("no such channel"), Unsupported("no buttons")])
async def test_what_is_refused_is_dead_and_the_next_goes_out(
    office: Office, outbox: Outbox, error: Exception
) -> None:
    office.line.expect("bad", error)
    await office.send(outbox, "bad", "good")
    await office.ends("good", "sent")
    assert await office.state("bad") == "dead"
    assert len(office.line.of("bad")) == 1


# --- perhaps sent ----------------------------------------------------------------------------------------------------

LOST: Iterable[Exception] = (
    Unknown("lost"),
    LinkError("the link broke"),
    TimeoutError(),
    RuntimeError("a bug"),
)


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_lost_answer_is_asked_for_once(office: Office, outbox: Outbox, error: Exception) -> None:
    office.line.expect("hello", error)
    await office.send(outbox, "hello", "behind")
    await office.ends("behind", "sent")
    assert await office.state("hello") == "sent"
    assert [call.again for call in office.line.of("hello")] == [False, True]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_what_cannot_be_found_out_is_ambiguous_and_never_sent_a_third_time(
    office: Office, outbox: Outbox, error: Exception
) -> None:
    office.line.expect("hello", error, error)
    await office.send(outbox, "hello", "behind")
    await office.ends("behind", "sent")
    assert ("hello", "ambiguous") in office.ended
    assert await office.state("hello") == "ambiguous"
    assert len(office.line.of("hello")) == 2


async def test_doubt_stays_while_holders_die(office: Office, outbox: Outbox) -> None:
    """That one died while it asked the platform is no answer: the next one asks again, and nothing is sent blindly."""
    office.line.expect("hello", *(Disconnected("the connection closed") for _ in range(3)))
    await office.send(outbox, "hello")
    await office.ends("hello", "sent")
    assert [call.again for call in office.line.calls] == [False, True, True, True]


async def test_a_reply_that_kills_its_holders_is_given_up(office: Office, outbox: Outbox) -> None:
    office.line.expect("hello", *(Disconnected("the connection closed") for _ in range(MOST_DEATHS + 1)))
    await office.send(outbox, "hello", "behind")
    await office.ends("behind", "sent")
    assert await office.state("hello") == "ambiguous"
    assert len(office.line.of("hello")) == MOST_DEATHS + 1


async def test_doubt_stays_while_the_platform_is_away(office: Office, outbox: Outbox) -> None:
    office.line.expect("hello", Unknown("lost"), RateLimited("wait", 0), Unreachable("down"))
    await office.send(outbox, "hello")
    await office.ends("hello", "sent")
    assert [call.again for call in office.line.calls] == [False, True, True, True]


async def test_a_platform_that_removes_duplicates_is_sent_it_again_with_the_same_token(
    office: Office, outbox: Outbox
) -> None:
    office.can["team"] = REMOVES_DUPLICATES
    office.line.expect("hello", *[Unknown("lost")] * 4)
    (one,) = await office.send(outbox, "hello")
    await office.ends("hello", "sent")
    assert [call.token for call in office.line.calls] == [one.token] * 5


# --- holders that come and go ----------------------------------------------------------------------------------------


async def test_without_a_holder_it_waits_and_goes_out_at_once_when_the_account_is_back(
    office: Office, outbox: Outbox
) -> None:
    office.away.add("team")
    await office.send(outbox, "one", "two")
    await office.send(outbox, "here", route=place("C9", "another"))
    await office.ends("here", "sent")
    assert office.line.of("one") == []
    assert (await office.state("one"), outbox.waiting) == ("pending", 2)
    office.away.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await outbox.account_is_back("team")
    await office.ends("two", "sent")
    assert loop.time() - began < 2
    assert office.line.arrived == ["here", "one", "two"]


async def test_an_account_that_is_back_ends_the_back_off(office: Office, outbox: Outbox) -> None:
    office.pause = 3600
    office.line.expect("hello", Unreachable("down"))
    await office.send(outbox, "hello")
    await eventually(lambda: office.pauses, "the first failure")
    await outbox.account_is_back("another")
    assert office.line.arrived == []
    await outbox.account_is_back("team")
    await office.ends("hello", "sent")


async def test_an_account_that_comes_back_during_an_attempt_is_not_missed(
    office: Office, outbox: Outbox
) -> None:
    office.pause = 3600

    async def back_and_fail(_: DeliverCall) -> None:
        await outbox.account_is_back("team")
        raise Unreachable("the old connection")

    office.line.expect("hello", back_and_fail)
    await office.send(outbox, "hello")
    await office.ends("hello", "sent")


async def test_what_is_on_its_way_is_not_sent_twice_when_the_account_comes_back(
    office: Office, outbox: Outbox
) -> None:
    """It was read from the store before it was sent, and taken up after."""

    async def meanwhile(_: DeliverCall) -> None:
        for _attempt in range(5):
            await outbox.account_is_back("team")

    office.line.expect("hello", Unreachable("down"), meanwhile)
    written = await office.send(outbox, "hello")
    await office.ends("hello", "sent")
    outbox.send(written)  # as if it had been read while it was pending
    outbox.send(written)
    await office.send(outbox, "after")
    await office.ends("after", "sent")
    assert office.line.arrived == ["hello", "after"]
    assert office.ended.count(("hello", "sent")) == 1


async def test_what_another_reader_took_up_first_is_not_sent_twice(office: Office, outbox: Outbox) -> None:
    """The account comes back between a transaction's commit and its `send`."""
    written = await office.write(outbox, "one", "two")
    await outbox.account_is_back("team")
    outbox.send(written)
    await office.ends("two", "sent")
    outbox.send(written)
    await office.send(outbox, "after")
    await office.ends("after", "sent")
    assert office.line.arrived == ["one", "two", "after"]


# --- crashes ---------------------------------------------------------------------------------------------------------


async def test_a_new_hub_sends_what_the_old_one_left(office: Office) -> None:
    async with hub(office) as before:
        await office.write(before, "one", "two", Reply(text="file", files=(File(name="f", content=b"x"),)))
    async with hub(office):
        await office.ends("file", "sent")
    assert office.line.arrived == ["one", "two", "file"]
    assert not any(call.again for call in office.line.calls)


async def test_what_was_being_sent_when_the_hub_died_is_asked_for(office: Office) -> None:
    async def forever(_: DeliverCall) -> None:
        await asyncio.Event().wait()

    office.line.expect("hello", forever)
    async with hub(office) as before:
        await office.send(before, "hello", "behind")
        await eventually(lambda: office.line.calls, "the attempt")
    assert await office.state("hello") == "sending"
    async with hub(office):
        await office.ends("behind", "sent")
    assert [call.again for call in office.line.of("hello")] == [False, True]
    assert [call.again for call in office.line.of("behind")] == [False]


async def test_doubt_outlives_the_hub(office: Office) -> None:
    office.pause = 3600
    office.line.expect("hello", Unknown("lost"))
    async with hub(office) as before:
        await office.send(before, "hello")
        await eventually(lambda: office.pauses, "the lost answer")
    office.line.expect("hello", Unknown("lost again"))
    async with hub(office):
        await office.ends("hello", "ambiguous")


async def test_what_is_settled_is_not_taken_up_again(office: Office) -> None:
    office.line.expect("bad", Rejected("no"))
    async with hub(office) as before:
        await office.send(before, "good", "bad")
        await office.ends("bad", "dead")
    async with hub(office) as after:
        await office.send(after, "new")
        await office.ends("new", "sent")
    assert [call.reply.text for call in office.line.calls] == ["good", "bad", "new"]


async def test_one_that_cannot_be_opened_does_not_hold_up_the_others(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    table = schema.delivery
    async with hub(office) as before:
        written = await office.write(before, "broken", "erased", "good")

    async def damage(conn: AsyncConnection) -> None:
        await conn.execute(
            sa.update(table).where(table.c.id == written[0].id).values(body_sealed=b"\x01junk")
        )
        await conn.execute(sa.update(table).where(table.c.id == written[1].id).values(body_sealed=None))

    await office.store.write(damage)
    async with hub(office):
        await eventually(lambda: ("good", "sent") in office.ended, "the good one")
    assert written[0].id in caplog.text


async def test_after_it_was_closed_nothing_begins(office: Office) -> None:
    async with hub(office) as closed:
        pass
    await office.send(closed, "later")
    assert closed.waiting == 0
    async with hub(office):
        await office.ends("later", "sent")


# --- a store that is out of order ------------------------------------------------------------------------------------


class Unsteady:
    """The store, whose writes fail as on a full disk while `full`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False
        self.refused = 0

    async def write(self, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        if self.full:
            self.refused += 1
            raise StoreUnavailable("the disk is full")
        return await self._store.write(work)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        return await self._store.read(work)


async def test_what_was_sent_while_the_disk_was_full_is_not_sent_again(store: Store) -> None:
    unsteady: Any = Unsteady(store)
    office = Office(unsteady, Keyring.generate(), pause=0.01)

    async def fill(_: DeliverCall) -> None:
        unsteady.full = True

    office.line.expect("hello", fill)
    async with hub(office) as outbox:
        await office.send(outbox, "hello")
        await eventually(lambda: unsteady.refused >= 3, "attempts to note it")
        unsteady.full = False
        await office.ends("hello", "sent")
    assert office.line.arrived == ["hello"]


async def test_nothing_is_sent_that_cannot_be_noted_first(store: Store) -> None:
    unsteady: Any = Unsteady(store)
    office = Office(unsteady, Keyring.generate(), pause=0.01)
    async with hub(office) as outbox:
        written = await office.write(outbox, "hello")
        unsteady.full = True
        outbox.send(written)
        await eventually(lambda: unsteady.refused >= 3, "attempts to note it")
        assert office.line.calls == []
        unsteady.full = False
        await office.ends("hello", "sent")


async def test_what_follows_from_a_delivery_may_fail(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    class Nervous(Office):
        async def _changed(self, one: Delivery, state: str) -> None:
            await super()._changed(one, state)
            raise RuntimeError("nobody listens")

    nervous = Nervous(office.store, office.keyring)
    async with hub(nervous) as outbox:
        await nervous.send(outbox, "one", "two")
        await nervous.ends("two", "sent")
    assert "nobody listens" in caplog.text


async def test_what_is_large_waits_in_the_store_alone(office: Office, outbox: Outbox) -> None:
    file = File(name="big.bin", content=b"x" * 200_000)
    office.can["team"] = Capabilities(max_text=100, max_file=1_000_000)
    office.away.add("team")
    written = await office.send(outbox, Reply(text="big", files=(file,)), "small")
    waiting = outbox._waiting._here[written[0].conversation_id]
    assert [len(one.reply.files) for one in waiting] == [0, 0]
    assert [one.reply.text for one in waiting] == ["", "small"]
    office.away.clear()
    await outbox.account_is_back("team")
    await eventually(lambda: office.line.arrived == ["big", "small"], "delivered")
    assert office.line.calls[0].reply.files == (file,)


async def test_what_is_taken_up_waits_in_the_store_alone(office: Office, outbox: Outbox) -> None:
    office.away.add("team")
    (written,) = await office.write(outbox, "one")
    await outbox.resume()
    waiting = outbox._waiting
    await eventually(lambda: waiting.first(written.conversation_id), "it is taken up")
    first = waiting.first(written.conversation_id)
    assert first is not None
    assert first.reply.is_empty()
    office.away.clear()
    await outbox.account_is_back("team")
    await office.ends("one", "sent")


async def test_an_account_that_nobody_holds_for_a_day_is_given_up(
    office: Office, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.away.add("team")
    await office.write(outbox, "one")
    await age(office, timedelta(days=2))
    await outbox.resume()
    await asyncio.sleep(0.05)
    assert await office.state("one") == "pending"  # this hub has only just come
    monkeypatch.setattr("parley.messages.outbox.TRIED_FOR", timedelta(0))
    await outbox.account_is_back("team")
    await eventually(lambda: bool(office.ended), "given up")
    assert await office.state("one") == "dead"


# --- more than memory takes ------------------------------------------------------------------------------------------


class Watched(WaitingList):
    """Small, and remembers how many were in memory at most."""

    def __init__(self) -> None:
        super().__init__(most_conversations=4, most_of_one=3)
        self.peak = 0

    def _append(self, one: Delivery) -> None:
        super()._append(one)
        self.peak = max(self.peak, len(self._sizes))


async def many(office: Office, outbox: Outbox, *, send: bool) -> dict[str, list[str]]:
    """20 conversations with 12 answers each; a conversation's texts in their order."""
    written: dict[str, list[str]] = defaultdict(list)
    for number in range(12):
        for conversation in (f"C{number}" for number in range(20)):
            text = f"{conversation} {number}"
            made = await office.write(outbox, text, route=place(conversation))
            if send:
                outbox.send(made)
            written[conversation].append(text)
    return written


def arrived(office: Office, conversation: str) -> list[str]:
    return [text for text in office.line.arrived if text.partition(" ")[0] == conversation]


@pytest.mark.parametrize("left", ["by an earlier hub", "while the account was away"])
async def test_hundreds_wait_in_the_store_and_each_conversation_keeps_its_order(
    office: Office, left: str
) -> None:
    office.away.add("team")
    waiting = office.waiting = Watched()
    outbox = office.open()
    written = await many(office, outbox, send=left != "by an earlier hub")
    if left == "by an earlier hub":
        await outbox.resume()
    await eventually(lambda: len(waiting._sizes) == 12, "as many as there is room for")
    assert outbox.waiting == 240
    office.away.clear()
    await outbox.account_is_back("team")
    later = await office.send(outbox, "C7 later", route=place("C7"))
    written["C7"].append("C7 later")
    outbox.send(later)
    await eventually(lambda: len(office.line.arrived) == 241, f"all arrive; {len(office.line.arrived)}", 60)
    await eventually(lambda: outbox.waiting == 0, "nothing waits")
    assert {conversation: arrived(office, conversation) for conversation in written} == written
    assert waiting.peak <= 12
    await outbox.aclose()


async def test_what_an_account_has_left_holds_up_no_other_account(office: Office) -> None:
    office.away.add("team")
    office.waiting = Watched()
    outbox = office.open()
    await many(office, outbox, send=True)
    await office.send(outbox, *[str(number) for number in range(30)], route=place("C1", "another"))
    await eventually(lambda: len(office.line.arrived) == 30, "the other account's")
    assert office.line.arrived == [str(number) for number in range(30)]
    await outbox.aclose()


async def test_a_conversation_that_waits_leaves_the_others_their_room(office: Office) -> None:
    office.waiting = Watched()
    outbox = office.open()
    office.line.expect("slow 0", RateLimited("an hour", 3600))
    await office.send(outbox, *[f"slow {number}" for number in range(30)], route=place("slow"))
    await many(office, outbox, send=True)
    await eventually(lambda: len(office.line.arrived) == 240, "all others")
    await eventually(lambda: outbox.waiting == 30, "the slow ones wait")
    await outbox.aclose()


async def test_what_cannot_be_opened_does_not_hide_what_is_behind_it(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    office.waiting = Watched()
    outbox = office.open()
    written = await office.write(outbox, *[f"broken {number}" for number in range(10)], "good")
    ids = [one.id for one in written[:10]]

    async def damage(conn: AsyncConnection) -> None:
        table = schema.delivery
        await conn.execute(sa.update(table).where(table.c.id.in_(ids)).values(body_sealed=b"\x01junk"))

    await office.store.write(damage)
    await outbox.resume()
    await eventually(lambda: ("good", "sent") in office.ended, "the good one")
    await eventually(lambda: outbox.waiting == 0, "nothing waits")
    assert len([line for line in caplog.messages if "cannot be opened" in line]) == 10
    await outbox.aclose()


async def test_one_that_was_left_is_given_up_after_its_day_too(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many were before it, each of which may be tried for a day of its own."""
    office.away.add("team")
    office.waiting = Watched()
    outbox = office.open()
    await office.send(outbox, *[str(number) for number in range(10)])
    await eventually(lambda: outbox.waiting == 10, "all wait")
    monkeypatch.setattr("parley.messages.outbox.TRIED_FOR", timedelta(0))
    await outbox.account_is_back("team")
    await eventually(lambda: len(office.ended) == 10, "all are given up")
    assert {state for _, state in office.ended} == {"dead"}
    await outbox.aclose()


class Interrupted:
    """A store in which something else happens right after the first read."""

    def __init__(self, store: Store, then: Callable[[], Awaitable[object]]) -> None:
        self._store = store
        self._then: Callable[[], Awaitable[object]] | None = then

    async def read(self, work: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
        found = await self._store.read(work)
        then, self._then = self._then, None
        if then is not None:
            await then()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_what_is_written_while_an_account_is_looked_at_goes_out(office: Office, outbox: Outbox) -> None:
    stored: Any = Interrupted(office.store, lambda: office.send(outbox, "meanwhile"))
    outbox._store = stored
    await outbox.account_is_back("team")
    await office.ends("meanwhile", "sent")
    await office.send(outbox, "later")
    await office.ends("later", "sent")
    assert outbox.waiting == 0
