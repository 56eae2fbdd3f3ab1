"""A mail becomes a message: bytes in, `Message` or None out, no I/O, whatever the bytes are."""

from __future__ import annotations

import mimetypes
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message as Mime
from email.parser import BytesHeaderParser, BytesParser
from email.policy import compat32

from connectors import _mail_headers as headers
from connectors._mail_text import clean, decode, html_to_text, new_text, one_line
from connectors._mail_tnef import open_tnef
from parley.messages import (
    MAX_FILE,
    MAX_TEXT,
    Assurance,
    ConversationKind,
    File,
    Message,
    Route,
    Sender,
    derived_id,
)

MOST_FILES = 50
MOST_BYTES_OF_FILES = MAX_FILE
MOST_NAMED = 20
"""Files left out that are named."""

MOST_HEADER = 256_000
MOST_LINES = 600_000
MOST_MULTIPARTS = 20
"""Python's parser compares each line with every open boundary: more of them would make it slow on purpose-made mail."""

OWN_ID_PREFIX = "parley."

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_BOUNDARY = re.compile(rb"boundary\*?\d*\*?=", re.IGNORECASE)
_SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")
_ENVELOPES = ("application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted")
_ROBOTS = re.compile(
    r"(?:mailer-daemon|postmaster|no-?reply|do-?not-?reply|bounces?|listserv|owner-.*|.*-(?:bounces?|request|owner))"
    r"(?:\+.*)?@"
)
_ROBOTS_HEADERS = ("x-auto-response-suppress", "x-autoreply", "x-autorespond")
_SIGNED = "-----BEGIN PGP SIGNED MESSAGE-----"
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class Arrival:
    """What the server says of a mail, and whose account it came to."""

    account: str
    own_address: str
    uid_validity: int = 0
    uid: int = 0
    received: datetime = field(default_factory=lambda: datetime.now(UTC))
    cut_from: int = 0
    """The mail's size in bytes when only its beginning was fetched, else 0."""


@dataclass
class _Contents:
    files: list[File] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def add(self, name: str, media_type: str, content: bytes) -> None:
        room = MOST_BYTES_OF_FILES - sum(len(file.content) for file in self.files)
        if len(content) > room or len(self.files) >= MOST_FILES:
            if len(self.left_out) < MOST_NAMED:
                self.left_out.append(f"{name} ({_size(len(content))}): too large, or too many files")
            return
        self.files.append(File(name=name, media_type=media_type, content=content))


def parse(raw: bytes, arrival: Arrival) -> Message | None:
    """The message that a mail is, or None when nobody can be named who wrote it. Never raises."""
    contents = _Contents()
    mail = _mime(raw, contents)
    author = headers.sender(mail)
    if author is None:
        return None
    text = _text(mail, contents)
    if arrival.cut_from:
        contents.files.clear()
        contents.left_out.clear()
        contents.notices.append(
            f"The mail was {_size(arrival.cut_from)}: only its beginning was read, no file."
        )
    subject = headers.words(headers.first(mail, "Subject"))
    ids = headers.message_ids(headers.first(mail, "Message-ID"))
    native_id = ids[0] if ids else derived_id(arrival.account, str(arrival.uid_validity), str(arrival.uid))
    return Message(
        account=arrival.account,
        native_id=native_id,
        sender=Sender(id=author.address, name=author.name, assurance=Assurance.CLAIMED),
        route=_route(mail, arrival, author.address, native_id, subject, contents.notices),
        sent_at=arrival.received,
        text=text or _command_in(subject),
        files=tuple(contents.files),
        left_out=tuple(contents.left_out),
        automatic=is_automatic(mail, author.address, arrival.own_address),
        subject=subject,
    )


def is_automatic(mail: Mime, author: str, own_address: str) -> bool:
    """Whether a machine wrote it, or we did: such mail is never answered (RFC 3834)."""
    return (
        _answers_itself(mail, author, own_address)
        or _says_it_is_automatic(mail)
        or _ROBOTS.match(author) is not None
        or mail.get_content_type() in ("multipart/report", "message/delivery-status")
    )


