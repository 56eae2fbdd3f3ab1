"""The keys of a living hub: a new data key in time, sealing anew in the background, and `parley keys`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from parley.errors import ConfigurationError, ParleyError
from parley.messages.model import now
from parley.people.audit import Audit, Phase
from parley.people.data_keys import DataKeys, KeyRow, holds_keys, rows
from parley.people.key_source import open_source
from parley.people.sealing import Keyring
from parley.processes import block_seals
from parley.runs.prefect_api import PrefectApi
from parley.settings import Settings
from parley.store import resealing
from parley.store.engine import Store
from parley.store.schema import data_key
from parley.store.sealed import holds_sealed_rows, refuse_wrong_key

logger = logging.getLogger(__name__)

ACTOR: Final = "command line"

LOOK_EVERY: Final = 5.0
"""Seconds between two looks; a third of the time in which a new key has to be known (`data_keys.KNOWN_WITHIN`)."""

AGAIN: Final = 60.0
"""Seconds after which sealing anew is tried again where it could not be finished."""

STILL_WRITING: Final = timedelta(seconds=60)
"""So long after a data key was retired a write that sealed with it may still be on its way."""

CHECKED_AT_ONCE: Final = 500
"""Values that one step of `parley keys check` opens."""


async def open_keys(settings: Settings, store: Store) -> DataKeys:
    """The keys of this store, unwrapped. Raises ConfigurationError when what wrapped or sealed is not here."""
    known = await store.read(holds_keys)
    sealed = known or await store.read(holds_sealed_rows)
    source = open_source(settings, sealed_rows=sealed)
    if sealed and not known:
        # From before there were data keys: its values are sealed with the key file itself.
        if not source.keys:
            raise ConfigurationError(
                f"The store was sealed with the key file {settings.key_file}, which is missing: restore it there."
            )
        await store.read(lambda conn: refuse_wrong_key(conn, Keyring(source.keys)))
    keys = DataKeys(store, source)
    await keys.load()
    return keys


class KeyKeeper:
    """Looks after the data keys, and carries out what the person at the machine asks for."""

    def __init__(
        self,
        store: Store,
        keys: DataKeys,
        audit: Audit,
        prefect: PrefectApi,
        *,
        days: Callable[[], int],
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self.data_keys: DataKeys = keys
        self._audit = audit
        self._prefect = prefect
        self._days = days
        self._settle = settle
        self._wake = asyncio.Event()
        self.verbs: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "keys": self.show,
            "keys_rotate": self.rotate,
            "keys_retire": self.retire,
            "keys_check": self.check,
        }

    async def run(self) -> None:
        """Until cancelled. What fails is told in the log, and tried again."""
        while True:
            wait = LOOK_EVERY
            try:
                await self.look()
            except ParleyError as error:
                logger.warning("keys: %s", error)
                wait = AGAIN
            except Exception:
                logger.exception("keys")
                wait = AGAIN
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            self._wake.clear()

    async def look(self) -> None:
        """Do what is due, what does not open first. Raises what the store, the source or Prefect raise."""
        if self.data_keys.is_shared:
            # Before: what another hub sealed with a key that is new here is not damaged.
            await self.data_keys.refresh()
        await self._settle()
        found = await self._store.read(rows)
        if not await self.data_keys.reserve() or self._is_old(found):
            key_id = await self.data_keys.make()
            logger.info("the data key %s seals from now on", key_id)
        if any(_is_pending(row) for row in found):
            await self._reseal()

    def _is_old(self, found: list[KeyRow]) -> bool:
        until = now() - timedelta(days=self._days())
        return any(row.id == self.data_keys.keyring.sealing and row.created_at < until for row in found)

    async def _reseal(self) -> None:
        keyring = self.data_keys.keyring
        began = now()
        done = await resealing.reseal(self._store, keyring)
        broken = [*done.broken, *await block_seals.reseal(self._prefect, keyring)]
        pending = (data_key.c.reseal_asked_at <= began, data_key.c.resealed_at.is_(None))
        ended = sa.update(data_key).where(*pending).values(resealed_at=now())
        await self._store.write(lambda conn: conn.execute(ended))
        logger.info("sealed anew: %d values; %d places do not open", done.values, len(broken))

    # -- what the person at the machine asks for

    async def show(self) -> dict[str, Any]:
        """The keys by id, and where they are; never a key."""
        found, source = await self._store.read(rows), self.data_keys.source
        seals = self.data_keys.keyring.sealing
        return {
            "source": source.origin,
            "newest": source.newest,
            "keys": [{"id": key_id, "wraps": source.is_newest(key_id)} for key_id in source.keys],
            "data_keys": [_told(row, seals) for row in found],
            "resealing": any(_is_pending(row) for row in found),
        }

    async def rotate(self, data: bool = False) -> dict[str, Any]:
        """A new key: the one that wraps, or with `data` one that seals, and everything is sealed anew with it."""
        if data:
            done = {"data_key": await self._audited("data-key-rotated", "keys", self._new_data_key)}
            self._wake.set()
            return done
        rotated: dict[str, Any] = await self._audited("key-rotated", "keys", self._new_key)
        return rotated

    async def retire(self, key_id: str) -> dict[str, Any]:
        """Take a key away. Raises ConfigurationError while something needs it."""
        if key_id in self.data_keys.source.keys:
            await self._audited("key-retired", f"key:{key_id}", lambda: self._retire_key(key_id))
            return {"retired": key_id, "kept": "wrapped in the store"}
        await self._refuse_needed(key_id)
        await self._audited("data-key-retired", f"key:{key_id}", lambda: self.data_keys.delete(key_id))
        return {"retired": key_id, "kept": None}

    async def check(self, place: int = 0, after: str | int | None = None) -> dict[str, Any]:
        """One step of a check of every sealed value; `next` is what to ask for then, None at the end."""
        keys, store = self.data_keys, self._store
        if place >= len(resealing.PLACES):
            return await self._check_end()
        chosen = resealing.PLACES[place]
        last, opened, broken = await resealing.open_page(store, keys.keyring, chosen, after, CHECKED_AT_ONCE)
        onward = {"place": place, "after": last} if last is not None else {"place": place + 1, "after": None}
        return {"opened": opened, "broken": broken, "next": onward}

    # -- within

    async def _check_end(self) -> dict[str, Any]:
        keyring, opened = self.data_keys.keyring, 0
        broken = [f"data_key / wrapped / {key_id}" for key_id in await self.data_keys.check()]
        async for one in block_seals.sealed_fields(self._prefect):
            try:
                keyring.open_text(one.block_type, one.block_name, one.field, one.text)
                opened += 1
            except ParleyError:
                broken.append(one.where)
        return {"opened": opened, "broken": broken, "next": None}

    async def _new_data_key(self) -> str:
        return await self.data_keys.make(reseal=True)

    async def _new_key(self) -> dict[str, Any]:
        source = self.data_keys.source
        fresh = source.newest if source.origin == "command" else await asyncio.to_thread(source.rotate)
        return {"key": fresh, "rewrapped": await self.data_keys.rewrap()}

    async def _retire_key(self, key_id: str) -> None:
        await self.data_keys.adopt(key_id)
        await asyncio.to_thread(self.data_keys.source.remove, key_id)
        await self.data_keys.forget_keks()

    async def _refuse_needed(self, key_id: str) -> None:
        row = next((row for row in await self._store.read(rows) if row.id == key_id), None)
        if row is None:
            raise ConfigurationError(f"There is no key {key_id[:20]}: `parley keys show` lists them.")
        if row.kind != "data":
            raise ConfigurationError(
                f"The key {key_id} stays: what it proves, the audit among it, could not be checked."
            )
        if row.retired_at is None:
            raise ConfigurationError(
                f"The key {key_id} seals: `parley keys rotate --data` makes another one first."
            )
        if now() - row.retired_at < STILL_WRITING:
            raise ConfigurationError(f"The key {key_id} sealed a moment ago: try again in a minute.")
        stored = (await resealing.count_by_key(self._store))[key_id]
        left = stored + (await block_seals.count_by_key(self._prefect))[key_id]
        if left:
            raise ConfigurationError(
                f"{left} values are sealed with the key {key_id}: `parley keys rotate --data` seals them anew."
            )

    async def _audited(self, action: str, subject: str, act: Callable[[], Awaitable[Any]]) -> Any:
        await self._note(action, Phase.INTENT, subject, {})
        try:
            done = await act()
        except BaseException as error:
            await self._note(action, Phase.OUTCOME, subject, {"failed": type(error).__name__})
            raise
        details = done if isinstance(done, dict) else {"key": done} if done else {}
        await self._note(action, Phase.OUTCOME, subject, details)
        return done

    async def _note(self, action: str, phase: Phase, subject: str, details: Mapping[str, Any]) -> None:
        await self._store.write(
            lambda conn: self._audit.append(
                conn, action=action, phase=phase, actor=ACTOR, subject=subject, details=details
            )
        )


def _is_pending(row: KeyRow) -> bool:
    return row.reseal_asked_at is not None and row.resealed_at is None


def _told(row: KeyRow, seals: str) -> dict[str, Any]:
    times = {"created_at": row.created_at, "retired_at": row.retired_at}
    return {
        "id": row.id,
        "kind": row.kind,
        "seals": row.id == seals,
        "wrapped_by": row.kek_id,
        **{name: at.isoformat() if at else None for name, at in times.items()},
    }
