"""What an automation returns, rendered to what people are answered."""

from __future__ import annotations

import csv
import dataclasses
import io
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Number
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, SecretBytes, SecretStr

from parley.errors import ParleyError
from parley.messages.model import MAX_FILE, Button, File, Reply, Table

MAX_ROWS: Final = 100
"""Rows that a table shows; all of them come as a CSV file when there are more."""

MAX_SHOWN: Final = 100_000
"""Characters of text that are shown; all of it comes as a file when there are more."""

_PLAIN = (str, bool, Number, Decimal, datetime, date, time, timedelta, UUID, Enum, SecretStr, SecretBytes)
_WORDS = {
    "en": {
        "done": "Done.",
        "nothing": "Nothing found.",
        "yes": "yes",
        "no": "no",
        "more": "The first {n} of {all} rows:",
    },
    "zh": {
        "done": "已完成。",
        "nothing": "没有找到任何内容。",
        "yes": "是",
        "no": "否",
        "more": "共 {all} 行，前 {n} 行：",
    },
}
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"%PDF-", "pdf"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"PK\x03\x04", "zip"),
)


class NotRenderable(ParleyError):
    """An automation returned something that no chat can show; the text says what may be returned."""


def render(value: Any, language: str = "en") -> Reply:
    """The reply for a returned value.

    Text, numbers, dates, mappings, pydantic models and dataclasses become text; rows of any of these a table; figures,
    `Path`, `bytes` and `File` files; a list may mix them. An object with `__reply__()` decides for itself. Raises
    `NotRenderable` for anything else, and for a file that is missing or too large.
    """
    reply = _Renderer(language).render(value)
    if reply.is_empty():
        return reply.model_copy(update={"text": _word("done", language)})
    return _shortened(reply)


def file_from(path: Path, name: str | None = None) -> File:
    """The file at `path`, ready to send. Raises `NotRenderable` when it is missing or too large."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_FILE:
            raise NotRenderable(
                f"the file {path.name!r} cannot be sent: it is {_reason_not_sent(path, size)}."
            )
        return _file(name or path.name, path.read_bytes())
    except OSError as error:
        raise NotRenderable(
            f"the file {path.name!r} cannot be sent: {error.strerror or 'it cannot be read'}."
        ) from None


def csv_file(name: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> File:
    """Rows as a CSV file for spreadsheets: with a byte order mark, and with no cell that would be run as a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_harmless(cell) for cell in columns])
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return _file(name, text.getvalue().encode("utf-8-sig"))


class _Renderer:
    def __init__(self, language: str) -> None:
        self._language = language

    def render(self, value: Any) -> Reply:
        if value is None:
            return Reply()
        if isinstance(value, Reply):
            return value
        if callable(own := getattr(type(value), "__reply__", None)):
            return self.render(own(value))
        if isinstance(value, _PLAIN):
            return Reply(text=self._plain(value))
        return self._special(value) or self._structured(value)

    def _special(self, value: Any) -> Reply | None:
        if isinstance(value, Table):
            return self._table(value.columns, value.rows)
        if isinstance(value, Button):
            return Reply(buttons=(value,))
        if file := _as_file(value):
            return Reply(files=(file,))
        if hasattr(value, "itertuples") and hasattr(value, "columns"):
            return self._frame(value)
        return None

    def _structured(self, value: Any) -> Reply:
        if (fields := _fields(value)) is not None:
            return self._record(fields)
        if isinstance(value, (list, tuple, AbstractSet)):
            return self._listed(list(value))
        raise NotRenderable(
            f"the automation returned a {type(value).__name__}, which cannot be shown: return text, numbers, a model, "
            "rows, a figure, a file or a Reply."
        )

    def _record(self, fields: Mapping[str, Any]) -> Reply:
        lines: list[str] = []
        parts: list[Reply] = []
        for title, value in fields.items():
            if file := _as_file(value):
                parts.append(Reply(files=(file,)))
            elif isinstance(value, (Table, Reply)) or _is_rows(value):
                parts.append(self.render(value))
            elif value is not None:
                lines.append(f"**{title}**: {self._cell(value)}")
        return _joined([Reply(text="\n".join(lines)), *parts])

    def _listed(self, values: list[Any]) -> Reply:
        if not values:
            return Reply(text=_word("nothing", self._language))
        if _is_rows(values):
            return self._rows([_fields(value) or {} for value in values])
        if all(isinstance(value, _PLAIN) for value in values) and len(values) > 1:
            return Reply(text="\n".join(f"- {self._plain(value)}" for value in values))
        return _joined([self.render(value) for value in values])

    def _rows(self, rows: list[Mapping[str, Any]]) -> Reply:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        cells = [tuple(self._cell(row.get(column)) for column in columns) for row in rows]
        return self._table(columns, cells)

    def _frame(self, frame: Any) -> Reply:
        columns = [str(column) for column in frame.columns]
        rows = [tuple(self._cell(cell) for cell in row) for row in frame.itertuples(index=False, name=None)]
        return self._table(columns, rows)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Reply:
        shown = Table(columns=tuple(columns), rows=tuple(tuple(row) for row in rows[:MAX_ROWS]))
        if len(rows) <= MAX_ROWS:
            return Reply(table=shown)
        text = _word("more", self._language).format(n=MAX_ROWS, all=len(rows))
        return Reply(text=text, table=shown, files=(csv_file("rows.csv", columns, rows),))

    def _cell(self, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, _PLAIN):
            return self._plain(value)
        if (fields := _fields(value)) is not None:
            return ", ".join(f"{title}: {self._cell(inner)}" for title, inner in fields.items())
        if isinstance(value, (list, tuple, AbstractSet)):
            return ", ".join(self._cell(inner) for inner in value)
        # Scalars of other libraries (numpy) hand out the plain value behind them.
        if callable(item := getattr(value, "item", None)):
            return self._cell(item())
        raise NotRenderable(
            f"a {type(value).__name__} inside the answer cannot be shown: turn it into text first."
        )

    def _plain(self, value: Any) -> str:
        if isinstance(value, bool):
            return _word("yes" if value else "no", self._language)
        if isinstance(value, datetime):
            return value.isoformat(sep=" ", timespec="seconds")
        if isinstance(value, Enum):
            return self._cell(value.value)
        return str(value)


