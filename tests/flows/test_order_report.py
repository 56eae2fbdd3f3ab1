"""`/report`: an order's way as files for people and for a spreadsheet."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from flows._logistics_pdf import logistics_pdf
from flows._orders import Leg, Order
from flows._sample import SHOWN
from flows.order_report import order_report
from parley import Reply
from tests.flows.test_orders import empty_cache, home, pool
from tests.runs.fake_hub import FakeHub, hub
from tests.runs.prefect_client import IN_PREFECT, prefect_api, run_deployed

__all__ = ["empty_cache", "home", "hub", "pool", "prefect_api"]

START = datetime(2026, 11, 20, 8, 0)  # noqa: DTZ001 - the database keeps UTC without saying so


def order(legs: int, place: str = "Rotterdam", event: str = "arrived", customer: str = "Ada") -> Order:
    way = tuple(
        Leg(at=START + timedelta(hours=5 * n), place=f"{place} {n}", event=event) for n in range(legs)
    )
    return Order(
        id=7,
        customer=customer,
        state="in transit",
        ordered_at=START,
        total_cents=1999,
        currency="EUR",
        legs=way,
    )


def text_of(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)


def test_the_pdf_says_all_that_is_known_of_the_order() -> None:
    text = text_of(logistics_pdf(order(3), "in transit", "en"))
    for said in (
        "order 7",
        "in transit",
        "Ada",
        "19.99 EUR",
        "Rotterdam 0",
        "Rotterdam 2",
        "10 h",
        "2026-11-20 13:00",
    ):
        assert said in text
    assert "Rotterdam 1" in text.partition("Time (UTC)")[0], "the timeline names the places too"


def test_the_same_order_gives_the_same_bytes() -> None:
    assert logistics_pdf(order(3), "x", "en") == logistics_pdf(order(3), "x", "en")


def test_an_order_without_legs_says_so() -> None:
    assert "has not left" in text_of(logistics_pdf(order(0), "new", "en"))


def test_a_long_way_goes_on_over_pages_and_loses_no_leg() -> None:
    content = logistics_pdf(order(120), "in transit", "en")
    assert len(PdfReader(io.BytesIO(content)).pages) > 1
    text = text_of(content)
    assert all(f"Rotterdam {n}\n" in text for n in range(120))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.sampled_from(["en", "zh"]))
def test_no_text_breaks_it_or_is_read_as_markup(customer: str, place: str, language: str) -> None:
    content = logistics_pdf(
        order(2, place=place, event="<b>&amp;</i>", customer=customer), customer, language
    )
    assert "<b>&amp;</i>" in text_of(content)


class TestInPrefect:
    pytestmark = IN_PREFECT

    async def test_the_answer_has_both_files(self, hub: FakeHub, pool: None) -> None:
        await run_deployed(order_report, order_id=SHOWN)
        reply = hub.finish().reply
        assert reply is not None
        assert not reply.private
        pdf, table = reply.files
        assert (pdf.name, pdf.media_type) == (f"logistics-{SHOWN}.pdf", "application/pdf")
        assert f"order {SHOWN}" in text_of(pdf.content)
        rows = list(csv.reader(io.StringIO(table.content.decode("utf-8-sig"))))
        assert rows[0] == ["time (UTC)", "place", "event"]
        assert len(rows) == 5
        assert all(row[1] in text_of(pdf.content) for row in rows[1:])

    async def test_it_is_private_when_asked(self, hub: FakeHub, pool: None) -> None:
        await run_deployed(order_report, order_id=SHOWN, private=True)
        reply = hub.finish().reply
        assert reply is not None
        assert reply.private

    async def test_an_unknown_order_is_an_answer_and_no_failure(self, hub: FakeHub, pool: None) -> None:
        state = await run_deployed(order_report, order_id=999_999)
        assert state.is_completed()
        assert hub.finish().reply == Reply(text="There is no order 999999.")
