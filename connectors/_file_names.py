"""Names of files that others chose: one bare name, in which nothing hides."""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 255
"""Characters; the end is kept, which says what kind of file it is."""

# What parts folders, controls anything, or turns the writing around: "txt.exe" must not look like "exe.txt".
_UNSAFE: Final = re.compile(
    r"[/\\\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def bare_name(name: str, otherwise: str = "file") -> str:
    """The name as it may be shown and kept; `otherwise` where nothing is left of it."""
    safe = _UNSAFE.sub("_", name)[-MOST:].strip()
    return safe if safe.strip(". ") else otherwise
