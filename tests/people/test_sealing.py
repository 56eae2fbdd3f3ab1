from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import ConfigurationError, SealError
from parley.messages.model import now
from parley.people.sealing import TEXT_PREFIX, Keyring, Ring, is_sealed_text, sealed_by
from parley.store.engine import Store
from parley.store.schema import event
from parley.store.sealed import SEALED_COLUMNS, holds_sealed_rows, refuse_wrong_key

KEYRING = Keyring({"00000001": b"a" * 32})
PLACE = ("message", "event_sealed", "row-1")


@given(st.binary(max_size=500))
def test_what_was_sealed_opens_in_its_place(plaintext: bytes) -> None:
    assert KEYRING.open(*PLACE, KEYRING.seal(*PLACE, plaintext)) == plaintext


def test_the_envelope_is_version_key_nonce_and_ciphertext() -> None:
    first, second = KEYRING.seal(*PLACE, b"secret"), KEYRING.seal(*PLACE, b"secret")
    assert first[:5] == b"\x01\x00\x00\x00\x01"
    assert len(first) == 1 + 4 + 12 + len(b"secret") + 16
    assert first[5:17] != second[5:17]
    assert b"secret" not in first


@pytest.mark.parametrize(
    "place",
    [
        ("message", "event_sealed", "row-2"),
        ("message", "other_sealed", "row-1"),
        ("delivery", "event_sealed", "row-1"),
    ],
)
def test_a_value_moved_to_another_place_does_not_open(place: tuple[str, str, str]) -> None:
    with pytest.raises(SealError, match="altered, or moved"):
        KEYRING.open(*place, KEYRING.seal(*PLACE, b"secret"))


def test_no_bit_can_be_changed() -> None:
    sealed = KEYRING.seal(*PLACE, b"x")
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(SealError):
            KEYRING.open(*PLACE, bytes(changed))


@given(st.binary(max_size=60))
def test_nothing_else_opens(junk: bytes) -> None:
    with pytest.raises(SealError):
        KEYRING.open(*PLACE, junk)


def test_two_places_never_look_the_same() -> None:
    with pytest.raises(ValueError, match="could look the same"):
        KEYRING.seal("message|event_sealed", "row", "1", b"")


def test_the_newest_key_seals_and_the_others_still_open() -> None:
    old = KEYRING.seal(*PLACE, b"old")
    both = Keyring({"00000001": b"a" * 32, "00000002": b"b" * 32})
    assert both.open(*PLACE, old) == b"old"
    new = both.seal(*PLACE, b"new")
    with pytest.raises(SealError, match="00000002"):
        KEYRING.open(*PLACE, new)


RING = Ring(
    seals="000000d2",
    proves="000000f1",
    data={"000000d1": b"1" * 32, "000000d2": b"2" * 32},
    roots={"000000f1": b"r" * 32},
    former={"0000000f": b"f" * 32},
)


def test_with_data_keys_the_one_that_seals_is_named_in_the_value() -> None:
    keyring = Keyring({"00000001": b"a" * 32}, RING)
    sealed = keyring.seal(*PLACE, b"secret")
    assert sealed[:5] == b"\x02\x00\x00\x00\xd2"
    assert sealed_by(sealed) == keyring.sealing == "000000d2"
    assert keyring.is_newest(sealed)
    assert keyring.open(*PLACE, sealed) == b"secret"
    assert keyring.sealed_values == 1


def test_data_keys_and_keys_of_the_file_are_not_mistaken_for_one_another() -> None:
    """The same id in both: the version says which of them it is."""
    old = Keyring({"000000d2": b"a" * 32})
    both = Keyring({"000000d2": b"a" * 32}, RING)
    first, second = old.seal(*PLACE, b"old"), both.seal(*PLACE, b"new")
    assert [both.open(*PLACE, one) for one in (first, second)] == [b"old", b"new"]
    for sealed in (b"\x02" + first[1:], b"\x01" + second[1:]):
        with pytest.raises(SealError, match="altered, or moved"):
            both.open(*PLACE, sealed)
    assert not both.is_newest(first)


def test_what_was_sealed_with_a_key_that_left_the_file_still_opens_and_proves() -> None:
    before = Keyring({"0000000f": b"f" * 32})
    after = Keyring({"00000001": b"a" * 32}, RING)
    assert after.open(*PLACE, before.seal(*PLACE, b"old")) == b"old"
    assert after.authenticate("0000000f", "audit", b"row") == before.authenticate("0000000f", "audit", b"row")
    assert after.is_hash_of(before.keyed_hash("run-token:1"), "run-token:1")


