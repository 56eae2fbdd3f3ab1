"""Rendering down: a reply becomes replies that a platform can show, without losing anything.

Tables become aligned text, or a CSV file when they are large and files can be sent; buttons that cannot be shown
become choices whose code may be typed; long text becomes parts, or a file when there would be too many; files that
cannot be sent are named. Where a platform makes two messages of one reply, it is two replies already here.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from itertools import islice

from parley.messages.model import Button, Capabilities, File, Reply, Table

MOST_PARTS = 8
"""More parts than these become a file, where files can be sent."""

_SMALLEST = 64
"""Below this many characters or bytes a code fence is not worth its own length: it is cut like any text."""

_LONGEST_MARK = 8
_CLOSING = _LONGEST_MARK + 1
"""Room for the end of a line and the mark that closes the code."""

_LONGEST_FLAGS = 64

# As in CommonMark: an info string has no backtick, and what closes is as long as what opened, with nothing behind it.
_FENCE = re.compile(r"(`{3,})([^`]*)")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?\s?%?", re.ASCII)
_JOINER = "\u200d"


def render_down(reply: Reply, can: Capabilities) -> tuple[Reply, ...]:
    """The replies, in order, that say the same within these capabilities."""
    reply = _without_surrogates(reply)
    reply = _without_table(reply, can)
    reply = _without_buttons(reply, can)
    reply = _without_large_files(reply, can)
    return tuple(
        apart for whole in _without_long_text(reply, can) for apart in _without_company_of_files(whole, can)
    )


def split_text(text: str, can: Capabilities) -> tuple[str, ...]:
    """Parts of at most `max_text`, cut at paragraphs, lines or words; code fences are closed and opened again."""
    return tuple(_parts(text, can))


def table_text(table: Table) -> str:
    """A table as aligned text; wide characters count as two. A cell is one line: what would break it is replaced."""
    rows = [[_one_line(cell) for cell in row] for row in (table.columns, *table.rows)]
    columns = max(map(len, rows))
    rows = [row + [""] * (columns - len(row)) for row in rows]
    widths = [max(_width(row[at]) for row in rows) for at in range(columns)]
    lines = [
        "  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def table_csv(table: Table) -> bytes:
    """A table as CSV (UTF-8 with a byte order mark, as spreadsheets expect); cells cannot become formulas."""
    out = io.StringIO()
    csv.writer(out).writerows([_harmless(cell) for cell in row] for row in (table.columns, *table.rows))
    return out.getvalue().encode("utf-8-sig")


# --- a reply, step by step -------------------------------------------------------------------------------------------


def _without_surrogates(reply: Reply) -> Reply:
    """Half of a character cannot be stored or sent by anybody: it becomes the replacement character."""
    table = reply.table and Table(
        columns=tuple(map(_whole, reply.table.columns)),
        rows=tuple(tuple(map(_whole, row)) for row in reply.table.rows),
    )
    return reply.model_copy(update={"text": _whole(reply.text), "table": table})


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _without_table(reply: Reply, can: Capabilities) -> Reply:
    if reply.table is None:
        return reply
    shown = "```\n" + table_text(reply.table) + "\n```"
    file = None if _size(shown, can) <= can.max_text // 2 else _table_file(reply.table, can)
    if file is None:
        return reply.model_copy(update={"table": None, "text": _join(reply.text, shown)})
    note = f"({len(reply.table.rows)} rows: see the file.)"
    return reply.model_copy(
        update={"table": None, "text": _join(reply.text, note), "files": (*reply.files, file)}
    )


def _table_file(table: Table, can: Capabilities) -> File | None:
    content = table_csv(table) if can.max_file else b""
    if not 0 < len(content) <= can.max_file:
        return None
    return File(name="table.csv", media_type="text/csv", content=content)


def _without_buttons(reply: Reply, can: Capabilities) -> Reply:
    if len(reply.buttons) <= can.max_buttons:
        return reply
    choices = "\n".join(_choice(button, can) for button in reply.buttons)
    return reply.model_copy(update={"buttons": (), "text": _join(reply.text, choices)})


def _choice(button: Button, can: Capabilities) -> str:
    # What a button would send back is what a person can write: the reply code.
    typed = button.code or button.value
    code = typed if can.markup == "none" else _code(typed)
    return f"- {button.label}: {code}" if typed.strip() != button.label else f"- {code}"


def _code(text: str) -> str:
    runs = [len(run) for run in re.findall("`+", text)]
    if not runs:
        return f"`{text}`"
    mark = "`" * (max(runs) + 1)
    return f"{mark} {text} {mark}"


def _without_large_files(reply: Reply, can: Capabilities) -> Reply:
    fits = [bool(can.max_file) and len(file.content) <= can.max_file for file in reply.files]
    if all(fits):
        return reply
    kept = tuple(file for file, fit in zip(reply.files, fits, strict=True) if fit)
    left = [file.name for file, fit in zip(reply.files, fits, strict=True) if not fit]
    note = "\n".join(f"[{name}: this place cannot take the file]" for name in left)
    return reply.model_copy(update={"files": kept, "text": _join(reply.text, note)})


def _without_long_text(reply: Reply, can: Capabilities) -> Iterator[Reply]:
    """Buttons and files go with the last part, so that they stand below all of the text."""
    parts = list(islice(_parts(reply.text, can), MOST_PARTS + 1))
    if len(parts) > MOST_PARTS:
        content = reply.text.encode()
        if len(content) <= can.max_file:
            file = File(name="answer.txt", media_type="text/plain", content=content)
            parts = [parts[0], "(The whole answer is in the file.)"]
            reply = reply.model_copy(update={"files": (*reply.files, file)})
        else:
            parts = list(_parts(reply.text, can))
    for part in parts[:-1]:
        yield Reply(text=part, private=reply.private)
    yield reply.model_copy(update={"text": parts[-1]})


def _without_company_of_files(reply: Reply, can: Capabilities) -> Iterator[Reply]:
    # Files with buttons, and files with a private text, are nowhere one message: each is delivered, and repeated if
    # need be, by itself.
    most = max(1, can.max_files)
    if not (reply.files and (reply.buttons or (reply.private and reply.text) or len(reply.files) > most)):
        yield reply
        return
    if reply.text or reply.buttons:
        yield reply.model_copy(update={"files": ()})
    for at in range(0, len(reply.files), most):
        yield Reply(files=reply.files[at : at + most], private=reply.private)


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


# --- long text -------------------------------------------------------------------------------------------------------


def _parts(text: str, can: Capabilities) -> Iterator[str]:
    """At least one part, none of them blank unless all is."""
    at, fence, most, blank = 0, "", max(1, can.max_text), True
    while at < len(text):
        # `fence` is the line that opened the code in which this part begins, or nothing.
        head = f"{fence}\n" if fence else ""
        if _fits(text, at, can, most - _size(head, can)):
            end, fence = len(text), ""
        else:
            room = most - _size(head, can) - (_CLOSING if most >= _SMALLEST else 0)
            end = _cut(text, at, can, room)
            fence = _open_fence(fence, text[at:end], most) if most >= _SMALLEST else ""
        part = head + text[at:end]
        if fence:
            part = _closed(part, fence)
            at = _end_of_fence(text, end, fence)
            fence = fence if at == end else ""
        else:
            part = part if end == len(text) else part.rstrip("\n")
            at = _skip_blank_lines(text, end)
        if part.strip():
            blank = False
            yield part
    if blank:
        yield text[:most]


def _closed(body: str, fence: str) -> str:
    return body + ("" if body.endswith("\n") else "\n") + _mark(fence)


def _mark(fence: str) -> str:
    return fence[: len(fence) - len(fence.lstrip("`"))]


def _open_fence(fence: str, body: str, most: int) -> str:
    """The line that opened the code in which the next part begins; `fence` opened the one in which this one does."""
    for line in body.split("\n"):
        found = _FENCE.fullmatch(line)
        if found is None:
            continue
        if not fence:
            fence = line if len(line.encode("utf-8", "replace")) <= most // 8 else found[1]
        elif len(found[1]) >= len(_mark(fence)) and not found[2].strip():
            fence = ""
    return fence if len(_mark(fence)) <= _LONGEST_MARK else ""


def _end_of_fence(text: str, at: int, fence: str) -> int:
    """Where the text goes on: behind the code's closing line if it comes next: no part begins with no code."""
    end = text.find("\n", at)
    line = text[at : end if end >= 0 else None]
    found = _FENCE.fullmatch(line)
    if found is None or found[2].strip() or len(found[1]) < len(_mark(fence)):
        return at
    return _skip_blank_lines(text, end) if end >= 0 else len(text)


