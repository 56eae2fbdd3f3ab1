"""How long connectors wait: never without end, whatever a peer says, and never all at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors._waiting import bounded, pause, retry_after

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30),
        ("0.5", 0.5),
        (" 7 ", 7),
        ("0", 0),
        ("-3", 0),
        ("1000000", 3600),
        (format_datetime(NOW + timedelta(seconds=42)), 42),
        (format_datetime(NOW - timedelta(hours=1)), 0),
        ("Mon, 23 Nov 2026 12:00:10 -0000", 10),
        (None, 5),
        ("", 5),
        ("soon", 5),
        ("nan", 5),
        ("inf", 5),
        ("Mon, 99 Nov 2026", 5),
    ],
)
def test_a_wait_is_always_a_usable_number(header: str | None, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


@given(st.text(max_size=30))
def test_any_header_gives_a_bounded_wait(header: str) -> None:
    assert 0 <= retry_after(header, NOW) <= 3600


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(7, 7.0), ("7.5", 7.5), (-1, 0.0), (1e9, 3600.0), ("nan", 5.0), ([], 5.0), (10**400, 5.0)],
)
def test_a_wait_is_bounded(said: Any, seconds: float) -> None:
    assert bounded(said) == seconds


@pytest.mark.parametrize(
    ("stated", "wait"),
    [
        ((7, "9"), 7.0),
        (("soon", "9"), 9.0),
        ((None, "0.5"), 0.5),
        (("nan", "inf"), 5.0),
        ((-5,), 0.0),
        ((1e9,), 3600.0),
        ((10**400,), 5.0),
        ((), 5.0),
    ],
)
def test_the_first_that_can_be_read_counts(stated: tuple[object, ...], wait: float) -> None:
    assert bounded(*stated) == wait


def test_pauses_grow_and_differ() -> None:
    assert max(pause(0) for _ in range(100)) <= 0.25
    assert max(pause(10**6) for _ in range(100)) <= 30
    assert len({pause(5) for _ in range(20)}) > 1
    assert min(pause(20) for _ in range(100)) >= 6
    assert min(pause(20, first=1.0, longest=600.0) for _ in range(100)) >= 120
