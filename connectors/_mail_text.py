"""The words of a mail that its sender wrote now: bytes to text, HTML to text, without quotes and signatures.

Every function is linear in its input: a mail is written by anybody, and a backtracking pattern would be theirs to use.
"""

from __future__ import annotations

import codecs
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_HTML = 300_000
"""Characters of HTML that are read: what was written now stands before what is quoted."""

_NOT_TEXT = {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "mbcs", "oem"}
"""Codecs of Python that are no charsets: slow on purpose-made input, or running escapes."""

_WIDER = {
    "ascii": "utf-8",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "shift_jis": "cp932",
}
"""What mail programs really write when they name the narrower charset."""

_CONTROL = dict.fromkeys([*range(9), 11, *range(14, 32), 127], None) | {12: "\n", 0xFEFF: None}

_BREAK = "\v"
"""Stands for the end of a line; no text holds it, since `clean` takes it away."""

_BLOCKS = {
    *(
        "address",
        "article",
        "aside",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
    ),
    *("h6", "header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "tr", "ul"),
}
_EMPTY = {
    "area",
    "base",
    "br",
    "col",
    "embed",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "param",
    "source",
    "track",
    "wbr",
}
_UNSEEN = {"script", "style", "head", "title", "template", "object", "svg", "math", "textarea", "select"}
_QUOTES = {
    *("gmail_quote", "gmail_attr", "gmail_signature", "moz-cite-prefix", "moz-signature", "yahoo_quoted"),
    *("protonmail_quote", "isReplyContent", "OLK_SRC_BODY_SECTION"),
}
"""Classes and ids that mail programs give to what is quoted or signed."""
_FROM_HERE = {"divRplyFwdMsg", "appendonsend", "mail-editor-reference-message-container"}
"""Ids of marks after which all is quoted."""

_ORIGINAL = re.compile(
    r"[-_ ]{3,80}(?:original message|original appointment|replied message|forwarded (?:message|by)[^\n]{0,80}|"
    r"begin forwarded message|(?:回复的)?原(?:始)?[邮郵]件|回复邮件|[转轉](?:发|寄)(?:的|邮|郵)?(?:[邮郵]?件)?|"
    r"urspr.ngliche nachricht|message d.origine|mensaje original|messaggio originale|元のメッセージ)[-_ ]{3,80}",
    re.IGNORECASE,
)
_WROTE = re.compile(
    r"(?:wrote|写道|寫道|写到|寫到|schrieb|a écrit|escribió|escreveu|ha scritto|napsal|skrev|schreef|書きました)"
    r"[^:：\n]{0,80}[:：]$",
    re.IGNORECASE,
)
_WROTE_BEGIN = re.compile(
    r"(?:on|am|le|el|em|il|op|den|at)\b|[在于於]|[\"“<]|\d{4}|.{0,200}[@<＜]", re.IGNORECASE
)
_FIELD = re.compile(
    r"[*_ >]{0,4}(?P<name>from|sent|date|to|cc|subject|reply-to|"
    r"发件人|发送时间|发送日期|日期|时间|收件人|抄送|主题|寄件者|寄件日期|收件者|副本|主旨|"
    r"von|gesendet|an|betreff|datum|de|envoyé|à|objet|enviado|para|asunto|差出人|送信日時|宛先|件名)"
    r"[*_ ]{0,3}[:：]",
    re.IGNORECASE,
)
_FIRST_FIELDS = {"from", "发件人", "寄件者", "von", "de", "差出人"}
_DEVICE = re.compile(
    r"(?:sent from (?:my|mail for|outlook|yahoo)|get outlook for|von meinem|envoyé de mon|enviado desde mi|"
    r"[发發](?:自|送自)(?:我的|网易|qq|新浪|foxmail|小米|华为|vivo|oppo)|[从從来來]自?我的|iphoneから送信)[^\n]{0,60}$",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """The same text without surrogates, control characters and foreign line ends: it can be stored and shown."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL)


def one_line(text: str, most: int = 500) -> str:
    """The same text as one line, without anything that could end a header or hide in one."""
    return " ".join(clean(text)[: most * 4].split())[:most]


def decode(raw: bytes, charset: str | None = None) -> str:
    """Text of bytes whose charset is named, misnamed or not named at all; never fails."""
    for name in (_codec(charset), "utf-8", "gb18030" if _looks_chinese(raw) else None):
        if name and (text := _strictly(raw, name)) is not None:
            return clean(text)
    return clean(raw.decode(_codec(charset) or ("utf-8" if charset else "cp1252"), "replace"))


def _codec(charset: str | None) -> str | None:
    asked = (charset or "").strip("\"' ").lower().removeprefix("x-").encode("ascii", "ignore").decode()[:40]
    try:
        name = codecs.lookup(asked).name
        # A codec such as zip or rot13 is found by name as well, and is no charset: this raises for it.
        b"a".decode(name, "replace")
    except (LookupError, ValueError):
        return None
    return None if name in _NOT_TEXT else _WIDER.get(name, name)


def _strictly(raw: bytes, name: str) -> str | None:
    try:
        return raw.decode(name)
    except (UnicodeError, ValueError):
        return None


def _looks_chinese(raw: bytes) -> bool:
    # GB and Big5 put high bytes in pairs; a Western text has them alone between letters.
    sample = raw[:4000]
    runs = re.findall(rb"[\x80-\xff]+", sample)
    return bool(runs) and sum(len(run) for run in runs) >= 2 * len(runs)


def html_to_text(html: str) -> str:
    """What a person sees of an HTML mail, without what it quotes."""
    # libxml2, since Python's own HTML parser takes quadratic time on unclosed comments and tags; by events and not as
    # a tree, since trees of purpose-made depth are slow to build and to walk.
    etree: Any = import_module("lxml.etree")
    seen = _Seen()
    parser = etree.HTMLParser(target=seen, huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        parser.feed("<div>" + clean(html)[:MOST_HTML])
        parser.close()
    except etree.XMLSyntaxError:
        pass  # what was seen until then counts
    # HTML shows any white space as one blank; only <br> and blocks end a line.
    return _tidy(" ".join(line.split()) for line in "".join(seen.pieces).split(_BREAK))


class _Seen:
    """Takes the parser's events and keeps the text that is shown."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._left_out: list[str] = []
        self._cut = False
        self._line_begins = True

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._cut = self._cut or attributes.get("id") in _FROM_HERE
        if self._cut or tag in _EMPTY:
            self._break(tag)
        elif self._left_out:
            # Only what has the same name can hide the end of what is left out.
            if tag == self._left_out[0]:
                self._left_out.append(tag)
        elif _is_left_out(tag, attributes):
            self._left_out.append(tag)
        else:
            self._break(tag)

    def end(self, tag: str) -> None:
        if self._left_out and tag == self._left_out[0]:
            self._left_out.pop()
        if tag not in _EMPTY:
            self._break(tag)
        if tag == "p":
            self.data(_BREAK)

    def data(self, text: str) -> None:
        if self._cut or self._left_out:
            return
        self.pieces.append(text)
        self._line_begins = text == _BREAK or (self._line_begins and not text.strip())

    def close(self) -> None:
        """Asked for by the parser."""

    def _break(self, tag: str) -> None:
        if tag == "br" or (tag in _BLOCKS and not self._line_begins):
            self.data(_BREAK)
        elif tag in ("td", "th"):
            self.data(" ")


def _is_left_out(tag: str, attributes: Mapping[str, str]) -> bool:
    names = {attributes.get("id", ""), *attributes.get("class", "").split()}
    style = attributes.get("style", "").lower().replace(" ", "")
    hidden = "display:none" in style or "mso-hide:all" in style
    return tag in _UNSEEN or tag == "blockquote" or hidden or not names.isdisjoint(_QUOTES)


def _tidy(shown: Iterable[str]) -> str:
    lines = list(shown)
    kept = [line for at, line in enumerate(lines) if line or (at and lines[at - 1])]
    return "\n".join(kept).strip()


def new_text(text: str) -> str:
    """Only what was written now: without quoted mails, their headings, and the signature."""
    lines = [line.rstrip() for line in text.split("\n")]
    kept: list[str] = []
    at = 0
    while at < len(lines):
        if heading := _heading(lines, at):
            if not _quote_follows(lines, at + heading):
                break
            at += heading
        elif lines[at].lstrip().startswith((">", "＞")):
            at += 1
        else:
            kept.append(lines[at])
            at += 1
    return "\n".join(_unsigned(kept)).strip()


def _heading(lines: Sequence[str], at: int) -> int:
    """How many lines from here on introduce a quoted mail; 0 when none does."""
    line = lines[at].strip()[:400]
    if not line:
        return 0
    if _ORIGINAL.match(line) or line.lower().startswith("begin forwarded message"):
        return 1
    if _fields(lines, at):
        return 1
    return _wrote(lines, at)


def _fields(lines: Sequence[str], at: int) -> bool:
    first = _FIELD.match(lines[at][:400])
    if not first or first["name"].lower() not in _FIRST_FIELDS:
        return False
    near = [found["name"].lower() for line in lines[at + 1 : at + 7] if (found := _FIELD.match(line[:400]))]
    return len(set(near) - _FIRST_FIELDS) >= 2


def _wrote(lines: Sequence[str], at: int) -> int:
    if not _WROTE_BEGIN.match(lines[at].strip()[:400]):
        return 0
    joined = ""
    for count, line in enumerate(lines[at : at + 3], 1):
        joined += " " + line.strip()[:400]
        # A heading names a day or an address; a sentence that ends with "he wrote:" does not.
        if _WROTE.search(joined[-160:]):
            return count if any(char.isdigit() or char in "@＠" for char in joined) else 0
        if not line.strip():
            return 0
    return 0


def _quote_follows(lines: Sequence[str], at: int) -> bool:
    following = next((line for line in lines[at : at + 4] if line.strip()), "")
    return following.lstrip().startswith((">", "＞"))


def _unsigned(lines: list[str]) -> list[str]:
    for at, line in enumerate(lines):
        left = len(lines) - at
        if (line == "--" and left <= 15) or (_DEVICE.match(line.strip()[:200]) and left <= 4):
            return lines[:at]
        if len(line) >= 32 and not line.strip("_") and not any(rest.strip() for rest in lines[at + 1 :]):
            return lines[:at]
    return lines
