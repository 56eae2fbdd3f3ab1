"""Our markup as WeCom shows it: its own small markdown where that loses nothing, plain text otherwise.

What an application's markdown knows (developer.work.weixin.qq.com/document/path/90236, appendix): headings, bold,
links, code within one line, quotes, three colours. It has no italics, no blocks of code, and no documented way to
escape: a text whose prose would be taken for markup goes as plain text. Both are cut off by WeCom after 2048 bytes.
"""

from __future__ import annotations

import re
from typing import Literal

from connectors._markup import SPAN

MAX_TEXT = 2048
"""Bytes of a text or a markdown message: what is longer, WeCom cuts off."""

_CODE = re.compile(r"(^```[^\n`]*\n.*?\n?```[ \t]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
_TAKEN_FOR_MARKUP = re.compile(
    r"[`~]|\*(?=\S)|(?<=\S)\*|<(?=[\w/!@])|&(?=#?\w+;)|\\(?=[^\w\s])|\]\(|__|^[ \t]{0,3}(?:#{1,6}[ \t]|>)",
    re.MULTILINE,
)
_ANCHOR = re.compile(r"<(?=a[\s>/])", re.IGNORECASE)

Kind = Literal["text", "markdown"]


def shown(text: str) -> tuple[Kind, str]:
    """How a text is sent: as which kind of message, and its content, which plain text may still have to be cut."""
    if not plain(text).strip() or not (_CODE.search(text) or SPAN.search(text)):
        return "text", _without_anchors(text)
    marked = _markdown(text)
    if marked is not None and len(marked.encode("utf-8", "replace")) <= MAX_TEXT:
        return "markdown", marked
    return "text", _without_anchors(plain(text))


def plain(text: str) -> str:
    """The words alone: no marks, the addresses of links behind their names."""
    pieces = _CODE.split(text)
    return "".join(
        _bare_code(piece) if odd % 2 else SPAN.sub(_words, piece) for odd, piece in enumerate(pieces)
    )


def _markdown(text: str) -> str | None:
    out = []
    for odd, piece in enumerate(_CODE.split(text)):
        done = _code(piece) if odd % 2 else _spans(piece)
        if done is None:
            return None
        out.append(done)
    return "".join(out)


def _code(piece: str) -> str | None:
    if not piece.startswith("```"):
        return piece
    lines = _bare_code(piece).split("\n")
    if any("`" in line for line in lines):
        return None
    return "\n".join(f"`{line}`" if line.strip() else line for line in lines)


def _bare_code(piece: str) -> str:
    if not piece.startswith("```"):
        return piece[1:-1]
    body = piece.split("\n", 1)[1]
    return body[: body.rindex("```")].removesuffix("\n")


def _spans(piece: str) -> str | None:
    at, out = 0, []
    for found in SPAN.finditer(piece):
        span = _span(found)
        if span is None or _TAKEN_FOR_MARKUP.search(piece[at : found.start()]):
            return None
        out += [piece[at : found.start()], span]
        at = found.end()
    return None if _TAKEN_FOR_MARKUP.search(piece[at:]) else "".join(out) + piece[at:]


def _span(found: re.Match[str]) -> str | None:
    words = found["label"] or found["bold"] or found["italic"]
    if _TAKEN_FOR_MARKUP.search(words) or SPAN.search(words):
        return None
    if found["url"]:
        return f"[{words}]({found['url'].replace('(', '%28').replace(')', '%29')})"
    return f"**{words}**" if found["bold"] else words


def _words(found: re.Match[str]) -> str:
    if found["url"]:
        return found["url"] if found["label"] == found["url"] else f"{found['label']} ({found['url']})"
    return found["bold"] or found["italic"]


def _without_anchors(text: str) -> str:
    # In a text message WeCom makes <a href="..."> a link whose address is not seen: an answer may hold what a
    # stranger wrote. A character without width keeps it what it was, text.
    return _ANCHOR.sub("<\u200b", text)
