"""Deliveries that stand under another one, or replace it: they wait for it, and know what to do when it died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from parley.errors import Rejected, Unknown, Unreachable, Unsupported
from parley.link.calls import DeliverCall
from parley.messages import Capabilities, Connector, Receipt, Reply, Route
from parley.messages.connector import Accept
from parley.messages.model import now
from parley.messages.outbox import Delivery, Outbox
from parley.people.sealing import Keyring
from parley.processes.listening import deliver
from parley.store import schema
from parley.store.engine import Store
from tests.fakes._driver import eventually
from tests.messages.test_outbox import Office, hub, place

ROOM = place()


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "parley.db")
    yield opened
    await opened.aclose()


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store, Keyring.generate())


@pytest_asyncio.fixture
async def outbox(office: Office) -> AsyncIterator[Outbox]:
    made = office.open()
    yield made
    await made.aclose()


async def write(office: Office, outbox: Outbox, text: str, **more: Any) -> Delivery:
    (one,) = await office.store.write(
        lambda conn: outbox.write(conn, f"event:{text}", [Reply(text=text)], ROOM, **more)
    )
    return one


async def thread(office: Office, outbox: Outbox) -> list[Delivery]:
    """A head, something under it, and the head's new text; in the store, not sent yet."""
    head = await write(office, outbox, "head")
    under = await write(office, outbox, "under", under_id=head.id)
    edit = await write(office, outbox, "edit", edit_of_id=head.id)
    return [head, under, edit]


async def test_they_follow_their_head_with_its_native_id(office: Office, outbox: Outbox) -> None:
    outbox.send(await thread(office, outbox))
    await office.ends("edit", "sent")
    head, under, edit = office.line.calls
    assert (head.route.thread, head.edits) == (None, None)
    assert (under.route.thread, under.edits) == ("n-head", None)
    assert edit.edits == "n-head"


async def test_they_wait_while_the_head_is_tried_again(office: Office, outbox: Outbox) -> None:
    office.line.expect("head", Unreachable("away"), Unreachable("away"))
    outbox.send(await thread(office, outbox))
    await office.ends("edit", "sent")
    assert [call.reply.text for call in office.line.calls] == ["head", "head", "head", "under", "edit"]


async def test_a_new_hub_finds_the_head_that_the_old_one_sent(office: Office) -> None:
    async with hub(office) as old:
        head, under, edit = await thread(office, old)
        old.send([head])
        await office.ends("head", "sent")
    async with hub(office):
        await office.ends("edit", "sent")
    assert [(call.reply.text, call.route.thread, call.edits) for call in office.line.calls] == [
        ("head", None, None),
        ("under", "n-head", None),
        ("edit", None, "n-head"),
    ]
    assert {under.id, edit.id} == {call.delivery_id for call in office.line.calls[1:]}


async def test_under_a_dead_head_it_is_said_plainly_and_the_edit_is_dropped(
    office: Office, outbox: Outbox
) -> None:
    office.line.expect("head", Rejected("no"))
    outbox.send(await thread(office, outbox))
    await office.ends("edit", "dead")
    assert await office.state("under") == "sent"
    assert [(call.reply.text, call.route.thread) for call in office.line.calls] == [
        ("head", None),
        ("under", None),
    ]


async def test_of_a_head_that_is_forgotten_nothing_is_changed(office: Office, outbox: Outbox) -> None:
    written = await thread(office, outbox)
    gone = sa.delete(schema.delivery).where(schema.delivery.c.id == written[0].id)
    await office.store.write(lambda conn: conn.execute(gone))
    outbox.send(written[1:])
    await office.ends("edit", "dead")
    assert [call.reply.text for call in office.line.calls] == ["under"]


async def test_what_waits_for_a_head_that_never_comes_goes_out_after_a_day(
    office: Office, outbox: Outbox
) -> None:
    written = await thread(office, outbox)
    later = sa.update(schema.delivery).values(created_at=now() - timedelta(days=2))
    await office.store.write(lambda conn: conn.execute(later))
    rows = await office.rows()
    outbox.send([outbox.opened(rows["under"])])
    await office.ends("under", "sent")
    assert office.line.calls[0].route.thread is None
    assert written[0].id not in {call.delivery_id for call in office.line.calls}


