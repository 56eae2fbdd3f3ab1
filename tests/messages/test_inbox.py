"""The inbox: stored once and before the acknowledgement, whatever a platform sends and however often."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import StoreUnavailable
from parley.messages import Accepted, Action, Edit, Event, File, Message, Route, Sender, derived_id
from parley.messages.inbox import Inbox, Received, conversation_id
from parley.messages.kept_routes import opened
from parley.people import principals
from parley.people.sealing import Keyring
from parley.settings import Limits, Retention
from parley.store import schema
from parley.store.engine import Store

ON_SQLITE = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""What does not depend on the database is tested on the faster one."""

ROUTE = Route(account="team", conversation="C1", thread="1.2", context={"url": "https://x"})


def message(native_id: str = "1", *, account: str = "team", route: Route = ROUTE, **more: Any) -> Message:
    given = {"account": account, "native_id": native_id, "sender": Sender(id="U1"), "text": "hello"} | more
    return Message(route=route.model_copy(update={"account": account}), **given)


@dataclass
class Arrivals:
    """Who is told of what was stored."""

    seen: list[Received] = field(default_factory=list)
    trouble: Exception | None = None

    def __call__(self, received: Received) -> None:
        self.seen.append(received)
        if self.trouble:
            raise self.trouble


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


@pytest.fixture
def inbox(store: Store, keyring: Keyring, arrivals: Arrivals) -> Inbox:
    return Inbox(store, keyring, Limits(message_age=60), Retention(), arrivals)


async def unhandled(inbox: Inbox, **more: Any) -> list[Received]:
    return [one async for one in inbox.unhandled(**more)]


async def rows(store: Store, table: sa.Table = schema.message) -> list[Any]:
    async def fetch(conn: AsyncConnection) -> list[Any]:
        return list((await conn.execute(sa.select(table))).all())

    return await store.read(fetch)


async def test_a_redelivery_gives_the_first_ones_id_and_changes_nothing(
    inbox: Inbox, store: Store, arrivals: Arrivals
) -> None:
    first = await inbox.accept(message("1", text="as it was"))
    again = await inbox.accept(message("1", text="another text"))
    assert (first.new, again.new) == (True, False)
    assert first.id == again.id
    (row,) = await rows(store)
    assert inbox.opened(row).event == arrivals.seen[0].event
    assert len(arrivals.seen) == 1


async def test_a_hundred_redeliveries_at_once_are_one_message(
    inbox: Inbox, store: Store, arrivals: Arrivals
) -> None:
    accepted = await asyncio.gather(*(inbox.accept(message("1")) for _ in range(100)))
    assert len({one.id for one in accepted}) == 1
    assert sum(one.new for one in accepted) == 1
    assert len(await rows(store)) == len(arrivals.seen) == 1


async def test_the_same_id_on_two_accounts_is_two_messages(inbox: Inbox, store: Store) -> None:
    await inbox.accept(message("1", account="one"))
    await inbox.accept(message("1", account="two"))
    assert {(row.account, row.native_id) for row in await rows(store)} == {("one", "1"), ("two", "1")}


async def test_all_that_was_received_comes_back(inbox: Inbox, store: Store, keyring: Keyring) -> None:
    files = (File(name="f.bin", content=bytes(range(256))),)
    sender = Sender(id="U1", name="Alice", language="zh")
    events: list[Event] = [
        message(
            "m",
            text="a\0b 中文 🚀",
            files=files,
            subject="s",
            sender=sender,
            left_out=("big.iso: too large",),
        ),
        Edit(account="team", native_id="e", sender=sender, route=ROUTE, target="m", text="x"),
        Action(account="team", native_id="a", sender=sender, route=ROUTE, value="/yes 1", target="m"),
    ]
    for event in events:
        await inbox.accept(event)
    found = await unhandled(inbox)
    assert [one.event for one in found] == events
    assert [opened(keyring, "message", row.id, row.route) for row in await rows(store)] == [ROUTE] * 3


@ON_SQLITE
async def test_what_is_stored_shows_no_text(inbox: Inbox, store: Store) -> None:
    await inbox.accept(message("1", text="the secret", files=(File(name="secret.txt", content=b"secret"),)))
    (row,) = await rows(store)
    assert b"secret" not in row.event_sealed
    assert "secret" not in str({**row._mapping, "event_sealed": b""})


