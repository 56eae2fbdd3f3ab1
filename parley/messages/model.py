"""What travels between a platform and the engine: events in, replies out.

Everything here is frozen, JSON-serialisable (bytes as base64) and free of I/O, so that it can cross a process
boundary and be stored as it is. Text markup is one neutral subset of CommonMark: `**bold**`, `*italic*`,
`` `code` ``, fenced code, `[links](https://...)`, `- lists`; a connector's `render` turns it into the platform's own.
"""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MAX_TEXT = 1_000_000
"""Longest text that is taken from a platform, in characters; a longer one is refused with a clear answer."""

MAX_FILE = 25 * 1024 * 1024
"""Largest file that is taken or sent, in bytes."""


TOPIC = r"^[a-z0-9_-]+(\.[a-z0-9_-]+)*$"
"""What a topic looks like: lower-case words with dots between them."""


_LENGTH = struct.Struct(">Q").pack


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


class Model(BaseModel):
    """Frozen, closed, and the same on both sides of a wire."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )


class ConversationKind(StrEnum):
    """What sort of place a conversation is; rights may depend on it."""

    DIRECT = "direct"
    GROUP = "group"
    CHANNEL = "channel"
    MAIL = "mail"


class Assurance(StrEnum):
    """How well the platform vouches for a sender's id.

    `verified`: the platform authenticated them. `claimed`: the sender says so (mail From, IRC nick, MQTT); such
    senders may only read.
    """

    VERIFIED = "verified"
    CLAIMED = "claimed"


class Sender(Model):
    """Who wrote. Only `id` counts for rights; `name` is for display and never trusted."""

    id: Annotated[str, Field(min_length=1, max_length=512)]
    name: str = ""
    assurance: Assurance = Assurance.VERIFIED
    is_bot: bool = False
    language: str | None = None


class Route(Model):
    """Where an answer goes; fixed when the message is received, compared again at each send.

    `context` is the connector's own return address (a service URL, a session webhook): opaque to the engine.
    `private_to` is the native id of the only person who may see it, where the platform has such answers.
    """

    account: Annotated[str, Field(min_length=1, max_length=128)]
    conversation: Annotated[str, Field(min_length=1, max_length=1024)]
    kind: ConversationKind = ConversationKind.DIRECT
    thread: str | None = None
    reply_to: str | None = None
    private_to: str | None = None
    context: dict[str, str] = Field(default_factory=dict)

    def same_place(self, other: Route) -> bool:
        """Whether both mean the same account, kind, conversation and thread."""
        return (self.account, self.kind, self.conversation, self.thread) == (
            other.account,
            other.kind,
            other.conversation,
            other.thread,
        )


class File(Model):
    """A file in a message or a reply. `name` is a bare file name, never a path."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    media_type: str = "application/octet-stream"
    content: Annotated[bytes, Field(max_length=MAX_FILE)]


class _Event(Model):
    """What every event from a platform has.

    `native_id` is the platform's own id of the event, stable over redeliveries: with `account` it is the key that
    makes a message run once. Where a platform has none, use `derived_id`.
    """

    account: Annotated[str, Field(min_length=1, max_length=128)]
    native_id: Annotated[str, Field(min_length=1, max_length=1024)]
    sender: Sender
    route: Route
    sent_at: AwareDatetime = Field(default_factory=now)


class Message(_Event):
    """Somebody wrote something to us.

    `automatic` marks machine-made mail and other bots: stored, never answered. `left_out` says what of it did not come
    with it, each a file's name and why: too large, or not to be had. `addressed` is false for what was said in a room
    to the others there: routes may carry it on, nothing of it is understood or answered.
    """

    type: Literal["message"] = "message"
    text: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    files: tuple[File, ...] = ()
    left_out: tuple[str, ...] = ()
    automatic: bool = False
    addressed: bool = True
    subject: str = ""


class Edit(_Event):
    """A message was changed after it was sent; `target` is the changed message's native id."""

    type: Literal["edit"] = "edit"
    target: str
    text: Annotated[str, Field(max_length=MAX_TEXT)] = ""


class Action(_Event):
    """A button was pressed, or its reply code typed. `value` is the button's `value`."""

    type: Literal["action"] = "action"
    value: Annotated[str, Field(min_length=1, max_length=2000)]
    target: str | None = None


