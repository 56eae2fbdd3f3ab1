"""The same databases as in tests/store, and a key."""

from __future__ import annotations

import pytest

from parley.people.sealing import Keyring
from tests.postgres_fixture import postgres_server, postgres_url
from tests.store.conftest import store, store_url

__all__ = ["postgres_server", "postgres_url", "store", "store_url"]


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.generate()
