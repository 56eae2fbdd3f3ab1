from __future__ import annotations

import base64
import json
import pickle
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from parley.errors import ConfigurationError, SealError
from parley.messages.model import now
from parley.people.sealing import TEXT_PREFIX, Keyring, is_sealed_text
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


def _load(path: Path, home: Path, *, sealed_rows: bool = False) -> Keyring:
    return Keyring.load_or_create(path, home=home, sealed_rows=sealed_rows)


def test_the_first_start_makes_a_private_key_file_and_the_next_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "config" / "parley" / "key"
    sealed = _load(path, tmp_path / "data").seal(*PLACE, b"kept")
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["key"]
    (entry,) = json.loads(path.read_bytes())["keys"]
    assert len(base64.b64decode(entry["key"])) == 32
    assert _load(path, tmp_path / "data", sealed_rows=True).open(*PLACE, sealed) == b"kept"


def test_a_key_inside_the_data_folder_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (tmp_path / "way-in").symlink_to(home)
    for path in (
        home / "key",
        home / "deep" / "key",
        tmp_path / "way-in" / "key",
        tmp_path / "x" / ".." / "data" / "k",
    ):
        with pytest.raises(ConfigurationError, match="PARLEY_KEY_FILE"):
            _load(path, home)
    assert not list(home.iterdir())


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o420, 0o401])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    _load(path, tmp_path / "data")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 0400"):
        _load(path, tmp_path / "data")


def test_a_folder_that_others_can_change_gets_no_key(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod 0700"):
        _load(folder / "key", tmp_path / "data")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b'{"version": 1, "keys": []}',
        b'{"version": 2, "keys": [{"id": "00000001", "key": "%s"}]}' % base64.b64encode(b"k" * 32),
        b'{"version": 1, "keys": [{"id": "00000001", "key": "%s"}]}' % base64.b64encode(b"k" * 16),
        b'{"version": 1, "keys": [{"id": "nonsense", "key": "%s"}]}' % base64.b64encode(b"k" * 32),
        b'{"version": 1, "keys": [{"id": "00000001", "key": "k k k"}]}',
        b'{"version": 1, "keys": [%s, %s]}'
        % ((b'{"id": "00000001", "key": "%s"}' % base64.b64encode(b"k" * 32),) * 2),
    ],
)
def test_a_malformed_key_file_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o400)
    with pytest.raises(ConfigurationError, match="malformed") as caught:
        _load(path, tmp_path / "data")
    assert "kkk" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_missing_key_is_never_replaced_when_something_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigurationError, match="Restore it"):
        _load(path, tmp_path / "data", sealed_rows=True)
    assert not path.exists()


def test_a_folder_in_place_of_the_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(ConfigurationError):
        _load(tmp_path / "key", tmp_path / "data")


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
