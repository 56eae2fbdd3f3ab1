"""`/order 1024`: where an order is, with its logistics report as a file."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import BaseModel, Field

from flows import _orders
from flows._orders import Order
from parley import File, Reply, automation, current_language, step
from parley.runs.answers import csv_file

_WORDS = {
    "en": "**Order {id}**: {state}\n{customer}, {total}, ordered {day}\n{last}\nAs of {age:.0f} s ago. Report: {file}",
    "zh": "**订单 {id}**：{state}\n{customer}，{total}，下单日期 {day}\n{last}\n数据截至 {age:.0f} 秒前。报告：{file}",
}
_NONE = {"en": "There is no order {id}.", "zh": "没有订单 {id}。"}
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


class OrderReport(BaseModel):
    """What is known of an order; `order` is None when there is no such order."""

    number: int
    order: Order | None = None
    age_seconds: float = 0.0
    report: File | None = None

    def __reply__(self) -> Reply:
        """The answer in the language of the person who asked."""
        language = "zh" if current_language().startswith("zh") else "en"
        if self.order is None or self.report is None:
            return Reply(text=_NONE[language].format(id=self.number))
        text = _WORDS[language].format(
            id=self.order.id,
            state=state_for_people(self.order, language),
            customer=self.order.customer,
            total=self.order.total,
            day=self.order.ordered_at.date(),
            last=_last_leg(self.order),
            age=self.age_seconds,
            file=self.report.name,
        )
        return Reply(text=text.replace("\n\n", "\n"), files=(self.report,))


class Found(BaseModel):
    """An order and the seconds since it was read."""

    order: Order
    age_seconds: float


@step
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
)
@flow(name="order_status")
async def order_status(order_id: Annotated[int, Field(gt=0, description="Order number.")]) -> OrderReport:
    """Show where an order is, with its logistics report."""
    found = await look_up(order_id)
    if found is None:
        return OrderReport(number=order_id)
    return OrderReport(
        number=order_id, order=found.order, age_seconds=found.age_seconds, report=write_report(found)
    )


def _last_leg(order: Order) -> str:
    if not order.legs:
        return ""
    last = order.legs[-1]
    return f"{last.at:%Y-%m-%d %H:%M} UTC, {last.place}: {last.event}"
