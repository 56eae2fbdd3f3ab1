"""Headers of a mail as they are, not as they should be: raw 8-bit, wrongly encoded, repeated, made to deceive.

Python's structured header parser raises on some of what arrives, so these few readers are our own; none raises.
"""

from __future__ import annotations

import base64
import binascii
import re
from email.message import Message as Mime
from typing import NamedTuple

from connectors._mail_text import decode, one_line

MOST_REFERENCES = 20
MOST_ADDRESS = 254

_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]{0,2000})\?=")
_ID = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,900}>")
_ADDRESS = re.compile(r"[^\s<>()\[\]\\,;:@\"\x00-\x1f\x7f]{1,64}@[^\s<>()\[\]\\,;:@\"\x00-\x1f\x7f]{1,189}")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_COMMENT = re.compile(r"\([^()]*\)")
_ANSWER = re.compile(
    r"(?:(?:re|aw|sv|vs|antw|fwd?|wg|tr|rv|答复|答覆|回复|回覆|回復|转发|轉寄|轉發)"
    r"(?:\[\d{1,3}\])?\s{0,3}[:：]\s{0,3}){1,20}",
    re.IGNORECASE,
)


class Mailbox(NamedTuple):
    """One address with its display name."""

    address: str
    name: str


def is_address(value: str) -> bool:
    """Whether this is one plain mail address: no display name, no quotes, nothing that could hold a second one."""
    return len(value) <= MOST_ADDRESS and _ADDRESS.fullmatch(value) is not None


def values(mail: Mime, name: str) -> list[str]:
    """Every value of this header, unfolded, its raw bytes read as text."""
    wanted = name.lower()
    return [_unfolded(str(value)) for key, value in mail.raw_items() if key.lower() == wanted]


def first(mail: Mime, name: str) -> str:
    """The first value of this header, or nothing."""
    return next(iter(values(mail, name)), "")


def words(value: str) -> str:
    """A header's text with its encoded words decoded, as one line."""
    out: list[str] = []
    pending, charset, at = b"", "", 0
    for found in _WORD.finditer(value):
        between = value[at : found.start()]
        raw, named = _word(found[2], found[3]), found[1].partition("*")[0].lower()
        if between.strip() or not at:
            out += [decode(pending, charset), between]
            pending = b""
        elif named != charset:
            out.append(decode(pending, charset))
            pending = b""
        # Programs cut a character of several bytes in two words: only together they are text.
        pending, charset, at = pending + raw, named, found.end()
    return one_line("".join([*out, decode(pending, charset), value[at:]]))


def sender(mail: Mime) -> Mailbox | None:
    """The one author. None where there is none, several, or a form that two programs may read differently."""
    found = values(mail, "From")
    if len(found) != 1 or len(found[0]) > 2000:
        return None
    value = found[0].strip()
    quoted = _QUOTED.sub(lambda text: '"' + "x" * (len(text[0]) - 2) + '"', value)
    plain = _COMMENT.sub(lambda text: " " * len(text[0]), quoted)
    if "<" not in plain:
        return _mailbox(plain.strip(), "")
    before, _, rest = plain.partition("<")
    inside, closed, after = rest.partition(">")
    named_otherwise = ("@" in before or ":" in before) and before.strip() != inside.strip()
    if not closed or after.strip() or named_otherwise:
        return None
    return _mailbox(inside.strip(), value[: len(before)])


def message_ids(value: str) -> list[str]:
    """The message ids in a header, in order, with their angle brackets."""
    return _ID.findall(value[:100_000])


def references(mail: Mime) -> list[str]:
    """Ids of the mails before this one, the thread's first one first; bounded, and the first one is always kept."""
    ids = message_ids(first(mail, "References"))
    for parent in message_ids(first(mail, "In-Reply-To"))[:1]:
        if parent not in ids:
            ids.append(parent)
    return ids if len(ids) <= MOST_REFERENCES else [ids[0], *ids[1 - MOST_REFERENCES :]]


def without_answer_prefix(subject: str) -> str:
    """A subject without "Re:", "回复：" and their like."""
    found = _ANSWER.match(subject)
    return subject[found.end() :] if found else subject


def _unfolded(value: str) -> str:
    text = value.replace("\r", "").replace("\n", "")
    return text if text.isascii() else decode(text.encode("utf-8", "surrogateescape"))


def _word(encoding: str, text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        if encoding in "qQ":
            return binascii.a2b_qp(raw, header=True)
        return base64.b64decode(raw + b"=" * (-len(raw) % 4))
    except binascii.Error:
        return raw


def _mailbox(address: str, name: str) -> Mailbox | None:
    return Mailbox(address.lower(), words(name.strip().strip('"'))) if is_address(address) else None
