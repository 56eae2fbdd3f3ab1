"""The XML of Exchange Web Services as a server writes and reads it, by Microsoft's schema (messages.xsd, types.xsd)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message as Mime
from email.parser import BytesHeaderParser
from email.utils import parseaddr
from typing import TYPE_CHECKING
from uuid import uuid4
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

S = "{http://schemas.xmlsoap.org/soap/envelope/}"
M = "{http://schemas.microsoft.com/exchange/services/2006/messages}"
T = "{http://schemas.microsoft.com/exchange/services/2006/types}"
_OPEN = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:m="http://schemas.microsoft.com/exchange/services/2006/messages"'
    ' xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types">'
)
_HEADER = (
    '<s:Header><t:ServerVersionInfo MajorVersion="15" MinorVersion="2" MajorBuildNumber="1544" MinorBuildNumber="4"'
    ' Version="V2017_07_11"/></s:Header>'
)

Property = tuple[str, str]
"""A named property: the GUID of its set, and its name."""


@dataclass
class Item:
    """One item in the mailbox."""

    folder: str
    raw: bytes
    received: datetime
    item_class: str = "IPM.Note"
    is_read: bool = False
    properties: dict[Property, tuple[str, str]] = field(default_factory=dict)
    size: int = 0
    broken: str = ""
    """The response code that reading it ends with."""
    garbled: dict[str, str] = field(default_factory=dict)
    """XML that is told in place of what there is, by the field's URI; "" is the ItemId."""
    tag: str = "Message"
    """The element that tells of it."""
    sender: str = ""
    """Who really sent it, where From names another."""
    id: str = field(default_factory=lambda: base64.b64encode(uuid4().bytes * 4).decode())
    change: int = 1

    @property
    def headers(self) -> Mime:
        return BytesHeaderParser().parsebytes(self.raw)

    @property
    def message_id(self) -> str:
        return str(self.headers["Message-ID"] or "")

    def item_id(self) -> str:
        return f'<t:ItemId Id={quoteattr(self.id)} ChangeKey="CQAA{self.change:04d}"/>'


def envelope(body: str) -> bytes:
    """A SOAP answer."""
    return f"{_OPEN}{_HEADER}<s:Body>{body}</s:Body></s:Envelope>".encode()


def answer(operation: str, *messages: str) -> bytes:
    """The answer of an operation: one response message for each thing that was asked of it."""
    return envelope(
        f"<m:{operation}Response><m:ResponseMessages>{''.join(messages)}</m:ResponseMessages></m:{operation}Response>"
    )


def success(operation: str, content: str = "") -> str:
    return (
        f'<m:{operation}ResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode>'
        f"{content}</m:{operation}ResponseMessage>"
    )


def error(operation: str, code: str, text: str = "It cannot be done.", more: str = "") -> str:
    return (
        f'<m:{operation}ResponseMessage ResponseClass="Error"><m:MessageText>{escape(text)}</m:MessageText>'
        f"<m:ResponseCode>{code}</m:ResponseCode><m:DescriptiveLinkKey>0</m:DescriptiveLinkKey>{more}"
        f"</m:{operation}ResponseMessage>"
    )


def fault(code: str, text: str, values: dict[str, str]) -> bytes:
    """A SOAP fault, as it comes with HTTP 500."""
    inside = "".join(f'<t:Value Name="{name}">{escape(value)}</t:Value>' for name, value in values.items())
    errors = 'xmlns:e="http://schemas.microsoft.com/exchange/services/2006/errors"'
    return (
        f'{_OPEN}<s:Body><s:Fault><faultcode xmlns:a="http://schemas.microsoft.com/exchange/services/2006/types">'
        f'a:{code}</faultcode><faultstring xml:lang="en-US">{escape(text)}</faultstring><detail>'
        f"<e:ResponseCode {errors}>{code}</e:ResponseCode><e:Message {errors}>{escape(text)}</e:Message>"
        f"<t:MessageXml>{inside}</t:MessageXml></detail></s:Fault></s:Body></s:Envelope>"
    ).encode()


