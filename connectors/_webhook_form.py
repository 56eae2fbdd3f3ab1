"""The JSON of the generic webhook, in and out. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal

from pydantic_core import to_json

from connectors._hook_json import Json, Unreadable, object_of, small, text_of, url_of
from connectors._hook_source import scope, sender
from connectors._hook_text import shortened
from parley.errors import Rejected, Unsupported
from parley.messages import File, Message, Notice, Reply, Route
from parley.messages.model import TOPIC, ConversationKind, now

MAX_FILES = 10
MAX_DATA = 64 * 1024
"""Bytes that a notice's `data` may have as JSON."""

_TOPIC = re.compile(TOPIC)
_LONGEST_TEXT = 20_000
_LONGEST_NAME = 500
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,100}")
_SEVERITIES = ("info", "warning", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """To which account a call goes, who calls, and whether it may ask as well as tell."""

    account: str
    service: str
    speaks: bool


def parse(body: Json, spoken: Spoken, native_id: str) -> Notice | Message:
    """A notice, or what the service asks. Raises `Unreadable`, which says what is wrong with the body."""
    if "type" not in body and "text" in body:
        if not spoken.speaks:
            raise Unreadable("This account takes no commands: give `type`, or set `speaks` at the account.")
        return _message(body, spoken, native_id)
    return _notice(body, spoken, native_id)


def _notice(body: Json, spoken: Spoken, native_id: str) -> Notice:
    topic = _text(body, "type", 200).lower()
    if not _TOPIC.fullmatch(topic):
        raise Unreadable("`type` must be words of a-z, 0-9, _ and - with dots between them, as order.late.")
    severity = _text(body, "severity", 20) or "info"
    closes, data, url = body.get("closes", False), body.get("data", {}), _text(body, "url", 2000)
    if severity not in _SEVERITIES:
        raise Unreadable(f"`severity` must be one of {', '.join(_SEVERITIES)}.")
    if not isinstance(closes, bool):
        raise Unreadable("`closes` must be true or false.")
    if data is not None and not isinstance(data, dict):
        raise Unreadable("`data` must be an object.")
    if url and not url_of(url):
        raise Unreadable("`url` must begin with https:// or http://.")
    text = _text(body, "text", _LONGEST_TEXT)
    title = (
        _text(body, "title", _LONGEST_NAME).strip()
        or shortened(text.strip().partition("\n")[0], 200)
        or topic
    )
    return Notice(
        account=spoken.account,
        native_id=native_id,
        sender=sender(spoken.service),
        route=scope(spoken.account, _text(body, "conversation", _LONGEST_NAME) or spoken.service),
        topic=topic,
        title=title,
        text=text,
        url=url,
        key=_text(body, "key", _LONGEST_NAME),
        closes=closes,
        severity="critical" if severity == "critical" else "warning" if severity == "warning" else "info",
        data=small(object_of(data), MAX_DATA),
    )


def _message(body: Json, spoken: Spoken, native_id: str) -> Message:
    text = _text(body, "text", _LONGEST_TEXT)
    if not text.strip():
        raise Unreadable("`text` is empty.")
    conversation = _text(body, "conversation", _LONGEST_NAME) or spoken.service
    return Message(
        account=spoken.account,
        native_id=native_id,
        sender=sender(spoken.service),
        route=Route(
            account=spoken.account,
            conversation=conversation,
            # Nobody but the program itself reads there.
            kind=ConversationKind.DIRECT,
            thread=_text(body, "thread", _LONGEST_NAME) or None,
            reply_to=native_id,
        ),
        text=text,
        files=_files(body.get("files", [])),
    )


def _files(value: object) -> tuple[File, ...]:
    if not isinstance(value, list) or len(value) > MAX_FILES:
        raise Unreadable(f"`files` must be a list of at most {MAX_FILES}.")
    return tuple(_file(object_of(item)) for item in value)


def _file(about: Json) -> File:
    name, kind = _text(about, "name", 255), _text(about, "media_type", 200) or "application/octet-stream"
    if not name or "/" in name or "\\" in name or name in (".", "..") or not _MEDIA_TYPE.fullmatch(kind):
        raise Unreadable("A file needs a bare `name` and a `media_type`.")
    try:
        content = base64.b64decode(about.get("content", ""), validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Unreadable("A file's `content` must be base64.") from None
    return File(name=name, media_type=kind, content=content)


def _text(body: Json, name: str, limit: int) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Unreadable(f"`{name}` must be a text.")
    if value and len(value) > limit:
        raise Unreadable(f"`{name}` has {len(value):,} characters; {limit:,} are taken.")
    return text_of(value, limit)


def render(reply: Reply, route: Route, kind: Literal["message", "message.edited"], message_id: str) -> bytes:
    """A reply as the body of a call. Raises `Rejected` for nothing at all, `Unsupported` for tables and buttons."""
    if reply.is_empty():
        raise Rejected("There is nothing to send.")
    if reply.table is not None or reply.buttons:
        raise Unsupported("A webhook carries text and files: render the reply down first.")
    if (reply.private or route.private_to) and route.kind is not ConversationKind.DIRECT:
        raise Unsupported("A webhook cannot show anything to one person alone.")
    files = [
        {
            "name": file.name,
            "media_type": file.media_type,
            "content": base64.b64encode(file.content).decode(),
        }
        for file in reply.files
    ]
    return to_json(
        {
            "type": kind,
            "timestamp": now(),
            "data": {
                "id": message_id,
                "text": reply.text,
                "conversation": route.conversation,
                "thread": route.thread,
                "reply_to": route.reply_to,
                "files": files,
            },
        }
    )
