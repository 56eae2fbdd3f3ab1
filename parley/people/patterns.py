"""Globs over a parameter's value, as standing approvals and roles write them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any, Final

from parley.messages.filters import spoken

ANYTHING: Final = "*"
"""The pattern that every value fits, and none given, too."""

_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def matches(pattern: str, value: Any) -> bool:
    """Whether the value, as JSON writes it, fits the glob; upper and lower case differ. None fits `*` alone."""
    if pattern == ANYTHING:
        return True
    text = "" if value is None else spoken(value)
    # `web*` is one name; a second line behind it is not what anybody meant.
    return value is not None and not _BREAKS.search(text) and fnmatchcase(text, pattern)
