"""Retention of a living hub: it runs by itself, and says when it last had nothing left to do."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from parley.messages.model import now
from parley.store import schema
from tests.hub.house import PATIENCE, House
from tests.hub.test_figures import at, figures

pytestmark = pytest.mark.prefect


async def make_due(house: House) -> None:
    async def write(conn: Any) -> None:
        past = now() - timedelta(minutes=1)
        for table in (schema.message, schema.delivery):
            await conn.execute(sa.update(table).values(erase_after=past))

    await house.hub.store.write(write)


async def test_it_erases_by_itself_and_again(house: House) -> None:
    await house.say("/look 1")
    before = at(await figures(house), "retention_last_success_timestamp_seconds")
    assert before > 0
    await make_due(house)
    cleaning = asyncio.create_task(house.hub.housekeeping.run(first=0, every=0.1))
    try:
        async with asyncio.timeout(PATIENCE):
            while at(await figures(house), "retention_erased_total", kind="bodies") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await house.say("/look 2")
        await make_due(house)
        async with asyncio.timeout(PATIENCE):
            while at(await figures(house), "retention_erased_total", kind="bodies") < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        cleaning.cancel()
    assert at(await figures(house), "retention_last_success_timestamp_seconds") > before
