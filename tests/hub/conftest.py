"""Fixtures of the hub's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.hub.house import House, deploy, house_in
from tests.prefect_fixture import PrefectServer


@pytest.fixture(scope="session")
def deployed(prefect_server: PrefectServer) -> PrefectServer:
    """The session's Prefect server, with the tests' automations deployed."""
    deploy(prefect_server)
    return prefect_server


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a short path: a Unix socket's may have 100 bytes."""
    return tmp_path_factory.mktemp("h")


@pytest.fixture
async def house(home: Path, deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A hub that lives, with its scripted worker."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])
    async with house_in(home, deployed) as living:
        yield living
