"""The keys in the store: made, found again, wrapped anew; and what is noticed when somebody touches them."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import ConfigurationError, SealError
from parley.messages.model import now
from parley.people import data_keys
from parley.people.data_keys import DataKeys, KeyRow, holds_keys, rows
from parley.people.key_source import open_source
from parley.people.sealing import new_key, new_key_id
from parley.store.engine import Store
from parley.store.schema import data_key
from tests.people import kms
from tests.people.test_key_source import FIRST, settings

PLACE = ("message", "event_sealed", "row-1")


class Home:
    """A store, and the files of its keys."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder

    async def start(self, command: tuple[str, ...] = (), within: float = 0.05, **more: Any) -> DataKeys:
        """As a hub starts; every hub knows a new key `within` so many seconds."""
        known = await self.store.read(holds_keys)
        source = open_source(settings(self.folder, command, **more), sealed_rows=known)
        keys = DataKeys(self.store, source, known_within=within)
        await keys.load()
        return keys

    async def rows(self) -> list[KeyRow]:
        return await self.store.read(rows)

    async def change(self, key_id: str, **values: Any) -> None:
        query = sa.update(data_key).where(data_key.c.id == key_id).values(values)
        await self.store.write(lambda conn: conn.execute(query))


@pytest.fixture
def home(store: Store, tmp_path: Path) -> Home:
    return Home(store, tmp_path)


async def test_a_first_start_makes_a_root_and_a_data_key_and_the_next_finds_them(home: Home) -> None:
    first = await home.start()
    sealed, hashed = first.keyring.seal(*PLACE, b"kept"), first.keyring.keyed_hash("x")
    found = await home.rows()
    assert sorted(row.kind for row in found) == ["data", "root"]
    assert {row.kek_id for row in found} == {first.source.newest}
    again = await home.start()
    assert [row.id for row in await home.rows()] == [row.id for row in found]
    assert again.keyring.open(*PLACE, sealed) == b"kept"
    assert again.keyring.keyed_hash("x") == hashed
    assert again.keyring.sealing == first.keyring.sealing


async def test_a_new_data_key_seals_and_the_old_one_opens(home: Home) -> None:
    keys = await home.start()
    old, sealed = keys.keyring.sealing, keys.keyring.seal(*PLACE, b"old")
    fresh = await keys.make(reseal=True)
    assert keys.keyring.sealing == fresh != old
    assert keys.keyring.open(*PLACE, sealed) == b"old"
    retired = {row.id: row.retired_at for row in await home.rows() if row.kind == "data"}
    assert retired[old] is not None
    assert retired[fresh] is None
    assert (await home.start()).keyring.sealing == fresh


async def test_another_hub_takes_up_a_new_key_when_it_looks(home: Home) -> None:
    ours, other = await home.start(), await home.start()
    fresh = await other.make()
    sealed = other.keyring.seal(*PLACE, b"x")
    with pytest.raises(SealError, match=fresh):
        ours.keyring.open(*PLACE, sealed)
    await ours.refresh()
    assert ours.keyring.open(*PLACE, sealed) == b"x"
    assert ours.keyring.sealing == fresh


async def unretired(home: Home) -> list[str]:
    return [row.id for row in await home.rows() if row.kind == "data" and row.retired_at is None]


@pytest.mark.parametrize("apart", [0.0, 0.2])
async def test_hubs_that_make_a_data_key_at_the_same_time_end_with_one_of_them(
    home: Home, apart: float
) -> None:
    """And at no time does one seal what the other does not open."""
    ours, other = await home.start(within=0.6), await home.start(within=0.6)

    async def make(keys: DataKeys, later: float) -> str:
        await asyncio.sleep(later)
        await keys.refresh()
        return await keys.make()

    making = asyncio.gather(make(ours, 0), make(other, apart))
    while ours.is_shared and not making.done():
        for one, another in ((ours, other), (other, ours)):
            assert another.keyring.open(*PLACE, one.keyring.seal(*PLACE, b"x")) == b"x"
        await asyncio.sleep(0.005)
    made = await making
    await ours.refresh()
    await other.refresh()
    (left,) = await unretired(home)
    assert left in made
    assert ours.keyring.sealing == other.keyring.sealing == left
    before = await home.rows()
    assert (await home.start()).keyring.sealing == left
    assert [row.id for row in await home.rows()] == [row.id for row in before]


