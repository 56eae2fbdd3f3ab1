"""The event log, follows and thread links against a real store: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import PolicyError
from parley.messages import thread_links
from parley.messages.event_log import REMEMBERED, EventLog
from parley.messages.follows import MOST_HERE, Follows
from parley.messages.model import ConversationKind, Route, now
from parley.messages.published import Published
from parley.messages.topics import Pattern
from parley.people import principals
from parley.people.principals import Role
from parley.people.sealing import Keyring
from parley.store import schema
from parley.store.engine import Store

ALL = (Pattern("#"),)
ROOM = Route(
    account="slack", conversation="C1", kind=ConversationKind.CHANNEL, context={"service": "secret-url"}
)


def event(source: str, topic: str = "forge.push", **more: Any) -> Published:
    return Published(source=source, topic=topic, account="forge", **more)


@pytest.fixture
def log(store: Store, keyring: Keyring) -> EventLog:
    return EventLog(store, keyring)


async def add(store: Store, log: EventLog, *sources: str, **more: Any) -> list[bool]:
    return [await store.write(partial(log.append, event=event(source, **more))) for source in sources]


async def test_events_come_back_in_order_and_each_once(store: Store, log: EventLog) -> None:
    assert await add(store, log, "a", "b", "a", "c", title="t", data={"n": [1, "二"]}) == [
        True,
        True,
        False,
        True,
    ]
    found, place = await log.after(0, ALL, 2)
    assert [one.event.source for one in found] == ["a", "b"]
    assert found[0].event.data == {"n": [1, "二"]}
    rest, end = await log.after(place, ALL, 10)
    assert [one.event.source for one in rest] == ["c"]
    assert end == await log.newest()
    assert (await log.after(end, ALL, 10)) == ([], end)


async def test_many_at_once_are_all_there_and_a_reader_misses_none(store: Store, log: EventLog) -> None:
    seen: list[str] = []

    async def read() -> None:
        place = 0
        while len(seen) < 60:
            found, place = await log.after(place, ALL, 7)
            seen.extend(one.event.source for one in found)
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(read(), *(add(store, log, f"{n}a", f"{n}b", f"{n}c") for n in range(20)))
    assert sorted(seen) == sorted(f"{n}{letter}" for n in range(20) for letter in "abc")


async def test_only_topics_that_are_asked_for_come(store: Store, log: EventLog) -> None:
    await add(store, log, "a", topic="forge.push")
    await add(store, log, "b", topic="forge.tag.created")
    await add(store, log, "c", topic="message.slack")
    found, place = await log.after(
        0, (Pattern("forge.#"), Pattern("message.*")), 10, without=(Pattern("message.#"),)
    )
    assert [one.event.source for one in found] == ["a", "b"]
    assert place == await log.newest(), "what is passed over is not looked at again"


async def test_a_row_that_does_not_open_is_left_out(store: Store, log: EventLog) -> None:
    await add(store, log, "a", "b")
    broken = sa.update(schema.event).where(schema.event.c.source == "a").values(body_sealed=b"no")
    await store.write(lambda conn: conn.execute(broken))
    assert [one.event.source for one in (await log.after(0, ALL, 10))[0]] == ["b"]


async def test_what_is_stored_shows_no_text(store: Store, log: EventLog) -> None:
    await add(store, log, "a", title="the secret", text="secret", data={"x": "secret"})

    async def fetch(conn: Any) -> Any:
        return (await conn.execute(sa.select(schema.event))).one()

    assert "secret" not in str(await store.read(fetch))


async def test_a_pattern_is_remembered_for_a_day(store: Store, keyring: Keyring, log: EventLog) -> None:
    assert not log.is_wanted("run.done.x")
    await log.asked_for(["run.#"])
    assert log.is_wanted("run.done.x")
    fresh = EventLog(store, keyring)
    await fresh.load()
    assert fresh.is_wanted("run.done.x")
    old = sa.update(schema.event_reader).values(seen_at=now() - REMEMBERED - timedelta(seconds=1))
    await store.write(lambda conn: conn.execute(old))
    stale = EventLog(store, keyring)
    await stale.load()
    assert not stale.is_wanted("run.done.x")


async def test_a_follow_keeps_its_route_sealed_and_is_found_by_its_repository(
    store: Store, keyring: Keyring
) -> None:
    follows = Follows(keyring)
    ann = await store.write(lambda conn: principals.add_principal(conn, "ann", role=Role.OPERATOR))
    in_thread = ROOM.model_copy(update={"thread": "t1"})
    for name in ("octo/app", "octo/*", "group/*"):
        await store.write(partial(follows.add, name=name, topics=("*.push",), route=in_thread, by_id=ann))

    async def of(repository: Any, topic: str = "forge.push") -> list[Route]:
        about = event("x", topic, data={"repository": repository})
        return await store.read(lambda conn: follows.followers(conn, about))

    # The room itself: neither the thread in which it was asked for nor what only answers that message.
    room = Route(account=ROOM.account, conversation=ROOM.conversation, kind=ROOM.kind)
    assert await of("Octo/App") == [room, room]
    assert await of("octo/lib") == [room]
    assert await of("group/sub/project") == [room]
    assert await of("octo/app", "forge.tag.created") == []
    for nothing in (None, 7, ["octo/app"], "", "octo", "x" * 5000, "/" * 500):
        assert await of(nothing) == []

    async def fetch(conn: Any) -> Any:
        return (await conn.execute(sa.select(schema.follow))).all()

    rows = await store.read(fetch)
    assert "secret-url" not in str(rows)
    assert not any(b"channel" in row.route_sealed for row in rows)


async def test_a_conversation_follows_so_many_and_no_more(store: Store, keyring: Keyring) -> None:
    follows = Follows(keyring)
    ann = await store.write(lambda conn: principals.add_principal(conn, "ann"))

    async def fill(conn: Any) -> None:
        for n in range(MOST_HERE):
            await follows.add(conn, f"octo/r{n}", ("#",), ROOM, ann)

    await store.write(fill)
    with pytest.raises(PolicyError):
        await store.write(lambda conn: follows.add(conn, "octo/more", ("#",), ROOM, ann))
    await store.write(lambda conn: follows.add(conn, "octo/r1", ("*.push",), ROOM, ann))
    other = ROOM.model_copy(update={"conversation": "C2"})
    await store.write(lambda conn: follows.add(conn, "octo/more", ("#",), other, ann))


async def test_links_are_found_from_both_sides_and_replaced(store: Store) -> None:
    await store.write(lambda conn: thread_links.put(conn, "s", "k", ROOM, "d1"))
    await store.write(lambda conn: thread_links.delivered(conn, "d1", "native-1"))

    async def at(native_id: str) -> Any:
        return await store.read(lambda conn: thread_links.shown_by(conn, "slack", "C1", native_id))

    assert (await at("native-1")).key == "k"
    await store.write(lambda conn: thread_links.put(conn, "s", "k", ROOM, "d2", shown="x"))
    assert await at("native-1") is None
    found = await store.read(lambda conn: thread_links.find(conn, "s", "k", ROOM))
    assert (found.delivery_id, found.native_id, found.shown) == ("d2", None, "x")
    assert len(await store.read(lambda conn: thread_links.showing(conn, "s", "k"))) == 1
