"""The operations that receiving is made of: exchangelib asks and names the errors, the answers are read here.

exchangelib reads an answer byte by byte and makes an object with a hundred fields of each item: several times the work
of all else that receiving does. It also stumbles over an item of a kind that it does not know, which would hold up all
that follow. Here the few elements that count are taken from its tree. Imported only when an account is used.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from exchangelib.services import GetItem, SyncFolderItems, UpdateItem
from exchangelib.services.common import EWSService
from exchangelib.util import TNS, DummyResponse, create_element

_T = f"{{{TNS}}}"
_CREATED = f"{_T}Create"
_PARTS = {f"{_T}From": "author", f"{_T}Sender": "sender"}

OUR_PROPERTIES = "2f6d7ad0-6d0c-4e0e-9a43-5b1f3a0c7e92"
"""The set that our properties are named in: any fixed GUID, so that nobody else's can be meant."""
TAKEN = "ParleyTaken"


@dataclass(frozen=True)
class Listed:
    """An item that came into the folder, as the list of changes tells of it."""

    id: str
    change_key: str
    item_class: str
    received: datetime | None
    size: int
    is_read: bool
    taken: str
    """What our property says."""


@dataclass(frozen=True)
class Read:
    """An item that was fetched; addresses in lower case, and only those that Exchange resolved to SMTP."""

    raw: bytes = b""
    item_class: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    author: str = ""
    sender: str = ""


class _Whole:
    @classmethod
    def _get_soap_parts(cls, response: Any) -> Any:
        return super()._get_soap_parts(DummyResponse(content=response.content))  # type: ignore[misc]


class Sync(_Whole, SyncFolderItems):  # type: ignore[misc]
    """SyncFolderItems: a `Listed` for each item that came, None for any other change."""

    def _get_element_container(self, message: Any, name: str | None = None) -> Any:
        if (
            message.get("ResponseClass") != "Success"
        ):  # then it need not have a state, which exchangelib looks for first
            return EWSService._get_element_container(self, message, name)  # noqa: SLF001 - past its subclass
        return super()._get_element_container(message=message, name=name)

    def _elem_to_obj(self, elem: Any) -> Listed | None:
        if elem.tag != _CREATED or not len(elem):
            return None
        item = elem[0]
        item_id = item.find(f"{_T}ItemId")
        if item_id is None or not item_id.get("Id"):
            return None
        return Listed(
            id=item_id.get("Id", ""),
            change_key=item_id.get("ChangeKey", ""),
            item_class=_text(item, "ItemClass"),
            received=_moment(_text(item, "DateTimeReceived")),
            size=_number(_text(item, "Size")),
            is_read=_text(item, "IsRead").lower() in ("true", "1"),
            taken=_taken(item),
        )


class Fetch(_Whole, GetItem):  # type: ignore[misc]
    """GetItem: a `Read` for each item."""

    def _elem_to_obj(self, elem: Any) -> Read:
        found: dict[str, Any] = {
            "item_class": _text(elem, "ItemClass"),
            "raw": _decoded(_text(elem, "MimeContent")),
        }
        headers = elem.find(f"{_T}InternetMessageHeaders")
        if headers is not None:
            found["headers"] = tuple((each.get("HeaderName", ""), each.text or "") for each in headers)
        for part in elem:
            if part.tag in _PARTS:
                found[_PARTS[part.tag]] = _address(part)
        return Read(**found)


class Mark(_Whole, UpdateItem):  # type: ignore[misc]
    """UpdateItem: sets our property. Takes pairs: an item, and what the property shall say."""

    def _change_elem(self, target: Listed, fieldnames: str) -> Any:
        change, updates, field = (
            create_element(f"t:{name}") for name in ("ItemChange", "Updates", "SetItemField")
        )
        key = {"ChangeKey": target.change_key} if target.change_key else {}
        change.append(create_element("t:ItemId", attrs={"Id": target.id} | key))
        message, extended, value = (
            create_element(f"t:{name}") for name in ("Message", "ExtendedProperty", "Value")
        )
        value.text = fieldnames
        extended.extend((_property(), value))
        message.append(extended)
        field.extend((_property(), message))
        updates.append(field)
        change.append(updates)
        return change

    def _changes_elem(self, target_changes: Any) -> Any:
        changes = create_element("m:ItemChanges")
        changes.extend(self._change_elem(target, said) for target, said in target_changes)
        return changes


def _property() -> Any:
    return create_element(
        "t:ExtendedFieldURI",
        attrs={"PropertySetId": OUR_PROPERTIES, "PropertyName": TAKEN, "PropertyType": "String"},
    )


def _taken(item: Any) -> str:
    for each in item.iterfind(f"{_T}ExtendedProperty"):
        uri = each.find(f"{_T}ExtendedFieldURI")
        if uri is not None and uri.get("PropertyName") == TAKEN:
            return _text(each, "Value")
    return ""


def _address(part: Any) -> str:
    mailbox = part.find(f"{_T}Mailbox")
    if mailbox is None or (_text(mailbox, "RoutingType") or "SMTP") != "SMTP":
        return ""
    return _text(mailbox, "EmailAddress").lower()


def _text(parent: Any, name: str) -> str:
    return parent.findtext(f"{_T}{name}") or ""


def _moment(said: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _number(said: str) -> int:
    return int(said) if said.isascii() and said.isdigit() and len(said) < 16 else 0


def _decoded(said: str) -> bytes:
    try:
        return base64.b64decode(said + "=" * (-len(said) % 4))
    except (binascii.Error, ValueError):
        return b""
