"""Sealing anew: every place, beside whoever reads and writes, and through a crash."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people.sealing import Keyring, Ring
from parley.processes.keys import open_keys
from parley.settings import Settings
from parley.store import schema
from parley.store.engine import Store
from parley.store.resealing import PLACES, count_by_key, open_page, reseal
from tests import measuring
from tests.store.sealed_rows import begin, message, opens, put

ROOT = Path(__file__).parents[2]

RING = Ring(
    seals="000000d1",
    proves="000000f1",
    data={"000000d1": b"1" * 32, "000000d2": b"2" * 32},
    roots={"000000f1": b"r" * 32},
)

ROWS = 10_000


def keyring() -> Keyring:
    """One that seals with `d1`."""
    return Keyring({"00000001": b"k" * 32}, RING)


async def messages(store: Store) -> list[Any]:
    async def fetch(conn: AsyncConnection) -> list[Any]:
        return list((await conn.execute(sa.select(schema.message))).all())

    return await store.read(fetch)


async def test_every_value_is_sealed_with_the_present_key(store: Store) -> None:
    """Those of data keys and those of the key file itself, in columns and in routes."""
    await begin(store)
    before, keys = Keyring({"00000001": b"k" * 32}), keyring()
    await put(store, schema.message, [message(before, f"v1-{n}") for n in range(30)])
    await put(store, schema.message, [message(keys, f"v2-{n}") for n in range(30)])
    body = keys.seal("event", "body_sealed", "7", b"an event")
    await put(store, schema.event, [{"sequence": 7, "topic": "t", "body_sealed": body, "created_at": now()}])
    assert await count_by_key(store) == {"00000001": 60, "000000d1": 61}
    keys.take(replace(RING, seals="000000d2"))
    assert (await reseal(store, keys)).values == 121
    assert await count_by_key(store) == {"000000d2": 121}
    assert all(opens(keys, row) for row in await messages(store))
    alone = Keyring({}, replace(RING, seals="000000d2", data={"000000d2": b"2" * 32}))
    assert all(opens(alone, row) for row in await messages(store)), "the old keys are needed no more"
    assert (await reseal(store, keys)).values == 0


async def test_what_does_not_open_is_named_and_left_as_it_is(store: Store) -> None:
    await begin(store)
    keys = keyring()
    rows = [message(keys, f"m{n}") for n in range(5)]
    rows[2]["event_sealed"] = rows[1]["event_sealed"]
    rows[3]["route"]["context_sealed"] = "no base64"
    rows[4]["event_sealed"] = rows[4]["event_sealed"][:9]
    await put(store, schema.message, rows)
    keys.take(replace(RING, seals="000000d2"))
    done = await reseal(store, keys)
    assert sorted(done.broken) == ["message / event_sealed / m2", "message / event_sealed / m4"]
    assert done.values == 7
    kept = {row.id: row for row in await messages(store)}
    assert kept["m2"].event_sealed == rows[2]["event_sealed"]
    found = []
    for place in PLACES:
        after: Any = None
        while True:
            after, _, broken = await open_page(store, keys, place, after, 2)
            found += broken
            if after is None:
                break
    assert sorted(found) == [
        "message / event_sealed / m2",
        "message / event_sealed / m4",
        "message / route / m3",
    ]


def test_every_sealed_place_is_known() -> None:
    """Whoever adds a column that `kept_routes` writes to calls it `route`."""
    names = {place.name for place in PLACES}
    assert {"message / event_sealed", "message / route", "delivery / route", "request / route"} <= names
    assert {"file / content_sealed", "question / answer_sealed", "follow / route_sealed"} <= names


def resealed(path: Path, key_id: str) -> int:
    """How many messages' events are not sealed with this key any more, by another process's look at the file."""
    query = "SELECT count(*) FROM message WHERE substr(event_sealed, 2, 4) <> ? AND id < 'a' AND id > '0'"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as conn:
        return int(conn.execute(query, (bytes.fromhex(key_id),)).fetchone()[0])


def program(path: Path, key_file: Path) -> subprocess.Popen[str]:
    """The one that seals anew under load; what it runs of ours, the tests above and those of the hub measure."""
    command = [sys.executable, "-m", "tests.store.resealing_program", str(path), str(key_file), str(ROWS)]
    environment = measuring.not_at_all(os.environ)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_rows_under_load_and_through_kill_9(tmp_path: Path) -> None:
    """No read fails, nothing is lost, and what was begun is ended after the crash."""
    path, key_file = tmp_path / "parley.db", tmp_path / "key" / "key"
    store = await Store.open(path)
    settings = Settings(home=tmp_path / "home", config=tmp_path / "x", key_file=key_file)
    keys = await open_keys(settings, store)
    old = keys.keyring.sealing
    await begin(store)
    for first in range(0, ROWS, 500):
        rows = [message(keys.keyring, f"{number:06}") for number in range(first, first + 500)]
        await put(store, schema.message, rows)
    await store.aclose()

    killed = program(path, key_file)
    try:
        end = time.monotonic() + 120
        while resealed(path, old) < ROWS // 3:
            assert killed.poll() is None, "it ended before it was killed"
            assert time.monotonic() < end
            time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this loop
    finally:
        killed.kill()
        killed.communicate()
    done = resealed(path, old)
    assert ROWS // 3 <= done < ROWS

    second = program(path, key_file)
    output, _ = second.communicate(timeout=240)
    assert second.returncode == 0
    told = json.loads(output)
    assert told["went_on"]
    assert told["broken"] == []
    assert told["failed"] == 0
    assert told["reads"] > 100
    assert told["writes"] > 10
    assert told["resealed"] >= ROWS - done

    store = await Store.open(path)
    try:
        keys = await open_keys(settings, store)
        assert keys.keyring.sealing != old
        assert set(await count_by_key(store)) == {keys.keyring.sealing}
        found = await messages(store)
        assert Counter(opens(keys.keyring, row) for row in found) == {True: len(found)}
        assert len([row for row in found if "0" <= row.id < "a"]) == ROWS
    finally:
        await store.aclose()
