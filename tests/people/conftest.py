"""The same databases as in tests/store."""

from __future__ import annotations

from tests.postgres_fixture import postgres_server, postgres_url
from tests.store.conftest import store, store_url

__all__ = ["postgres_server", "postgres_url", "store", "store_url"]