def _answers_itself(mail: Mime, author: str, own_address: str) -> bool:
    own, domain = own_address.lower(), own_address.lower().rpartition("@")[2]
    own_id = f"<{OWN_ID_PREFIX}", f"@{domain}>"
    return (
        author == own
        or any(own in value.lower().replace(",", " ").split() for value in headers.values(mail, "X-Loop"))
        or any(
            found.startswith(own_id[0]) and found.lower().endswith(own_id[1])
            for found in headers.message_ids(headers.first(mail, "Message-ID"))
        )
    )


def _says_it_is_automatic(mail: Mime) -> bool:
    submitted = [value.partition(";")[0].strip().lower() for value in headers.values(mail, "Auto-Submitted")]
    precedence = [value.strip().lower() for value in headers.values(mail, "Precedence")]
    return_path = [value.strip() for value in headers.values(mail, "Return-Path")]
    return (
        any(value not in ("no", "") for value in submitted)
        or any(value in ("bulk", "list", "junk", "auto_reply") for value in precedence)
        or "<>" in return_path
        or any(
            name.lower().startswith("list-") or name.lower() in _ROBOTS_HEADERS
            for name, _ in mail.raw_items()
        )
    )


def _mime(raw: bytes, contents: _Contents) -> Mime:
    # compat32 keeps headers as they came; the newer policies parse them, and raise on some, when they are read.
    if _is_readable(raw):
        try:
            return BytesParser(policy=compat32).parsebytes(raw)
        except _BROKEN:
            pass
    contents.notices.append("The mail is built in a way that cannot be read: only its subject was.")
    mail = BytesHeaderParser(policy=compat32).parsebytes(raw[:MOST_HEADER])
    del mail["Content-Type"]
    mail.set_payload("")
    return mail


def _is_readable(raw: bytes) -> bool:
    # Each bound keeps one kind of purpose-made mail from costing seconds or gigabytes.
    return (
        raw.count(b"\n") <= MOST_LINES
        and len(_BOUNDARY.findall(raw)) <= MOST_MULTIPARTS
        and len(_BLANK_LINE.split(raw[: MOST_HEADER + 4], maxsplit=1)[0]) <= MOST_HEADER
    )


def _text(mail: Mime, contents: _Contents) -> str:
    # What is quoted may be long and does not count.
    text = new_text(_unsealed(_body(mail, contents), contents)[: 4 * MAX_TEXT])
    if len(text) > MAX_TEXT:
        contents.notices.append(f"The text is longer than {MAX_TEXT:,} characters and was not read.")
        return ""
    return text


def _body(part: Mime, contents: _Contents) -> str:
    """The text of a part and what is in it; files on the way are collected."""
    if part.is_multipart() and part.get_content_maintype() == "multipart":
        return _of_many(part, contents)
    if part.get_content_maintype() == "message":
        return _nested(part, contents)
    kind, name = part.get_content_type(), _file_name(part)
    if kind in ("text/plain", "text/html") and not name and part.get_content_disposition() != "attachment":
        return _leaf(part, kind)
    return _file(part, kind, name, contents)


def _of_many(part: Mime, contents: _Contents) -> str:
    texts = [_body(child, contents) for child in _children(part)]
    if part.get_content_type() == "multipart/alternative":
        # Plain text comes first by RFC 2046; a blank one is what HTML-only programs send along.
        return next((text for text in texts if text.strip()), "")
    return "\n".join(text for text in texts if text.strip())


def _leaf(part: Mime, kind: str) -> str:
    text = decode(_bytes(part), _parameter(part, "charset"))
    if kind == "text/html":
        return html_to_text(text)
    if _parameter(part, "format").lower() == "flowed":
        return _unflowed(text, delete_space=_parameter(part, "delsp").lower() == "yes")
    return text


def _unflowed(text: str, *, delete_space: bool) -> str:
    out: list[str] = []
    soft = False
    for line in text.split("\n"):
        if soft and not line.startswith(">") and line != "-- ":
            out[-1] = (out[-1][:-1] if delete_space else out[-1]) + line
        else:
            out.append(line)
        soft = line.endswith(" ") and line != "-- " and not line.startswith(">")
    return "\n".join(out)


def _nested(part: Mime, contents: _Contents) -> str:
    inner = next(iter(_children(part)), None)
    if inner is None:
        return _file(part, part.get_content_type(), _file_name(part), contents)
    subject = headers.words(headers.first(inner, "Subject"))
    try:
        content = inner.as_bytes()
    except _BROKEN:
        contents.notices.append("An attached mail is broken and was left out.")
        return ""
    contents.add(_safe_name(f"{subject or 'mail'}.eml"), "message/rfc822", content)
    return ""


