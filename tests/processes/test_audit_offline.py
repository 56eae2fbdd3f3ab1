"""The audit is verified without a hub, beside one, and on a copy; nothing is changed by it."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from parley.errors import ConfigurationError
from parley.processes.audit_offline import verified
from parley.processes.hub import Hub, open_hub
from parley.settings import Settings
from tests.postgres_fixture import postgres_server, postgres_store_url, prepared_database

__all__ = ["postgres_server", "postgres_store_url", "prepared_database"]


def settings_in(folder: Path, **more: Any) -> Settings:
    home = folder / "h"
    return Settings(
        home=home,
        config=home / "parley.toml",
        key_file=folder / "key" / "key",
        prefect_api_url="http://127.0.0.1:9/api",
        **more,
    )


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    made = await open_hub(settings_in(tmp_path))
    for _ in range(5):
        await made.admin.run("token", {})
    await made.anchors.add()
    yield made
    await _close(made)


async def _close(hub: Hub) -> None:
    await hub.intake.aclose()
    await hub.prefect.aclose()
    await hub.store.aclose()


async def found(settings: Settings) -> tuple[int, list[str]]:
    parts = [part async for part in verified(settings)]
    return sum(part["rows"] for part in parts), [words for part in parts for words in part["problems"]]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


async def test_beside_a_hub_and_after_it(hub: Hub, tmp_path: Path) -> None:
    assert await found(hub.settings) == (10, [])
    await hub.admin.run("token", {})
    assert await found(hub.settings) == (12, [])
    await _close(hub)
    before = digests(tmp_path)
    assert await found(hub.settings) == (12, [])
    assert digests(tmp_path) == before


async def test_one_byte_is_found_and_named(hub: Hub) -> None:
    await _close(hub)
    path = hub.settings.home / "parley.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (chain,) = conn.execute("SELECT chain FROM audit WHERE sequence = 7").fetchone()
    content = path.read_bytes()
    place = content.find(chain.encode()) - 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    _, problems = await found(hub.settings)
    assert len(problems) == 1
    assert problems[0].startswith("Row 7 was changed")


async def test_a_copy_elsewhere_with_its_key(hub: Hub, tmp_path: Path) -> None:
    await _close(hub)
    shutil.copytree(hub.settings.home, tmp_path / "copy")
    moved = hub.settings.model_copy(
        update={"home": tmp_path / "copy", "audit_anchors": hub.settings.anchors_file}
    )
    assert await found(moved) == (10, [])


async def test_what_is_not_there_is_said(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no store at"):
        await found(settings_in(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="missing"):
        await found(hub.settings.model_copy(update={"key_file": tmp_path / "other" / "key"}))
    assert not (tmp_path / "other").exists()
    (tmp_path / "x").mkdir()
    with closing(sqlite3.connect(tmp_path / "x" / "parley.db")) as conn:
        conn.execute("CREATE TABLE audit_no (a)")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await found(hub.settings.model_copy(update={"home": tmp_path / "x"}))


async def test_anchors_with_the_data_are_refused_by_the_hub_and_without_it(hub: Hub, tmp_path: Path) -> None:
    inside = settings_in(tmp_path, audit_anchors=tmp_path / "h" / "anchors")
    with pytest.raises(ConfigurationError, match="lie in the data folder"):
        await found(inside)
    await _close(hub)
    with pytest.raises(ConfigurationError, match="lie in the data folder"):
        await open_hub(inside)
    (tmp_path / "empty").touch()
    unreachable = settings_in(tmp_path / "new", audit_anchors=tmp_path / "empty" / "anchors")
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        await open_hub(unreachable)
    assert not (unreachable.home / "parley.db").exists()
    assert not unreachable.key_file.exists()


@pytest.mark.servers
async def test_postgresql(tmp_path: Path, postgres_store_url: str) -> None:
    settings = settings_in(tmp_path, database_url=postgres_store_url)
    hub = await open_hub(settings)
    try:
        for _ in range(3):
            await hub.admin.run("token", {})
        await hub.anchors.add()
        assert await found(settings) == (6, [])
    finally:
        await _close(hub)


@pytest.mark.servers
async def test_a_postgresql_that_cannot_be_verified_is_told_in_a_sentence(
    tmp_path: Path, postgres_store_url: str
) -> None:
    elsewhere = postgres_store_url.replace("127.0.0.1", "0.0.0.0")
    with pytest.raises(ConfigurationError, match=r"no TLS.*PARLEY_PLAIN_LINKS=0\.0\.0\.0"):
        await found(settings_in(tmp_path, database_url=elsewhere))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await found(settings_in(tmp_path, database_url="postgresql://parley@127.0.0.1:1/parley"))


async def test_the_chain_is_whole_over_new_keys(hub: Hub) -> None:
    """Rows and anchors of before prove themselves with the key of their time, with a hub and without."""
    await hub.admin.run("keys_rotate", {})
    await hub.admin.run("token", {})
    await hub.anchors.add()
    await hub.admin.run("keys_rotate", {"data": True})
    await hub.admin.run("token", {})
    await hub.anchors.add()
    told = await hub.admin.run("audit_verify", {})
    assert (told["rows"], told["anchors"], told["problems"]) == (18, 3, [])
    assert await found(hub.settings) == (18, [])
    await _close(hub)
    again = await open_hub(hub.settings)
    try:
        assert (await again.admin.run("audit_verify", {}))["problems"] == []
        assert await again.open_actions.settle() == 0
    finally:
        await _close(again)
