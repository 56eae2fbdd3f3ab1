"""`/daily`: the last days' orders in one report, every morning and every half hour by itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from prefect import flow
from prefect.schedules import Cron, Interval
from pydantic import BaseModel, Field

from flows import _orders
from flows._orders import Day
from parley import Report, Table, automation, current_language, step
from parley.runs.answers import csv_file

_COLUMNS = {
    "en": ("day", "orders", "delivered", "revenue (EUR)"),
    "zh": ("日期", "订单", "已送达", "收入（欧元）"),
}
_WORDS = {
    "en": "**Orders from {first} to {last}**: {orders} orders, {delivered} of them delivered, {total:.2f} EUR.",
    "zh": "**{first} 至 {last} 的订单**：共 {orders} 单，已送达 {delivered} 单，收入 {total:.2f} 欧元。",
}


class Figures(BaseModel):
    """The days in order, and their sums."""

    days: tuple[Day, ...]
    orders: int
    delivered: int
    total_cents: int


@step
async def fetch(day: date) -> Day:
    """One day's figures from the database."""
    return await _orders.day(day)


@step
def process(days: list[Day]) -> Figures:
    """Sort and add up."""
    ordered = tuple(sorted(days, key=lambda day: day.day))
    return Figures(
        days=ordered,
        orders=sum(day.orders for day in ordered),
        delivered=sum(day.delivered for day in ordered),
        total_cents=sum(day.total_cents for day in ordered),
    )


@step
def write(figures: Figures, language: str) -> Report:
    """The report: a sentence, a table, and the table as a file."""
    columns = _COLUMNS[language]
    rows = [(str(d.day), str(d.orders), str(d.delivered), f"{d.total_cents / 100:.2f}") for d in figures.days]
    first, last = figures.days[0].day, figures.days[-1].day
    text = _WORDS[language].format(
        first=first,
        last=last,
        orders=figures.orders,
        delivered=figures.delivered,
        total=figures.total_cents / 100,
    )
    file = csv_file(f"orders-{last}.csv", columns, rows)
    return Report(
        text=text, key="daily-report", table=Table(columns=columns, rows=tuple(rows)), files=(file,)
    )


@automation(
    command="daily",
    summary="Report on the orders of the last days.",
    examples=(
        "report on the last {days} days",
        "how were the orders of the last {days} days",
        "最近 {days} 天的订单报告",
    ),
    effect="read",
    idempotent=True,
    alert_after=3,
    time_limit=300,
    schedules=(
        Interval(timedelta(minutes=30), slug="every-half-hour", timezone="UTC"),
        Cron("0 8 * * *", slug="every-morning", timezone="UTC"),
    ),
)
@flow(name="daily_report")
async def daily_report(
    days: Annotated[int, Field(ge=1, le=31, description="How many days, today included.")] = 7,
    to: Annotated[
        str,
        Field(
            description="Conversation that a scheduled report goes to, as account:id.",
            pattern="^$|^[^:]+:.+$",
        ),
    ] = "",
) -> Report:
    """Fetch, process, report."""
    del to  # The hub reads it from the run's parameters: where an answer goes is never decided inside a run.
    today = datetime.now(UTC).date()
    wanted = [today - timedelta(days=back) for back in range(days)]
    fetched = await asyncio.gather(*(fetch(day) for day in wanted))
    return write(process(fetched), "zh" if current_language().startswith("zh") else "en")
