"""What our processes write to their logs: one record is one line, whatever a stranger put into a name or a text.

A line that begins with a moment is a record of ours. Control characters, line breaks of all kinds and characters that
turn the writing around are shown as their codes, so that nothing can look like another record or act on a terminal.
What follows a record, such as a traceback, is set off by `  | ` at the beginning of each of its lines.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

LONGEST: Final = 8 * 1024
"""Characters of one record's line; of a traceback the end is kept, which says what happened."""

_BEHIND: Final = "  | "
_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def configure(
    level: int = logging.INFO, form: str = "%(asctime)s %(levelname)s %(name)s: %(message)s"
) -> None:
    """Log to standard error, as this module says; httpx only what is wrong. Called once, where a process begins."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(form))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """Keeps a record to one line, and what follows it from looking like one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record and what follows it."""
        record.exc_text = None  # as another handler may have left it: not set off
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """The line, without what follows it."""
        return shown(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - the library's name
        """The traceback, set off."""
        return _set_off(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the library's name
        """The stack, set off."""
        return _set_off(super().formatStack(stack_info))


def shown(text: str, longest: int = LONGEST) -> str:
    """One line of bounded length in which nothing hides."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return _HIDDEN.sub(_code, cut)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    return {"\n": "\\n", "\r": "\\r"}.get(found[0]) or (
        f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
    )


def _set_off(text: str) -> str:
    # Only line feeds: the other breaks of `splitlines` are shown as their codes.
    kept = text[-4 * LONGEST :]
    return "\n".join(_BEHIND + shown(line) for line in kept.split("\n"))