async def test_an_edit_whose_answer_was_lost_is_made_again_and_again(office: Office, outbox: Outbox) -> None:
    office.line.expect("edit", *[Unknown("lost")] * 4)
    outbox.send(await thread(office, outbox))
    await office.ends("edit", "sent")
    assert len(office.line.of("edit")) == 5


async def test_a_platform_that_cannot_edit_leaves_the_head_as_it_is(office: Office) -> None:
    told: list[str] = []

    async def undelivered(_conn: Any, one: Delivery, _state: str, _reason: str) -> list[Delivery]:
        told.append(one.reply.text)
        return []

    office.line.expect("edit", Unsupported("no edits"))
    made = office.open()
    made._undelivered = undelivered
    made.send(await thread(office, made))
    await office.ends("edit", "dead")
    await made.aclose()
    assert told == []


async def test_what_the_head_became_is_noted_for_replies_to_it(office: Office, outbox: Outbox) -> None:
    from parley.messages import thread_links

    head = await write(office, outbox, "head")
    await office.store.write(lambda conn: thread_links.put(conn, "s", "k", ROOM, head.id))
    outbox.send([head])
    await office.ends("head", "sent")
    found = await office.store.read(
        lambda conn: thread_links.shown_by(conn, ROOM.account, ROOM.conversation, "n-head")
    )
    assert (found.scope, found.key, found.delivery_id) == ("s", "k", head.id)


async def test_where_it_goes_is_stored_without_the_secret_in_it(office: Office, outbox: Outbox) -> None:
    route = ROOM.model_copy(update={"context": {"webhook": "https://example.org/token-1"}})
    (written,) = await office.store.write(
        lambda conn: outbox.write(conn, "event:x", [Reply(text="x")], route)
    )
    (row,) = (await office.rows()).values()
    assert "token-1" not in str(row.route)
    assert outbox.opened(row).route == route
    # A row of an earlier version shows it, and is read as it is.
    old = sa.update(schema.delivery).values(route=route.model_dump(mode="json"))
    await office.store.write(lambda conn: conn.execute(old))
    (row,) = (await office.rows()).values()
    assert outbox.opened(row).route == route
    # Moved to another row it does not open, and holds up nobody.
    moved = sa.update(schema.delivery).values(
        route={**ROOM.model_dump(mode="json"), "context_sealed": "AAAA"}
    )
    await office.store.write(lambda conn: conn.execute(moved))
    await write(office, outbox, "other")
    async with hub(office):
        await eventually(lambda: office.line.arrived == ["other"], "the other one is sent")
    assert written.id


# -- the listeners' half


class Room(Connector):
    """A platform that notes what it is told."""

    name = "room"
    capabilities = Capabilities(edits=True)

    def __init__(self) -> None:
        super().__init__("room")
        self.done: list[str] = []

    async def listen(self, accept: Accept) -> None:
        """Nobody says anything."""

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        self.done.append(f"send {reply.text}")
        return Receipt(native_ids=("1",))

    async def edit_message(self, native_id: str, reply: Reply, route: Route) -> Receipt:
        self.done.append(f"edit {native_id} {reply.text}")
        return Receipt(native_ids=(native_id,))

    async def check(self) -> None:
        """Always well."""


@pytest.mark.parametrize("again", [False, True])
async def test_an_edit_reaches_the_connector_as_one_also_when_it_is_repeated(again: bool) -> None:
    room = Room()
    call = DeliverCall(
        delivery_id="d",
        account="room",
        reply=Reply(text="new"),
        route=ROOM,
        token="t",
        again=again,
        edits="m1",
    )
    assert (await deliver(room, call)).native_ids == ("m1",)
    assert room.done == ["edit m1 new"]