@pytest.mark.parametrize("how", ["retired", "damaged"])
async def test_where_no_data_key_should_seal_the_newest_retired_one_does_and_none_is_made(
    home: Home, how: str
) -> None:
    keys = await home.start()
    first = keys.keyring.sealing
    second = await keys.make()
    before = await home.rows()
    newest = next(row for row in before if row.id == second)
    await home.change(second, **({"retired_at": now()} if how == "retired" else {"wrapped": spoilt(newest)}))
    after = await home.start()
    expected = second if how == "retired" else first
    assert after.keyring.sealing == expected
    assert expected in await unretired(home), "it seals, so it cannot be taken away"
    assert [row.id for row in await home.rows()] == [row.id for row in before]
    assert keys.keyring.open(*PLACE, after.keyring.seal(*PLACE, b"x")) == b"x", "every hub knows it already"


async def test_a_new_data_key_is_the_latest_also_where_another_clock_is_ahead(home: Home) -> None:
    keys = await home.start()
    await home.change(keys.keyring.sealing, created_at=now() + timedelta(hours=1))
    fresh = await keys.make()
    assert keys.keyring.sealing == fresh
    assert await unretired(home) == [fresh]


async def test_everything_is_wrapped_anew_after_the_key_file_was_rotated(home: Home) -> None:
    keys = await home.start()
    sealed, hashed = keys.keyring.seal(*PLACE, b"kept"), keys.keyring.keyed_hash("x")
    old, before = keys.source.newest, {row.id: row.wrapped for row in await home.rows()}
    fresh = keys.source.rotate()
    assert await keys.rewrap() == 2
    found = await home.rows()
    assert {row.kek_id for row in found} == {fresh}
    assert all(row.wrapped != before[row.id] for row in found)
    await keys.adopt(old)
    keys.source.remove(old)
    await keys.forget_keks()
    again = await home.start()
    assert again.keyring.open(*PLACE, sealed) == b"kept"
    assert again.keyring.keyed_hash("x") == hashed
    assert old in again.keyring, "what it proved is still checked"
    assert list(again.source.keys) == [fresh]


async def test_a_death_between_the_file_and_the_store_is_made_good_at_the_start(home: Home) -> None:
    keys = await home.start()
    sealed = keys.keyring.seal(*PLACE, b"kept")
    fresh = keys.source.rotate()
    again = await home.start()
    assert {row.kek_id for row in await home.rows()} == {fresh}
    assert again.keyring.open(*PLACE, sealed) == b"kept"


async def test_keys_move_from_the_file_to_the_environment_and_to_a_program_and_back(home: Home) -> None:
    sealed = (await home.start()).keyring.seal(*PLACE, b"kept")
    vault = home.folder / "vault"
    kms.new_key(vault)
    ways: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        ((), {"key": FIRST}),
        (kms.command(vault), {"key": FIRST}),
        (kms.command(vault), {}),
    ]
    for command, more in ways:
        keys = await home.start(command, **more)
        assert keys.keyring.open(*PLACE, sealed) == b"kept"
        assert all(keys.source.is_newest(row.kek_id) for row in await home.rows())
    kms.new_key(vault)
    assert await keys.rewrap() == 2
    assert {row.kek_id for row in await home.rows()} == {"command:k2"}


async def test_a_start_unwraps_a_few_keys_at_a_time(home: Home) -> None:
    """A store of years has many, and a KMS is far away."""
    vault = home.folder / "vault"
    kms.new_key(vault)
    keys = await home.start(kms.command(vault))
    for _ in range(10):
        await add(home, keys, "data")
    again = await home.start(kms.command(vault, "together"))
    assert await again.check() == []
    assert all(row.id in again.keyring for row in await home.rows())
    live = [int(line) for line in (vault / "together").read_text().split()]
    assert max(live) <= 8, "a KMS is not flooded"


async def test_a_start_that_a_kms_refuses_is_told_in_its_words(home: Home) -> None:
    vault = home.folder / "vault"
    kms.new_key(vault)
    await home.start(kms.command(vault))
    with pytest.raises(ConfigurationError, match="no access"):
        await home.start(kms.command(vault, "refuse"))


async def test_without_the_key_that_wrapped_nothing_starts_and_no_new_one_is_made(home: Home) -> None:
    await home.start()
    path = home.folder / "key" / "key"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(ConfigurationError, match="is missing"):
        await home.start()
    with pytest.raises(ConfigurationError, match="Restore the key file"):
        await home.start(key=FIRST)
    path.write_bytes(kept)
    path.chmod(0o400)
    await home.start()
    assert len(await home.rows()) == 2


def spoilt(row: KeyRow) -> bytes:
    """Its wrapped key with one bit flipped."""
    return row.wrapped[:-1] + bytes([row.wrapped[-1] ^ 1])


