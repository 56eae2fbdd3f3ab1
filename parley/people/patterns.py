"""Globs over a parameter's value, as standing approvals and roles write them: `matches` allows, `may_match` forbids."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any, Final

from parley.messages.filters import MAX_VALUE, whole

ANYTHING: Final = "*"
"""The pattern that every value fits, and none given, too."""

_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def matches(pattern: str, value: Any) -> bool:
    """Whether the value, as JSON writes it, fits the glob; upper and lower case differ.

    None, and what is longer than `MAX_VALUE` characters, fit `*` alone.
    """
    if pattern == ANYTHING:
        return True
    text = "" if value is None else whole(value)
    # `web*` is one name; a second line behind it is not what anybody meant.
    readable = value is not None and len(text) <= MAX_VALUE and not _BREAKS.search(text)
    return readable and fnmatchcase(text, pattern)


def may_match(pattern: str, value: Any) -> bool:
    """Whether the value may be what the glob means, for what forbids: None, which is not known, may be anything.

    Blanks and line breaks around it and upper and lower case make no difference.
    """
    if pattern == ANYTHING or value is None:
        return True
    # All of it is looked at: the beginning of what is long may be the blanks before it.
    text = whole(value)
    # As written, too: `casefold` may make two letters of one, which `?` then does not fit any more.
    return fnmatchcase(text, pattern) or fnmatchcase(text.strip().casefold(), pattern.strip().casefold())
