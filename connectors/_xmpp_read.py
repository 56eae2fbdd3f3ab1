"""What comes in over XMPP, read from the stanza: who says what, where, and as which message. Pure.

A message is known by the id that its archive gave it (XEP-0359), where the archive is ours to trust: our own account's
or the room's. The same message has the same id whether it comes live, again after a broken connection, or from the
archive. Without one, what its author made unique is taken.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from connectors._xmpp_settings import XMPPSettings
from connectors._xmpp_write import (
    CLIENT,
    CORRECT,
    MAM,
    MUC_USER,
    OOB,
    RECEIPTS,
    REPLY,
    SID,
    STANZAS,
)
from parley.messages import (
    MAX_TEXT,
    Assurance,
    ConversationKind,
    Edit,
    Message,
    Route,
    Sender,
    derived_id,
)

DELAY = "urn:xmpp:delay"
FORWARD = "urn:xmpp:forward:0"
FALLBACK = "urn:xmpp:fallback:0"
REFERENCE = "urn:xmpp:reference:0"
OCCUPANT = "urn:xmpp:occupant-id:0"
MARKERS = "urn:xmpp:chat-markers:0"
CHAT_STATES = "http://jabber.org/protocol/chatstates"
_ENCRYPTED = {
    f"{{{namespace}}}{tag}"
    for namespace in (
        "eu.siacs.conversations.axolotl",
        "urn:xmpp:omemo:2",
        "urn:xmpp:openpgp:0",
        "jabber:x:encrypted",
    )
    for tag in ("encrypted", "openpgp", "x")
}

_BODY, _THREAD = f"{{{CLIENT}}}body", f"{{{CLIENT}}}thread"
_STANZA_ID, _ORIGIN_ID = f"{{{SID}}}stanza-id", f"{{{SID}}}origin-id"
_LINK, _URL = f"{{{OOB}}}x", f"{{{OOB}}}url"
_ROOM, _ITEM = f"{{{MUC_USER}}}x", f"{{{MUC_USER}}}item"
_REPLY, _REPLACE, _REFERENCE = f"{{{REPLY}}}reply", f"{{{CORRECT}}}replace", f"{{{REFERENCE}}}reference"
_FALLBACK, _DELAY, _RECEIPT = f"{{{FALLBACK}}}fallback", f"{{{DELAY}}}delay", f"{{{RECEIPTS}}}request"

_SIMPLE = {_BODY, _THREAD, _STANZA_ID, _ORIGIN_ID, _RECEIPT, f"{{{OCCUPANT}}}occupant-id"} | {
    f"{{{MARKERS}}}markable",
    f"{{{CHAT_STATES}}}active",
}
"""What most messages are made of: nothing else has to be looked for in one that has no other part."""

LONGEST_ID = 900
MOST_URLS = 10


class StanzaError(Exception):
    """An error stanza: its type, its condition (RFC 6120, 8.3) and, where one is named, when to try again."""

    def __init__(self, kind: str, condition: str, retry_at: datetime | None = None) -> None:
        super().__init__(condition)
        self.kind, self.condition, self.retry_at = kind, condition, retry_at


@dataclass(frozen=True, slots=True)
class Occupant:
    """Somebody in a room. `jid` is their bare address where the room shows it, `id` their XEP-0421 id."""

    nick: str
    jid: str = ""
    id: str = ""


@dataclass(frozen=True)
class Room:
    """A room as it is when something is said in it. `ours` is our nick there."""

    jid: str
    ours: str
    occupants: Mapping[str, Occupant] = field(default_factory=dict)


class Said(NamedTuple):
    """One message stanza, read; texts are as they came, nothing is trusted yet."""

    kind: str
    peer: str
    resource: str
    id: str
    archive_ids: Mapping[str, str]
    origin_id: str
    text: str
    thread: str
    receipt: bool
    replaces: str = ""
    reply_to: str = ""
    reply_author: str = ""
    urls: tuple[str, ...] = ()
    sent_at: datetime | None = None
    delayed_by: str = ""
    references: tuple[str, ...] = ()
    real_jid: str = ""
    in_room: bool = False
    encrypted: bool = False
    archived: bool = False

    @property
    def author(self) -> str:
        """Address that it came from, in full."""
        return f"{self.peer}/{self.resource}" if self.resource else self.peer


def said(xml: ET.Element) -> Said | None:
    """A message stanza with something to read in it; None for all else (errors, chat states, receipts, subjects)."""
    peer, _, resource = xml.get("from", "").partition("/")
    kind = xml.get("type", "normal")
    # Looked through once: most stanzas have little of all that could be in them.
    parts = {part.tag: part for part in reversed(xml)}
    body = _text(parts.get(_BODY))
    simple = parts.keys() <= _SIMPLE
    if kind == "error" or not peer or (simple and not body):
        return None
    read = Said(
        kind=kind,
        peer=peer.lower(),
        resource=resource,
        id=xml.get("id", "")[:LONGEST_ID],
        archive_ids={
            one.get("by", "").lower(): one.get("id", "")[:LONGEST_ID]
            for one in _all(xml, parts, _STANZA_ID)
            if one.get("id")
        },
        origin_id=_attribute(parts.get(_ORIGIN_ID), "id"),
        text=body,
        thread=_text(parts.get(_THREAD))[:LONGEST_ID],
        receipt=_RECEIPT in parts,
    )
    return read if simple else _with_the_rest(read, xml, parts)


def _with_the_rest(read: Said, xml: ET.Element, parts: Mapping[str, ET.Element]) -> Said | None:
    """What only some messages have; None where there is nothing to read."""
    urls = tuple(url for link in _all(xml, parts, _LINK) if (url := _text(link.find(_URL))))[:MOST_URLS]
    encrypted = not _ENCRYPTED.isdisjoint(parts)
    if not (read.text or urls or encrypted):
        return None
    items = xml.findall(f"{_ROOM}/{_ITEM}") if _ROOM in parts else ()
    reply, delay = parts.get(_REPLY), parts.get(_DELAY)
    return read._replace(
        text=_without_quote(_all(xml, parts, _FALLBACK), read.text),
        replaces=_attribute(parts.get(_REPLACE), "id"),
        reply_to=_attribute(reply, "id"),
        reply_author=_attribute(reply, "to"),
        urls=urls,
        sent_at=moment(_attribute(delay, "stamp")),
        delayed_by=_attribute(delay, "from").lower(),
        references=tuple(
            one.get("uri", "") for one in _all(xml, parts, _REFERENCE) if one.get("type") == "mention"
        )[:MOST_URLS],
        # A room's archive puts its own item last and strips any other (XEP-0313, 6.1).
        real_jid=items[-1].get("jid", "").partition("/")[0].lower() if items else "",
        in_room=_ROOM in parts,
        encrypted=encrypted,
    )


def forwarded(xml: ET.Element) -> tuple[str, str, ET.Element, datetime | None] | None:
    """What a result of an archive holds: query, the archive's id, the message, when; None for all else."""
    result = xml.find(f"{{{MAM}}}result")
    if result is None:
        return None
    inner = result.find(f"{{{FORWARD}}}forwarded")
    message = None if inner is None else inner.find(f"{{{CLIENT}}}message")
    if inner is None or message is None:
        return None
    stamp = moment(_attribute(inner.find(f"{{{DELAY}}}delay"), "stamp"))
    return result.get("queryid", ""), result.get("id", "")[:LONGEST_ID], message, stamp


