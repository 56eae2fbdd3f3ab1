"""What a WeCom bot is told, read: frames to events, the files they point to, their encryption undone. Pure.

Field names are those of the vendor's page on long connections (developer.work.weixin.qq.com/document/path/101463) and
of its two SDKs. Where a button's key is said differently (the SDK's types say `event.event_key`, the server sends
`event.template_card_event.event_key`), both are read.
"""

from __future__ import annotations

import base64
import binascii
import logging
import mimetypes
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote

from pydantic import ValidationError

from connectors._file_names import bare_name
from connectors._json import Json, object_of, objects_of, text_of
from parley.messages import Action, ConversationKind, Event, File, Message, Route, Sender, derived_id

CALLBACK, EVENT_CALLBACK = "aibot_msg_callback", "aibot_event_callback"
MEDIA = ("image", "file", "video")
MAX_MEDIA = 10  # files of one message that are read

log = logging.getLogger(__name__)

_KEY = re.compile(r"\d:")
_MENTION = re.compile(r"\s*@\S+(?:\s+|$)")
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class Media:
    """A file of a message: where it lies, encrypted, for five minutes."""

    kind: str
    url: str = field(repr=False)
    key: str = field(repr=False)
    name: str = ""


def parse(
    frame: Json,
    account: str,
    *,
    bot_name: str = "",
    files: tuple[File, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Event | None:
    """The event in one frame: what somebody wrote, a button that was pressed; None for all else. Never raises.

    `files` and `left_out` are those of `media_of`, read beforehand. In a group the mention of the bot, called
    `bot_name` if that is known, is taken off.
    """
    body = object_of(frame.get("body"))
    try:
        if frame.get("cmd") == CALLBACK:
            return _message(frame, body, account, bot_name, files, left_out)
        if frame.get("cmd") == EVENT_CALLBACK and event_type(frame) == "template_card_event":
            return _action(body, account)
    except ValidationError:
        log.warning("A frame from WeCom does not fit a message and was left out.")
    return None


def event_type(frame: Json) -> str:
    """What kind of event a frame reports; empty for a message."""
    if frame.get("cmd") != EVENT_CALLBACK:
        return ""
    return text_of(object_of(object_of(frame.get("body")).get("event")).get("eventtype"))


def card_event(frame: Json) -> tuple[str, str]:
    """The card's task id, and the key of the button that was pressed."""
    event = object_of(object_of(frame.get("body")).get("event"))
    card = object_of(event.get("template_card_event"))
    return (
        text_of(card.get("task_id")) or text_of(event.get("task_id")),
        text_of(card.get("event_key")) or text_of(event.get("event_key")),
    )


def user_of(frame: Json) -> str:
    """Who did it."""
    return text_of(object_of(object_of(frame.get("body")).get("from")).get("userid"))


def req_id_of(frame: Json) -> str:
    """The id that an answer to this frame carries."""
    return text_of(object_of(frame.get("headers")).get("req_id"))


def media_of(frame: Json) -> tuple[Media, ...]:
    """The files of a message, and of the message that it quotes."""
    body = object_of(frame.get("body"))
    if frame.get("cmd") != CALLBACK:
        return ()
    return (*_media(body), *_media(object_of(body.get("quote"))))[:MAX_MEDIA]


def decrypt(content: bytes, key: str) -> bytes:
    """The file inside: AES-256-CBC, the IV is the key's beginning, padded to 32 bytes. Raises `ValueError`."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    try:
        secret = base64.b64decode(key + "=" * (-len(key) % 4), validate=True)
    except binascii.Error:
        raise ValueError("its key cannot be read") from None
    if len(secret) != 32 or not content or len(content) % 16:
        raise ValueError("it is not encrypted as it should be")
    opener = Cipher(algorithms.AES(secret), modes.CBC(secret[:16])).decryptor()
    plain = opener.update(content) + opener.finalize()
    padding = plain[-1]
    if not 1 <= padding <= 32 or plain[-padding:] != bytes([padding]) * padding:
        raise ValueError("it is damaged")
    return plain[:-padding]


def name_of(disposition: str, media: Media, content: bytes) -> tuple[str, str]:
    """A file's bare name and media type, by its header, its message, or what it is."""
    name = bare(_disposed(disposition) or media.name)
    sniffed = next((kind for magic, kind in _MAGIC if content.startswith(magic)), "")
    if not name:
        name = media.kind + (mimetypes.guess_extension(sniffed) or "")
    return name, mimetypes.guess_type(name)[0] or sniffed or "application/octet-stream"


def bare(name: str) -> str:
    """A file's bare name; nothing where none is left."""
    return bare_name(text_of(name), "")


def _message(
    frame: Json,
    body: Json,
    account: str,
    bot_name: str,
    files: tuple[File, ...],
    left_out: tuple[str, ...],
) -> Message | None:
    sender = text_of(object_of(body.get("from")).get("userid"))
    kind = text_of(body.get("msgtype"))
    if not sender or kind not in {"text", "voice", "mixed", *MEDIA}:
        return None
    route = _route(body, account, sender, req_id_of(frame))
    text = _text(body)
    if route.kind is ConversationKind.GROUP:
        text = _without_mention(text, bot_name)
    return Message(
        account=account,
        native_id=text_of(body.get("msgid")) or _derived(body, sender, text),
        sender=Sender(id=sender),
        route=route,
        sent_at=_moment(body.get("create_time")),
        text=text,
        files=files,
        left_out=left_out,
    )


def _action(body: Json, account: str) -> Action | None:
    frame = {"cmd": EVENT_CALLBACK, "body": body}
    (task, key), sender = card_event(frame), user_of(frame)
    value = _KEY.sub("", key, count=1) if _KEY.match(key) else key
    if not (sender and value):
        return None
    return Action(
        account=account,
        native_id=text_of(body.get("msgid")) or _derived(body, sender, task, key),
        sender=Sender(id=sender),
        # An event's id answers no message: what follows from a press is pushed into the conversation.
        route=_route(body, account, sender, ""),
        sent_at=_moment(body.get("create_time")),
        value=value,
        target=task or None,
    )


def _route(body: Json, account: str, sender: str, req_id: str) -> Route:
    group = body.get("chattype") == "group" or (body.get("chattype") is None and bool(body.get("chatid")))
    context = {"req_id": req_id} if req_id else {}
    if group:
        chat = text_of(body.get("chatid"))
        return Route(account=account, conversation=chat, kind=ConversationKind.GROUP, context=context)
    return Route(account=account, conversation=sender, context=context)


def _text(body: Json) -> str:
    kind = text_of(body.get("msgtype"))
    if kind == "mixed":
        said = (object_of(item.get("text")).get("content") for item in _items(body))
        return "\n".join(text for text in map(text_of, said) if text)
    return text_of(object_of(body.get(kind)).get("content"))


def _without_mention(text: str, bot_name: str) -> str:
    start = text.lstrip()
    if bot_name and start.startswith(f"@{bot_name}"):
        return start[len(bot_name) + 1 :].lstrip()
    found = _MENTION.match(text)
    return text[found.end() :] if found else text


def _media(body: Json) -> Iterator[Media]:
    kind = text_of(body.get("msgtype"))
    if kind in MEDIA:
        yield from _one(kind, body)
    elif kind == "mixed":
        for item in _items(body):
            if text_of(item.get("msgtype")) in MEDIA:
                yield from _one(text_of(item.get("msgtype")), item)


def _one(kind: str, holder: Json) -> Iterator[Media]:
    about = object_of(holder.get(kind))
    url, name = text_of(about.get("url")), text_of(about.get("filename")) or text_of(about.get("name"))
    if url:
        yield Media(kind=kind, url=url, key=text_of(about.get("aeskey")), name=name)


def _items(body: Json) -> Iterable[Json]:
    return objects_of(object_of(body.get("mixed")).get("msg_item"))


def _derived(body: Json, *parts: str) -> str:
    about = (text_of(body.get("aibotid")), text_of(body.get("chatid")), str(body.get("create_time")))
    return derived_id(*about, *parts)


def _moment(value: object) -> datetime:
    if isinstance(value, int) and 0 < value < 4_102_444_800:
        return datetime.fromtimestamp(value, UTC)
    return datetime.now(UTC)


def _disposed(header: str) -> str:
    extended = re.search(r"filename\*=UTF-8''([^;\s]+)", header, re.IGNORECASE)
    if extended:
        return unquote(extended[1])
    plain = re.search(r'filename="([^"]*)"|filename=([^";\s]+)', header, re.IGNORECASE)
    return unquote(plain[1] or plain[2] or "") if plain else ""
