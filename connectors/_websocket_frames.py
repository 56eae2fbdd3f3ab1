"""Frames of a service that speaks its own JSON, or plain text: where things stand in them, how answers are put. Pure.

A path names a value in a JSON object: `data.text`, `items.0.id`. A condition is a path and the value that must stand
there: `type=message`. A template is JSON whose strings hold placeholders: they are filled in as values, then all of it
is written as JSON, so that nothing that is said can change the frame's form.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal
from uuid import uuid4

from pydantic import ValidationError

from connectors._json import Json, loaded, storable, text_of
from connectors._websocket_line import Raw
from parley.errors import ConfigurationError, Rejected, Unsupported
from parley.messages import Assurance, ConversationKind, Message, Reply, Route, Sender

SERVICE = "service"
"""Who speaks where no sender is named: the service itself, in a conversation with us alone."""

MAX_TEMPLATE = 20_000
_LONGEST_PERSON = 512

Frame = Raw | Json
"""A frame as it came, or the JSON object in it: what was read once is not read again."""

log = logging.getLogger(__name__)

_PATH = re.compile(r"[^\s.=]+(\.[^\s.=]+)*")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_ENCODER = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the service speaks. Paths, conditions and templates as this module's text has them; empty: there is none.

    `message_when` tells a message from other frames; `answer` is where the answer to a reply of ours repeats its
    `{token}`, `answer_id` where it names the service's own id, `answer_error` and `answer_wait` (seconds) why it was
    not taken. Placeholders of `login`: secret; of `reply`: text, room, thread, sender, reply_to, token; of `ack`: id,
    room.
    """

    frames: Literal["json", "text"] = "json"
    login: str = ""
    login_ok: str = ""
    login_refused: str = ""
    message_when: str = ""
    id: str = "id"
    sender: str = "sender"
    name: str = ""
    room: str = ""
    thread: str = ""
    text: str = "text"
    own_id: str = ""
    mention: str = ""
    reply: str = '{"text": "{text}", "room": "{room}"}'
    ack: str = ""
    answer: str = ""
    answer_id: str = ""
    answer_error: str = ""
    answer_wait: str = ""

    def __post_init__(self) -> None:
        """Check all of it. Raises `ConfigurationError`, which names the field."""
        conditions = _CONDITIONS if self.frames == "json" else {"message_when", "answer_error"}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _PATHS and value and not _PATH.fullmatch(value):
                raise ConfigurationError(f"{field.name} is no path like data.text.")
            if field.name in conditions and value and not _PATH.fullmatch(value.partition("=")[0]):
                raise ConfigurationError(f"{field.name} is no condition like type=message.")
        if self.frames == "json":
            for name, known in _TEMPLATES.items():
                _checked(name, getattr(self, name), known)
        elif self.ack or self.answer:
            raise ConfigurationError("Text frames have no ids: leave ack and answer empty.")
        if self.ack and not self.id:
            raise ConfigurationError("ack needs id: the path of what is acknowledged.")
        if self.answer and "{token}" not in self.reply:
            raise ConfigurationError("answer needs {token} in reply: the service repeats it there.")
        if self.frames == "json" and "{text}" not in self.reply:
            raise ConfigurationError("reply needs {text}.")


_PATHS = {"id", "sender", "name", "room", "thread", "text", "answer", "answer_id", "answer_wait"}
_CONDITIONS = {"login_ok", "login_refused", "message_when", "answer_error"}
_TEMPLATES = {
    "login": {"secret"},
    "reply": {"text", "room", "thread", "sender", "reply_to", "token"},
    "ack": {"id", "room"},
}


def parse(frame: Frame, protocol: Protocol, account: str, *, trusted: bool = False) -> Message | None:
    """What somebody wrote, in one frame; None for all else. Never raises.

    A frame without an id gets a new one: said twice, it is two messages. `trusted`: the service vouches for senders.
    """
    assurance = Assurance.VERIFIED if trusted else Assurance.CLAIMED
    try:
        if protocol.frames == "text":
            return _plain(frame, account, assurance)
        data = object_in(frame)
        if not data or not holds(data, protocol.message_when):
            return None
        return _message(data, protocol, account, assurance)
    except ValidationError:
        log.warning("A frame does not fit a message and was left out.")
        return None


