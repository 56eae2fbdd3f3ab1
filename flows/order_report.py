"""`/report 1024`: an order's logistics report as files, a PDF with a timeline and a table for a spreadsheet."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import BaseModel, Field

from flows._logistics_pdf import logistics_pdf
from flows._orders import Order
from flows.order_status import Found, look_up, spoken, state_for_people, write_report
from parley import File, Reply, automation, step

_WORDS = {
    "en": "**Logistics report, order {id}**: {state}. {as_of}",
    "zh": "**物流报告，订单 {id}**：{state}。{as_of}",
}
_NONE = {"en": "There is no order {id}.", "zh": "没有订单 {id}。"}


class LogisticsReport(BaseModel):
    """The report's files; `found` is None when there is no such order."""

    number: int
    found: Found | None = None
    files: tuple[File, ...] = ()
    private: bool = False

    def __reply__(self) -> Reply:
        """The answer in the language of the person who asked."""
        language = spoken()
        if self.found is None:
            return Reply(text=_NONE[language].format(id=self.number), private=self.private)
        state = state_for_people(self.found.order, language)
        text = _WORDS[language].format(id=self.number, state=state, as_of=self.found.as_of(language))
        return Reply(text=text, files=self.files, private=self.private)


@step
def draw(order: Order, language: str) -> File:
    """The report for people."""
    content = logistics_pdf(order, state_for_people(order, language), language)
    return File(name=f"logistics-{order.id}.pdf", media_type="application/pdf", content=content)


@automation(
    command="report",
    summary="Send the logistics report of an order, as PDF and CSV.",
    examples=(
        "logistics report of order {order_id}",
        "send me the report of order {order_id}",
        "send me the logistics report of order {order_id}",
        "send me the report of order {order_id} privately {private=yes}",
        "send me the logistics report of order {order_id} privately {private=yes}",
        "send me a logistics report",
        "订单 {order_id} 的物流报告",
        "发一下订单 {order_id} 的报告",
        "私下发给我订单 {order_id} 的报告 {private=yes}",
        "私下发给我订单 {order_id} 的物流报告 {private=yes}",
        "发一下物流报告",
    ),
    effect="read",
    idempotent=True,
    alert_after=3,
    time_limit=60,
)
@flow(name="order_report")
async def order_report(
    order_id: Annotated[int, Field(gt=0, description="Order number.")],
    private: Annotated[bool, Field(description="Only for your own eyes, where the platform can.")] = False,
) -> LogisticsReport:
    """Look the order up, draw and tabulate its way."""
    found = await look_up(order_id)
    if found is None:
        return LogisticsReport(number=order_id, private=private)
    files = (draw(found.order, spoken()), write_report(found))
    return LogisticsReport(number=order_id, found=found, files=files, private=private)
