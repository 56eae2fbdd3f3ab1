"""The same databases as in tests/store, and a key."""

from __future__ import annotations

import pytest

from parley.people.sealing import Keyring
from tests.postgres_fixture import postgres_server, postgres_store_url, postgres_url, prepared_database
from tests.store.conftest import store, store_url

__all__ = [
    "postgres_server",
    "postgres_store_url",
    "postgres_url",
    "prepared_database",
    "store",
    "store_url",
]


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.generate()
