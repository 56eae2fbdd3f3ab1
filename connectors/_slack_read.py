"""What Slack sends, read: payloads to events, escapes to plain text, hooks proven and opened.

Pure, and whatever comes, never an exception but `BadSignature`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs

from pydantic import ValidationError

from connectors._json import Json, loaded, object_of, objects_of, text_of
from parley.errors import BadSignature
from parley.messages import (
    Action,
    ConversationKind,
    Edit,
    Event,
    File,
    HookRequest,
    Message,
    Route,
    Sender,
    derived_id,
)

SIGNED_WITHIN = 300
"""Seconds that a signature is good for, by Slack's documentation."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Me:
    """Who we are on this workspace: what tells our own messages, and mentions of us, from others."""

    user: str
    bot: str = ""


_ID = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_TRIGGER = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
_TS = re.compile(r"\d{1,10}\.\d{1,9}")
_ANGLES = re.compile(r"<([^<>\n]*)>")
SPOKEN = {"message", "app_mention"}
_SPOKEN_SUBTYPES = {"", "file_share", "thread_broadcast", "me_message", "bot_message"}
_KINDS = {
    "im": ConversationKind.DIRECT,
    "app_home": ConversationKind.DIRECT,
    "mpim": ConversationKind.GROUP,
    "channel": ConversationKind.CHANNEL,
    "group": ConversationKind.CHANNEL,  # Slack's name for a private channel
}


def parse(payload: object, account: str, me: Me, files: tuple[File, ...] = ()) -> Event | None:
    """The event in one payload of the Events API, a button press or a slash command; None for all that is none.

    Never raises. `files` are the message's files, read beforehand.
    """
    data = object_of(payload)
    try:
        if data.get("type") == "block_actions":
            return _action(data, account)
        if "command" in data:
            return _command(data, account)
        if text_of(object_of(data.get("event")).get("subtype")) == "message_changed":
            return _edit(data, account, me)
        return _message(data, account, me, files)
    except ValidationError:
        # Beyond our limits or Slack's: nothing that a person could have sent through Slack.
        log.warning("A payload from Slack does not fit a message and was left out.")
        return None


def plain(text: str) -> str:
    """Slack's escapes as people read them: mentions, channels, links, and the three escaped characters."""
    return _unescape(_ANGLES.sub(lambda found: _shown(found[1]), text))


def _message(data: Json, account: str, me: Me, files: tuple[File, ...]) -> Message | None:
    event = object_of(data.get("event"))
    channel, ts = id_of(event.get("channel")), ts_of(event.get("ts"))
    sender = _author(event)
    if not (_is_spoken(event) and channel and ts and sender) or is_own(event, me):
        return None
    return Message(
        account=account,
        native_id=f"{channel}:{ts}",
        sender=sender,
        route=_route(event, account, channel, ts),
        sent_at=moment_of(ts),
        text=plain(_without_mention(text_of(event.get("text")), me)),
        files=files,
        automatic=sender.is_bot,
    )


def _edit(data: Json, account: str, me: Me) -> Edit | None:
    event = object_of(data.get("event"))
    now, before = object_of(event.get("message")), object_of(event.get("previous_message"))
    channel, ts = id_of(event.get("channel")), ts_of(now.get("ts"))
    sender = _author(now)
    text = text_of(now.get("text"))
    if not (_is_spoken(now) and channel and ts and sender) or is_own(now, me):
        return None
    if text == text_of(before.get("text")):
        return None  # Slack also calls it a change when it unfolds a link
    changed_at = ts_of(object_of(now.get("edited")).get("ts")) or ts_of(event.get("ts")) or ts
    return Edit(
        account=account,
        native_id=id_of(data.get("event_id")) or derived_id(channel, ts, changed_at),
        sender=sender,
        route=_route({**now, "channel_type": event.get("channel_type")}, account, channel, ts),
        sent_at=moment_of(changed_at),
        target=f"{channel}:{ts}",
        text=plain(_without_mention(text, me)),
    )


def _action(data: Json, account: str) -> Action | None:
    container, channel = object_of(data.get("container")), id_of(object_of(data.get("channel")).get("id"))
    pressed = next(iter(objects_of(data.get("actions"))), {})
    person = object_of(data.get("user"))
    user, value = id_of(person.get("id")), text_of(pressed.get("value"))
    ts, pressed_at = ts_of(container.get("message_ts")), ts_of(pressed.get("action_ts"))
    if not (channel and user and value and ts and pressed_at):
        return None
    thread = ts_of(container.get("thread_ts")) or ts_of(object_of(data.get("message")).get("thread_ts"))
    return Action(
        account=account,
        native_id=derived_id(
            channel, ts, user, pressed_at, *(text_of(pressed.get(key)) for key in ("block_id", "action_id"))
        ),
        sender=Sender(id=user, name=text_of(person.get("name")) or text_of(person.get("username"))),
        route=Route(
            account=account,
            conversation=channel,
            kind=_named_kind(channel, object_of(data.get("channel")).get("name")),
            thread=thread or None,
            private_to=user if container.get("is_ephemeral") is True else None,
        ),
        sent_at=moment_of(pressed_at),
        value=value,
        target=f"{channel}:{ts}",
    )


