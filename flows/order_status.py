"""`/order 1024`: where an order is, with its logistics report as a file."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from prefect import flow
from pydantic import BaseModel, Field

from flows import _orders
from flows._orders import Order
from parley import AutomationError, File, Reply, automation, current_language, step
from parley.runs.answers import csv_file

_WORDS = {
    "en": "**Order {id}**: {state}\n{customer}, {total}, ordered {day}\n{last}\n{as_of} Report: {file}",
    "zh": "**订单 {id}**：{state}\n{customer}，{total}，下单日期 {day}\n{last}\n{as_of}报告：{file}",
}
_NONE = {"en": "There is no order {id}.", "zh": "没有订单 {id}。"}
_AS_OF = {
    "en": (
        "As of {age:.0f} s ago.",
        "From the copy of the order database, whose newest entry is of {newest}.",
    ),
    "zh": ("数据截至 {age:.0f} 秒前。", "数据来自订单数据库的副本，其最新记录为 {newest}。"),
}
_NO_ANSWER = {
    "en": "The order database gives no answer, and there is no copy of it to look in. Try again in a few minutes.",
    "zh": "订单数据库没有响应，也没有可查询的副本。请过几分钟再试。",
}
_STATES = {
    "new": "新订单",
    "packed": "已打包",
    "shipped": "已发货",
    "in transit": "运输中",
    "delivered": "已送达",
}


def state_for_people(order: Order, language: str) -> str:
    """The order's state in this language, as it is where we have no word for it."""
    return _STATES.get(order.state, order.state) if language == "zh" else order.state


class Found(BaseModel):
    """An order and the seconds since it was read; or, from the copy, the moment of the newest entry there."""

    order: Order
    age_seconds: float = 0.0
    in_copy: bool = False
    newest: datetime | None = None

    def as_of(self, language: str) -> str:
        """How new this is, in a sentence."""
        newest = f"{self.newest:%Y-%m-%d %H:%M} UTC" if self.newest else "-"
        return _AS_OF[language][self.in_copy].format(age=self.age_seconds, newest=newest)


class OrderReport(BaseModel):
    """What is known of an order; `found` is None when there is no such order."""

    number: int
    found: Found | None = None
    report: File | None = None

    def __reply__(self) -> Reply:
        """The answer in the language of the person who asked."""
        language = spoken()
        if self.found is None or self.report is None:
            return Reply(text=_NONE[language].format(id=self.number))
        order = self.found.order
        text = _WORDS[language].format(
            id=order.id,
            state=state_for_people(order, language),
            customer=order.customer,
            total=order.total,
            day=order.ordered_at.date(),
            last=_last_leg(order),
            as_of=self.found.as_of(language),
            file=self.report.name,
        )
        return Reply(text=text.replace("\n\n", "\n"), files=(self.report,))


async def look_up_in_copy(number: int) -> Found | None:
    """The order in the copy of the database. Raises `AutomationError` where there is none."""
    if not _orders.has_copy():
        raise AutomationError(_NO_ANSWER[spoken()])
    copied = await _orders.order_in_copy(number)
    return Found(order=copied.value, in_copy=True, newest=copied.newest) if copied else None


@step(name="the order database", fallback=look_up_in_copy)
async def look_up(number: int) -> Found | None:
    """The order from the database, or from the cache while that is fresh."""
    aged = await _orders.order(number)
    return Found(order=aged.value, age_seconds=aged.age) if aged else None


@step
def write_report(found: Found) -> File:
    """The way of the parcel as a table for a spreadsheet."""
    rows = [(leg.at.isoformat(sep=" ", timespec="minutes"), leg.place, leg.event) for leg in found.order.legs]
    return csv_file(f"logistics-{found.order.id}.csv", ("time (UTC)", "place", "event"), rows)


@automation(
    command="order",
    summary="Show where an order is.",
    examples=(
        "where is order {order_id}",
        "what is the state of order {order_id}",
        "where is my order",
        "查一下订单 {order_id} 的物流",
        "订单 {order_id} 到哪了",
        "我的订单到哪了",
    ),
    effect="read",
    idempotent=True,
    alert_after=3,
    time_limit=60,
    batch=20,
)
@flow(name="order_status")
async def order_status(order_id: Annotated[int, Field(gt=0, description="Order number.")]) -> OrderReport:
    """Show where an order is, with its logistics report."""
    found = await look_up(order_id)
    if found is None:
        return OrderReport(number=order_id)
    return OrderReport(number=order_id, found=found, report=write_report(found))


def spoken() -> str:
    """The language of the person who asked, of those that we have words in."""
    return "zh" if current_language().startswith("zh") else "en"


def _last_leg(order: Order) -> str:
    if not order.legs:
        return ""
    last = order.legs[-1]
    return f"{last.at:%Y-%m-%d %H:%M} UTC, {last.place}: {last.event}"
