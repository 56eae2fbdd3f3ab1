"""The same databases as in tests/store."""

from __future__ import annotations

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
