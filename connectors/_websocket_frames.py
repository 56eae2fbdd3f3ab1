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
from typing import Any, Literal
from uuid import uuid4

from pydantic import ValidationError

from connectors._websocket_line import Json, Raw, loaded, text_of
from parley.errors import ConfigurationError, Rejected, Unsupported
from parley.messages import Assurance, ConversationKind, Message, Reply, Route, Sender

SERVICE = "service"
"""Who speaks where no sender is named: the service itself, in a conversation with us alone."""

MAX_TEMPLATE = 20_000

log = logging.getLogger(__name__)

_PATH = re.compile(r"[^\s.=]+(\.[^\s.=]+)*")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


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


def parse(raw: Raw, protocol: Protocol, account: str, *, trusted: bool = False) -> Message | None:
    """What somebody wrote, in one frame; None for all else. Never raises.

    A frame without an id gets a new one: said twice, it is two messages. `trusted`: the service vouches for senders.
    """
    assurance = Assurance.VERIFIED if trusted else Assurance.CLAIMED
    try:
        if protocol.frames == "text":
            return _plain(raw, account, assurance)
        data = loaded(raw)
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


def ack_frame(protocol: Protocol, raw: Raw) -> str:
    """The line that acknowledges a frame; empty where there is none."""
    found = value_at(loaded(raw), protocol.id) if protocol.ack else None
    if not _named(found):
        return ""
    return filled(protocol.ack, {"id": found, "room": value_at(loaded(raw), protocol.room)})


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A template with its placeholders filled in, as JSON. A string that is one placeholder becomes its value."""
    return json.dumps(_fill(json.loads(template), values), ensure_ascii=False)


def value_at(data: Any, path: str) -> Any:
    """What stands at a path; None where nothing does."""
    if not path:
        return None
    for step in path.split("."):
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


def holds(data: Json, condition: str) -> bool:
    """Whether a condition is true of a frame; an empty one always is. Without a value: whether something is there."""
    path, given, wanted = condition.partition("=")
    if not path:
        return True
    found = value_at(data, path)
    if not given:
        return found not in (None, False, "", 0)
    return (found if isinstance(found, str) else json.dumps(found)) == wanted


def answers_login(raw: Raw, condition: str, protocol: Protocol) -> bool:
    """Whether a frame is the answer to a login that this condition describes; of text frames, all of the text."""
    if not condition:
        return False
    if protocol.frames == "text":
        return (raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw).strip() == condition
    return holds(loaded(raw), condition)


def mentions(raw: Raw, protocol: Protocol) -> bool:
    """Whether a frame's text is for us: it holds our mention as a word, or is a command."""
    text = text_of(value_at(loaded(raw), protocol.text))
    return text.lstrip().startswith("/") or bool(
        protocol.mention and re.search(rf"(?<!\w){re.escape(protocol.mention)}(?!\w)", text)
    )


def key_of(value: object) -> str:
    """An id as text: services number things, too."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return text_of(str(value))


def _plain(raw: Raw, account: str, assurance: Assurance) -> Message | None:
    text = text_of(raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw)
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
        sender=Sender(
            id=_person(sender, protocol),
            name=text_of(value_at(data, protocol.name))[:200],
            assurance=assurance,
        ),
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


def _person(sender: str, protocol: Protocol) -> str:
    # Somebody there may call themselves what stands for the service itself, which may have rights of its own.
    return f"person:{sender}" if protocol.sender and sender == SERVICE else sender


def _without_mention(text: str, mention: str) -> str:
    if not mention:
        return text
    return re.sub(rf"^\s*{re.escape(mention)}(?!\w)[\s:,，：]*", "", text)


def _named(value: object) -> bool:
    return bool(key_of(value))


def _fill(part: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(part, dict):
        return {key: _fill(value, values) for key, value in part.items()}
    if isinstance(part, list):
        return [_fill(value, values) for value in part]
    if not isinstance(part, str):
        return part
    whole = _PLACEHOLDER.fullmatch(part)
    if whole and whole[1] in values:
        return values[whole[1]]
    return _PLACEHOLDER.sub(lambda found: _shown(found, values), part)


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
