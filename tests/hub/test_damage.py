"""Rows that were altered, moved, cut or copied over others: told with their place, and nobody else is held up."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError
from parley.messages.deliveries import Deliveries
from parley.messages.inbox import Inbox
from parley.messages.model import Capabilities, Message, Reply, Route, Sender
from parley.people.data_keys import DataKeys
from parley.processes.damaged import REASON
from parley.processes.hub import open_hub
from parley.runs import dead_letters
from parley.store import schema
from tests.hub.house import PATIENCE, House, house_in, settings_for, text_of
from tests.hub.test_keys import check
from tests.prefect_fixture import PrefectServer

pytestmark = pytest.mark.prefect


@pytest.fixture(autouse=True)
def credentials(deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub takes Prefect's password from its environment."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])


Spoil = Callable[[bytes, bytes], bytes]

SPOILS: dict[str, Spoil] = {
    "one bit": lambda own, _: own[:-1] + bytes([own[-1] ^ 1]),
    "cut": lambda own, _: own[:11],
    "of another row": lambda _, other: other,
    "another version": lambda own, _: b"\x07" + own[1:],
    "a key that is not there": lambda own, _: own[:1] + b"\x00\x00\x00\x00" + own[5:],
    "empty": lambda *_: b"",
}


def values(path: Path, table: str, column: str) -> dict[str, bytes]:
    with closing(sqlite3.connect(path)) as conn:
        return dict(conn.execute(f"SELECT id, {column} FROM {table} WHERE {column} IS NOT NULL"))  # noqa: S608


def put(path: Path, table: str, column: str, row: str, value: bytes) -> None:
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (value, row))  # noqa: S608


async def letters(house: House) -> list[tuple[str, str, str]]:
    found = await house.hub.store.read(lambda conn: dead_letters.newest(conn, limit=20))
    return [(one.kind, one.subject_id, one.reason) for one in found]


async def state_of(house: House, table: sa.Table, row: str) -> str:
    async def fetch(conn: AsyncConnection) -> Any:
        return (await conn.execute(sa.select(table.c.state).where(table.c.id == row))).scalar_one()

    return str(await house.hub.store.read(fetch))


async def waiting(home: Path, deployed: PrefectServer) -> tuple[str, str]:
    """Two mails that a hub stored and did not come to handle; their ids."""
    hub = await open_hub(settings_for(home, deployed))
    try:
        ids = []
        for native in ("one", "two"):
            route = Route(account="post", conversation="bob@example.com", kind="mail", thread=native)
            sender = Sender(id="bob@example.com")
            message = Message(account="post", native_id=native, text="/help", sender=sender, route=route)
            accepted = await hub.inbox.accept(message)
            ids.append(accepted.id)
            await hub.intake.aclose()  # as if it died now
        return ids[0], ids[1]
    finally:
        await hub.prefect.aclose()
        await hub.store.aclose()


@pytest.mark.parametrize("how", SPOILS)
async def test_a_message_that_waits_and_does_not_open(
    home: Path, deployed: PrefectServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a dead letter, whoever wrote it is told, the one behind it is answered."""
    path = home / "parley.db"
    async with house_in(home, deployed):
        pass
    first, second = await waiting(home, deployed)
    stored = values(path, "message", "event_sealed")
    put(path, "message", "event_sealed", first, SPOILS[how](stored[first], stored[second]))
    with caplog.at_level(logging.ERROR):
        async with house_in(home, deployed) as house:
            await house.hub.intake_is_empty()
            await house.hub.keys.look()
            assert await letters(house) == [("message", first, REASON)]
            assert await state_of(house, schema.message, first) == "dead"
            assert "damaged" in (await house.answers_to(first))[0]
            assert await house.answers_to(second) != []
            assert text_of(await house.say("/look 7")) == "ok"
            assert (await check(house))["broken"] == [f"message / event_sealed / {first}"]
    assert f"message / event_sealed / {first}" in caplog.text


async def test_an_answer_that_waits_and_does_not_open(home: Path, deployed: PrefectServer) -> None:
    """The one behind it in its conversation is sent; it is a dead letter, and an apology is sent instead."""
    path = home / "parley.db"
    async with house_in(home, deployed) as house:
        route = Route(account="console", conversation="owner", kind="direct")

        async def write(conn: AsyncConnection) -> list[Any]:
            texts = [Reply(text="first"), Reply(text="second")]
            return await house.hub.outbox.write(conn, "alert:1", texts, route)

        # Committed, and not sent: as if it died now.
        first, second = [one.id for one in await house.hub.store.write(write)]
    stored = values(path, "delivery", "body_sealed")
    put(path, "delivery", "body_sealed", first, stored[second])
    async with house_in(home, deployed) as house:
        states = await all_settled(house)
        assert await letters(house) == [("delivery", first, REASON)]
        assert not house.hub.outbox.unreadable
        assert (states[first], states[second]) == ("dead", "sent")
        assert len(states) == 3, "an apology, once"
        await house.hub.keys.look()
        assert len(await letters(house)) == 1
        assert len(await deliveries(house)) == 3


