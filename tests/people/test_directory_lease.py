"""The lease of whoever asks the directory: one hub has it, and it does not outlive that hub for long."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from parley.people.directory_lease import LASTS, DirectoryLease
from parley.store.engine import Store
from parley.store.schema import lease

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Hub:
    """One hub's lease, and its clock."""

    def __init__(self, store: Store) -> None:
        self.at = AT
        self.lease = DirectoryLease(store, lambda: self.at)

    async def takes(self, at: datetime) -> bool:
        self.at = at
        taken = await self.lease.take()
        assert taken is (self.lease.since is not None) is not self.lease.elsewhere
        return taken


async def test_one_has_it_and_another_when_it_ran_out(store: Store) -> None:
    one, other = Hub(store), Hub(store)
    assert not one.lease.elsewhere, "nobody has looked"
    assert [await one.takes(AT), await other.takes(AT)] == [True, False]
    second = timedelta(seconds=1)
    assert await one.takes(AT + LASTS - second)
    assert one.lease.since == AT, "without a break"
    assert not await other.takes(AT + LASTS + second), "it was renewed"
    assert await other.takes(AT + 2 * LASTS)
    assert other.lease.since == AT + 2 * LASTS
    assert not await one.takes(AT + 2 * LASTS)
    assert await one.takes(AT + 4 * LASTS)
    assert one.lease.since == AT + 4 * LASTS, "another one had it meanwhile"


async def test_it_ran_out_and_nobody_took_it(store: Store) -> None:
    """As when the machine slept: nobody else asked."""
    one = Hub(store)
    await one.takes(AT)
    assert await one.takes(AT + timedelta(days=1))
    assert one.lease.since == AT


async def test_given_back_it_is_anothers_at_once(store: Store) -> None:
    one, other = Hub(store), Hub(store)
    await one.takes(AT)
    await other.lease.give_back()
    assert not await other.takes(AT), "what is not one's own is not given away"
    await one.lease.give_back()
    assert await other.takes(AT)
    await one.lease.give_back()
    assert not await one.takes(AT)


async def test_a_clock_that_was_ahead_keeps_it_from_nobody(store: Store) -> None:
    one, other = Hub(store), Hub(store)
    await one.takes(AT + timedelta(days=365))
    assert await other.takes(AT)


async def test_of_many_who_take_it_at_once_one_has_it(store: Store) -> None:
    hubs = [Hub(store) for _ in range(20)]
    assert sorted(await asyncio.gather(*(hub.takes(AT) for hub in hubs))) == [False] * 19 + [True]
    at = AT + 2 * LASTS
    assert sorted(await asyncio.gather(*(hub.takes(at) for hub in hubs))) == [False] * 19 + [True]


async def test_whoever_waits_writes_nothing(store: Store) -> None:
    one, other = Hub(store), Hub(store)
    await one.takes(AT)
    rows = sa.select(lease)
    before = (await store.read(lambda conn: conn.execute(rows))).all()
    assert not await other.takes(AT + timedelta(seconds=60))
    assert (await store.read(lambda conn: conn.execute(rows))).all() == before