def render(reply: Reply, route: Route, protocol: Protocol, token: str) -> str:
    """The frame of a reply. Raises `Rejected` and `Unsupported`."""
    if reply.table is not None or reply.buttons or reply.files:
        raise Unsupported("Frames hold text alone: render the reply down first.")
    if (reply.private or route.private_to) and route.kind is not ConversationKind.DIRECT:
        raise Unsupported("In a room everybody reads along.")
    if not reply.text.strip():
        raise Rejected("There is nothing to send.")
    if protocol.frames == "text":
        return reply.text
    return filled(
        protocol.reply,
        {
            "text": reply.text,
            "room": route.conversation,
            "thread": route.thread,
            "sender": route.context.get("sender"),
            "reply_to": route.reply_to,
            "token": token,
        },
    )


def login_frame(protocol: Protocol, secret: str) -> str:
    """The line that logs in: JSON filled in as such, anything else as text."""
    if isinstance(_parsed(protocol.login), dict | list):
        return filled(protocol.login, {"secret": secret})
    return protocol.login.replace("{secret}", secret)


def read(raw: Raw, protocol: Protocol) -> Frame:
    """A frame, read if it is JSON by this protocol."""
    return raw if protocol.frames == "text" else loaded(raw)


def object_in(frame: Frame) -> Json:
    """The JSON object in a frame; empty for all else."""
    return loaded(frame) if isinstance(frame, str | bytes) else frame


def ack_frame(protocol: Protocol, frame: Frame) -> str:
    """The line that acknowledges a frame; empty where there is none."""
    found = value_at(object_in(frame), protocol.id) if protocol.ack else None
    if not _named(found):
        return ""
    return filled(protocol.ack, {"id": found, "room": value_at(object_in(frame), protocol.room)})


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A template with its placeholders filled in, as JSON. A string that is one placeholder becomes its value."""
    return "".join([_put(piece, values) if at % 2 else piece for at, piece in enumerate(_pieces(template))])


@lru_cache(maxsize=256)
def _pieces(template: str) -> tuple[str, ...]:
    """A template as JSON, taken apart: by turns what stands as it is, and a string with placeholders."""
    pieces = [""]
    _take_apart(json.loads(template), pieces)
    return tuple(pieces)


def _take_apart(part: Any, pieces: list[str]) -> None:
    if isinstance(part, str) and _PLACEHOLDER.search(part):
        pieces += [part, ""]
    elif isinstance(part, dict):
        for at, (key, value) in enumerate(part.items()):
            pieces[-1] += f"{', ' if at else '{'}{_ENCODER.encode(key)}: "
            _take_apart(value, pieces)
        pieces[-1] += "}" if part else "{}"
    elif isinstance(part, list):
        for at, value in enumerate(part):
            pieces[-1] += ", " if at else "["
            _take_apart(value, pieces)
        pieces[-1] += "]" if part else "[]"
    else:
        pieces[-1] += _ENCODER.encode(part)


def _put(part: str, values: Mapping[str, Any]) -> str:
    """A string with its placeholders filled in, as JSON."""
    name = part[1:-1]
    if name in values and part == f"{{{name}}}":
        return _ENCODER.encode(values[name])
    return _ENCODER.encode(_PLACEHOLDER.sub(lambda found: _shown(found, values), part))


def value_at(data: Any, path: str) -> Any:
    """What stands at a path; None where nothing does."""
    if not path:
        return None
    for step in _steps(path):
        if isinstance(data, dict):
            data = data.get(step)
        elif (
            isinstance(data, list)
            and step.isascii()
            and step.isdigit()
            and len(step) < 7
            and int(step) < len(data)
        ):
            data = data[int(step)]
        else:
            return None
    return data


@lru_cache(maxsize=256)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def holds(data: Json, condition: str) -> bool:
    """Whether a condition is true of a frame; an empty one always is. Without a value: whether something is there."""
    path, given, wanted = condition.partition("=")
    if not path:
        return True
    found = value_at(data, path)
    if not given:
        return found not in (None, False, "", 0)
    return (found if isinstance(found, str) else json.dumps(found)) == wanted


def answers_login(frame: Frame, condition: str, protocol: Protocol) -> bool:
    """Whether a frame is the answer to a login that this condition describes; of text frames, all of the text."""
    if not condition:
        return False
    if protocol.frames == "text":
        return _text_in(frame).strip() == condition
    return holds(object_in(frame), condition)


def mentions(frame: Frame, protocol: Protocol) -> bool:
    """Whether a frame's text is for us: it holds our mention as a word, or is a command."""
    text = text_of(value_at(object_in(frame), protocol.text))
    return text.lstrip().startswith("/") or bool(
        protocol.mention and re.search(rf"(?<!\w){re.escape(protocol.mention)}(?!\w)", text)
    )