def _skip_blank_lines(text: str, at: int) -> int:
    while at < len(text) and text[at] == "\n":
        at += 1
    return at


def _size(text: str, can: Capabilities) -> int:
    match can.text_unit:
        case "characters":
            return len(text)
        case "utf16":
            return len(text) + sum(char > "\uffff" for char in text)
        case "bytes":
            return len(text.encode("utf-8", "replace"))


def _fits(text: str, at: int, can: Capabilities, room: int) -> bool:
    return len(text) - at <= room and _size(text[at:], can) <= room


def _cut(text: str, at: int, can: Capabilities, room: int) -> int:
    """Where the part that begins at `at` ends: after it, and where possible between paragraphs, lines, words."""
    window = text[at : at + max(1, room)]
    if can.text_unit == "bytes":
        window = window.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") or text[at]
    elif can.text_unit == "utf16":
        window = window.encode("utf-16-le", "replace")[: 2 * room].decode("utf-16-le", "ignore") or text[at]
    for mark in ("\n\n", "\n", " "):
        end = at + window.rfind(mark) + len(mark)
        if end > at + len(window) // 2 and (mark != " " or _may_begin(text, end)):
            return end
    end = at + len(window)
    while end > at and not _may_begin(text, end):
        end -= 1
    # A character without end (a letter under a thousand marks) is cut all the same.
    return end if end > at else at + len(window)