def from_archive(message: ET.Element, archive: str, id_: str, stamp: datetime | None) -> Said | None:
    """A message out of an archive, with the id that the archive knows it by."""
    read = said(message)
    if read is None:
        return None
    return read._replace(
        archive_ids={archive: id_}, sent_at=stamp, delayed_by=archive, archived=True, receipt=False
    )


def parse(
    read: Said,
    account: str,
    settings: XMPPSettings,
    room: Room | None = None,
    *,
    vouched: bool = True,
    known: Mapping[tuple[str, str, str], str] | None = None,
) -> Message | Edit | None:
    """What somebody said to us or where we are, as an event; None for our own words and for what is no message.

    `room` is the room that it was said in, also privately. `vouched` says that the archive gives ids of its own and
    strips forged ones. `known` has the native ids of earlier messages by place, sender and their own id.
    """
    group = read.kind == "groupchat"
    if (
        is_own(read, settings, room)
        or (room is None and (group or read.in_room))
        or (room and not read.resource)
    ):
        return None
    place = read.author if room is not None and not group else read.peer
    sender = _sender(read, settings, room)
    archive_id = read.archive_ids.get(archive_of(read, settings), "") if vouched else ""
    context: dict[str, str] = {}
    if group:  # an answer says which message it is for; rooms know messages by their own ids (XEP-0461)
        context = {"answers": archive_id or read.id, "author": read.author}
    elif room is not None:  # who has this nick later may be somebody else
        context = {"occupant": sender.id}
    kind = ConversationKind.GROUP if group else ConversationKind.DIRECT
    route = Route(
        account=account,
        conversation=place[:1024],
        kind=kind,
        thread=read.thread or None,
        reply_to=read.id or None,
        context=context,
    )
    native = native_id(read, settings, archive_id)
    sent_at = datetime.now(UTC) if read.sent_at is None else min(read.sent_at, datetime.now(UTC))
    if read.replaces:
        key = (place, sender.id, read.replaces)
        return Edit(
            account=account,
            native_id=native,
            sender=sender,
            route=route,
            sent_at=sent_at,
            target=(known or {}).get(key) or derived_id("xmpp", *key),
            text=without_mention(read.text, room.ours)[:MAX_TEXT] if group and room else read.text[:MAX_TEXT],
        )
    return Message(
        account=account,
        native_id=native,
        sender=sender,
        route=route,
        sent_at=sent_at,
        text=_readable(read, room.ours if group and room else ""),
        left_out=_unreadable(read) if read.encrypted or len(read.text) > MAX_TEXT else (),
        automatic=read.kind == "headline" or "@" not in read.peer,
    )


