"""What only PostgreSQL has: several hubs, and a server that goes away."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, StoreUnavailable
from parley.store import postgres
from parley.store.engine import Store, after_commit
from parley.store.schema import alert_state
from tests.postgres_fixture import PostgresServer
from tests.store.test_engine import NOW, add, names

pytestmark = pytest.mark.servers


async def test_hubs_that_start_together_migrate_once(postgres_url: str) -> None:
    hubs = await asyncio.gather(*(Store.open(postgres_url, pool_size=2) for _ in range(4)))
    await hubs[0].write(add("a"))
    assert [await hub.read(names) for hub in hubs] == [["a"]] * 4
    await asyncio.gather(*(hub.aclose() for hub in hubs))


async def test_two_hubs_never_lose_an_update_and_call_back_once_a_commit(postgres_url: str) -> None:
    hubs = await asyncio.gather(*(Store.open(postgres_url, pool_size=4) for _ in range(2)))
    row = {"automation": "a", "streak": 0, "alerts": 0, "alerting": False, "changed_at": NOW}
    await hubs[0].write(lambda conn: conn.execute(sa.insert(alert_state).values(row)))
    committed: list[None] = []

    async def count(conn: AsyncConnection) -> None:
        after_commit(lambda: committed.append(None))
        streak = (await conn.execute(sa.select(alert_state.c.streak))).scalar_one()
        await conn.execute(sa.update(alert_state).values(streak=streak + 1))

    await asyncio.gather(*(hub.write(count) for hub in hubs for _ in range(25)))
    assert await hubs[1].read(lambda conn: conn.scalar(sa.select(alert_state.c.streak))) == 50
    assert len(committed) == 50
    await asyncio.gather(*(hub.aclose() for hub in hubs))


async def test_a_restarted_server_is_used_again_by_itself(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    store = await Store.open(postgres_url, pool_size=3)
    await asyncio.gather(*(store.write(add(name)) for name in "abc"))
    await asyncio.to_thread(postgres_server.stop)
    try:
        with pytest.raises(StoreUnavailable):
            await store.write(add("d"))
        with pytest.raises(StoreUnavailable):
            await store.read(names)
    finally:
        await asyncio.to_thread(postgres_server.start)
    assert await store.write(add("e")) == "e"
    await asyncio.to_thread(postgres_server.stop)
    await asyncio.to_thread(postgres_server.start)
    # The pool still holds connections of the server before: nobody notices.
    assert await store.read(names) == ["a", "b", "c", "e"]
    assert await asyncio.gather(*(store.write(add(name)) for name in "fgh")) == ["f", "g", "h"]
    await store.aclose()


async def test_a_crashed_server_keeps_what_was_acknowledged(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """The tests' cluster runs without fsync, but the process's end alone must not lose anything."""
    store = await Store.open(postgres_url)
    acknowledged: list[str] = []

    async def client(part: int) -> None:
        for number in range(200):
            acknowledged.append(await store.write(add(f"{part} {number}")))  # noqa: PERF401  as far as it came

    clients = [asyncio.create_task(client(part)) for part in range(4)]
    await asyncio.to_thread(postgres_server.stop, "immediate")
    results = await asyncio.gather(*clients, return_exceptions=True)
    await asyncio.to_thread(postgres_server.start)
    assert all(result is None or isinstance(result, StoreUnavailable) for result in results)
    assert set(acknowledged) <= set(await store.read(names))
    await store.aclose()


async def test_an_answer_says_what_is_wrong_and_never_the_password(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with pytest.raises(ConfigurationError, match="user, password and database") as refused:
        await Store.open(f"postgresql://parley:hunter2@127.0.0.1:{postgres_server.port}/nothing_here")
    with pytest.raises(StoreUnavailable, match="cannot be reached") as unreachable:
        await Store.open("postgresql://parley:hunter2@127.0.0.1:1/parley")
    assert "hunter2" not in str(refused.value) + str(unreachable.value)


async def test_one_too_many_is_refused_at_once(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "MOST_WAITING", 5)
    store = await Store.open(postgres_url, pool_size=1)
    results = await asyncio.gather(*(store.write(add(str(n))) for n in range(8)), return_exceptions=True)
    assert results[:5] == ["0", "1", "2", "3", "4"]
    assert all(isinstance(result, StoreUnavailable) for result in results[5:])
    await store.aclose()
