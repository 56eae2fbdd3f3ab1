"""A reply becomes a mail: `Reply` and `Route` in, bytes out, no I/O. No value can add a header or a recipient."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime

from connectors._mail_headers import is_address, message_ids, without_answer_prefix
from connectors._mail_parse import OWN_ID_PREFIX
from connectors._mail_text import clean, one_line
from parley.errors import Rejected
from parley.messages import File, Reply, Route

MOST_SUBJECT = 200
MOST_IDS = 900
"""Characters of message ids in one header: a line of a mail has at most 998."""

_MEDIA_TYPE = re.compile(r"(?!multipart/|message/)([\w.+-]{1,60})/([\w.+-]{1,80})", re.ASCII)
_FENCE = re.compile(r"```[^\n`]{0,40}\n(.*?)(?:\n```|\Z)", re.DOTALL)
_INLINE = re.compile(
    r"`(?P<code>[^`\n]{1,500})`"
    r"|\[(?P<label>[^\[\]\n]{1,300})\]\((?P<url>https?://[^\s()<>\"]{1,1000})\)"
    r"|\*\*(?P<bold>[^*\n]{1,500})\*\*"
    r"|\*(?P<italic>[^*\s][^*\n]{0,499})\*"
)


@dataclass(frozen=True)
class Writer:
    """Who writes: our address, the name shown beside it, and the moment."""

    address: str
    name: str = ""
    now: datetime | None = None


class _Policy(EmailPolicy):
    """As the standard one, but message ids stay as they are: it would encode a long one, and threads would break."""

    def fold(self, name: str, value: str) -> str:
        return _ids_folded(name, value) or super().fold(name, value)

    def fold_binary(self, name: str, value: str) -> bytes:
        return _ids_folded(name, value).encode("ascii") or super().fold_binary(name, value)


_POLICY = _Policy(linesep="\r\n", cte_type="7bit", header_factory=SMTP.header_factory)


def render(reply: Reply, route: Route, writer: Writer, *, token: str) -> EmailMessage:
    """The mail that this reply is. The same token gives the same Message-ID. Raises `Rejected`."""
    to = recipient(route, writer.address)
    # Only an address beyond ASCII needs SMTPUTF8, which not every server has.
    mail = EmailMessage(policy=_POLICY.clone(utf8=not to.rpartition("@")[0].isascii()))
    mail["From"] = _mailbox(writer.address, writer.name)
    mail["To"] = _mailbox(to, "")
    mail["Subject"] = _subject(reply, route)
    mail["Date"] = format_datetime(writer.now or datetime.now(UTC))
    mail["Message-ID"] = own_id(token, writer.address)
    if route.reply_to and (ids := _references(route)):
        mail["In-Reply-To"] = ids[-1]
        mail["References"] = " ".join(ids)
    # RFC 3834: other machines must not answer this; X-Loop is for those that know only the older habit.
    mail["Auto-Submitted"] = "auto-replied" if route.reply_to else "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    mail["X-Loop"] = writer.address
    _fill(mail, reply, one_note(route))
    return mail


def recipient(route: Route, own_address: str) -> str:
    """The one address that this route means. Raises `Rejected` for our own, or for what is no address."""
    address = route.conversation
    if not is_address(address):
        raise Rejected("The route names no mail address.")
    if address.lower() == own_address.lower():
        raise Rejected("The assistant does not write to itself.")
    if route.private_to and route.private_to.lower() != address.lower():
        raise Rejected("The answer is for somebody else than this conversation.")
    return address


def own_id(token: str, address: str) -> str:
    """The Message-ID of the delivery with this token."""
    local = "".join(
        char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in token[:120]
    )
    return f"<{OWN_ID_PREFIX}{local}@{_ascii_domain(address)}>"


def one_note(route: Route) -> str:
    """What the person must know of how their mail was read: a file left out, a part that could not be opened."""
    return clean(route.context.get("notice", ""))[:1000]


def to_html(text: str) -> str:
    """Our neutral markup as HTML; everything else is shown as it was written."""
    out: list[str] = []
    at = 0
    for fence in _FENCE.finditer(text):
        out += [_paragraphs(text[at : fence.start()]), f"<pre>{html.escape(fence[1])}</pre>"]
        at = fence.end()
    return "".join([*out, _paragraphs(text[at:])])


def _fill(mail: EmailMessage, reply: Reply, note: str) -> None:
    text = clean("\n\n".join(part for part in (reply.text, note and f"({note})") if part))
    mail.set_content(text + "\n", charset="utf-8")
    mail.add_alternative(
        f'<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>{to_html(text)}</body></html>\n',
        subtype="html",
        charset="utf-8",
    )
    for file in reply.files:
        _attach(mail, file)


def _attach(mail: EmailMessage, file: File) -> None:
    found = _MEDIA_TYPE.fullmatch(file.media_type)
    main, sub = (found[1], found[2]) if found else ("application", "octet-stream")
    mail.add_attachment(
        file.content, maintype=main, subtype=sub, filename=_shown(file.name, 200) or "file.bin"
    )
    if main == "text" and _is_utf8(file.content):
        # Without a charset, programs show UTF-8 as Latin-1.
        list(mail.iter_attachments())[-1].set_param("charset", "utf-8")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _mailbox(address: str, name: str) -> Address:
    local, _, domain = address.rpartition("@")
    return Address(_shown(name, 100), local, _ascii_domain(address) if local.isascii() else domain)


def _ascii_domain(address: str) -> str:
    domain = address.rpartition("@")[2]
    try:
        return domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        raise Rejected("The mail address has a domain that does not exist.") from None


def _subject(reply: Reply, route: Route) -> str:
    asked = without_answer_prefix(_shown(route.context.get("subject", ""), MOST_SUBJECT))
    if route.reply_to:
        return f"Re: {asked}" if asked else "Re: your message"
    first = next((line for line in reply.text.split("\n") if line.strip()), "")
    return asked or _shown(first.strip("*_`#- "), 80) or "Message"


def _shown(value: str, most: int) -> str:
    """One line of visible characters, in which no encoded word hides: those are decoded when a header is read."""
    line = one_line(
        "".join(" " if unicodedata.category(char) in ("Zl", "Zp") else char for char in value), most
    )
    visible = "".join(char for char in line if unicodedata.category(char) != "Cc")
    return visible.replace("=?", "= ?").strip()


def _references(route: Route) -> list[str]:
    own = message_ids(route.reply_to or "")[:1]
    before = [found for found in message_ids(route.context.get("references", "")) if found not in own]
    while before and sum(len(found) + 1 for found in [*before, *own]) > MOST_IDS:
        del before[1 if len(before) > 1 else 0]
    return [*before, *own]


def _ids_folded(name: str, value: str) -> str:
    if name.lower() not in ("message-id", "in-reply-to", "references"):
        return ""
    return f"{name}: " + "\r\n ".join(message_ids(str(value))) + "\r\n"


def _paragraphs(text: str) -> str:
    return "".join(_block(block) for block in re.split(r"\n\s*\n", text) if block.strip())


def _block(block: str) -> str:
    lines = block.strip("\n").split("\n")
    if all(line.lstrip().startswith("- ") for line in lines):
        return "<ul>" + "".join(f"<li>{_inline(line.lstrip()[2:])}</li>" for line in lines) + "</ul>"
    return "<p>" + "<br>".join(_inline(line) for line in lines) + "</p>"


def _inline(text: str) -> str:
    out: list[str] = []
    at = 0
    for found in _INLINE.finditer(text):
        out += [html.escape(text[at : found.start()]), _marked(found)]
        at = found.end()
    return "".join([*out, html.escape(text[at:])])


def _marked(found: re.Match[str]) -> str:
    if found["code"] is not None:
        return f"<code>{html.escape(found['code'])}</code>"
    if found["url"] is not None:
        return f'<a href="{html.escape(found["url"])}">{html.escape(found["label"])}</a>'
    if found["bold"] is not None:
        return f"<strong>{html.escape(found['bold'])}</strong>"
    return f"<em>{html.escape(found['italic'])}</em>"
