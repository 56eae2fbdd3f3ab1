from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.store import schema
from parley.store.engine import Store
from parley.store.retention import (
    AIM,
    BATCH,
    LEAST_BATCH,
    MOST_BATCH,
    REST,
    Erased,
    Kept,
    erase_expired,
    fitting,
    sweep,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
ERASE = START + timedelta(days=30)
FORGET = START + timedelta(days=180)
ROUTE = {"account": "a", "conversation": "c"}


async def put(conn: AsyncConnection, table: sa.Table, **values: Any) -> None:
    await conn.execute(sa.insert(table).values({"created_at": START, **values}))


async def place(conn: AsyncConnection) -> None:
    await put(conn, schema.conversation, id="c", account="a", native_id="n", thread="", kind="direct")
    await put(
        conn, schema.principal, id="p", name="p", kind="person", role="user", automations=[], enabled=True
    )


async def message(conn: AsyncConnection, key: str, *, state: str = "handled") -> None:
    row = {
        "id": key,
        "account": "a",
        "native_id": key,
        "conversation_id": "c",
        "sender_id": "s",
        "type": "message",
        "event_sealed": b"body",
        "route": ROUTE,
        "state": state,
        "received_at": START,
        "expires_at": START + timedelta(hours=6),
        "erase_after": ERASE,
        "forget_after": FORGET,
    }
    await conn.execute(sa.insert(schema.message).values(row))


async def request(conn: AsyncConnection, key: str, of: str | None, *, state: str = "done") -> None:
    await put(
        conn,
        schema.request,
        id=key,
        message_id=of,
        automation="order",
        ordinal=0,
        origin="command" if of else "schedule",
        automation_version="",
        parameters_sealed=b"parameters",
        digest="",
        state=state,
        lane="people",
        fell_back=False,
        expires_at=START,
    )


async def delivery(conn: AsyncConnection, source: str, of: str | None, *, state: str = "sent") -> None:
    await put(
        conn,
        schema.delivery,
        id=source,
        source=source,
        ordinal=0,
        account="a",
        message_id=of,
        route=ROUTE,
        body_sealed=b"answer",
        token="t",
        state=state,
        attempts=1,
        next_attempt_at=START,
        erase_after=ERASE,
    )


async def whole_way(
    conn: AsyncConnection, key: str, *, message_state: str = "handled", request_state: str = "done"
) -> None:
    """A message with everything that can hang on one."""
    await message(conn, key, state=message_state)
    await request(conn, f"r{key}", key, state=request_state)
    await put(conn, schema.run, id=f"run{key}", request_id=f"r{key}", epoch=1, state="finished", said=1)
    await put(
        conn,
        schema.question,
        id=f"q{key}",
        run_id=f"run{key}",
        ordinal=0,
        conversation_id="c",
        json_schema={},
        answer_sealed=b"a",
        state="answered",
        expires_at=START,
    )
    await put(
        conn,
        schema.approval,
        id=f"a{key}",
        request_id=f"r{key}",
        digest="d",
        needed=1,
        state="granted",
        expires_at=START,
    )
    await put(conn, schema.vote, id=f"v{key}", approval_id=f"a{key}", principal_id="p", granted=True)
    await delivery(conn, f"run:run{key}", None)
    await delivery(conn, f"message:{key}", key)
    for name, owner in (("in", {"message_id": key}), ("out", {"delivery_id": f"message:{key}"})):
        row = {
            "media_type": "text/plain",
            "size": 1,
            "content_sealed": b"f",
            "erase_after": ERASE,
            "ordinal": 0,
        }
        await put(conn, schema.file, id=f"{name}{key}", **owner, **row)


async def count(store: Store, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(*where)
    return int(await store.read(lambda conn: conn.scalar(query)) or 0)


async def left(store: Store) -> Mapping[str, int]:
    """How many sealed values each column still has."""
    columns = {
        "message": schema.message.c.event_sealed,
        "request": schema.request.c.parameters_sealed,
        "question": schema.question.c.answer_sealed,
        "delivery": schema.delivery.c.body_sealed,
        "file": schema.file.c.content_sealed,
    }
    return {name: await count(store, column.table, column.is_not(None)) for name, column in columns.items()}


async def test_nothing_goes_before_its_time(store: Store) -> None:
    await store.write(place)
    await store.write(lambda conn: whole_way(conn, "1"))
    assert await sweep(store, ERASE - timedelta(seconds=1)) == Erased()


async def test_bodies_go_first_and_keys_stay(store: Store) -> None:
    await store.write(place)
    await store.write(lambda conn: whole_way(conn, "1"))
    assert set((await left(store)).values()) == {1, 2}
    assert await sweep(store, ERASE) == Erased(bodies=3, files=2)
    assert set((await left(store)).values()) == {0}
    assert await count(store, schema.message) == 1
    assert await sweep(store, ERASE) == Erased()


async def test_then_the_message_goes_with_all_that_hangs_on_it(store: Store) -> None:
    await store.write(place)
    await store.write(lambda conn: whole_way(conn, "1"))
    erased = await sweep(store, FORGET)
    assert erased.messages == 1
    tables = ("message", "request", "run", "question", "approval", "vote", "delivery", "file")
    assert [await count(store, schema.metadata.tables[name]) for name in tables] == [0] * len(tables)


@pytest.mark.parametrize("state", ["needs-input", "awaiting-approval", "queued", "running"])
async def test_what_is_at_work_stays_whole(store: Store, state: str) -> None:
    await store.write(place)
    await store.write(lambda conn: whole_way(conn, "1", request_state=state))
    await sweep(store, FORGET)
    kept = await left(store)
    assert (kept["message"], kept["request"], kept["question"]) == (1, 1, 1)


async def test_a_message_nobody_handled_stays_with_its_files(store: Store) -> None:
    await store.write(place)
    await store.write(lambda conn: whole_way(conn, "1", message_state="received"))
    await sweep(store, FORGET)
    assert await count(store, schema.message, schema.message.c.event_sealed.is_not(None)) == 1
    assert await count(store, schema.file, schema.file.c.message_id == "1") == 1


@pytest.mark.parametrize("state", ["pending", "sending"])
async def test_an_answer_that_did_not_leave_stays_with_its_message(store: Store, state: str) -> None:
    async def waiting(conn: AsyncConnection) -> None:
        await place(conn)
        await message(conn, "1")
        await delivery(conn, "message:1", "1", state=state)

    await store.write(waiting)
    await sweep(store, FORGET)
    assert await left(store) == {"message": 0, "request": 0, "question": 0, "delivery": 1, "file": 0}
    assert await count(store, schema.message) == 1


async def test_what_had_no_message_goes_by_its_age(store: Store) -> None:
    async def scheduled(conn: AsyncConnection) -> None:
        await place(conn)
        await request(conn, "r", None)
        await request(conn, "open", None, state="running")
        await put(conn, schema.run, id="run", request_id="r", epoch=1, state="finished", said=0)
        await delivery(conn, "run:run", None)
        await delivery(conn, "alert:1", None)

    await store.write(scheduled)
    erased = await sweep(store, START + Kept().bodies)
    assert (erased.bodies, erased.requests) == (3, 0)
    erased = await sweep(store, START + Kept().keys)
    assert (erased.requests, erased.deliveries) == (1, 1)
    assert await store.read(lambda conn: conn.scalar(sa.select(schema.request.c.id))) == "open"
    assert await count(store, schema.delivery) == 0


async def test_old_events_go_and_their_numbers_are_never_used_again(store: Store) -> None:
    async def publish(conn: AsyncConnection) -> int:
        await put(conn, schema.event, topic="t")
        return int(await conn.scalar(sa.select(sa.func.max(schema.event.c.sequence))) or 0)

    numbers = [await store.write(publish) for _ in range(3)]
    assert (await sweep(store, START + Kept().events)).events == 3
    assert await store.write(publish) > max(numbers)


async def test_dead_tokens_go(store: Store) -> None:
    async def tokens(conn: AsyncConnection) -> None:
        await place(conn)
        for key, ends in (("dead", {"expires_at": START}), ("revoked", {"revoked_at": START}), ("good", {})):
            await put(conn, schema.token, id=key, principal_id="p", kind="bearer", digest=key, **ends)

    await store.write(tokens)
    assert (await sweep(store, START + Kept().tokens)).tokens == 2
    assert await store.read(lambda conn: conn.scalar(sa.select(schema.token.c.id))) == "good"


async def test_a_batch_is_small_and_the_next_one_goes_on(store: Store) -> None:
    async def many(conn: AsyncConnection) -> None:
        await place(conn)
        for number in range(BATCH + 10):
            await message(conn, f"{number}")

    await store.write(many)
    first = await store.write(lambda conn: erase_expired(conn, ERASE))
    assert (first.bodies, first.more) == (BATCH, True)
    second = await store.write(lambda conn: erase_expired(conn, ERASE))
    assert (second.bodies, second.more) == (10, False)
    assert (await sweep(store, FORGET)).messages == BATCH + 10


async def test_threads_in_which_nothing_was_said_for_long_are_forgotten(store: Store) -> None:
    async def links(conn: AsyncConnection) -> None:
        for key, used in (("old", START), ("new", START + timedelta(days=1))):
            row = {"id": key, "scope": "s", "key": key, "account": "a", "conversation": "c"}
            await conn.execute(
                sa.insert(schema.thread_link).values({**row, "delivery_id": "d", "used_at": used})
            )

    await store.write(links)
    assert (await sweep(store, START + Kept().keys)).links == 1
    assert await store.read(lambda conn: conn.scalar(sa.select(schema.thread_link.c.id))) == "new"


async def test_a_sweep_leaves_the_store_to_others_most_of_the_time(store: Store) -> None:
    async def fill(conn: AsyncConnection) -> None:
        await place(conn)
        for number in range(BATCH * 12):
            await message(conn, f"m{number}")

    await store.write(fill)
    spans: list[float] = []
    store.measured_by(lambda _writes, seconds: spans.append(seconds))
    began = time.monotonic()
    assert (await sweep(store, ERASE)).bodies == BATCH * 12
    took = time.monotonic() - began
    assert len(spans) >= 12
    assert sum(spans) < took / (1 + REST) * 1.2


def test_a_batch_shrinks_while_the_store_is_slow_and_grows_again() -> None:
    assert fitting(40, AIM) == 40
    assert fitting(40, 10 * AIM) == 20
    assert fitting(40, AIM * 4 / 3) == 30
    assert fitting(20, AIM / 10) == 40
    assert fitting(MOST_BATCH, 0.0) == MOST_BATCH
    assert fitting(LEAST_BATCH, 60.0) == LEAST_BATCH


async def test_others_write_while_a_sweep_goes_on(store: Store) -> None:
    async def fill(conn: AsyncConnection) -> None:
        await place(conn)
        for number in range(BATCH * 20):
            await message(conn, f"m{number}")

    await store.write(fill)
    sweeping = asyncio.create_task(sweep(store, FORGET))
    for number in range(20):
        await store.write(lambda conn, number=number: message(conn, f"new-{number}"))  # type: ignore[misc]
        assert number > 10 or not sweeping.done()
    assert (await sweeping).messages >= BATCH * 20