def archive_of(read: Said, settings: XMPPSettings) -> str:
    """Whose archive has this message: the room's for what is said to all in it, our own account's for all else."""
    return read.peer if read.kind == "groupchat" else settings.jid


def native_id(read: Said, settings: XMPPSettings, archive_id: str) -> str:
    """The id of a message: its archive's, else of what its author made unique."""
    if archive_id:
        return f"{archive_of(read, settings)}:{archive_id}"
    own = read.origin_id or read.id
    if own:
        return derived_id("xmpp", read.author, read.kind, own)
    return derived_id(
        "xmpp", read.author, read.kind, read.text, (read.sent_at or datetime.now(UTC)).isoformat()
    )


def is_own(read: Said, settings: XMPPSettings, room: Room | None) -> bool:
    """Whether we said it: another of our devices, the room's copy of our words, or our words in an archive."""
    if room is None:
        return read.peer == settings.jid
    jid = _shown_jid(read, room)
    return jid == settings.jid if jid else read.resource == room.ours


def mentions(read: Said, settings: XMPPSettings, room: Room) -> bool:
    """Whether we are meant: our nick begins the text, or a reference or a reply names us."""
    ours = {f"xmpp:{settings.jid}", f"xmpp:{room.jid}/{room.ours}"}
    return (
        without_mention(read.text, room.ours) != read.text
        or not ours.isdisjoint(read.references)
        or read.reply_author in {f"{room.jid}/{room.ours}", settings.jid}
    )


def without_mention(text: str, nick: str) -> str:
    """The text without our nick at its start: `nick: text`, `nick, text`, `@nick text`."""
    found = re.match(rf"\s*@?{re.escape(nick)}(?:\s*[:,]\s*|\s+|\Z)", text, re.IGNORECASE) if nick else None
    return text[found.end() :] if found else text


def _sender(read: Said, settings: XMPPSettings, room: Room | None) -> Sender:
    """Who wrote. Verified where our server vouches: by itself, or as the server of a room that shows who is in it."""
    if room is None:
        assured = Assurance.VERIFIED if settings.trusts(read.peer) else Assurance.CLAIMED
        return _person(read.peer, read.peer.partition("@")[0], assured)
    jid = _shown_jid(read, room)
    if jid:
        assured = (
            Assurance.VERIFIED
            if settings.trusts(jid) and settings.trusts_service(room.jid)
            else Assurance.CLAIMED
        )
        return _person(jid, read.resource, assured)
    occupant = None if read.archived else room.occupants.get(read.resource)
    unique = occupant.id if occupant else ""
    name = occupant_name(room.jid, unique) if unique else f"{room.jid}/{read.resource}"
    return _person(name, read.resource, Assurance.CLAIMED)


