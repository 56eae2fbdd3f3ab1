"""The keys in the store: they lie there wrapped by the key of the key file, the environment or a KMS.

A *data key* seals values; a new one is made every so many days, and long before it has sealed as many values as one
may. The *root* is never replaced: from it come the keys of the audit's chain, of keyed hashes and of runs' tokens, so
that these hold whatever is rotated. A *former* key was in the key file once: what it sealed and proved before there
were data keys stays readable.

Several hubs may share one store: a new data key is committed, then known to all, and only then seals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ConfigurationError, SealError
from parley.messages.model import now
from parley.people.key_source import KeySource, Wrapped
from parley.people.sealing import MOST_VALUES, Keyring, Ring, new_key, new_key_id
from parley.store.engine import Store
from parley.store.schema import data_key

logger = logging.getLogger(__name__)

Kind = Literal["data", "root", "former"]

STEP: Final = 2**20
"""Values that are counted at once, before they are sealed: what a hub that died did not seal of them is lost."""

FULL: Final = MOST_VALUES // 2
"""So many values counted, and a new data key is made."""

KNOWN_WITHIN: Final = 15.0
"""Seconds after which every hub of a shared store knows a new key; each looks several times as often."""

_LOOKS: Final = 3
"""How often a hub that waits for the others to know its key looks for theirs meanwhile."""

_NEEDED: Final[tuple[Kind, ...]] = ("root", "data")
"""Kinds of which one key has to open, or the store cannot be worked with."""

_AT_ONCE: Final = 8
"""Keys that are unwrapped at the same time."""

_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key in the store, as it lies there."""

    id: str
    kind: Kind
    kek_id: str
    wrapped: bytes = field(repr=False)
    reserved: int
    created_at: datetime
    retired_at: datetime | None
    reseal_asked_at: datetime | None
    resealed_at: datetime | None

    @classmethod
    def of(cls, row: sa.Row[Any]) -> KeyRow:
        """From a row of `select(data_key)`."""
        return cls(**row._mapping)  # noqa: SLF001  SQLAlchemy's public name for it


async def holds_keys(conn: AsyncConnection) -> bool:
    """Whether the store has keys that somebody wrapped: then a missing key file is a loss, not a first start."""
    return (await conn.execute(sa.select(1).select_from(data_key).limit(1))).first() is not None


async def rows(conn: AsyncConnection) -> list[KeyRow]:
    """Every key, in the order in which they were made."""
    query = sa.select(data_key).order_by(data_key.c.created_at, data_key.c.id)
    return [KeyRow.of(row) for row in (await conn.execute(query)).all()]


