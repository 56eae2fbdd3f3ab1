"""Globs over values: what allows sees all of a value or does not fit, and what forbids sees all of it."""

from __future__ import annotations

from typing import Any

import pytest

from parley.messages.filters import MAX_VALUE
from parley.people.patterns import matches, may_match

LONG = "x" * MAX_VALUE


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("web*", "web1", True),
        ("web*", "WEB1", False),
        ("web*", "web1\n; db1", False),
        ("12", 12, True),
        ("true", True, True),
        ("*", None, True),
        ("?*", None, False),
        ("x*x", LONG, True),
        ("x*x", f"{LONG}; db1", False),
        ("x*", f"{LONG}x", False),
        ("*", f"{LONG}; db1", True),
        ('["x*x', [LONG, "db1"], False),
    ],
)
def test_what_allows_fits_what_it_has_seen_to_the_end(pattern: str, value: Any, fits: bool) -> None:
    assert matches(pattern, value) is fits


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("db*", " DB1\n", True),
        ("db*", "web1", False),
        ("db*", None, True),
        ("*db1", f"{LONG}; db1", True),
        ('*"db1"]', [LONG, "db1"], True),
        ('*"db1"*', {"a": LONG, "b": "db1"}, True),
    ],
)
def test_what_forbids_looks_at_all_of_it(pattern: str, value: Any, fits: bool) -> None:
    assert may_match(pattern, value) is fits
