"""The key file: made once, private, whole, and never replaced when something is sealed with it."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from parley.errors import ConfigurationError
from parley.people import key_file
from parley.people.sealing import Keyring

PLACE = ("message", "event_sealed", "row-1")


def _load(path: Path, home: Path, *, sealed_rows: bool = False) -> Keyring:
    return Keyring(key_file.load_or_create(path, home=home, sealed_rows=sealed_rows))


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


def test_keys_are_replaced_whole_and_stay_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key"
    _load(path, tmp_path / "data")
    before = key_file.read(path)
    key_file.replace(path, {**before, "00000002": b"n" * 32})
    assert dict(key_file.read(path)) == {**before, "00000002": b"n" * 32}
    assert list(key_file.read(path))[-1] == "00000002"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert [file.name for file in path.parent.iterdir()] == ["key"]


def test_keys_that_cannot_be_written_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "key"
    with pytest.raises(ConfigurationError, match="cannot be written"):
        key_file.replace(path, {"00000002": b"n" * 32})
    assert not path.parent.exists()