async def test_what_opens_by_now_is_no_dead_letter(home: Path, deployed: PrefectServer) -> None:
    """Another hub sealed it with a new key, and this one read it before it knew that key."""
    async with house_in(home, deployed) as house:
        hub = house.hub
        other = DataKeys(hub.store, hub.keys.data_keys.source)
        await other.load()
        await other.make()
        inbox = Inbox(hub.store, other.keyring, hub.inbox.limits, hub.inbox.retention, lambda _: None)
        mail = Route(account="post", conversation="bob@example.com", kind="mail", thread="one")
        sender = Sender(id="bob@example.com")
        message = Message(account="post", native_id="one", text="/help", sender=sender, route=mail)
        asked = (await inbox.accept(message)).id
        deliveries_of_other = Deliveries(
            hub.store, other.keyring, hub.outbox.retention, capabilities_of=lambda _: Capabilities()
        )
        route = Route(account="console", conversation="owner", kind="direct", context={"x": "y"})

        async def write(conn: AsyncConnection) -> list[Any]:
            return await deliveries_of_other.write(conn, "alert:1", [Reply(text="first")], route)

        (said,) = [one.id for one in await hub.store.write(write)]
        await hub.backlog.take_up()
        await hub.outbox.resume()
        async with asyncio.timeout(PATIENCE):
            while not (hub.inbox.unreadable and hub.outbox.unreadable):  # noqa: ASYNC110 - looked at as people do
                await asyncio.sleep(0.02)
        assert asked in hub.inbox.unreadable
        assert said in hub.outbox.unreadable

        await hub.keys.data_keys.refresh()
        await hub.keys.look()
        assert await letters(house) == []
        assert not hub.inbox.unreadable
        await hub.backlog.take_up()
        await hub.intake_is_empty()
        assert await house.answers_to(asked) != []
        async with asyncio.timeout(PATIENCE):
            while await state_of(house, schema.delivery, said) != "sent":  # noqa: ASYNC110 - looked at as people do
                await asyncio.sleep(0.02)


async def all_settled(house: House) -> dict[str, str]:
    """The states of all deliveries, once none waits and one is dead."""
    async with asyncio.timeout(PATIENCE):
        while True:
            states = await deliveries(house)
            if "dead" in states.values() and not {"pending", "sending"} & set(states.values()):
                return states
            await asyncio.sleep(0.02)


async def deliveries(house: House) -> dict[str, str]:
    table = schema.delivery

    async def fetch(conn: AsyncConnection) -> dict[str, str]:
        rows = (await conn.execute(sa.select(table.c.id, table.c.state))).all()
        return {row.id: row.state for row in rows}

    return await house.hub.store.read(fetch)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("message", "event_sealed"),
        ("request", "parameters_sealed"),
        ("delivery", "body_sealed"),
        ("event", "body_sealed"),
    ],
)
async def test_a_hub_starts_and_works_with_every_row_of_a_column_damaged(
    home: Path, deployed: PrefectServer, table: str, column: str
) -> None:
    """All that is past is lost, each place is named, and what comes next is well."""
    path = home / "parley.db"
    key = "sequence" if table == "event" else "id"
    async with house_in(home, deployed) as house:
        for _ in range(2):
            await house.say("/look 7")
        await house.say("/harm")
    with closing(sqlite3.connect(path)) as conn, conn:
        cut = f"UPDATE {table} SET {column} = substr({column}, 1, length({column}) - 1)"  # noqa: S608
        count = conn.execute(f"{cut} WHERE {column} IS NOT NULL").rowcount
        named = {str(row[0]) for row in conn.execute(f"SELECT {key} FROM {table} WHERE {column} IS NOT NULL")}  # noqa: S608
    async with house_in(home, deployed) as house:
        assert text_of(await house.say("/look 8")) == "ok"
        await house.hub.keys.look()
        broken = (await check(house))["broken"]
        places = {place.rpartition(" / ")[2] for place in broken if place.startswith(f"{table} / {column}")}
        assert places == named
        assert len(places) == count


async def test_a_hub_with_every_key_damaged_does_not_start_and_changes_nothing(
    home: Path, deployed: PrefectServer
) -> None:
    """Restored, all is there as it was: what waited is no dead letter."""
    path = home / "parley.db"
    async with house_in(home, deployed) as house:
        await house.say("/look 7")
    first, _ = await waiting(home, deployed)
    stored = values(path, "data_key", "wrapped")
    for row, value in stored.items():
        put(path, "data_key", "wrapped", row, value[:-1])
    with pytest.raises(ConfigurationError, match="No root key of this store opens"):
        await open_hub(settings_for(home, deployed))
    assert set(values(path, "data_key", "wrapped")) == set(stored)
    for row, value in stored.items():
        put(path, "data_key", "wrapped", row, value)
    async with house_in(home, deployed) as house:
        await house.hub.intake_is_empty()
        await house.hub.keys.look()
        assert await letters(house) == []
        assert await house.answers_to(first) != []
        assert (await check(house))["broken"] == []


async def test_values_that_changed_places_between_columns_and_tables_do_not_open(house: House) -> None:
    """The same bytes, whole, elsewhere."""
    await house.say("/look 7")
    path = house.hub.settings.home / "parley.db"
    message = next(iter(values(path, "message", "event_sealed").items()))
    request = next(iter(values(path, "request", "parameters_sealed").items()))
    delivery = next(iter(values(path, "delivery", "body_sealed").items()))

    async def swap(conn: AsyncConnection) -> None:
        for table, column, row, value in (
            (schema.message, "event_sealed", message[0], request[1]),
            (schema.request, "parameters_sealed", request[0], delivery[1]),
            (schema.delivery, "body_sealed", delivery[0], message[1]),
        ):
            await conn.execute(sa.update(table).where(table.c.id == row).values({column: value}))

    await house.hub.store.write(swap)
    assert sorted((await check(house))["broken"]) == sorted(
        [
            f"message / event_sealed / {message[0]}",
            f"request / parameters_sealed / {request[0]}",
            f"delivery / body_sealed / {delivery[0]}",
        ]
    )
    assert text_of(await house.say("/look 7")) == "ok"
