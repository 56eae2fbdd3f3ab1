"""What we say over XMPP: replies as message stanzas, our markup as XEP-0393 styling, and the queries we make. Pure."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime

from connectors._markup import CODE, SPAN, without_language
from parley.errors import Rejected, Unsupported
from parley.messages import ConversationKind, Reply, Route

CLIENT = "jabber:client"
SM = "urn:xmpp:sm:3"
PING = "urn:xmpp:ping"
DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
MAM = "urn:xmpp:mam:2"
RSM = "http://jabber.org/protocol/rsm"
DATA = "jabber:x:data"
SID = "urn:xmpp:sid:0"
MUC = "http://jabber.org/protocol/muc"
MUC_USER = f"{MUC}#user"
REPLY = "urn:xmpp:reply:0"
CORRECT = "urn:xmpp:message-correct:0"
STATES = "http://jabber.org/protocol/chatstates"
RECEIPTS = "urn:xmpp:receipts"
HINTS = "urn:xmpp:hints"
OOB = "jabber:x:oob"
UPLOAD = "urn:xmpp:http:upload:0"
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
FEATURES = (DISCO_INFO, PING, CORRECT, STATES, RECEIPTS, SID, REPLY, OOB, MUC)

MAX_TEXT = 8000
"""Bytes. A server must take stanzas of 10,000 (RFC 6120, 13.12); all that are known take many times that."""

# What XML 1.0 cannot carry: a server ends the stream of who sends it.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(reply: Reply, route: Route, id_: str, urls: Sequence[tuple[str, str]] = ()) -> ET.Element:
    """The message of this reply; `urls`: names and addresses of its files. Raises `Rejected` or `Unsupported`."""
    if reply.table is not None or reply.buttons:
        raise Unsupported("XMPP shows no tables and no buttons: render the reply down first.")
    links = [url for _, url in urls]
    body = "\n".join([*([styled(reply.text)] if reply.text else []), *links])
    if not body:
        raise Rejected("There is nothing to send.")
    message = _message(route, id_)
    child(message, CLIENT, "body", _NOT_XML.sub("\ufffd", body))
    for name, url in urls:
        link = child(message, OOB, "x")
        child(link, OOB, "url", url)
        if len(links) > 1:
            child(link, OOB, "desc", _NOT_XML.sub("\ufffd", name))
    answered, author = route.context.get("answers"), route.context.get("author")
    if answered:
        message.append(ET.Element(f"{{{REPLY}}}reply", {"id": answered} | ({"to": author} if author else {})))
    child(message, SID, "origin-id").set("id", id_)
    child(message, HINTS, "store")
    return message


def edited(reply: Reply, route: Route, id_: str, target: str) -> ET.Element:
    """The same message with another text (XEP-0308)."""
    message = render(reply, route, id_)
    child(message, CORRECT, "replace").set("id", target)
    return message


def composing(route: Route) -> ET.Element:
    """That an answer is being made (XEP-0085)."""
    message = _message(route, "")
    child(message, STATES, "composing")
    child(message, HINTS, "no-store")
    return message


def received(to: str, id_: str) -> ET.Element:
    """That a message is stored (XEP-0184)."""
    message = ET.Element(f"{{{CLIENT}}}message", {"to": to, "type": "chat"})
    child(message, RECEIPTS, "received").set("id", id_)
    child(message, HINTS, "store")
    return message


def _message(route: Route, id_: str) -> ET.Element:
    kind = "chat" if route.kind is ConversationKind.DIRECT else "groupchat"
    message = ET.Element(f"{{{CLIENT}}}message", {"to": route.conversation, "type": kind})
    if id_:
        message.set("id", id_)
    if kind == "chat" and "/" in route.conversation:
        child(message, MUC_USER, "x")  # a private message in a room (XEP-0045, 7.5)
    if route.thread:
        child(message, CLIENT, "thread", _NOT_XML.sub("", route.thread))
    return message


def id_of(token: str) -> str:
    """The id of the message of a delivery: the same at each attempt, so that it can be looked up."""
    return "parley-" + hashlib.sha256(token.encode()).hexdigest()[:40]


def styled(text: str) -> str:
    """Our markup as XEP-0393 message styling."""
    pieces = CODE.split(text)
    return "".join(
        without_language(piece) if odd % 2 else SPAN.sub(_span, piece) for odd, piece in enumerate(pieces)
    )


def _span(found: re.Match[str]) -> str:
    if found["url"]:
        return found["url"] if found["label"] == found["url"] else f"{found['label']} <{found['url']}>"
    return f"*{found['bold']}*" if found["bold"] else f"_{found['italic']}_"


# --- queries ---------------------------------------------------------------------------------------------------------


def child(parent: ET.Element, namespace: str, name: str, text: str | None = None) -> ET.Element:
    """A new element in its namespace, under another."""
    made = ET.SubElement(parent, f"{{{namespace}}}{name}")
    made.text = text
    return made


def iq(kind: str, payload: ET.Element | None = None, *, to: str = "") -> ET.Element:
    """A query, or the answer to one."""
    made = ET.Element(f"{{{CLIENT}}}iq", {"type": kind} | ({"to": to} if to else {}))
    if payload is not None:
        made.append(payload)
    return made


def unsupported(to: str) -> ET.Element:
    """The answer to a query that we do not know."""
    made = iq("error", to=to)
    error = child(made, CLIENT, "error")
    error.set("type", "cancel")
    child(error, STANZAS, "service-unavailable")
    return made


def disco(to: str, what: str = DISCO_INFO) -> ET.Element:
    """Ask what somebody can do, or has."""
    return iq("get", ET.Element(f"{{{what}}}query"), to=to)


def disco_answer(node: str = "") -> ET.Element:
    """What we can do (XEP-0030)."""
    query = ET.Element(f"{{{DISCO_INFO}}}query", {"node": node} if node else {})
    ET.SubElement(query, f"{{{DISCO_INFO}}}identity", {"category": "client", "type": "bot", "name": "Parley"})
    for feature in FEATURES:
        ET.SubElement(query, f"{{{DISCO_INFO}}}feature", {"var": feature})
    return query


def archive_query(
    to: str,
    query_id: str,
    *,
    start: datetime | None = None,
    after: str | None = None,
    before: str | None = None,
    partner: str = "",
    most: int = 50,
) -> ET.Element:
    """One page of an archive (XEP-0313 with XEP-0059): forward after an id, or backward where `before` is given."""
    query = ET.Element(f"{{{MAM}}}query", {"queryid": query_id})
    form = child(query, DATA, "x")
    form.set("type", "submit")
    _field(form, "FORM_TYPE", MAM)
    if start is not None:
        _field(form, "start", start.strftime("%Y-%m-%dT%H:%M:%SZ"))
    if partner:
        _field(form, "with", partner)
    page = child(query, RSM, "set")
    child(page, RSM, "max", str(most))
    if after is not None:
        child(page, RSM, "after", after)
    if before is not None:
        child(page, RSM, "before", before)
    return iq("set", query, to=to)


def _field(form: ET.Element, name: str, value: str) -> None:
    field = child(form, DATA, "field")
    field.set("var", name)
    child(field, DATA, "value", value)


def join(room: str, nick: str, since: datetime | None) -> ET.Element:
    """Enter a room (XEP-0045, 7.2), without its history, or with what was said since a moment."""
    presence = ET.Element(f"{{{CLIENT}}}presence", {"to": f"{room}/{nick}"})
    history = child(child(presence, MUC, "x"), MUC, "history")
    if since is None:
        history.set("maxstanzas", "0")
    else:
        history.set("since", since.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return presence


def presence(kind: str = "", to: str = "") -> ET.Element:
    """Presence, ours or an answer to somebody's."""
    attributes = {key: value for key, value in (("type", kind), ("to", to)) if value}
    return ET.Element(f"{{{CLIENT}}}presence", attributes)


def slot(service: str, name: str, size: int, media_type: str) -> ET.Element:
    """Ask for a place to put a file (XEP-0363)."""
    attributes = {"filename": name, "size": str(size), "content-type": media_type}
    return iq("get", ET.Element(f"{{{UPLOAD}}}request", attributes), to=service)