class DataKeys:
    """Makes, unwraps and rewraps the keys of one store; `keyring` has them in clear, after `load`."""

    def __init__(self, store: Store, source: KeySource, *, known_within: float = KNOWN_WITHIN) -> None:
        self._store = store
        self._known_within = known_within
        self.source: KeySource = source
        self._keyring: Keyring | None = None
        self._opened: dict[str, bytes] = {}
        self._reserved = 0
        self._total = 0
        self._changing = asyncio.Lock()

    @property
    def keyring(self) -> Keyring:
        """The keyring that all of this process seals and opens with."""
        if self._keyring is None:
            raise RuntimeError("The data keys are not loaded yet.")
        return self._keyring

    @property
    def is_shared(self) -> bool:
        """Whether other hubs may have this store too."""
        return self._store.backend == "postgresql"

    async def load(self) -> Keyring:
        """Unwrap all keys, make those that are missing, and wrap anew what an older key wrapped.

        Raises ConfigurationError when the key that wrapped one of them is not here, and when none of a kind opens:
        then what unwraps is the wrong one, and what it sealed meanwhile would be lost. One of
        several that is damaged is told in the log and left where it is: what it sealed does not open until it is
        restored.
        """
        async with self._changing:
            for _ in range(_TRIES):
                if await self._complete(await self._store.read(rows)):
                    break
            await self._take_back()
            await self._rewrap()
            self._install(await self._store.read(rows))
        await self.reserve()
        return self.keyring

    async def refresh(self) -> None:
        """Take up what another hub of the same store has changed.

        Raises ConfigurationError as `load` where nothing is loaded yet.
        """
        async with self._changing:
            await self._take_up()

    async def make(self, *, reseal: bool = False) -> str:
        """A new data key, which seals from now on; its id. `reseal`: what was sealed before is to be sealed anew."""
        async with self._changing:
            key_id = await self._add(
                "data", new_key_id(), new_key(), reseal_asked_at=now() if reseal else None
            )
            if self.is_shared:
                await self._wait_until_known()
            await self._store.write(lambda conn: _retire_before(conn, key_id))
            await self._take_up()
        await self.reserve()
        return key_id

    async def reserve(self) -> bool:
        """Count the values that the present data key may seal next, when few are left; false when it is full."""
        if self.keyring.sealed_values + STEP // 2 < self._reserved:
            return self._total < FULL
        key_id = self.keyring.sealing
        mine = data_key.c.id == key_id

        async def count(conn: AsyncConnection) -> int:
            await conn.execute(sa.update(data_key).where(mine).values(reserved=data_key.c.reserved + STEP))
            return int((await conn.execute(sa.select(data_key.c.reserved).where(mine))).scalar_one())

        self._total = await self._store.write(count)
        self._reserved += STEP
        return self._total < FULL

    async def rewrap(self) -> int:
        """Wrap every key with the newest key of the source; how many were wrapped otherwise."""
        async with self._changing:
            count = await self._rewrap(every=self.source.origin == "command")
            self._install(await self._store.read(rows))
        return count

    async def adopt(self, kek_id: str) -> None:
        """Keep a key of the key file in the store, so that it can leave the file. Raises ConfigurationError."""
        key = self.source.keys.get(kek_id)
        if key is None:
            raise ConfigurationError(f"There is no key {kek_id}: `parley keys show` lists them.")
        if self.source.is_newest(kek_id):
            raise ConfigurationError(
                f"The key {kek_id} wraps the data keys: `parley keys rotate` makes another one first."
            )
        async with self._changing:
            found = await self._store.read(rows)
            if any(row.kek_id == kek_id for row in found):
                await self._rewrap()
            if all(row.id != kek_id for row in found):
                await self._add("former", kek_id, key)
            self._install(await self._store.read(rows))

    async def delete(self, key_id: str) -> None:
        """Forget a data key for good: what it sealed can be opened by nobody."""
        async with self._changing:
            gone = sa.delete(data_key).where(data_key.c.id == key_id, data_key.c.kind == "data")
            await self._store.write(lambda conn: conn.execute(gone))
            self._opened.pop(key_id, None)
            self._install(await self._store.read(rows))

    async def forget_keks(self) -> None:
        """Take up that the source has other keys than before."""
        async with self._changing:
            self._install(await self._store.read(rows))

    async def check(self) -> list[str]:
        """The ids of the keys that do not unwrap."""
        found = await self._store.read(rows)
        return [row.id for row in found if await self._unwrapped(row) is None]

    # -- within

    async def _complete(self, found: list[KeyRow]) -> bool:
        """Whether there is a root and a data key; otherwise they are made, and to be looked for again."""
        await self._unwrap(found)
        self._refuse_unopened(found)
        missing = [kind for kind in _NEEDED if all(row.kind != kind for row in found)]
        for kind in missing:
            await self._add(kind, new_key_id(), new_key())
        return not missing

    async def _take_up(self) -> None:
        found = await self._store.read(rows)
        await self._unwrap(found)
        if self._keyring is None:
            self._refuse_unopened(found)
        self._install(found)

    async def _wait_until_known(self) -> None:
        # Another hub may have made one at the same time, which seals as soon as its own wait is over.
        for _ in range(_LOOKS):
            await asyncio.sleep(self._known_within / _LOOKS)
            await self._take_up()

    async def _take_back(self) -> None:
        """Use the newest retired data key where those that should seal do not open: every hub knows it already."""
        found = await self._store.read(rows)
        data = [row for row in found if row.kind == "data" and row.id in self._opened]
        if not data or any(row.retired_at is None for row in data):
            return
        again = sa.update(data_key).where(data_key.c.id == data[-1].id).values(retired_at=None)
        await self._store.write(lambda conn: conn.execute(again))
        logger.warning("no data key that is not retired opens: %s seals again", data[-1].id)

    def _refuse_unopened(self, found: list[KeyRow]) -> None:
        for kind in _NEEDED:
            ids = [row.id for row in found if row.kind == kind]
            if ids and not any(key_id in self._opened for key_id in ids):
                raise ConfigurationError(
                    f"No {kind} key of this store opens (data_key has {len(ids)}): [keys] command of parley.toml, or "
                    "the key, is not the one that wrapped it, or the rows are damaged. Set the command and its account "
                    "as they were, or restore the rows of data_key from a backup, and start again. Nothing was changed."
                )

    async def _unwrap(self, found: list[KeyRow]) -> None:
        """A few at a time: each may be a call of a KMS, and a store of years has many. Raises ConfigurationError."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def open_one(row: KeyRow) -> None:
            async with room:
                if (key := await self._unwrapped(row)) is not None:
                    self._opened[row.id] = key

        # A group, so that no program of a KMS is left running behind a start that is refused.
        try:
            async with asyncio.TaskGroup() as group:
                for row in found:
                    if row.id not in self._opened:
                        group.create_task(open_one(row))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _unwrapped(self, row: KeyRow) -> bytes | None:
        try:
            return await self.source.unwrap(row.id, row.kind, Wrapped(row.kek_id, row.wrapped))
        except SealError as error:
            logger.error("data_key %s does not unwrap, and what it sealed does not open: %s", row.id, error)  # noqa: TRY400
            return None

    async def _add(self, kind: Kind, key_id: str, key: bytes, **more: Any) -> str:
        wrapped = await self.source.wrap(key_id, kind, key)
        values = {
            "id": key_id,
            "kind": kind,
            "kek_id": wrapped.by,
            "wrapped": wrapped.value,
            "reserved": 0,
            **more,
        }
        await self._store.write(lambda conn: _inserted(conn, values))
        self._opened[key_id] = key
        return key_id

    async def _rewrap(self, *, every: bool = False) -> int:
        found = await self._store.read(rows)
        stale = [row for row in found if every or not self.source.is_newest(row.kek_id)]
        fresh = {
            row.id: await self.source.wrap(row.id, row.kind, self._opened[row.id])
            for row in stale
            if row.id in self._opened
        }
        if fresh:
            await self._store.write(lambda conn: _rewrapped(conn, fresh))
            logger.info("%d data keys are wrapped anew", len(fresh))
        return len(fresh)

    def _install(self, found: list[KeyRow]) -> None:
        usable = [row for row in found if row.id in self._opened]
        data = [row for row in usable if row.kind == "data"]
        roots = [row for row in usable if row.kind == "root"]
        if not data or not roots:
            # Somebody emptied the table under a living hub: it goes on with what it has.
            logger.error("data_key holds no key that can be used: restore its rows from a backup")
            return
        # Of two that are not retired the later one is not known to every hub yet.
        seals = next((row.id for row in data if row.retired_at is None), data[-1].id)
        ring = Ring(
            seals=seals,
            proves=roots[0].id,
            **{
                name: {row.id: self._opened[row.id] for row in usable if row.kind == kind}
                for name, kind in (("data", "data"), ("roots", "root"), ("former", "former"))
            },
        )
        if self._keyring is None:
            self._keyring = Keyring(self.source.keys, ring)
        else:
            if ring.seals != self._keyring.sealing:
                self._reserved = self._total = 0
            self._keyring.take(ring, self.source.keys)


async def _inserted(conn: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Later than all others, whatever the clock of the machine says that made them: the order is what decides."""
    latest = (await conn.execute(sa.select(sa.func.max(data_key.c.created_at)))).scalar_one()
    at = now() if latest is None else max(now(), latest + timedelta(microseconds=1))
    await conn.execute(sa.insert(data_key).values(created_at=at, **values))


async def _retire_before(conn: AsyncConnection, key_id: str) -> None:
    """Retire the data keys that were made before this one; a later one is for its maker to bring into use."""
    own = (await conn.execute(sa.select(data_key.c.created_at).where(data_key.c.id == key_id))).scalar_one()
    earlier = sa.or_(
        data_key.c.created_at < own, sa.and_(data_key.c.created_at == own, data_key.c.id < key_id)
    )
    others = (data_key.c.kind == "data", earlier, data_key.c.retired_at.is_(None))
    await conn.execute(sa.update(data_key).where(*others).values(retired_at=now()))


async def _rewrapped(conn: AsyncConnection, fresh: Mapping[str, Wrapped]) -> None:
    for key_id, wrapped in fresh.items():
        values = {"kek_id": wrapped.by, "wrapped": wrapped.value}
        await conn.execute(sa.update(data_key).where(data_key.c.id == key_id).values(values))
