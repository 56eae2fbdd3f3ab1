"""What WeCom tells a self-built application, as our events. Everything here is pure.

The vendor's pages: messages developer.work.weixin.qq.com/document/path/90239, events .../90240. Applications hear
people one by one: WeCom tells them nothing that is said in a group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import ParseError, TreeBuilder

from defusedxml.ElementTree import XMLParser

from parley.errors import BadSignature
from parley.messages import Action, Event, Message, Route, Sender, derived_id

_MOST_TAGS = 200
_DEEPEST = 16
_LATEST = 32_503_680_000  # the year 3000: what is later is no time of a message
_MEDIA = {"image": ".jpg", "voice": ".amr", "video": ".mp4", "file": ""}
_PRESSED = {"template_card_event", "template_card_menu_event"}
_KEY = re.compile(r"p(\d{1,4}):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Media:
    """A file that comes with a message, to be fetched by its id; `name` is for when WeCom says none."""

    id: str
    name: str


class _Shallow(TreeBuilder):
    """Ends the reading of what is deeper than anything that WeCom sends: a tree costs more than its text."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("too deep")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Any:
        self._depth -= 1
        return super().end(tag)


def fields(xml: bytes | str) -> dict[str, str]:
    """The texts of the outermost elements; what has no text counts as empty. Raises `BadSignature` for other XML."""
    parser = XMLParser(target=_Shallow(), forbid_dtd=True)
    try:
        parser.feed(xml)
        root = parser.close()
    except (ParseError, ValueError, LookupError):
        raise BadSignature("The request is not the XML that WeCom sends.") from None
    if len(root) > _MOST_TAGS:
        raise BadSignature("The request is not the XML that WeCom sends.")
    found: dict[str, str] = {}
    for child in root:
        found.setdefault(child.tag, child.text or "")  # of two with one name only the first is read
    return found


def parse(said: Mapping[str, str], account: str) -> Event | None:
    """What somebody said or pressed; None for what needs no answer. Files are not fetched here."""
    person = said.get("FromUserName", "").strip()
    if not 0 < len(person) <= 64:  # a user id has at most 64 bytes, says the vendor
        return None
    if said.get("MsgType") == "event":
        return _event(said, account, person)
    return Message(
        account=account,
        native_id=_message_id(said, person),
        sender=Sender(id=person),
        route=Route(account=account, conversation=person),
        sent_at=_moment(said),
        text=_text(said),
        left_out=_unreadable(said),
    )


def media_of(said: Mapping[str, str]) -> Media | None:
    """The file that comes with a message, if there is one."""
    suffix = _MEDIA.get(said.get("MsgType", ""))
    id_ = said.get("MediaId", "").strip()
    if suffix is None or not 0 < len(id_) <= 512:
        return None
    name = bare_name(said.get("FileName", "")) or f"{said['MsgType']}-{said.get('MsgId', '')[:32]}{suffix}"
    return Media(id_, bare_name(name))


def bare_name(name: str) -> str:
    """A file name without a path or characters that do not show, or nothing."""
    name = "".join(char for char in name.replace("\\", "/") if char.isprintable())
    bare = PurePosixPath(name).name.strip()[:255]
    return bare if bare.strip(". ") else ""


def button_key(label: str, value: str) -> str:
    """The key of a button: what it sends back and how it is called, so that the card can show what was pressed."""
    key = f"p{len(value)}:{value}{label}"
    # Keys have at most 1024 bytes. What is cut off is only shown.
    return key.encode("utf-8", "replace")[:1024].decode("utf-8", "ignore")


def pressed(key: str) -> tuple[str, str]:
    """Value and label of the button with this key; of a key that is not ours, the key as both."""
    found = _KEY.fullmatch(key)
    if found is None or int(found[1]) > len(found[2]):
        return key, key
    at = int(found[1])
    return found[2][:at], found[2][at:] or found[2][:at]


def _event(said: Mapping[str, str], account: str, person: str) -> Event | None:
    kind, key = said.get("Event", "").lower(), said.get("EventKey", "").strip()
    base = {
        "account": account,
        "native_id": derived_id(
            person, said.get("CreateTime", ""), kind, said.get("EventKey", ""), said.get("TaskId", "")
        ),
        "sender": Sender(id=person),
        "route": Route(account=account, conversation=person),
        "sent_at": _moment(said),
    }
    if kind in _PRESSED:
        value = pressed(key)[0]
        return (
            Action(**base, value=value, target=said.get("TaskId") or None) if 0 < len(value) <= 2000 else None
        )
    # An entry of the application's menu is a command that need not be typed: its key is the command.
    return Message(**base, text=key) if kind == "click" and key else None


def _message_id(said: Mapping[str, str], person: str) -> str:
    id_ = said.get("MsgId", "").strip()
    if 0 < len(id_) <= 64:
        return id_
    return derived_id(person, *(said.get(tag, "") for tag in ("CreateTime", "MsgType", "Content", "MediaId")))


def _moment(said: Mapping[str, str]) -> datetime:
    seconds = said.get("CreateTime", "").strip()
    known = seconds.isascii() and seconds.isdigit() and len(seconds) < 12 and 0 < int(seconds) < _LATEST
    return datetime.fromtimestamp(int(seconds), UTC) if known else datetime.now(UTC)


def _text(said: Mapping[str, str]) -> str:
    match said.get("MsgType"):
        case "text":
            return said.get("Content", "")
        case "location":
            place = f"{said.get('Location_X', '')}, {said.get('Location_Y', '')}"
            return f"{said.get('Label', '')} ({place})".strip()
        case "link":
            parts = (said.get(tag, "").strip() for tag in ("Title", "Description", "Url"))
            return "\n".join(part for part in parts if part)
        case _:
            return ""


def _unreadable(said: Mapping[str, str]) -> tuple[str, ...]:
    kind = said.get("MsgType", "")[:64]
    if kind in {"text", "location", "link"} or media_of(said) is not None:
        return ()
    return (f"{kind or 'message'}: WeCom does not hand this kind over",)
