"""No regular expression of the project is slow on any text: at most 50 ms of processor for 100,000 characters."""

from __future__ import annotations

import re
import time
from typing import Final

import pytest

from tests.attacks.effort import PENTEST
from tests.attacks.regexes import Expression, expressions, slow_texts

MOST_SECONDS: Final = 0.05

GLANCE: Final = 10_000
GLANCED_SECONDS: Final = 0.0004
"""What takes less for a tenth of the text takes less than the limit for all of it, even if it takes its square. Only
`make pentest` tries all with all of it; elsewhere it is those that take more than this."""


def seconds(expression: Expression, text: str | bytes) -> float:
    """Of processor, the least of three where one was slow: another program may have taken the caches meanwhile."""
    pattern: re.Pattern[str] | re.Pattern[bytes] = re.compile(expression.pattern, expression.flags)
    best = 60.0
    for _ in range(3):
        began = time.thread_time()
        pattern.fullmatch(text)  # type: ignore[arg-type]
        if expression.scans:
            for _found in pattern.finditer(text):  # type: ignore[arg-type]
                pass
        best = min(best, time.thread_time() - began)
        if best <= MOST_SECONDS:
            break
    return best


def slowest(expression: Expression) -> tuple[float, str]:
    """How long its worst text takes, and how that begins."""
    if (
        not PENTEST
        and max(seconds(expression, text) for text in slow_texts(expression, GLANCE)) < GLANCED_SECONDS
    ):
        return 0.0, ""
    return max((seconds(expression, text), repr(text[:60])) for text in slow_texts(expression))


@pytest.mark.parametrize(
    ("pattern", "length"),
    [(r"(a+)+$", 22), (r"a*a*b", 1200), (r"\s+$", 10_000), (r"(\w+\s?)*;", 20)],
)
def test_a_slow_expression_would_be_found(pattern: str, length: int) -> None:
    """Short texts: what takes exponential time would not end."""
    found = Expression("here:1", pattern, 0, scans=True)
    assert any(seconds(found, text) > MOST_SECONDS for text in slow_texts(found, length))


@pytest.mark.timeout(600)
def test_no_expression_is_slow() -> None:
    found = expressions()
    assert len(found) > 150, "the search for expressions finds less than there are"
    took = {f"{one.place} {one.pattern!r}": slowest(one) for one in found}
    assert {place: worst for place, worst in took.items() if worst[0] > MOST_SECONDS} == {}
