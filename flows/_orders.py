"""The orders: a connection pool to their database, and what was just read of it, whose age is stated in every answer.

`PARLEY_ORDERS_URL` is an SQLAlchemy URL with an async driver (`postgresql+asyncpg://...`); without it the sample is
read. The database has tables `orders` and `legs` as in flows/_sample.py. `PARLEY_ORDERS_COPY_URL` is the same for a
copy (a replica, last night's backup) that is read when the database gives no answer.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from flows._sample import orders_database
from parley import Aged, cached

POOL_SIZE: Final = 5
FRESH_SECONDS: Final = 30.0
CACHED_ORDERS: Final = 256

_metadata = sa.MetaData()
_orders = sa.Table(
    "orders",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("customer", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("ordered_at", sa.Text),
    sa.Column("total_cents", sa.Integer),
    sa.Column("currency", sa.Text),
)
_legs = sa.Table(
    "legs",
    _metadata,
    sa.Column("order_id", sa.Integer, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("at", sa.Text),
    sa.Column("place", sa.Text),
    sa.Column("event", sa.Text),
)


class Leg(BaseModel):
    """One thing that happened to a parcel on its way."""

    at: datetime
    place: str
    event: str


class Order(BaseModel):
    """An order with its way so far."""

    id: int
    customer: str
    state: str
    ordered_at: datetime
    total_cents: int
    currency: str
    legs: tuple[Leg, ...] = ()

    @property
    def total(self) -> str:
        """The price for people."""
        return f"{self.total_cents / 100:.2f} {self.currency}"


class Day(BaseModel):
    """What one day brought."""

    day: date
    orders: int
    delivered: int
    total_cents: int


@dataclass(frozen=True)
class Copied:
    """An order as it is in the copy, and the moment of the newest entry there; None when the copy is empty."""

    value: Order
    newest: datetime | None


class _NoOrder(LookupError):
    """There is no such order now; it may be placed in a moment, so that this is not kept."""


_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncEngine]] = WeakKeyDictionary()


async def order(number: int) -> Aged[Order] | None:
    """The order, as it was read at the most `FRESH_SECONDS` ago; None when there is no such order."""
    try:
        return await hot_order.with_age(number, _url())
    except _NoOrder:
        return None


# Whoever may ask for an order may ask for every order: what was read for one is right for all.
@cached(max_age=FRESH_SECONDS, most=CACHED_ORDERS, shared=True)
async def hot_order(number: int, url: str) -> Order:
    """The order in the database at `url`; raises `LookupError` when there is none."""
    found = await _read(number, _engine(url))
    if found is None:
        raise _NoOrder
    return found


def has_copy() -> bool:
    """Whether there is a copy to read."""
    return bool(os.environ.get("PARLEY_ORDERS_COPY_URL"))


async def order_in_copy(number: int) -> Copied | None:
    """The order in the copy, and how new the copy is; None when there is no such order in it."""
    engine = _engine(os.environ["PARLEY_ORDERS_COPY_URL"])
    found = await _read(number, engine)
    if found is None:
        return None
    async with engine.connect() as connection:
        # Times are ISO text in UTC: the greatest is the newest.
        newest = (await connection.execute(sa.select(sa.func.max(_legs.c.at)))).scalar()
    return Copied(found, datetime.fromisoformat(newest) if newest else None)


async def day(wanted: date) -> Day:
    """The figures of one day (UTC)."""
    # Times are ISO text in UTC, so a day is the rows that begin with its date.
    query = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(sa.case((_orders.c.state == "delivered", 1), else_=0)), 0),
        sa.func.coalesce(sa.func.sum(_orders.c.total_cents), 0),
    ).where(_orders.c.ordered_at.startswith(wanted.isoformat(), autoescape=True))
    async with _engine(_url()).connect() as connection:
        count, delivered, total = (await connection.execute(query)).one()
    return Day(day=wanted, orders=count, delivered=delivered, total_cents=total)


async def close() -> None:
    """Give this loop's connections back, for programs that end their loop."""
    for engine in _engines.pop(asyncio.get_running_loop(), {}).values():
        await engine.dispose()


async def _read(number: int, engine: AsyncEngine) -> Order | None:
    async with engine.connect() as connection:
        row = (
            (await connection.execute(sa.select(_orders).where(_orders.c.id == number)))
            .mappings()
            .one_or_none()
        )
        if row is None:
            return None
        way = sa.select(_legs.c.at, _legs.c.place, _legs.c.event).where(_legs.c.order_id == number)
        legs = (await connection.execute(way.order_by(_legs.c.position))).mappings().all()
    return Order(**row, legs=tuple(Leg(**leg) for leg in legs))


def _url() -> str:
    return os.environ.get("PARLEY_ORDERS_URL") or f"sqlite+aiosqlite:///{orders_database()}"


def _engine(url: str) -> AsyncEngine:
    """This event loop's pool: made once and kept, so that a warm process connects once and not in every run."""
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    if url not in engines:
        engines[url] = create_async_engine(
            url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=True
        )
    return engines[url]