def _may_begin(text: str, at: int) -> bool:
    # A backtick that comes to stand at the beginning of a line could open a code that was none.
    return not _joined(text, at) and text[at : at + 1] != "`"


def _joined(text: str, at: int) -> bool:
    """Whether what stands at `at` belongs to the character before: then no cut may come between the two."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after in (_JOINER, "\u200c") or _belongs_to_what_is_before(after):
        return before != "\n"
    if before == _JOINER or (before, after) == ("\r", "\n"):
        return True
    return _is_flag_letter(before) and _is_flag_letter(after) and _flag_letters_before(text, at) % 2 == 1


def _belongs_to_what_is_before(char: str) -> bool:
    # Marks and variation selectors; skin tones; the letters of which flags of regions are made.
    return (
        unicodedata.category(char) in ("Mn", "Mc", "Me")
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
    )


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _flag_letters_before(text: str, at: int) -> int:
    start, first = at, max(0, at - _LONGEST_FLAGS)
    while start > first and _is_flag_letter(text[start - 1]):
        start -= 1
    return at - start


# --- tables ----------------------------------------------------------------------------------------------------------


def _one_line(cell: str) -> str:
    return " ".join(cell.replace("```", "'''").expandtabs(4).splitlines())


def _width(text: str) -> int:
    """Columns on a screen: what joins the character before takes none of its own."""
    return sum(0 if _joined(text, at) else _columns(char) for at, char in enumerate(text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" or _is_flag_letter(char) else 1


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _harmless(cell: str) -> str:
    # A spreadsheet takes such a cell for a formula, which may read files and call out; some look past blanks.
    dangerous = cell.startswith(_FORMULA) or cell.lstrip().startswith(_FORMULA)
    return "'" + cell if dangerous and not _NUMBER.fullmatch(cell) else cell
