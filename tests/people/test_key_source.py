"""What wraps the data keys: the key file, the environment, or the program of a KMS."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from parley.errors import ConfigurationError, SealError
from parley.people import key_file
from parley.people.key_command import KeyCommand
from parley.people.key_source import KeySource, Wrapped, open_source
from parley.settings import File, Keys, Settings
from tests.people import kms

KEY = bytes(range(32))
FIRST, SECOND = (base64.b64encode(letter * 32).decode() for letter in (b"p", b"q"))


def settings(tmp_path: Path, command: tuple[str, ...] = (), **more: Any) -> Settings:
    return Settings(
        home=tmp_path / "home",
        config=tmp_path / "parley.toml",
        key_file=tmp_path / "key" / "key",
        file=File(keys=Keys(command=command, timeout=more.pop("timeout", 20))),
        **more,
    )


def opened(tmp_path: Path, command: tuple[str, ...] = (), **more: Any) -> KeySource:
    return open_source(settings(tmp_path, command, **more), sealed_rows=False)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """The folder of a KMS that has one key."""
    folder = tmp_path / "vault"
    kms.new_key(folder)
    return folder


def calls(vault: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (vault / "calls").read_text().splitlines()]


async def test_a_key_unwraps_as_itself_only(tmp_path: Path) -> None:
    source = opened(tmp_path)
    wrapped = await source.wrap("000000d1", "data", KEY)
    assert await source.unwrap("000000d1", "data", wrapped) == KEY
    assert wrapped.by == source.newest
    assert KEY not in wrapped.value
    for key_id, kind in (("000000d2", "data"), ("000000d1", "root")):
        with pytest.raises(SealError):
            await source.unwrap(key_id, kind, wrapped)


async def test_a_rotated_file_wraps_with_the_new_key_and_unwraps_with_both(tmp_path: Path) -> None:
    source = opened(tmp_path)
    old, wrapped = source.newest, await source.wrap("000000d1", "data", KEY)
    fresh = source.rotate()
    assert source.newest == fresh != old
    assert not source.is_newest(wrapped.by)
    again = opened(tmp_path)
    assert list(again.keys) == [old, fresh]
    assert await again.unwrap("000000d1", "data", wrapped) == KEY
    assert (await again.wrap("000000d1", "data", KEY)).by == fresh


async def test_a_key_that_is_not_here_is_named(tmp_path: Path) -> None:
    source = opened(tmp_path)
    with pytest.raises(ConfigurationError, match=r"0badc0de wrapped .* 000000d1.*Restore the key file"):
        await source.unwrap("000000d1", "data", Wrapped("0badc0de", b"x"))
    with pytest.raises(ConfigurationError, match=r"parley.toml names none"):
        await source.unwrap("000000d1", "data", Wrapped("command:k1", b"x"))


def test_a_key_leaves_the_file_but_not_the_newest(tmp_path: Path) -> None:
    source = opened(tmp_path)
    old = source.newest
    with pytest.raises(ConfigurationError, match="the only one"):
        source.remove(old)
    fresh = source.rotate()
    source.remove(old)
    assert list(key_file.read(tmp_path / "key" / "key")) == list(source.keys) == [fresh]
    with pytest.raises(ConfigurationError, match="not in the key file"):
        source.remove(old)


async def test_a_key_of_the_environment_needs_no_file(tmp_path: Path) -> None:
    source = opened(tmp_path, key=FIRST)
    wrapped = await source.wrap("000000d1", "data", KEY)
    assert source.origin == "environment"
    assert not (tmp_path / "key").exists()
    later = opened(tmp_path, key=SECOND, key_previous=FIRST)
    assert later.newest != source.newest
    assert await later.unwrap("000000d1", "data", wrapped) == KEY
    with pytest.raises(ConfigurationError, match="PARLEY_KEY_PREVIOUS to what PARLEY_KEY is now"):
        later.rotate()


async def test_a_key_file_that_is_still_there_unwraps_beside_the_environment(tmp_path: Path) -> None:
    wrapped = await opened(tmp_path).wrap("000000d1", "data", KEY)
    source = opened(tmp_path, key=FIRST)
    assert await source.unwrap("000000d1", "data", wrapped) == KEY
    assert (await source.wrap("000000d1", "data", KEY)).by == source.newest != wrapped.by


@pytest.mark.parametrize("text", ["x", "QUFB", FIRST + "QQ", "secret-that-is-no-base64!"])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    wrong: list[dict[str, Any]] = [{"key": text}, {"key": FIRST, "key_previous": text}]
    for given in wrong:
        with pytest.raises(ConfigurationError, match="is not a key") as caught:
            opened(tmp_path, **given)
        assert text not in str(caught.value).replace("is not a key", "")
    with pytest.raises(ConfigurationError, match="PARLEY_KEY is not"):
        opened(tmp_path, key_previous=FIRST)


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    chosen = settings(tmp_path, key=FIRST, key_previous=SECOND)
    shown = repr(chosen) + repr(open_source(chosen, sealed_rows=False)) + repr(Wrapped("k", b"wrapped"))
    assert not any(text in shown for text in (FIRST, SECOND, "pppp", "b'wrapped"))


# -- a program


async def test_a_program_wraps_and_unwraps(tmp_path: Path, vault: Path) -> None:
    source = opened(tmp_path, kms.command(vault))
    wrapped = await source.wrap("000000d1", "data", KEY)
    assert wrapped.by == "command:k1"
    assert KEY not in wrapped.value
    assert await source.unwrap("000000d1", "data", wrapped) == KEY
    assert source.is_newest(wrapped.by)
    assert not (tmp_path / "key").exists()
    assert [(one["operation"], one["context"]) for one in calls(vault)] == [
        ("wrap", "000000d1 data"),
        ("unwrap", "000000d1 data"),
    ]


async def test_the_program_hears_nothing_of_our_secrets(
    tmp_path: Path, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARLEY_KEY", FIRST)
    monkeypatch.setenv("PARLEY_DATABASE_URL", "postgresql://u:p@h/d")
    await opened(tmp_path, kms.command(vault)).wrap("000000d1", "data", KEY)
    assert [one["environment"] for one in calls(vault)] == [[]]


async def test_keys_that_changed_places_are_noticed_though_the_program_does_not(
    tmp_path: Path, vault: Path
) -> None:
    source = opened(tmp_path, kms.command(vault))
    wrapped = await source.wrap("000000d1", "data", KEY)
    with pytest.raises(SealError, match="000000d2"):
        await source.unwrap("000000d2", "data", wrapped)


@pytest.mark.parametrize(
    ("mishap", "told"),
    [
        ("refuse", "ended with 3: no access"),
        ("hang", "longer than 1 s"),
        ("flood", "more than 65536 bytes"),
        ("nonsense", "one JSON object"),
        ("empty", "has to write"),
    ],
)
async def test_what_goes_wrong_with_the_program_is_told_without_the_key(
    vault: Path, mishap: str, told: str
) -> None:
    began = time.monotonic()
    command = KeyCommand(kms.command(vault, mishap), 1 if mishap == "hang" else 20)
    for ask in (
        command.wrap("000000d1 data", KEY),
        command.unwrap("000000d1 data", "command:k1", b"wrapped"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            await ask
        said = str(caught.value)
        assert told in said
        assert base64.b64encode(KEY).decode()[:20] not in said
        assert base64.b64encode(b"wrapped").decode() not in said
        assert said.isprintable()
    assert time.monotonic() - began < 15


async def test_a_key_that_comes_back_cut_is_refused(vault: Path) -> None:
    command = KeyCommand(kms.command(vault, "short"), 20)
    with pytest.raises(SealError, match="000000d1"):
        await command.unwrap("000000d1 data", "command:k1", b"wrapped")


async def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigurationError, match="cannot be started"):
        await KeyCommand(("/nowhere/kms",), 5).wrap("000000d1 data", KEY)
