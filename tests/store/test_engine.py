"""What `Store` promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, StoreUnavailable
from parley.store.engine import Store, Work, after_commit
from parley.store.schema import account, alert_state

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def add(name: str) -> Work[str]:
    async def work(conn: AsyncConnection) -> str:
        row = {"id": name, "name": name, "platform": "test", "enabled": True, "created_at": NOW}
        await conn.execute(sa.insert(account).values(row))
        return name

    return work


async def names(conn: AsyncConnection) -> list[str]:
    return list((await conn.execute(sa.select(account.c.name).order_by(account.c.name))).scalars())


async def test_a_write_is_there_when_it_returns(store: Store) -> None:
    assert await store.write(add("a")) == "a"
    assert await store.read(names) == ["a"]


async def test_a_time_comes_back_as_it_was(store: Store) -> None:
    await store.write(add("a"))
    assert await store.read(lambda conn: conn.scalar(sa.select(account.c.created_at))) == NOW


async def test_a_naive_time_is_refused(store: Store) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(sa.exc.StatementError, match="without a zone"):
        await store.write(lambda conn: conn.execute(sa.select(account).where(account.c.created_at < naive)))


async def test_a_write_that_fails_fails_alone_with_its_own_error(store: Store) -> None:
    async def breaks(conn: AsyncConnection) -> None:
        await add("half")(conn)
        raise LookupError("its own")

    results = await asyncio.gather(
        store.write(add("a")), store.write(breaks), store.write(add("b")), return_exceptions=True
    )
    assert results[0] == "a"
    assert results[2] == "b"
    assert isinstance(results[1], LookupError)
    assert await store.read(names) == ["a", "b"]


async def test_a_broken_constraint_is_the_callers_own_error(store: Store) -> None:
    await store.write(add("a"))
    results = await asyncio.gather(store.write(add("a")), store.write(add("b")), return_exceptions=True)
    assert isinstance(results[0], IntegrityError)
    assert await store.read(names) == ["a", "b"]


async def test_hundreds_at_once_are_all_there(store: Store) -> None:
    wanted = [f"{number:03}" for number in range(400)]
    assert await asyncio.gather(*(store.write(add(name)) for name in wanted)) == wanted
    assert await store.read(names) == wanted


async def test_writes_that_read_first_see_one_another(store: Store) -> None:
    """As many counted as called: PostgreSQL calls off and repeats where SQLite lines up."""
    await store.write(
        lambda conn: conn.execute(
            sa.insert(alert_state).values(automation="a", streak=0, alerts=0, alerting=False, changed_at=NOW)
        )
    )

    async def count(conn: AsyncConnection) -> None:
        streak = (await conn.execute(sa.select(alert_state.c.streak))).scalar_one()
        await conn.execute(sa.update(alert_state).values(streak=streak + 1))

    await asyncio.gather(*(store.write(count) for _ in range(40)))
    assert await store.read(lambda conn: conn.scalar(sa.select(alert_state.c.streak))) == 40


async def test_what_follows_a_commit_runs_after_it_and_only_then(store: Store) -> None:
    seen: list[str] = []

    def telling(name: str, *, fails: bool) -> Work[None]:
        async def work(conn: AsyncConnection) -> None:
            after_commit(lambda: seen.append(name))
            await add(name)(conn)
            if fails:
                raise LookupError

        return work

    await asyncio.gather(
        store.write(telling("a", fails=False)), store.write(telling("b", fails=True)), return_exceptions=True
    )
    assert seen == ["a"]
    with pytest.raises(RuntimeError, match=r"Store\.write"):
        after_commit(seen.clear)


async def test_a_listener_that_fails_does_not_undo_the_write(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def work(conn: AsyncConnection) -> str:
        after_commit(lambda: seen.remove("nothing"))
        after_commit(lambda: seen.append("second"))
        return await add("a")(conn)

    assert await store.write(work) == "a"
    assert seen == ["second"]
    assert "after_commit" in caplog.text


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises((DBAPIError, StoreUnavailable)):
        await store.read(add("a"))
    assert await store.read(names) == []


async def test_a_read_sees_one_picture(store: Store) -> None:
    async def twice(conn: AsyncConnection) -> tuple[list[str], list[str]]:
        first = await names(conn)
        await store.write(add("meanwhile"))
        return first, await names(conn)

    assert await store.read(twice) == ([], [])


async def test_a_write_within_a_write_is_refused_instead_of_waiting_for_itself(store: Store) -> None:
    async def nested(_conn: AsyncConnection) -> None:
        await store.write(add("a"))

    with pytest.raises(RuntimeError, match="must not call the store again"):
        await store.write(nested)
    assert await store.write(add("b")) == "b"


async def test_a_cancelled_caller_takes_nobody_along(store: Store) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(conn: AsyncConnection) -> None:
        begun.set()
        await go_on.wait()
        await add("slow")(conn)

    first = asyncio.create_task(store.write(slow))
    await begun.wait()
    others = [asyncio.create_task(store.write(add(name))) for name in ("a", "b")]
    first.cancel()
    go_on.set()
    assert await asyncio.gather(*others) == ["a", "b"]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert set(await store.read(names)) >= {"a", "b"}


async def test_closing_commits_what_was_asked_for_and_leaves_nothing_behind(store_url: str) -> None:
    threads = set(threading.enumerate())
    store = await Store.open(store_url)
    writes = [asyncio.create_task(store.write(add(f"{number:02}"))) for number in range(20)]
    reads = [asyncio.create_task(store.read(names)) for _ in range(20)]
    await asyncio.gather(*reads)
    await store.aclose()
    await store.aclose()
    assert len(await asyncio.gather(*writes)) == 20
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.write(add("late"))
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)  # it said that it has closed, and is on its last line
        assert not thread.is_alive()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    again = await Store.open(store_url)
    assert len(await again.read(names)) == 20
    await again.aclose()


@pytest.mark.parametrize("address", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "://"])
async def test_an_address_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError):
        await Store.open(address)
