"""Rendering down: a reply becomes replies that a platform can show, without losing anything.

Tables become aligned text, or a CSV file when they are large and files can be sent; buttons that cannot be shown
become choices whose code may be typed; long text becomes parts, or a file when there would be
too many; files that cannot be sent are named.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata

from parley.messages.model import Button, Capabilities, File, Reply, Table

MOST_PARTS = 8
_FENCE = re.compile(r"^```", re.MULTILINE)


def render_down(reply: Reply, can: Capabilities) -> tuple[Reply, ...]:
    """The replies, in order, that say the same within these capabilities."""
    reply = _without_table(reply, can)
    reply = _without_buttons(reply, can)
    reply = _without_large_files(reply, can)
    if reply.files and (reply.buttons or (reply.private and reply.text)):
        # Nowhere one message: each part is delivered, and repeated if need be, by itself.
        apart = reply.model_copy(update={"files": ()})
        return (*render_down(apart, can), Reply(files=reply.files, private=reply.private))
    parts = split_text(reply.text, can)
    if len(parts) > MOST_PARTS and can.max_file:
        whole = File(name="answer.txt", media_type="text/plain", content=reply.text.encode())
        parts = (parts[0], "(The whole answer is in the file.)")
        reply = reply.model_copy(update={"files": (*reply.files, whole)})
    if len(parts) <= 1:
        return (reply,)
    first = [Reply(text=part, private=reply.private) for part in parts[:-1]]
    return (*first, reply.model_copy(update={"text": parts[-1]}))


def split_text(text: str, can: Capabilities) -> tuple[str, ...]:
    """Parts of at most `max_text`, cut at paragraphs, lines or words; code fences are closed and opened again."""
    if _size(text, can) <= can.max_text:
        return (text,)
    parts: list[str] = []
    rest = text
    room = max(1, can.max_text - 8)
    while _size(rest, can) > room:
        cut = _cut(rest, can, room)
        part, rest = rest[:cut].rstrip("\n"), rest[cut:].lstrip("\n")
        if len(_FENCE.findall(part)) % 2:
            part, rest = part + "\n```", "```\n" + rest
        parts.append(part)
    return tuple([*parts, rest] if rest.strip() else parts)


def table_text(table: Table) -> str:
    """A table as aligned text; wide characters count as two."""
    rows = [table.columns, *table.rows]
    widths = [max(_width(row[i]) if i < len(row) else 0 for row in rows) for i in range(len(table.columns))]
    lines = [
        "  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def table_csv(table: Table) -> bytes:
    """A table as CSV (UTF-8 with a byte order mark, as spreadsheets expect); cells cannot become formulas."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(table.columns)
    writer.writerows([[_harmless(cell) for cell in row] for row in table.rows])
    return out.getvalue().encode("utf-8-sig")


def _without_table(reply: Reply, can: Capabilities) -> Reply:
    if reply.table is None:
        return reply
    shown = "```\n" + table_text(reply.table) + "\n```"
    if _size(shown, can) > can.max_text // 2 and can.max_file:
        file = File(name="table.csv", media_type="text/csv", content=table_csv(reply.table))
        note = f"({len(reply.table.rows)} rows: see the file.)"
        return reply.model_copy(
            update={"table": None, "text": _join(reply.text, note), "files": (*reply.files, file)}
        )
    return reply.model_copy(update={"table": None, "text": _join(reply.text, shown)})


def _without_buttons(reply: Reply, can: Capabilities) -> Reply:
    if len(reply.buttons) <= can.max_buttons:
        return reply
    choices = "\n".join(_choice(button) for button in reply.buttons)
    return reply.model_copy(update={"buttons": (), "text": _join(reply.text, choices)})


def _choice(button: Button) -> str:
    # What a button would send back is what a person can write: the reply code.
    return (
        f"- {button.label}: `{button.value}`"
        if button.value.strip() != button.label
        else f"- `{button.value}`"
    )


def _without_large_files(reply: Reply, can: Capabilities) -> Reply:
    kept = tuple(file for file in reply.files if len(file.content) <= can.max_file)
    if len(kept) == len(reply.files):
        return reply
    left = [file.name for file in reply.files if file not in kept]
    note = "\n".join(f"[{name}: this place cannot take the file]" for name in left)
    return reply.model_copy(update={"files": kept, "text": _join(reply.text, note)})


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _size(text: str, can: Capabilities) -> int:
    return len(text) if can.text_unit == "characters" else len(text.encode("utf-8", "replace"))


def _cut(text: str, can: Capabilities, room: int) -> int:
    most = (
        room
        if can.text_unit == "characters"
        else len(text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore"))
    )
    window = text[:most]
    for mark in ("\n\n", "\n", " "):
        at = window.rfind(mark)
        if at > most // 2:
            return at + len(mark)
    return _not_inside_a_character(text, max(1, most))


def _not_inside_a_character(text: str, cut: int) -> int:
    # A combining mark, a joiner or a variation selector belongs to what stands before it.
    while (
        cut > 1
        and cut < len(text)
        and (unicodedata.combining(text[cut]) or text[cut] in "\u200d\ufe0f" or text[cut - 1] == "\u200d")
    ):
        cut -= 1
    return cut


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _harmless(cell: str) -> str:
    return "'" + cell if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(cell) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
