"""Both databases, so that one test proves one code on both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from parley.store.engine import Store
from tests import prepared, statements
from tests.postgres_fixture import postgres_server, postgres_store_url, postgres_url, prepared_database

__all__ = ["postgres_server", "postgres_store_url", "postgres_url", "prepared_database"]

statements.share()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.servers)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind in turn: an empty one, or for tests of an open store one that is up to date already."""
    up_to_date = "store" in request.fixturenames
    if request.param == "sqlite":
        path = tmp_path / "parley.db"
        if up_to_date:
            prepared.store(path)
        return str(path)
    url: str = request.getfixturevalue("postgres_store_url" if up_to_date else "postgres_url")
    return url


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open store."""
    opened = await Store.open(store_url)
    yield opened
    await opened.aclose()
