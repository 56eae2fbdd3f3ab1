"""A row is inserted unless its like is there, and the statement is compiled once."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id
from parley.store.insert_new import InsertNew, insert_new

KEY = ("account", "native_id", "thread")


def room(name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": new_id(), "account": "team", "native_id": name, "thread": "", "kind": "direct", "created_at": now(),
    } | more  # fmt: skip


async def insert(store: Store, *rows: dict[str, Any]) -> list[int]:
    async def write(conn: AsyncConnection) -> list[int]:
        statement = insert_new(schema.conversation, KEY)
        return [(await conn.execute(statement, row)).rowcount for row in rows]

    return await store.write(write)


async def test_the_second_of_two_alike_changes_nothing(store: Store) -> None:
    first, again, another = room("C1"), room("C1", kind="group"), room("C2")
    assert await insert(store, first, again, another) == [1, 0, 1]

    async def read(conn: AsyncConnection) -> list[Any]:
        table = schema.conversation
        return list((await conn.execute(sa.select(table).order_by(table.c.native_id))).all())

    rows = await store.read(read)
    assert [(row.id, row.kind) for row in rows] == [(first["id"], "direct"), (another["id"], "direct")]
    assert rows[0].created_at == first["created_at"]


async def test_what_the_table_knows_by_itself_need_not_be_given(store: Store) -> None:
    given = room("C1")
    del given["thread"]
    assert await insert(store, given) == [1]


async def test_another_rule_that_is_broken_is_an_error(store: Store) -> None:
    first = room("C1")
    await insert(store, first)
    try:
        await insert(store, room("C2", id=first["id"]))
    except Exception as error:  # noqa: BLE001 - each database has its own
        assert "unique" in str(error).lower()  # noqa: PT017
    else:
        raise AssertionError("the same id twice")


async def test_values_may_stand_in_the_statement_too(store: Store) -> None:
    async def write(conn: AsyncConnection) -> int:
        return (await conn.execute(insert_new(schema.conversation, KEY).values(room("C1")))).rowcount

    assert [await store.write(write), await store.write(write)] == [1, 0]


def test_it_is_compiled_once_and_another_key_is_another_statement() -> None:
    statement = insert_new(schema.conversation, KEY)
    assert insert_new(schema.conversation, KEY) is statement
    key = statement._generate_cache_key()
    assert key is not None
    assert key == InsertNew(schema.conversation, KEY).inline()._generate_cache_key()
    assert key != InsertNew(schema.conversation, ("id",)).inline()._generate_cache_key()
    assert key != sa.insert(schema.conversation).inline()._generate_cache_key()
    assert str(statement).endswith(" ON CONFLICT (account, native_id, thread) DO NOTHING")
