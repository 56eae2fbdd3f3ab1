"""The sample, the pool, the cache, and the two flows that read orders."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

from flows import _orders, _sample
from flows._orders import Day, order
from flows.daily_report import daily_report, process, write
from flows.order_status import OrderReport, look_up, order_status, write_report
from parley import AutomationError
from parley.errors import BadArguments
from parley.runs.answers import render
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api, run_deployed

__all__ = ["hub", "prefect_api"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    monkeypatch.delenv("PARLEY_ORDERS_URL", raising=False)
    monkeypatch.delenv("PARLEY_ORDERS_COPY_URL", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    _orders.hot_order.forget_all()
    yield
    _orders.hot_order.forget_all()


@pytest.fixture
async def pool() -> AsyncIterator[None]:
    yield
    await _orders.close()


def test_the_sample_is_made_once_by_whoever_is_first(home: Path) -> None:
    script = "from flows._sample import orders_database; print(orders_database())"
    environment = {**os.environ, "PARLEY_HOME": str(home)}
    started = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    assert {process.communicate(timeout=60)[0] for process in started} == {
        f"{home}/samples/orders.db\n".encode()
    }
    assert [path.name for path in (home / "samples").iterdir()] == ["orders.db"]


async def test_the_sample_has_the_order_that_the_examples_name(pool: None) -> None:
    found = await order(_sample.SHOWN)
    assert found is not None
    assert found.value.state == "in transit"
    assert len(found.value.legs) == 4
    assert await order(999_999) is None


async def test_a_fresh_answer_comes_from_the_cache_with_its_age(pool: None) -> None:
    first = await order(1024)
    again = await order(1024)
    assert first is not None
    assert again is not None
    assert again.value is first.value
    assert 0 < again.age < _orders.FRESH_SECONDS


async def test_a_copy_is_read_when_the_database_gives_no_answer(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: None
) -> None:
    _sample._fill(tmp_path / "copy.db")
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    monkeypatch.setenv("PARLEY_ORDERS_URL", f"sqlite+aiosqlite:///{tmp_path}/broken.db")
    with pytest.raises(AutomationError, match="no answer"):
        await look_up.fn(1024)
    monkeypatch.setenv("PARLEY_ORDERS_COPY_URL", f"sqlite+aiosqlite:///{tmp_path}/copy.db")
    found = await look_up.fn(1024)
    assert found is not None
    said = OrderReport(number=1024, found=found, report=write_report.fn(found)).__reply__().text
    assert "in transit" in said
    assert "From the copy of the order database, whose newest entry is of 20" in said
    assert await look_up.fn(999_999) is None


async def test_an_order_that_is_placed_in_a_moment_is_found_then(home: Path, pool: None) -> None:
    """That there is none is not kept."""
    number = 999_999
    assert await order(number) is None
    with sqlite3.connect(home / "samples/orders.db") as database:
        database.execute(
            "INSERT INTO orders SELECT ?, customer, state, ordered_at, total_cents, currency"
            " FROM orders WHERE id = 1024",
            (number,),
        )
    database.close()
    found = await order(number)
    assert found is not None
    assert found.value.id == number


async def test_many_who_ask_for_an_order_at_once_read_it_once(pool: None) -> None:
    found = await asyncio.gather(*(order(1024) for _ in range(20)))
    assert {id(one.value) for one in found if one} == {id(found[0] and found[0].value)}


async def test_a_day_is_added_up(pool: None) -> None:
    found = await order(1024)
    assert found is not None
    figures = await _orders.day(found.value.ordered_at.date())
    assert 1 <= figures.orders <= 8
    assert figures.total_cents > 0
    assert (await _orders.day(date(1999, 1, 1))).orders == 0


def test_a_program_that_asks_for_an_order_ends(home: Path) -> None:
    """The pool must not keep an interpreter alive that is done."""
    script = "import asyncio; from flows._orders import order; print(asyncio.run(order(1024)).value.id)"
    environment = {**os.environ, "PARLEY_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"1024\n"


def test_the_days_are_sorted_and_added() -> None:
    days = [Day(day=date(2026, 1, n), orders=n, delivered=1, total_cents=100) for n in (2, 1)]
    figures = process.fn(days)
    assert [day.day.day for day in figures.days] == [1, 2]
    assert (figures.orders, figures.delivered, figures.total_cents) == (3, 2, 200)
    report = write.fn(figures, "zh")
    assert "2026-01-01" in report.text
    assert report.table is not None
    assert report.table.rows[0] == ("2026-01-01", "1", "1", "1.00")


class TestInPrefect:
    pytestmark = IN_PREFECT

    async def test_an_order_is_answered_with_its_report(self, hub: FakeHub, pool: None) -> None:
        state = await run_deployed(order_status, order_id=1024)
        assert state.is_completed()
        reply = hub.finish().reply
        assert reply is not None
        assert "1024" in reply.text
        assert "in transit" in reply.text
        assert "logistics-1024.csv" in reply.text
        (file,) = reply.files
        rows = list(csv.reader(io.StringIO(file.content.decode("utf-8-sig"))))
        assert len(rows) == 5
        assert rows[4][1:] == ["Hub Duisburg", "departed"]

    async def test_the_answer_is_chinese_for_who_speaks_it(self, hub: FakeHub, pool: None) -> None:
        hub.started = hub.started.model_copy(update={"language": "zh"})
        await run_deployed(order_status, order_id=1024)
        reply = hub.finish().reply
        assert reply is not None
        assert "订单 1024" in reply.text
        assert "运输中" in reply.text

    async def test_an_unknown_order_is_an_answer_and_no_failure(self, hub: FakeHub, pool: None) -> None:
        state = await run_deployed(order_status, order_id=5)
        assert state.is_completed()
        reply = hub.finish().reply
        assert reply is not None
        assert reply.text == "There is no order 5."

    async def test_the_report_has_a_table_a_file_and_an_artifact(self, hub: FakeHub, pool: None) -> None:
        state = await run_deployed(daily_report, days=3, to="console:owner")
        assert state.is_completed()
        reply = hub.finish().reply
        assert reply is not None
        assert reply.table is not None
        assert len(reply.table.rows) == 3
        assert len(reply.files) == 1
        async with get_client() as client:
            (artifact,) = await client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    key=ArtifactFilterKey(any_=["daily-report"]),
                    flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]),
                )
            )
        assert "| --- |" in str(artifact.data)

    async def test_it_runs_without_a_chat_too(self, pool: None) -> None:
        report = await daily_report(days=2)
        assert render(report).table is not None


async def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(BadArguments, match="days"):
        await daily_report.fn(days=99)
