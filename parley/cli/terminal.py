"""How the command line prints: tables, sizes, one line for an error. Imports only what printing needs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

WIDEST = 60


_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_FENCE = re.compile(r"^```\w*\n?", re.MULTILINE)


def say(text: str = "") -> None:
    """A line on standard output; what the terminal cannot show is replaced, control characters are shown."""
    sys.stdout.write(shown(text) + "\n")


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"parley: {shown(text)}\n")


def print_json(data: Any) -> None:
    """JSON for programs."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2, default=str) + "\n")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, nothing: str) -> None:
    """These columns of the rows, aligned; `nothing` when there are none."""
    if not rows:
        say(nothing)
        return
    from parley.messages.model import Table
    from parley.messages.rendering import table_text

    cells = tuple(tuple(_cell(row.get(column)) for column in columns) for row in rows)
    headings = tuple(column.replace("_", " ").upper() for column in columns)
    say(table_text(Table(columns=headings, rows=cells)))


def size(count: int) -> str:
    """A number of bytes: `31 B`, `1.2 kB`, `12.3 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if unit != "B" and value < 100 else f"{value:.0f} {unit}"


def without_marks(text: str) -> str:
    """The neutral markup's marks taken out: a terminal has no use for them."""
    return _BOLD.sub(r"\1", _FENCE.sub("", text))


def shown(text: str) -> str:
    """Text of others, safe for a terminal: no escape sequence in it works."""
    safe = "".join(char if char in "\n\t" or char.isprintable() else repr(char)[1:-1] for char in text)
    encoding = sys.stdout.encoding or "utf-8"
    return safe.encode(encoding, "replace").decode(encoding)


def leave_quietly() -> None:
    """The reader of a pipe has gone: nothing more is written, also not at the end of the interpreter."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    text = " ".join(str(value).split())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
