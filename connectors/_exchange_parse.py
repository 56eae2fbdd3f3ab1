"""A mail from Exchange becomes a message, a reply becomes a mail: no I/O, and mail's own rules for all that is mail."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from connectors._mail_headers import without_answer_prefix
from connectors._mail_parse import Arrival
from connectors._mail_parse import parse as parse_mail
from connectors._mail_render import Writer
from connectors._mail_render import render as render_mail
from connectors._mail_text import one_line
from parley.messages import Assurance, Message, Reply, Route

if TYPE_CHECKING:
    from email.message import EmailMessage

AUTH_AS = "x-ms-exchange-organization-authas"
MOST_INDEX = 1000
"""Characters of a Thread-Index that are kept: more than a hundred answers."""

_MACHINES = ("ipm.note.rules.", "report.", "ipm.note.microsoft.missed", "ipm.note.microsoft.conversation")
"""Item classes that no person writes: out-of-office and other rules, reports, notes of missed calls and chats."""


@dataclass(frozen=True)
class Mail:
    """A mail as Exchange tells of it; addresses in lower case. `raw` is empty where it was too large to be fetched."""

    account: str
    own_address: str
    item_id: str
    raw: bytes
    received: datetime
    size: int = 0
    item_class: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    author: str = ""
    sender: str = ""


def parse(mail: Mail, *, trust_internal: bool = False) -> Message | None:
    """The message that a mail is, or None when nobody can be named who wrote it. Never raises."""
    arrival = Arrival(
        account=mail.account,
        own_address=mail.own_address,
        # Exchange has no numbers: where a mail has no Message-ID, the same item has the same number.
        uid=int.from_bytes(hashlib.sha256(mail.item_id.encode()).digest()[:8], "big"),
        received=mail.received,
    )
    message = parse_mail(mail.raw or _headers_alone(mail), arrival)
    if message is None:
        return None
    context = dict(message.route.context)
    if not mail.raw:
        context["notice"] = _too_large(mail.size)
    index = next(iter(_values(mail, "thread-index")), "")[:MOST_INDEX]
    if index.isascii() and index.isprintable():  # anything else is no Thread-Index, and may be no text at all
        context["thread_index"] = index
    verified = trust_internal and is_internal(mail, message.sender.id)
    assurance = Assurance.VERIFIED if verified else Assurance.CLAIMED
    return message.model_copy(
        update={
            "sender": message.sender.model_copy(update={"assurance": assurance}),
            "route": message.route.model_copy(update={"context": context}),
            "automatic": message.automatic or mail.item_class.lower().startswith(_MACHINES),
        }
    )


def is_internal(mail: Mail, author: str) -> bool:
    """Whether Exchange vouches that somebody who logged in wrote this, and wrote it as themselves.

    Said once and by nothing but `Internal`; and From, Sender and the MIME header all name the same address.
    """
    said = [value.strip().lower() for value in _values(mail, AUTH_AS)]
    return said == ["internal"] and bool(author) and mail.author == mail.sender == author.lower()


def render(reply: Reply, route: Route, writer: Writer, *, token: str) -> EmailMessage:
    """The mail that this reply is; in Outlook it stands in the conversation that it answers. Raises `Rejected`."""
    mail = render_mail(reply, route, writer, token=token)
    index = child_index(route.context.get("thread_index", ""), writer.now or datetime.now(UTC))
    if index:
        mail["Thread-Topic"] = without_answer_prefix(one_line(str(mail["Subject"])))
        mail["Thread-Index"] = index
    return mail


def in_thread(route: Route, subject: str = "") -> Route:
    """The same route; one that names a mail of ours as its thread, and nothing else, answers that mail."""
    thread = route.thread or ""
    if route.reply_to or not thread.startswith("<"):
        return route
    context = route.context | ({"subject": subject} if subject else {})
    return route.model_copy(update={"reply_to": thread, "context": context})


def child_index(parent: str, moment: datetime) -> str:
    """The Thread-Index of an answer, as [MS-OXOMSG] 2.2.1.3 counts; nothing where the parent's cannot be read.

    A header of 22 bytes (the top 48 bits of a FILETIME, a GUID), then 5 bytes an answer: the time since, and chance.
    """
    try:
        raw = base64.b64decode(parent, validate=True)
    except (binascii.Error, ValueError):
        return ""
    if len(raw) < 22 or (len(raw) - 22) % 5 or len(parent) + 8 > MOST_INDEX:
        return ""
    filetime = int((moment.timestamp() + 11_644_473_600) * 10_000_000)
    since = max(0, filetime - (int.from_bytes(raw[:6], "big") << 16))
    # Below 1.7 years in steps of 26 ms, above in steps of 0.8 s.
    delta = since >> 18 if since < 1 << 49 else (1 << 31) | ((since >> 23) & 0x7FFFFFFF)
    return base64.b64encode(raw + delta.to_bytes(4, "big") + secrets.token_bytes(1)).decode("ascii")


def _headers_alone(mail: Mail) -> bytes:
    kept = [
        f"{name}: {one_line(value, 4000)}"
        for name, value in mail.headers
        if name.isascii() and name.isprintable() and " " not in name and not _describes_content(name)
    ]
    return ("\r\n".join(kept) + "\r\n\r\n").encode("utf-8", "replace")


def _describes_content(name: str) -> bool:
    return not name or name.lower().startswith("content-") or name.lower() == "mime-version"


def _too_large(size: int) -> str:
    if size:
        return f"The mail is {size / 1_000_000:.1f} MB, or built in a way that cannot be read: only its subject was."
    return "The mail is built in a way that cannot be read: only its subject was."


def _values(mail: Mail, name: str) -> list[str]:
    return [value for key, value in mail.headers if key.lower() == name]