def _fields(value: Any) -> dict[str, Any] | None:
    """A record's fields by title, or None when it is no record."""
    if isinstance(value, BaseModel):
        titles = type(value).model_fields
        return {titles[name].title or _title(name): getattr(value, name) for name in titles}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {_title(field.name): getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): inner for key, inner in value.items()}
    if isinstance(mapping := getattr(value, "_mapping", None), Mapping):
        return {str(key): inner for key, inner in mapping.items()}
    if isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
        return dict(zip(names, value, strict=True))
    return None


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(
            not isinstance(row, (File, Table, Reply, Button))
            and not hasattr(row, "__reply__")
            and _fields(row) is not None
            for row in value
        )
    )


def _as_file(value: Any) -> File | None:
    if isinstance(value, File):
        return value
    if isinstance(value, Path):
        return file_from(value)
    if isinstance(value, (bytes, bytearray)):
        content = bytes(value)
        kind = next((ending for magic, ending in _MAGIC if content.startswith(magic)), "bin")
        return _file(f"answer.{kind}", content)
    if callable(getattr(value, "savefig", None)):
        picture = io.BytesIO()
        value.savefig(picture, format="png")
        return _file("figure.png", picture.getvalue())
    return None


def _file(name: str, content: bytes) -> File:
    if len(content) > MAX_FILE:
        raise NotRenderable(f"the file {name!r} cannot be sent: it is larger than {MAX_FILE // 2**20} MB.")
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return File(name=name[-255:], media_type=media_type, content=content)


def _joined(parts: list[Reply]) -> Reply:
    """One reply of several; tables after the first become CSV files."""
    tables = [part.table for part in parts if part.table]
    extra = [
        csv_file(f"table-{number}.csv", table.columns, table.rows)
        for number, table in enumerate(tables[1:], 2)
    ]
    return Reply(
        text="\n\n".join(part.text for part in parts if part.text),
        table=tables[0] if tables else None,
        files=(*(file for part in parts for file in part.files), *extra),
        buttons=tuple(button for part in parts for button in part.buttons),
        private=any(part.private for part in parts),
    )


def _shortened(reply: Reply) -> Reply:
    if len(reply.text) <= MAX_SHOWN:
        return reply
    whole = _file("answer.txt", reply.text.encode())
    return reply.model_copy(update={"text": reply.text[:MAX_SHOWN] + " …", "files": (*reply.files, whole)})


def _harmless(cell: str) -> str:
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def _reason_not_sent(path: Path, size: int) -> str:
    return f"larger than {MAX_FILE // 2**20} MB ({size} bytes)" if path.is_file() else "not a file"


def _title(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _word(key: str, language: str) -> str:
    return _WORDS.get(language[:2], _WORDS["en"])[key]
