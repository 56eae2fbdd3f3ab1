"""Where our markup (`parley.messages.model`) stands in a text, for platforms with a markup of their own. Pure."""

from __future__ import annotations

import re
from typing import Final

CODE: Final = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
"""Splits a text: what stands at odd places is code, fenced or within a line, where no mark means anything."""

SPANS: Final = (
    r"\[(?P<label>[^\[\]\n]+)\]\((?P<url>(?:https?://|mailto:)[^\s()<>]+(?:\([^\s()<>]*\)[^\s()<>]*)*)\)"
    r"|\*\*(?P<bold>[^\s*](?:[^*\n]*[^\s*])?)\*\*"
    r"|(?<![\w*])\*(?P<italic>[^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"
)
"""A link (`label`, `url`), `bold` or `italic`."""

SPAN: Final = re.compile(SPANS)


def without_language(code: str) -> str:
    """Fenced code without its language, which would show as a line of its own."""
    return re.sub(r"\A```[\w+#.-]+\n", "```\n", code)
