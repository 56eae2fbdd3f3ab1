"""parley.toml while the hub runs: what cannot be audited now is taken up later."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from parley.errors import StoreUnavailable
from parley.processes import configuration
from parley.processes.configuration import Configuration
from parley.settings import File, Settings
from tests.fakes._driver import eventually


async def test_a_change_that_cannot_be_audited_is_taken_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "EVERY", 0.02)
    settings = Settings(home=tmp_path, config=tmp_path / "parley.toml", key_file=tmp_path / "key")
    watched = Configuration(settings)
    tries: list[float] = []
    refusals: list[str] = []

    async def changed(old: File, new: File) -> None:
        tries.append(new.limits.ask_age)
        if len(tries) == 1:
            raise StoreUnavailable("full")

    async def refused(reason: str) -> None:
        refusals.append(reason)
        if len(refusals) == 1:
            raise StoreUnavailable("full")

    watching = asyncio.create_task(watched.watch(changed, refused))
    try:
        settings.config.write_text("[limits]\nask_age = 500\n")
        await eventually(lambda: tries == [500, 500], "taken up at the second look")
        assert watched.file.limits.ask_age == 500
        settings.config.write_text("[limits\n")
        await eventually(lambda: len(refusals) == 2, "refused at the second look")
        assert watched.file.limits.ask_age == 500
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
