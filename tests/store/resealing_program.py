"""A hub's part in `parley keys rotate --data`, in a process that a test can kill: it seals anew while others work.

`python -m tests.store.resealing_program STORE KEY_FILE ROWS` prints, when all is sealed anew, one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.people.data_keys import DataKeys, rows
from parley.processes.keys import open_keys
from parley.settings import Settings
from parley.store import resealing, schema
from parley.store.engine import Store
from tests.store.sealed_rows import message, opens, put


class Load:
    """Readers and writers; what did not go well is counted."""

    def __init__(self, store: Store, keys: DataKeys, count: int) -> None:
        self.store, self.keys, self.count = store, keys, count
        self.reads = self.writes = self.failed = 0

    async def read(self) -> None:
        """For ever: one message or another, from one end to the other at random."""
        while True:
            key = f"{random.randrange(self.count):06}"  # noqa: S311
            query = sa.select(schema.message).where(schema.message.c.id == key)

            async def fetch(conn: AsyncConnection, query: Any = query) -> Any:
                return (await conn.execute(query)).one()

            try:
                self.failed += not opens(self.keys.keyring, await self.store.read(fetch))
            except SealError:
                self.failed += 1
            self.reads += 1

    async def write(self) -> None:
        """For ever: new messages, before and behind those that are there, each read back at once."""
        for number in itertools.count():
            for key in (f"!{os.getpid()}-{number:06}", f"z{os.getpid()}-{number:06}"):
                await put(self.store, schema.message, [message(self.keys.keyring, key)])
                self.writes += 1
            await asyncio.sleep(0.005)


async def main(address: str, key_file: Path, count: int) -> dict[str, Any]:
    """Ask for the sealing anew, or go on with it, and have it done."""
    settings = Settings(home=key_file.parent / "home", config=key_file.parent / "x", key_file=key_file)
    store = await Store.open(address)
    try:
        keys = await open_keys(settings, store)
        asked = any(row.reseal_asked_at for row in await store.read(rows))
        load = Load(store, keys, count)
        busy = [asyncio.create_task(work) for work in (load.read(), load.read(), load.read(), load.write())]
        await asyncio.sleep(0.1)
        if not asked:
            await keys.make(reseal=True)
        done = await resealing.reseal(store, keys.keyring)
        for task in busy:
            task.cancel()
        ended = await asyncio.gather(*busy, return_exceptions=True)
        broken = [repr(one) for one in ended if not isinstance(one, asyncio.CancelledError)]
        return {
            "went_on": asked,
            "resealed": done.values,
            "broken": [*done.broken, *broken],
            "reads": load.reads,
            "writes": load.writes,
            "failed": load.failed,
        }
    finally:
        await store.aclose()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))))