def test_keyed_hashes_are_the_same_whatever_seals() -> None:
    keyring = Keyring({"00000001": b"a" * 32}, RING)
    before = keyring.keyed_hash("x")
    keyring.take(replace(RING, seals="000000d1"), {"00000002": b"b" * 32})
    assert keyring.sealing == "000000d1"
    assert keyring.keyed_hash("x") == before
    assert keyring.newest == "000000f1"
    assert keyring.is_hash_of(before, "x")
    for other in ("", "x", before[:-1], "000000d1" + before[8:], before + "\ud800", "\ud800:" + before):
        assert not keyring.is_hash_of(other, "x")
    assert not keyring.is_hash_of(before, "y")


def test_the_count_of_sealed_values_is_that_of_the_key_that_seals() -> None:
    keyring = Keyring({"00000001": b"a" * 32}, RING)
    keyring.seal(*PLACE, b"")
    keyring.take(RING)
    assert keyring.sealed_values == 1
    keyring.take(replace(RING, seals="000000d1"))
    assert keyring.sealed_values == 0


def test_an_error_names_the_place_and_the_key_that_is_missing() -> None:
    sealed = Keyring({"00000001": b"a" * 32}, RING).seal(*PLACE, b"secret")
    with pytest.raises(SealError, match=r"message / event_sealed / row-1 .* 000000d2"):
        KEYRING.open(*PLACE, sealed)


def test_a_ring_never_shows_its_keys() -> None:
    shown = repr(RING) + repr(Keyring({"00000001": b"a" * 32}, RING))
    assert not any(text in shown for text in ("1111", "2222", "rrrr", "ffff", "aaaa"))
    assert all(name in shown for name in ("00000001", "000000d1", "000000f1"))


@given(st.text(max_size=100))
def test_the_field_of_a_block_is_text(plaintext: str) -> None:
    sealed = KEYRING.seal_text("slack", "work", "token", plaintext)
    assert sealed.startswith(TEXT_PREFIX)
    assert sealed.isascii()
    assert is_sealed_text(sealed)
    assert KEYRING.open_text("slack", "work", "token", sealed) == plaintext


def test_the_field_of_another_block_does_not_open() -> None:
    sealed = KEYRING.seal_text("slack", "work", "token", "secret")
    for place in (("slack", "home", "token"), ("slack", "work", "secret"), ("mail", "work", "token")):
        with pytest.raises(SealError):
            KEYRING.open_text(*place, sealed)
    for damaged in ("plain", TEXT_PREFIX, TEXT_PREFIX + "***", sealed[:-4], sealed + "é"):
        with pytest.raises(SealError):
            KEYRING.open_text("slack", "work", "token", damaged)


def test_a_keyed_hash_needs_the_key() -> None:
    assert KEYRING.keyed_hash("a") == KEYRING.keyed_hash("a") != KEYRING.keyed_hash("b")
    assert Keyring({"00000001": b"b" * 32}).keyed_hash("a") != KEYRING.keyed_hash("a")


def test_a_keyring_never_shows_its_keys() -> None:
    shown = repr(KEYRING) + str(KEYRING) + f"{KEYRING}"
    assert "aaaa" not in shown
    assert "00000001" in shown
    with pytest.raises(TypeError):
        pickle.dumps(KEYRING)


async def test_a_store_knows_whether_it_holds_sealed_rows_and_whether_the_key_fits(store: Store) -> None:
    assert not await store.read(holds_sealed_rows)
    await store.read(lambda conn: refuse_wrong_key(conn, KEYRING))
    sealed = KEYRING.seal("event", "body_sealed", "1", b"x")
    row = {"sequence": 1, "topic": "t", "body_sealed": sealed, "created_at": now()}
    await store.write(lambda conn: conn.execute(sa.insert(event).values(row)))
    assert await store.read(holds_sealed_rows)
    await store.read(lambda conn: refuse_wrong_key(conn, KEYRING))
    with pytest.raises(ConfigurationError, match="does not fit"):
        await store.read(lambda conn: refuse_wrong_key(conn, Keyring.generate()))


def test_every_sealed_column_has_a_row_id_to_be_bound_to() -> None:
    assert len(SEALED_COLUMNS) >= 7
    assert all(
        isinstance(column.type, sa.LargeBinary) and len(column.table.primary_key) == 1
        for column in SEALED_COLUMNS
    )