@lru_cache(maxsize=1000)
def _known(id_: str, name: str, assured: Assurance) -> Sender:
    return Sender(id=id_, name=name, assurance=assured)


def _person(id_: str, name: str, assured: Assurance) -> Sender:
    """A sender, made once for all that they say: it is frozen."""
    return _known(id_[:512], name[:LONGEST_ID], assured)


def _shown_jid(read: Said, room: Room) -> str:
    """The address that the room shows for who spoke: of who is there now, or as its archive has it."""
    if not read.archived:
        occupant = room.occupants.get(read.resource)
        return occupant.jid if occupant else ""
    # Our own account's archive has private messages as their senders made them.
    return read.real_jid if read.kind == "groupchat" else ""


def occupant_name(room: str, unique: str) -> str:
    """The sender's id of an occupant whom the room does not show: no address looks like it."""
    return f"occupant:{room}:{unique}"


def _readable(read: Said, nick: str) -> str:
    if read.encrypted:
        return ""
    return (without_mention(read.text, nick) if nick else read.text)[:MAX_TEXT]


def _unreadable(read: Said) -> tuple[str, ...]:
    if read.encrypted:
        return ("the text: it is end-to-end encrypted, and this account reads plain messages only",)
    if len(read.text) > MAX_TEXT:
        return (f"the end of the text: it has more than {MAX_TEXT} characters",)
    return ()


# --- pieces of stanzas -----------------------------------------------------------------------------------------------


def stanza_error(xml: ET.Element) -> StanzaError:
    """The error that an error stanza carries; `undefined-condition` where it cannot be read."""
    error = xml.find(f"{{{CLIENT}}}error")
    if error is None:
        return StanzaError("cancel", "undefined-condition")
    named = [one.tag.rpartition("}")[2] for one in error if one.tag.startswith(f"{{{STANZAS}}}")]
    conditions = [name for name in named if name != "text"]
    retry = next((one for one in error if one.tag.endswith("}retry")), None)
    condition = conditions[0] if conditions and re.fullmatch(r"[a-z-]{1,40}", conditions[0]) else ""
    kind = error.get("type", "")
    return StanzaError(
        kind if re.fullmatch(r"[a-z]{1,10}", kind) else "cancel",
        condition or "undefined-condition",
        moment(_attribute(retry, "stamp")),
    )


def moment(stamp: str) -> datetime | None:
    """A moment of XEP-0082; None for what is none."""
    if not stamp:
        return None
    try:
        found = datetime.fromisoformat(stamp.strip())
    except ValueError:
        return None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        return None


def occupant_of(xml: ET.Element) -> tuple[Occupant, frozenset[str], str]:
    """Who a presence in a room is about, its status codes, and the new nick where there is one."""
    item = xml.find(f"{{{MUC_USER}}}x/{{{MUC_USER}}}item")
    codes = frozenset(one.get("code", "") for one in xml.findall(f"{{{MUC_USER}}}x/{{{MUC_USER}}}status"))
    occupant = Occupant(
        nick=xml.get("from", "").partition("/")[2],
        jid=_attribute(item, "jid").partition("/")[0].lower(),
        id=_attribute(xml.find(f"{{{OCCUPANT}}}occupant-id"), "id"),
    )
    return occupant, codes, _attribute(item, "nick")


def _all(xml: ET.Element, parts: Mapping[str, ET.Element], tag: str) -> Sequence[ET.Element]:
    """All children of this name; `parts` has the first of each."""
    return xml.findall(tag) if tag in parts else ()


def _without_quote(fallbacks: Sequence[ET.Element], body: str) -> str:
    """The text without the quotation that stands in it for clients that know no replies (XEP-0461, XEP-0428)."""
    for fallback in fallbacks:
        part = fallback.find(f"{{{FALLBACK}}}body")
        if fallback.get("for") != REPLY or part is None:
            continue
        start, end = part.get("start", ""), part.get("end", "")
        if re.fullmatch(r"\d{1,7}", start) and re.fullmatch(r"\d{1,7}", end) and int(start) <= int(end):
            return body[: int(start)] + body[int(end) :]
    return body


def _text(xml: ET.Element | None) -> str:
    return "" if xml is None else xml.text or ""


def _attribute(xml: ET.Element | None, name: str) -> str:
    return "" if xml is None else xml.get(name, "")[:LONGEST_ID]