@ON_SQLITE
async def test_one_conversation_is_one_row_and_a_thread_is_another(inbox: Inbox, store: Store) -> None:
    elsewhere = ROUTE.model_copy(update={"thread": None})
    for number, route in enumerate((ROUTE, elsewhere, ROUTE, elsewhere)):
        await inbox.accept(message(str(number), route=route))
    kept = {(row.native_id, row.thread) for row in await rows(store, schema.conversation)}
    assert kept == {("C1", "1.2"), ("C1", "")}


async def test_nothing_is_accepted_when_nothing_can_be_stored(
    tmp_path: Path, keyring: Keyring, arrivals: Arrivals
) -> None:
    store = await Store.open(tmp_path / "parley.db")
    inbox = Inbox(store, keyring, Limits(), Retention(), arrivals)
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await inbox.accept(message())
    assert arrivals.seen == []
    reopened = await Store.open(tmp_path / "parley.db")
    assert await rows(reopened) == []
    assert (await Inbox(reopened, keyring, Limits(), Retention(), arrivals).accept(message())).new
    await reopened.aclose()


@ON_SQLITE
async def test_a_stored_message_is_told_of_though_its_sender_went_away(
    inbox: Inbox, store: Store, arrivals: Arrivals
) -> None:
    """The connection that brought it ends during the commit: nobody waits for the answer, the message stands."""
    accepting: list[asyncio.Task[Accepted]] = []

    async def leave(conn: AsyncConnection) -> None:
        accepting[0].cancel()

    # Both are in one batch of the writer: the first has been carried out when the second lets its sender go.
    accepting.append(asyncio.create_task(inbox.accept(message())))
    await asyncio.sleep(0)
    await store.write(leave)
    await asyncio.wait(accepting)
    assert accepting[0].cancelled()
    assert len(await rows(store)) == len(arrivals.seen) == 1


@ON_SQLITE
async def test_a_listener_that_fails_does_not_have_the_platform_send_again(
    inbox: Inbox, store: Store, arrivals: Arrivals
) -> None:
    arrivals.trouble = RuntimeError("the intake is broken")
    assert (await inbox.accept(message())).new
    assert len(await rows(store)) == 1


@ON_SQLITE
async def test_unhandled_are_those_that_nobody_handled_in_the_order_of_their_arrival(
    inbox: Inbox, store: Store
) -> None:
    ids = [(await inbox.accept(message(str(number)))).id for number in range(5)]

    async def handle(conn: AsyncConnection) -> None:
        await conn.execute(
            sa.update(schema.message).where(schema.message.c.id == ids[1]).values(state="handled")
        )

    await store.write(handle)
    assert [one.id for one in await unhandled(inbox)] == [ids[0], *ids[2:]]
    assert [one.id for one in await unhandled(inbox, limit=2)] == [ids[0], ids[2]]