class Notice(_Event):
    """Something happened at a service that calls us: published on the bus, never understood as a command.

    `topic` says what, as lower-case words with dots (`pull_request.opened`, `alert.firing`); on the bus the account's
    name stands before it. `key` names what it is about: notices with the same key share one thread, whose first message
    shows the newest `title` and is edited in place; without one a notice stands alone. `closes` ends what the key
    began. `text` (neutral markup) says what happened, `url` where to look. `data` is for filters and for parameters
    of automations: small JSON, its field names documented by the connector.
    """

    type: Literal["notice"] = "notice"
    topic: Annotated[str, Field(max_length=200, pattern=TOPIC)]
    title: Annotated[str, Field(min_length=1, max_length=500)]
    text: Annotated[str, Field(max_length=20_000)] = ""
    url: Annotated[str, Field(max_length=2000)] = ""
    key: Annotated[str, Field(max_length=500)] = ""
    closes: bool = False
    severity: Literal["info", "warning", "critical"] = "info"
    data: dict[str, Any] = Field(default_factory=dict)


Event = Annotated[Message | Edit | Action | Notice, Field(discriminator="type")]
"""What a connector hands to `accept`."""


class Button(Model):
    """A choice offered with a reply. `value` comes back in `Action.value`; `label` is what people see.

    `code` is what people may type instead where there are no buttons; the value itself where it is empty.
    """

    label: Annotated[str, Field(min_length=1, max_length=75)]
    value: Annotated[str, Field(min_length=1, max_length=255)]
    code: Annotated[str, Field(max_length=255)] = ""
    style: Literal["default", "primary", "danger"] = "default"


class Table(Model):
    """Rows with named columns; every cell is text already."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Reply(Model):
    """What a person is answered. Rendered down to what the platform can show before it is sent."""

    text: str = ""
    table: Table | None = None
    files: tuple[File, ...] = ()
    buttons: tuple[Button, ...] = ()
    private: bool = False

    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self.text or self.table or self.files or self.buttons)


class Capabilities(Model):
    """What a platform can do; what it lacks is rendered down.

    `max_text` counts in `text_unit` (`utf16`: code units); `max_file` in bytes (0: no files), `max_files` in one
    message; `max_buttons` 0: reply codes instead. `idempotent_send`: a second send with the same token does not arrive
    twice. `threads`: a reply whose `Route.thread` is the native id of a message of ours is shown under it. `sends` is
    false where we are only called, `receives` where we only send.
    """

    max_text: int = 4000
    text_unit: Literal["characters", "bytes", "utf16"] = "characters"
    markup: Literal["none", "markdown", "html", "own"] = "none"
    threads: bool = False
    edits: bool = False
    typing: bool = False
    private: bool = False
    max_buttons: int = 0
    max_file: int = 0
    max_files: int = 10
    idempotent_send: bool = False
    slash_commands: bool = False
    hooks: bool = False
    sends: bool = True
    receives: bool = True


class Receipt(Model):
    """What the platform said it took: its ids of the message or messages a reply became, in order."""

    native_ids: tuple[str, ...]
    sent_at: AwareDatetime = Field(default_factory=now)


class CommandParameter(Model):
    """One parameter of a command, for platforms with typed options in their menus.

    `choices` are all the values it may have, if they are listed, each as people would type it.
    """

    name: str
    type: Literal["string", "integer", "number", "boolean"] = "string"
    description: str = ""
    required: bool = True
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


class CommandEntry(Model):
    """One command as a platform's menu shows it; typed as `/name parameter=value ...`."""

    name: str
    summary: str
    parameters: tuple[CommandParameter, ...] = ()


class Accepted(Model):
    """An event is committed to the inbox. `new` is false for a redelivery: nothing more happens.

    `id` is empty for what was not stored, because it was said to others and nobody here wants it.
    """

    id: str
    new: bool


class HookRequest(Model):
    """A request on the hooks' port, as it came: `body` is raw, header names are lower case."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str]
    body: bytes = b""
    remote: str = ""


class HookResponse(Model):
    """What the platform is answered."""

    status: int = 200
    headers: dict[str, str] = Field(default_factory=dict)
    body: bytes = b""


def derived_id(*parts: str | bytes) -> str:
    """A native id for platforms that have none: the same parts give the same id."""
    framed = bytearray()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        framed += _LENGTH(len(raw)) + raw
    return "sha256:" + hashlib.sha256(framed).hexdigest()