def _file(part: Mime, kind: str, name: str, contents: _Contents) -> str:
    if kind in _SIGNATURES:
        return ""
    if kind in _ENVELOPES:
        contents.notices.append(
            "The mail is encrypted, or signed in a form that hides its text: it cannot be read."
        )
    content = _bytes(part)
    if kind == "application/ms-tnef" or name.lower() == "winmail.dat":
        text = _winmail(content, contents)
        if text is not None:
            return text
    if content or name:
        called = name or "file" + (mimetypes.guess_extension(kind) or ".bin")
        contents.add(_safe_name(called), _media_type(kind), content)
    return ""


def _winmail(raw: bytes, contents: _Contents) -> str | None:
    opened = open_tnef(raw)
    if opened is None:
        contents.notices.append("winmail.dat could not be opened: please send the file in another format.")
        return None
    for attached in opened.files:
        name = attached.name if isinstance(attached.name, str) else decode(attached.name)
        guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
        contents.add(_safe_name(name or "file.bin"), guessed, attached.content)
    return decode(opened.body)


def _unsealed(text: str, contents: _Contents) -> str:
    """The text inside a PGP signature, or nothing where PGP hides it."""
    stripped = text.lstrip()
    if stripped.startswith("-----BEGIN PGP MESSAGE-----"):
        contents.notices.append("The mail is encrypted: it cannot be read.")
        return ""
    if not stripped.startswith(_SIGNED):
        return text
    signed = stripped.removeprefix(_SIGNED).partition("-----BEGIN PGP SIGNATURE-----")[0]
    return "\n".join(line.removeprefix("- ") for line in signed.partition("\n\n")[2].split("\n"))


def _command_in(subject: str) -> str:
    return subject if subject.startswith(("/", "／")) else ""


def _route(
    mail: Mime, arrival: Arrival, author: str, native_id: str, subject: str, notices: list[str]
) -> Route:
    # The answer goes to From and nowhere else. Reply-To is the sender's wish to have it sent elsewhere, and the
    # sender is only claimed: whoever forges a From would name where to send what its owner may read.
    before = headers.references(mail)
    has_id = native_id.startswith("<")
    context = {
        "subject": subject,
        "references": " ".join([*before, native_id] if has_id and native_id not in before else before),
        "notice": "\n".join(dict.fromkeys(notices))[:1000],
    }
    return Route(
        account=arrival.account,
        conversation=author,
        kind=ConversationKind.MAIL,
        thread=before[0] if before else native_id,
        reply_to=native_id if has_id else None,
        context={key: value for key, value in context.items() if value},
    )


def _children(part: Mime) -> list[Mime]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Mime)] if isinstance(payload, list) else []


def _bytes(part: Mime) -> bytes:
    try:
        payload = part.get_payload(decode=True)
    except _BROKEN:
        return b""
    return payload if isinstance(payload, bytes) else b""


def _parameter(part: Mime, name: str) -> str:
    try:
        value = part.get_param(name, "")
    except _BROKEN:
        return ""
    return str(value[2] if isinstance(value, tuple) else value)


def _file_name(part: Mime) -> str:
    try:
        name = part.get_filename("")
    except _BROKEN:
        name = "file.bin"
    raw = str(name)
    return headers.words(raw if raw.isascii() else decode(raw.encode("utf-8", "surrogateescape")))


def _safe_name(name: str) -> str:
    """A bare file name: no path, no control or direction character, not too long, its ending kept."""
    bare = re.split(r"[/\\]", clean(name))[-1]
    shown = "".join(char for char in bare if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    trimmed = one_line(shown).strip(". ")
    stem, dot, ending = trimmed.rpartition(".")
    return (stem[:180] + dot + ending[:20] if stem else trimmed[:200]) or "file.bin"


def _media_type(kind: str) -> str:
    return (
        kind if re.fullmatch(r"[\w.+-]{1,60}/[\w.+-]{1,80}", kind, re.ASCII) else "application/octet-stream"
    )


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB" if count >= 100_000 else f"{count / 1000:.1f} kB"