@ON_SQLITE
async def test_what_was_erased_or_cannot_be_opened_does_not_hold_up_the_others(
    inbox: Inbox, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    erased, broken, good = [(await inbox.accept(message(str(number)))).id for number in range(3)]

    async def damage(conn: AsyncConnection) -> None:
        table = schema.message
        await conn.execute(sa.update(table).where(table.c.id == erased).values(event_sealed=None))
        await conn.execute(sa.update(table).where(table.c.id == broken).values(event_sealed=b"\x01junk"))

    await store.write(damage)
    assert [one.id for one in await unhandled(inbox)] == [good]
    assert broken in caplog.text


async def test_who_logged_in_is_kept(inbox: Inbox, store: Store, arrivals: Arrivals) -> None:
    async def people(conn: AsyncConnection) -> tuple[str, str]:
        return await principals.add_principal(conn, "alice"), await principals.add_principal(conn, "bob")

    alice, bob = await store.write(people)
    await inbox.accept(message(), principal_id=alice, acting_for_id=bob)
    (found,) = await unhandled(inbox)
    assert (found.principal_id, found.acting_for_id) == (alice, bob)
    assert arrivals.seen == [found]


@ON_SQLITE
async def test_how_long_it_is_good_for(inbox: Inbox, arrivals: Arrivals) -> None:
    await inbox.accept(message())
    (received,) = arrivals.seen
    assert received.expires_at - received.received_at == timedelta(seconds=60)


# --- what databases do not take --------------------------------------------------------------------------------------


async def test_ids_with_a_nul_are_stored_and_stay_different(inbox: Inbox, store: Store) -> None:
    """PostgreSQL refuses a NUL in text: the platform would send it for ever."""
    for native_id in ("a\0b", "a\ufffdb", "ab"):
        sender = Sender(id=f"U\0{native_id}")
        assert (await inbox.accept(message(native_id, sender=sender))).new
    assert not (await inbox.accept(message("a\0b"))).new
    kept = await rows(store)
    assert len({row.native_id for row in kept}) == len({row.sender_id for row in kept}) == 3
    assert {row.native_id for row in kept} >= {derived_id("a\0b"), "ab"}
    # What is asked later (who is this sender?) is asked with the id that the event has.
    assert all(inbox.opened(row).event.sender.id == row.sender_id for row in kept)


async def test_a_conversation_with_a_nul_is_a_conversation(inbox: Inbox, store: Store) -> None:
    for thread in ("t\0", "t\0", None):
        await inbox.accept(
            message(derived_id(str(thread)), route=ROUTE.model_copy(update={"thread": thread}))
        )
    assert len(await rows(store, schema.conversation)) == 2


BAD = "x\ud800y"


@ON_SQLITE
@pytest.mark.parametrize(
    "event",
    [
        message(sender=Sender(id="U1", name=BAD)),
        message(subject=BAD, left_out=(BAD,)),
        message(route=ROUTE.model_copy(update={"thread": BAD, "context": {BAD: BAD}})),
        message(files=(File(name="f", media_type=BAD, content=b"\xff"),)),
    ],
)
async def test_a_lone_surrogate_is_replaced(inbox: Inbox, event: Message) -> None:
    """Where a length is bounded the model refuses it; elsewhere it comes as far as the inbox."""
    assert (await inbox.accept(event)).new
    (received,) = await unhandled(inbox)
    assert "x\ufffdy" in str(received.event.model_dump())


@ON_SQLITE
async def test_the_same_place_is_found_by_its_route(store: Store) -> None:
    async def find(conn: AsyncConnection) -> tuple[str, str]:
        moved = ROUTE.model_copy(update={"context": {}, "private_to": "U1"})
        return await conversation_id(conn, ROUTE), await conversation_id(conn, moved)

    one, other = await store.write(find)
    assert one == other


@ON_SQLITE
async def test_what_is_being_handled_is_not_read_again(inbox: Inbox, store: Store) -> None:
    first, second = [(await inbox.accept(message(str(n)))).id for n in range(2)]
    assert [one.id for one in await unhandled(inbox, known={first})] == [second]


@ON_SQLITE
async def test_what_was_handled_meanwhile_is_not_handed_on(inbox: Inbox, store: Store) -> None:
    first, second = [(await inbox.accept(message(str(n)))).id for n in range(2)]
    table, seen = schema.message, []
    async for one in inbox.unhandled():
        seen.append(one.id)
        done = sa.update(table).where(table.c.id == second).values(state="handled")
        await store.write(lambda conn, done=done: conn.execute(done))  # type: ignore[misc]
    assert seen == [first]


async def before(inbox: Inbox, store: Store, native_id: str, **more: Any) -> list[str]:
    (row,) = [one for one in await rows(store) if one.native_id == native_id]
    return [one.event.native_id async for one in inbox.unhandled_before(row.id, row.conversation_id, **more)]


async def test_what_waits_before_one_in_its_conversation_comes_in_its_order(
    inbox: Inbox, store: Store
) -> None:
    for number in range(5):
        await inbox.accept(message(str(number)))
        await inbox.accept(message(f"elsewhere {number}", route=Route(account="team", conversation="C2")))
    assert await before(inbox, store, "3") == ["0", "1", "2", "3"]
    by_id = {row.native_id: row.id for row in await rows(store)}
    assert await before(inbox, store, "3", known={by_id["1"]}) == ["0", "2", "3"]
    assert await before(inbox, store, "3", most=3) == ["0", "1", "2", "3"]
    assert await before(inbox, store, "3", most=2) == []  # too much is before it: it waits with the others


async def test_what_was_handled_is_not_before_anything(inbox: Inbox, store: Store) -> None:
    for number in range(3):
        await inbox.accept(message(str(number)))
    table = schema.message
    await store.write(
        lambda conn: conn.execute(sa.update(table).where(table.c.native_id == "0").values(state="handled"))
    )
    assert await before(inbox, store, "2") == ["1", "2"]
    assert await before(inbox, store, "0") == []