def key_of(value: object) -> str:
    """An id as text: services number things, too."""
    if isinstance(value, str):
        return storable(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _text_in(frame: Frame) -> str:
    if isinstance(frame, bytes):
        return frame.decode("utf-8", "replace")
    return frame if isinstance(frame, str) else ""


def _plain(frame: Frame, account: str, assurance: Assurance) -> Message | None:
    text = text_of(_text_in(frame))
    if not text.strip():
        return None
    return Message(
        account=account,
        native_id=f"frame:{uuid4().hex}",
        sender=Sender(id=SERVICE, assurance=assurance),
        route=Route(account=account, conversation=SERVICE),
        text=text,
    )


def _message(data: Json, protocol: Protocol, account: str, assurance: Assurance) -> Message | None:
    sender = key_of(value_at(data, protocol.sender)) if protocol.sender else SERVICE
    text = value_at(data, protocol.text)
    if not sender or not isinstance(text, str) or (protocol.own_id and sender == protocol.own_id):
        return None
    room, native_id = key_of(value_at(data, protocol.room)), key_of(value_at(data, protocol.id))
    kind = ConversationKind.GROUP if room and room != sender else ConversationKind.DIRECT
    return Message(
        account=account,
        native_id=native_id or f"frame:{uuid4().hex}",
        sender=_sender(_person(sender, protocol), text_of(value_at(data, protocol.name))[:200], assurance),
        route=Route(
            account=account,
            conversation=room or sender,
            kind=kind,
            thread=key_of(value_at(data, protocol.thread)) or None,
            reply_to=native_id or None,
            context={"sender": sender},
        ),
        text=_without_mention(text_of(text), protocol.mention),
    )


def _sender(id_: str, name: str, assurance: Assurance) -> Sender:
    """The sender, made once for all that they say: it is frozen. Raises `ValidationError` for a longer id."""
    return _known(id_[: _LONGEST_PERSON + 1], name, assurance)


@lru_cache(maxsize=1000)
def _known(id_: str, name: str, assurance: Assurance) -> Sender:
    return Sender(id=id_, name=name, assurance=assurance)


def _person(sender: str, protocol: Protocol) -> str:
    # Somebody there may call themselves what stands for the service itself, which may have rights of its own.
    return f"person:{sender}" if protocol.sender and sender == SERVICE else sender


def _without_mention(text: str, mention: str) -> str:
    if not mention or mention not in text:
        return text
    return re.sub(rf"^\s*{re.escape(mention)}(?!\w)[\s:,，：]*", "", text)


def _named(value: object) -> bool:
    return bool(key_of(value))


def _shown(found: re.Match[str], values: Mapping[str, Any]) -> str:
    if found[1] not in values:
        return found[0]
    value = values[found[1]]
    return "" if value is None else str(value)


def _checked(name: str, template: str, known: set[str]) -> None:
    if not template:
        return
    found = _parsed(template)
    if len(template) > MAX_TEMPLATE or (found is None and name != "login"):
        raise ConfigurationError(
            f'{name} is no JSON: write the frame as it goes out, like {{"text": "{{text}}"}}.'
        )
    for placeholder in _placeholders(found):
        if placeholder not in known:
            raise ConfigurationError(f"{name} knows {', '.join(sorted(known))}, not {placeholder}.")


def _parsed(template: str) -> Any:
    try:
        return json.loads(template)
    except (ValueError, RecursionError):
        return None


def _placeholders(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for value in part.values():
            yield from _placeholders(value)
    elif isinstance(part, list):
        for value in part:
            yield from _placeholders(value)
    elif isinstance(part, str):
        yield from _PLACEHOLDER.findall(part)