def moment(value: datetime) -> str:
    """A time as Exchange tells it: UTC, whole seconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- what is asked


def operation(root: Element) -> Element:
    """The element in the body that says what is wanted."""
    body = root.find(f"{S}Body")
    assert body is not None, "a request without a body"
    return body[0]


def name_of(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def folder_of(element: Element) -> str:
    """The folder that a FolderId or DistinguishedFolderId means."""
    return element.get("Id", "").removeprefix("F:").partition("#")[0]


def shape(asked: Element) -> tuple[list[str], list[tuple[Property, str]]]:
    """The field URIs and the named properties that are wanted of each item."""
    uris = [each.get("FieldURI", "") for each in asked.iter(f"{T}FieldURI")]
    named = [(property_of(each), each.get("PropertyType", "")) for each in asked.iter(f"{T}ExtendedFieldURI")]
    return uris, named


def property_of(element: Element) -> Property:
    return element.get("PropertySetId", "").lower(), element.get("PropertyName", "")


def wanted(restriction: Element | None) -> Callable[[Item], bool]:
    """Whether an item fits a Restriction, a SearchExpression or the like."""
    return (lambda _: True) if restriction is None else _expression(restriction[0])


def _expression(element: Element) -> Callable[[Item], bool]:
    kind, parts = name_of(element), list(element)
    match kind:
        case "And":
            both = [_expression(part) for part in parts]
            return lambda item: all(fits(item) for fits in both)
        case "Or":
            either = [_expression(part) for part in parts]
            return lambda item: any(fits(item) for fits in either)
        case "Not":
            fits_not = _expression(parts[0])
            return lambda item: not fits_not(item)
        case "Exists":
            return lambda item: property_of(parts[0]) in item.properties
        case "Contains":
            assert element.get("ContainmentMode") == "Prefixed", element.attrib
            start = parts[1].get("Value", "")
            return lambda item: (_value(item, parts[0]) or "").startswith(start)
        case "IsEqualTo" | "IsGreaterThanOrEqualTo":
            constant = parts[1].find(f"{T}Constant")
            assert constant is not None
            other = constant.get("Value", "")
            if kind == "IsEqualTo" and parts[0].get("FieldURI") == "message:IsRead":
                # Either way of writing a boolean counts.
                other = {"true": "1", "false": "0"}.get(other, other)
            if kind == "IsEqualTo":
                return lambda item: _value(item, parts[0]) == other
            return lambda item: _time(_value(item, parts[0])) >= _time(other)
    raise AssertionError(f"a restriction that this server does not know: {kind}")


def _time(value: str | None) -> datetime:
    return datetime.fromisoformat(value or "1601-01-01T00:00:00Z")


def _value(item: Item, path: Element) -> str | None:
    if name_of(path) == "ExtendedFieldURI":
        return item.properties.get(property_of(path), ("", None))[1]
    match path.get("FieldURI"):
        case "item:ItemClass":
            return item.item_class
        case "item:DateTimeReceived":
            return moment(item.received)
        case "message:IsRead":
            return "1" if item.is_read else "0"
        case "message:InternetMessageId":
            return item.message_id
    raise AssertionError(f"a field that this server does not know: {path.get('FieldURI')}")


# --- what is told


def item_xml(item: Item, uris: Iterable[str], named: Iterable[tuple[Property, str]]) -> str:
    """An item with these properties, in the order of the schema."""
    asked = set(uris)
    shown: dict[str, Callable[[], str]] = {
        "item:MimeContent": lambda: (
            f'<t:MimeContent CharacterSet="UTF-8">{base64.b64encode(item.raw).decode()}</t:MimeContent>'
        ),
        "": item.item_id,
        "item:ItemClass": lambda: f"<t:ItemClass>{item.item_class}</t:ItemClass>",
        "item:Subject": lambda: f"<t:Subject>{_text(item.headers['Subject'])}</t:Subject>",
        "item:DateTimeReceived": lambda: f"<t:DateTimeReceived>{moment(item.received)}</t:DateTimeReceived>",
        "item:Size": lambda: f"<t:Size>{item.size or len(item.raw)}</t:Size>",
        "item:InternetMessageHeaders": lambda: _headers(item),
        "extended": lambda: "".join(_extended(item, *one) for one in named),
        "message:Sender": lambda: _mailbox("Sender", item.sender or str(item.headers["From"])),
        "message:From": lambda: _mailbox("From", str(item.headers["From"])),
        "message:InternetMessageId": lambda: _message_id(item),
        "message:IsRead": lambda: f"<t:IsRead>{'true' if item.is_read else 'false'}</t:IsRead>",
    }
    unknown = asked - shown.keys()
    assert not unknown, f"fields that this server does not know: {unknown}"
    inside = "".join(
        item.garbled[uri] if uri in item.garbled else tell()
        for uri, tell in shown.items()
        if uri in asked or uri in ("", "extended")
    )
    return f"<t:{item.tag}>{inside}</t:{item.tag}>"


def _message_id(item: Item) -> str:
    found = item.message_id
    return f"<t:InternetMessageId>{escape(found)}</t:InternetMessageId>" if found else ""


def _headers(item: Item) -> str:
    headers: list[tuple[str, str]] = item.headers.items()
    told = (
        f"<t:InternetMessageHeader HeaderName={quoteattr(name)}>{_text(value)}</t:InternetMessageHeader>"
        for name, value in headers
    )
    return f"<t:InternetMessageHeaders>{''.join(told)}</t:InternetMessageHeaders>"


def _mailbox(tag: str, header: str) -> str:
    name, address = parseaddr(header)
    return (
        f"<t:{tag}><t:Mailbox><t:Name>{_text(name or address)}</t:Name>"
        f"<t:EmailAddress>{_text(address)}</t:EmailAddress><t:RoutingType>SMTP</t:RoutingType></t:Mailbox></t:{tag}>"
    )


def _extended(item: Item, asked: Property, kind: str) -> str:
    if asked not in item.properties:
        return ""
    value = escape(item.properties[asked][1])
    return (
        f'<t:ExtendedProperty><t:ExtendedFieldURI PropertySetId="{asked[0]}" PropertyName="{asked[1]}"'
        f' PropertyType="{kind}"/><t:Value>{value}</t:Value></t:ExtendedProperty>'
    )


def _text(value: object) -> str:
    whole = "" if value is None else " ".join(str(value).split())
    return escape("".join(char for char in whole if char.isprintable()))