def _command(data: Json, account: str) -> Message | None:
    channel, user = id_of(data.get("channel_id")), id_of(data.get("user_id"))
    name, trigger = text_of(data.get("command")), data.get("trigger_id")
    if not (
        channel and user and name.startswith("/") and isinstance(trigger, str) and _TRIGGER.fullmatch(trigger)
    ):
        return None
    return Message(
        account=account,
        native_id=f"slash:{trigger}",
        sender=Sender(id=user, name=text_of(data.get("user_name"))),
        route=Route(
            account=account, conversation=channel, kind=_named_kind(channel, data.get("channel_name"))
        ),
        text=f"{name} {plain(text_of(data.get('text')))}".strip(),
    )


def _route(event: Json, account: str, channel: str, ts: str) -> Route:
    kind, thread = _kind(event, channel), ts_of(event.get("thread_ts"))
    if not thread and kind is not ConversationKind.DIRECT:
        thread = ts
    return Route(account=account, conversation=channel, kind=kind, thread=thread or None)


def _kind(event: Json, channel: str) -> ConversationKind:
    stated = _KINDS.get(text_of(event.get("channel_type")))
    return stated or (ConversationKind.DIRECT if channel.startswith("D") else ConversationKind.CHANNEL)


def _named_kind(channel: str, name: object) -> ConversationKind:
    """Where Slack gives a conversation's name instead of its type, the name tells."""
    shown = text_of(name)
    if shown == "directmessage" or channel.startswith("D"):
        return ConversationKind.DIRECT
    return ConversationKind.GROUP if shown.startswith("mpdm-") else ConversationKind.CHANNEL


def _author(event: Json) -> Sender | None:
    user, bot = id_of(event.get("user")), id_of(event.get("bot_id"))
    if not (user or bot):
        return None
    return Sender(
        id=user or bot, is_bot=bool(bot) or user == "USLACKBOT" or event.get("subtype") == "bot_message"
    )


def is_own(event: Json, me: Me) -> bool:
    return event.get("user") == me.user or bool(me.bot and event.get("bot_id") == me.bot)


def _is_spoken(event: Json) -> bool:
    subtype = text_of(event.get("subtype"))
    return text_of(event.get("type")) in SPOKEN and subtype in _SPOKEN_SUBTYPES


def mentions(text: str, me: Me) -> bool:
    return f"<@{me.user}>" in text or f"<@{me.user}|" in text


def _without_mention(text: str, me: Me) -> str:
    if not mentions(text, me):
        return text
    return re.sub(rf"^\s*<@{re.escape(me.user)}(?:\|[^<>\n]*)?>[\s:,，：]*", "", text)


def _shown(inside: str) -> str:
    target, _, label = inside.partition("|")
    if target[:1] in {"@", "#"}:
        return target[0] + (label or target[1:])
    if target[:1] == "!":
        return label or "@" + target[1:].split("^")[0]
    if not re.match(r"(?:https?://|mailto:|tel:)", target):
        return f"<{inside}>"
    # Slack makes a link of a bare "example.com" by itself: what was typed is the label, and commands need that.
    typed = not label or label.strip("/") == re.sub(r"^(?:https?://|mailto:|tel:)", "", target).strip("/")
    return (label or target) if typed or label == target else f"[{label}]({target})"


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def id_of(value: object) -> str:
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""


def ts_of(value: object) -> str:
    return value if isinstance(value, str) and value.isascii() and _TS.fullmatch(value) else ""


def moment_of(ts: str) -> datetime:
    return datetime.fromtimestamp(float(ts), UTC)


def verify(secret: str, request: HookRequest, now: float) -> None:
    """Prove that Slack made this request, and made it now. Raises `BadSignature`."""
    stamp = request.headers.get("x-slack-request-timestamp", "")
    given = request.headers.get("x-slack-signature", "")
    if not secret:
        raise BadSignature("This Slack account has no signing secret: it takes no hooks.")
    if not re.fullmatch(r"[0-9]{1,12}", stamp) or abs(now - int(stamp)) > SIGNED_WITHIN:
        raise BadSignature("The request's time is missing, or too far from now.")
    made = hmac.new(
        secret.encode(), b"v0:" + stamp.encode() + b":" + request.body, hashlib.sha256
    ).hexdigest()
    if not hmac.compare_digest(f"v0={made}".encode(), given.encode("utf-8", "replace")):
        raise BadSignature("The request's signature is wrong.")


def hook_payload(request: HookRequest) -> Json:
    """The payload of a hook: JSON for events, a form for slash commands, JSON in a form for buttons."""
    body = request.body.decode("utf-8", "replace")
    if "json" in request.headers.get("content-type", ""):
        return loaded(body)
    fields = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
    return loaded(fields["payload"]) if "payload" in fields else fields
