"""What a living hub does with the keys of a store that other hubs have too."""

from __future__ import annotations

from pathlib import Path

from parley.people.audit import Audit
from parley.people.data_keys import DataKeys
from parley.people.key_source import open_source
from parley.processes.keys import KeyKeeper
from parley.runs.prefect_api import PrefectApi
from parley.settings import Settings
from parley.store.engine import Store
from tests.postgres_fixture import postgres_server, postgres_store_url, prepared_database

__all__ = ["postgres_server", "postgres_store_url", "prepared_database"]

PLACE = ("message", "event_sealed", "row-1")


async def keys_of(store: Store, folder: Path, *, sealed_rows: bool) -> DataKeys:
    settings = Settings(home=folder / "home", config=folder / "parley.toml", key_file=folder / "key" / "key")
    keys = DataKeys(store, open_source(settings, sealed_rows=sealed_rows), known_within=0.05)
    await keys.load()
    return keys


async def test_another_hubs_new_key_is_known_before_what_does_not_open_is_settled(
    tmp_path: Path, postgres_store_url: str
) -> None:
    store = await Store.open(postgres_store_url)
    prefect = PrefectApi("http://127.0.0.1:9/api")  # nothing is sealed anew, so it is not asked
    try:
        ours = await keys_of(store, tmp_path, sealed_rows=False)
        other = await keys_of(store, tmp_path, sealed_rows=True)
        await other.make()
        sealed = other.keyring.seal(*PLACE, b"of another hub")
        opened = []

        async def settle() -> None:
            opened.append(ours.keyring.open(*PLACE, sealed))

        await KeyKeeper(store, ours, Audit(ours.keyring), prefect, days=lambda: 30, settle=settle).look()
        assert opened == [b"of another hub"]
    finally:
        await prefect.aclose()
        await store.aclose()
