"""Sealing anew: what older keys sealed is opened and sealed with the present one, while everybody works.

Every value that says by its first bytes that another key sealed it is taken, in many small writes between which others
get their turn. Nothing is kept of how far it came: after a crash what is done already is passed over.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.people.sealing import HEADER_BYTES, Keyring, sealed_by
from parley.store.engine import Store
from parley.store.sealed import ROUTE_COLUMNS, ROUTE_KEY, SEALED_COLUMNS

logger = logging.getLogger(__name__)

PAGE: Final = 500
"""Rows that are looked at in one read: of a sealed column only the first bytes."""

MOST_BATCH: Final = 50
AIM: Final = 0.01
"""Rows that are sealed in one write at the most, and seconds that it should take; files are large, others small."""

REST: Final = 2.0
LEAST_REST: Final = 0.002
"""After each write the others have the store to themselves for so many times as long, and so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A column of sealed values."""

    column: sa.Column[Any]
    is_route: bool = False

    @property
    def name(self) -> str:
        """As in an error: `message / event_sealed`."""
        return f"{self.column.table.name} / {self.column.name}"

    @property
    def key(self) -> sa.Column[Any]:
        """The primary key."""
        return next(iter(self.column.table.primary_key))

    def raw(self, value: Any) -> bytes | None:
        """The sealed value in what the column holds; None where nothing is sealed, or it is no base64."""
        if not self.is_route:
            return bytes(value) if value is not None else None
        text = value.get(ROUTE_KEY) if isinstance(value, dict) else None
        try:
            return base64.b64decode(text, validate=True) if isinstance(text, str) else None
        except (binascii.Error, ValueError):
            return None

    def put(self, value: Any, raw: bytes) -> Any:
        """What the column is to hold with this sealed value in it."""
        return {**value, ROUTE_KEY: base64.b64encode(raw).decode()} if self.is_route else raw


PLACES: Final = (
    *(Place(column=column) for column in SEALED_COLUMNS),
    *(Place(column=column, is_route=True) for column in ROUTE_COLUMNS),
)
"""Everywhere in the store where something sealed is."""


@dataclass(slots=True)
class Resealed:
    """What became of a pass. `broken` are places that do not open, `table / column / row`; they stay as they are."""

    values: int = 0
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Of one write: how long it kept the others, without the disk, which serves them together."""


async def reseal(store: Store, keyring: Keyring) -> Resealed:
    """Seal with the present key what others sealed. Raises `StoreUnavailable`; what is done by then stands."""
    total = Resealed()
    for place in PLACES:
        limit = 1
        async for page in headers(store, place):
            stale = [key for key, head in page if sealed_by(head) and not keyring.is_newest(head)]
            while stale:
                chunk, stale = stale[:limit], stale[limit:]
                done = await store.write(partial(_reseal, keyring=keyring, place=place, keys=chunk))
                total.values += done.values
                total.broken += done.broken
                limit = min(MOST_BATCH, max(1, limit * 2 if done.seconds < AIM else limit // 2))
                await asyncio.sleep(max(LEAST_REST, REST * done.seconds))
    return total


async def count_by_key(store: Store) -> Counter[str]:
    """How many values each key sealed, by its id, going by their first bytes."""
    counted: Counter[str] = Counter()
    for place in PLACES:
        async for page in headers(store, place):
            counted.update(key_id for _, head in page if (key_id := sealed_by(head)))
            await asyncio.sleep(0)
    return counted


async def headers(store: Store, place: Place) -> AsyncIterator[list[tuple[Any, bytes]]]:
    """Primary key and first bytes of every sealed value, in pages."""
    after: Any = None
    while True:
        found = await store.read(partial(_page, place=place, after=after))
        if not found:
            return
        after = found[-1][0]
        yield [(key, raw[:HEADER_BYTES]) for key, raw in found if raw is not None]


async def open_page(
    store: Store, keyring: Keyring, place: Place, after: Any, limit: int
) -> tuple[Any, int, list[str]]:
    """Open some values behind this primary key: the last key of them (None at the end), how many, what is broken."""
    query = _behind(place, place.column, after).limit(limit)

    async def fetch(conn: AsyncConnection) -> Sequence[Any]:
        return (await conn.execute(query)).all()

    found = await store.read(fetch)
    opened, broken = 0, []
    for key, value in found:
        try:
            opened += _opened(keyring, place, key, value) is not None
        except SealError:
            broken.append(f"{place.name} / {key}")
    return (found[-1][0] if found else None), opened, broken


def _opened(keyring: Keyring, place: Place, key: Any, value: Any) -> bytes | None:
    """In clear; None where nothing is sealed. Raises SealError."""
    raw = place.raw(value)
    if raw is None:
        if place.is_route and isinstance(value, dict) and ROUTE_KEY in value:
            raise SealError(f"{place.name} / {key} is sealed, but damaged.")
        return None
    return keyring.open(place.column.table.name, place.column.name, str(key), raw)


def _behind(place: Place, shown: Any, after: Any) -> sa.Select[Any]:
    query = sa.select(place.key, shown).where(place.column.is_not(None)).order_by(place.key)
    return query if after is None else query.where(place.key > after)


async def _page(conn: AsyncConnection, *, place: Place, after: Any) -> list[tuple[Any, bytes | None]]:
    head = sa.func.substr(place.column, 1, HEADER_BYTES, type_=sa.LargeBinary())
    rows = (
        await conn.execute(_behind(place, place.column if place.is_route else head, after).limit(PAGE))
    ).all()
    return [(key, place.raw(value)) for key, value in rows]


async def _reseal(conn: AsyncConnection, *, keyring: Keyring, place: Place, keys: Sequence[Any]) -> Resealed:
    """Within one write, so that nobody changes these rows meanwhile."""
    done, began = Resealed(), time.monotonic()
    table, key = place.column.table, place.key
    rows = (await conn.execute(sa.select(key, place.column).where(key.in_(keys)))).all()
    for row, value in rows:
        raw = place.raw(value)
        if raw is None or keyring.is_newest(raw):
            continue
        try:
            clear = keyring.open(table.name, place.column.name, str(row), raw)
        except SealError as error:
            logger.error("it stays as it is: %s", error)  # noqa: TRY400
            done.broken.append(f"{place.name} / {row}")
            continue
        fresh = place.put(value, keyring.seal(table.name, place.column.name, str(row), clear))
        await conn.execute(sa.update(table).where(key == row).values({place.column: fresh}))
        done.values += 1
    done.seconds = time.monotonic() - began
    return done
