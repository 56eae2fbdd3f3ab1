"""docs/scenario-support.md, word for word; and what it says of questions that come twice and of a hub that dies.

Real: the whole stack, and PostgreSQL with the orders. Slack is a fake of its protocol.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it ships neither types nor stubs
import pytest
import sqlalchemy as sa

from flows import _sample
from tests.fakes._driver import eventually
from tests.fakes.slack import SlackDriver
from tests.postgres_fixture import PostgresServer, postgres_server, postgres_url
from tests.scenarios import support
from tests.scenarios.page import Page
from tests.scenarios.rooms_slack import SlackRoom
from tests.stack import ROOT, Stack

__all__ = ["postgres_server", "postgres_url"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]


@dataclass
class House:
    """Everything that the page needs, and the page."""

    page: Page
    stack: Stack
    slack: SlackDriver
    support: SlackRoom


@pytest.fixture
async def house(tmp_path: Path, postgres_url: str) -> AsyncIterator[House]:
    """An installation with this page's settings, its orders in PostgreSQL, and a copy of them."""
    copy = tmp_path / "copy.db"
    _sample._fill(copy)
    await _import(copy, postgres_url)
    orders = {
        "PARLEY_ORDERS_URL": postgres_url.replace("postgresql://", "postgresql+asyncpg://"),
        "PARLEY_ORDERS_COPY_URL": f"sqlite+aiosqlite:///{copy}",
    }
    async with SlackDriver() as slack, _running(Stack(extra=orders)) as (stack, page):
        # The listeners are another process: they find their way by the system's own names.
        slack.fake.host = "127.0.0.1"
        yield House(page, stack, slack, support.enter(page, slack))


@asynccontextmanager
async def _running(stack: Stack) -> AsyncIterator[tuple[Stack, Page]]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    page = Page(ROOT / "docs" / support.NAME, stack.environment | {"PATH": programs}, folder=stack.folder)
    stack.configure(page.settings())
    for name, secret in support.SECRETS.items():
        (stack.folder / name).write_text(f"{secret}\n")
    async with stack:
        yield stack, page


async def _import(sample: Path, url: str) -> None:
    """Bring the sample's orders into another database."""
    source = sa.create_engine(f"sqlite:///{sample}")
    target = await asyncpg.connect(url)
    try:
        await target.execute(_sample._SCHEMA)
        with source.connect() as connection:
            for table in ("orders", "legs"):
                rows = [tuple(row) for row in connection.exec_driver_sql(f"select * from {table}")]  # noqa: S608
                await target.copy_records_to_table(table, records=rows)
    finally:
        await target.close()
        source.dispose()


async def test_the_page_is_true(house: House, postgres_server: PostgresServer) -> None:
    """And nobody but who asked sees what is private; nothing is said that the page does not tell."""
    await house.page.follow(until=support.DOWN)
    postgres_server.stop("immediate")
    try:
        await house.page.follow(since=support.DOWN)
    finally:
        postgres_server.start()
    support.nothing_else_was_said(house.slack, house.support)


async def test_a_question_that_comes_twice_or_whose_hub_dies_is_answered_once(house: House) -> None:
    await house.page.follow(until="Asking")
    await house.support.says("bea", "@parley where is order 1024?")
    first = house.slack.fake.envelopes[-1]
    await eventually(lambda: first.acked, "the question is stored", 60)
    killed = house.stack.kill("hub")
    await house.slack.fake.redeliver(first)
    await asyncio.to_thread(house.stack.back, "hub", killed)
    await eventually(lambda: _answers(house) == 1, "the answer", 60)
    await house.slack.fake.redeliver(first)
    await eventually(lambda: house.slack.fake.acks[first.ids[-1]] == 1, "the last redelivery is taken", 60)
    await house.support.says("bea", "@parley where is order 9999?")
    await eventually(lambda: "There is no order 9999." in house.support.texts(), "the next answer", 60)
    assert _answers(house) == 1


def _answers(house: House) -> int:
    return sum("Order 1024" in text for text in house.support.texts())