async def add(home: Home, keys: DataKeys, kind: str) -> None:
    """One more key of this kind, later than those that are there."""
    key_id = new_key_id()
    wrapped = await keys.source.wrap(key_id, kind, new_key())
    values = {
        "id": key_id,
        "kind": kind,
        "kek_id": wrapped.by,
        "wrapped": wrapped.value,
        "reserved": 0,
        "created_at": now(),
    }
    await home.store.write(lambda conn: conn.execute(sa.insert(data_key).values(values)))


@pytest.mark.parametrize("kind", ["data", "root"])
async def test_one_damaged_key_of_several_stops_nothing_and_stays_to_be_restored(
    home: Home, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = await home.start()
    sealed, hashed = keys.keyring.seal(*PLACE, b"kept"), keys.keyring.keyed_hash("x")
    await add(home, keys, kind)
    before = await home.rows()
    row = next(row for row in before if row.kind == kind)
    await home.change(row.id, wrapped=spoilt(row))
    with caplog.at_level(logging.ERROR):
        after = await home.start()
    assert f"data_key {row.id} does not unwrap" in caplog.text
    assert await after.check() == [row.id]
    assert [one.id for one in await home.rows()] == [one.id for one in before], (
        "another one is used, none made"
    )
    fresh = after.keyring.seal(*PLACE, b"new")
    assert after.keyring.open(*PLACE, fresh) == b"new"
    await home.change(row.id, wrapped=row.wrapped)
    restored = await home.start()
    assert restored.keyring.open(*PLACE, sealed) == b"kept"
    assert restored.keyring.open(*PLACE, fresh) == b"new"
    assert restored.keyring.is_hash_of(hashed, "x")
    assert await restored.check() == []


@pytest.mark.parametrize("kind", ["data", "root"])
async def test_where_none_of_a_kind_opens_nothing_starts_and_no_new_one_is_made(
    home: Home, kind: str
) -> None:
    keys = await home.start()
    sealed = keys.keyring.seal(*PLACE, b"kept")
    await add(home, keys, kind)
    before = await home.rows()
    for row in before:
        if row.kind == kind:
            await home.change(row.id, wrapped=spoilt(row))
    with pytest.raises(ConfigurationError, match=rf"No {kind} key .* opens \(data_key has 2\).*restore"):
        await home.start()
    assert [row.id for row in await home.rows()] == [row.id for row in before]
    for row in before:
        await home.change(row.id, wrapped=row.wrapped)
    assert (await home.start()).keyring.open(*PLACE, sealed) == b"kept"


async def test_a_kms_that_answers_with_other_keys_starts_nothing(home: Home) -> None:
    """What would be sealed with new keys of the wrong KMS would be lost once it is the right one again."""
    vault = home.folder / "vault"
    kms.new_key(vault)
    keys = await home.start(kms.command(vault))
    sealed = keys.keyring.seal(*PLACE, b"kept")
    before = await home.rows()
    with pytest.raises(ConfigurationError, match=r"opens .*: \[keys\] command"):
        await home.start(kms.command(vault, "another"))
    assert await home.rows() == before
    assert (await home.start(kms.command(vault))).keyring.open(*PLACE, sealed) == b"kept"


async def test_reading_alone_is_refused_too_where_no_key_opens(home: Home) -> None:
    """As `parley audit verify` beside a hub that is not there."""
    keys = await home.start()
    for row in await home.rows():
        await home.change(row.id, wrapped=spoilt(row))
    with pytest.raises(ConfigurationError, match="No root key of this store opens"):
        await DataKeys(home.store, keys.source).refresh()


async def test_keys_that_changed_places_do_not_unwrap(home: Home) -> None:
    keys = await home.start()
    one, two = await home.rows()
    await home.change(one.id, wrapped=two.wrapped)
    await home.change(two.id, wrapped=one.wrapped)
    assert sorted(await keys.check()) == sorted([one.id, two.id])


async def test_values_are_counted_before_they_are_sealed(home: Home) -> None:
    keys = await home.start()
    key_id = keys.keyring.sealing

    async def counted() -> int:
        return next(row.reserved for row in await home.rows() if row.id == key_id)

    assert await counted() == data_keys.STEP
    assert await keys.reserve()
    assert await counted() == data_keys.STEP, "there is room left"
    await home.start()
    assert await counted() == 2 * data_keys.STEP, "what the one before did not seal is lost"
    await home.change(key_id, reserved=data_keys.FULL)
    assert not await (await home.start()).reserve()
