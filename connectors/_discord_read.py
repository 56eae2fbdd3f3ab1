"""What Discord sends, read: gateway events to ours. Pure, and whatever comes, never an exception.

A message in a channel where threads can be begins one: its answer's thread has the message's own id, which is the id
that Discord gives a thread begun with that message. An answer by Discord's reply to a message of ours belongs to that
message's thread. A message in a thread has the thread's channel as its conversation.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from connectors._discord_commands import INTERACTION_COMMAND, INTERACTION_COMPONENT, typed
from connectors._discord_write import value_of
from connectors._json import Json, object_of, objects_of, text_of
from parley.messages import Action, ConversationKind, Edit, Event, File, Message, Route, Sender

log = logging.getLogger(__name__)

DISCORDS_FIRST_MOMENT = 1_420_070_400_000  # milliseconds: where snowflakes count from, by Discord's reference
TOKEN_GOOD_FOR = 14 * 60
"""Seconds that an interaction is answered through its token: Discord gives fifteen minutes."""

# Types of channels, by Discord's documentation.
DM, GROUP_DM = 1, 3
THREADS = {10, 11, 12}
_CAN_HAVE_THREADS = {0, 5}
FORUMS = {15, 16}
# Types of messages that somebody wrote: default, reply. All others are Discord's own reports, or an app's.
_SPOKEN = {0, 19}
_EPHEMERAL = 1 << 6

_SNOWFLAKE = re.compile(r"[0-9]{1,20}")
_TOKEN = re.compile(r"[A-Za-z0-9_.~=:-]{1,512}")
_MARK = re.compile(
    r"<(?:(?P<at>@[!&]?|#)(?P<id>\d{1,20})|a?:(?P<emoji>\w{1,32}):\d{1,20}|(?P<command>/[^:<>\n]{1,100}):\d{1,20})>"
)


@dataclass(frozen=True, slots=True)
class Me:
    """Who we are; `roles` are those that Discord made for us, one a server: people mention them by mistake."""

    user: str
    application: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A channel or thread. `ours`: a thread that we began or are a member of, by writing or by being mentioned."""

    id: str
    type: int = 0
    guild: str = ""
    parent: str = ""
    ours: bool = False

    @property
    def is_thread(self) -> bool:
        return self.type in THREADS


def place_of(channel: object, me: Me, guild: str = "") -> Place | None:
    """A channel object of Discord's, as far as it matters here."""
    data = object_of(channel)
    id_, type_ = id_of(data.get("id")), data.get("type")
    if not id_ or not isinstance(type_, int):
        return None
    return Place(
        id=id_,
        type=type_,
        guild=id_of(data.get("guild_id")) or guild,
        parent=id_of(data.get("parent_id")) if type_ in THREADS else "",
        ours=type_ in THREADS and ("member" in data or id_of(data.get("owner_id")) == me.user),
    )


def parse(
    name: str,
    payload: object,
    account: str,
    me: Me,
    place: Place,
    *,
    files: tuple[File, ...] = (),
    left_out: tuple[str, ...] = (),
    addressed: bool = True,
    values: Mapping[str, str] | None = None,
) -> Event | None:
    """The event in one of the gateway's; None for all that is none. Never raises.

    `place` is where it happened; `files` and `left_out` are what became of its attachments; `values` are those of
    buttons whose value is too long for Discord.
    """
    data = object_of(payload)
    try:
        if name == "INTERACTION_CREATE":
            return _interaction(data, account, place, values or {})
        if name == "MESSAGE_UPDATE":
            return _edit(data, account, me, place)
        return _message(data, account, me, place, files, left_out, addressed=addressed)
    except (ValidationError, ValueError, OverflowError):
        # Beyond our limits or Discord's: nothing that a person could have sent through Discord.
        log.warning("An event from Discord does not fit a message and was left out.")
        return None


def concerns_us(data: Json, me: Me, place: Place) -> bool:
    """Whether a message in a server is said to us: it mentions us, answers us, or is in a thread of ours."""
    if place.type in {DM, GROUP_DM} or place.ours:
        return True
    return mentions_us(data, me, place) or _answers_us(data, me)


def mentions_us(data: Json, me: Me, place: Place) -> bool:
    """Whether it names us: our user, or the role that Discord made for us."""
    if any(user.get("id") == me.user for user in objects_of(data.get("mentions"))):
        # Whoever replies to us with the ping switched on is among these too.
        return True
    roles = data.get("mention_roles")
    ours = me.roles.get(place.guild)
    return bool(ours) and isinstance(roles, list) and ours in roles


def is_own(data: Json, me: Me) -> bool:
    return id_of(object_of(data.get("author")).get("id")) == me.user


def _is_spoken(data: Json) -> bool:
    kind = data.get("type", 0)
    return isinstance(kind, int) and kind in _SPOKEN


def _answers_us(data: Json, me: Me) -> bool:
    return is_own(object_of(data.get("referenced_message")), me)


def _message(
    data: Json,
    account: str,
    me: Me,
    place: Place,
    files: tuple[File, ...],
    left_out: tuple[str, ...],
    *,
    addressed: bool,
) -> Message | None:
    id_, sender = id_of(data.get("id")), _author(data)
    if not (id_ and sender) or is_own(data, me) or not _is_spoken(data):
        return None
    return Message(
        account=account,
        native_id=id_,
        sender=sender,
        route=_route(data, account, me, place, id_),
        sent_at=moment_of(id_),
        text=plain(_without_mention(_content(data), me, place), data),
        files=files,
        left_out=left_out,
        automatic=sender.is_bot,
        addressed=addressed,
    )


def _edit(data: Json, account: str, me: Me, place: Place) -> Edit | None:
    id_, sender, changed = id_of(data.get("id")), _author(data), data.get("edited_timestamp")
    # Discord also calls it an update when it adds a link's preview, a thread or a pin: then nobody edited.
    if not (id_ and sender and isinstance(changed, str) and isinstance(data.get("content"), str)):
        return None
    if is_own(data, me) or not _is_spoken(data):
        return None
    moment = datetime.fromisoformat(changed)
    return Edit(
        account=account,
        native_id=f"{id_}:{moment.timestamp():.6f}",
        sender=sender,
        route=_route(data, account, me, place, id_),
        sent_at=moment if moment.tzinfo else moment.replace(tzinfo=UTC),
        target=id_,
        text=plain(_without_mention(_content(data), me, place), data),
    )


def _route(data: Json, account: str, me: Me, place: Place, id_: str) -> Route:
    kind = kind_of(place)
    if kind is not ConversationKind.CHANNEL:
        return Route(account=account, conversation=place.id, kind=kind)
    if place.is_thread:
        return Route(account=account, conversation=place.parent or place.id, kind=kind, thread=place.id)
    if place.type not in _CAN_HAVE_THREADS:
        return Route(account=account, conversation=place.id, kind=kind, reply_to=id_)
    head = id_of(object_of(data.get("referenced_message")).get("id")) if _answers_us(data, me) else ""
    return Route(account=account, conversation=place.id, kind=kind, thread=head or id_)


def kind_of(place: Place) -> ConversationKind:
    """What sort of conversation it is to us."""
    if place.type == DM:
        return ConversationKind.DIRECT
    return ConversationKind.GROUP if place.type == GROUP_DM else ConversationKind.CHANNEL


def _interaction(
    data: Json, account: str, place: Place, values: Mapping[str, str]
) -> Message | Action | None:
    id_, token, application = (
        id_of(data.get("id")),
        token_of(data.get("token")),
        id_of(data.get("application_id")),
    )
    member = object_of(data.get("member"))
    user = object_of(member.get("user")) or object_of(data.get("user"))
    sender = _sender(user, member, language=text_of(data.get("locale")).split("-")[0] or None)
    if not (id_ and token and application and sender):
        return None
    inner = object_of(data.get("data"))
    said = typed(inner) if data.get("type") == INTERACTION_COMMAND else None
    pressed = object_of(data.get("message"))
    private = bool(said and said.private) or _is_ephemeral(pressed)
    route = Route(
        account=account,
        conversation=(place.parent or place.id) if place.is_thread else place.id,
        kind=kind_of(place),
        thread=place.id if place.is_thread else None,
        private_to=sender.id if private and place.type != DM else None,
        context={
            "application": application,
            "interaction": token,
            "user": sender.id,
            "channel": place.id,
            "until": str(int(moment_of(id_).timestamp()) + TOKEN_GOOD_FOR),
        },
    )
    common: dict[str, Any] = {
        "account": account, "native_id": id_, "sender": sender, "route": route, "sent_at": moment_of(id_)
    }  # fmt: skip
    if said is not None:
        return Message(**common, text=said.text)
    value = value_of(text_of(inner.get("custom_id")), values)
    if data.get("type") != INTERACTION_COMPONENT or not value:
        return None
    return Action(**common, value=value, target=id_of(pressed.get("id")) or None)


def _is_ephemeral(message: Json) -> bool:
    flags = message.get("flags")
    return isinstance(flags, int) and bool(flags & _EPHEMERAL)


def _author(data: Json) -> Sender | None:
    author, member = object_of(data.get("author")), object_of(data.get("member"))
    return _sender(author, member, is_bot="webhook_id" in data)


def _sender(user: Json, member: Json, *, is_bot: bool = False, language: str | None = None) -> Sender | None:
    id_ = id_of(user.get("id"))
    if not id_:
        return None
    name = text_of(member.get("nick")) or text_of(user.get("global_name")) or text_of(user.get("username"))
    return Sender(id=id_, name=name, is_bot=is_bot or user.get("bot") is True, language=language)


def _content(data: Json) -> str:
    """What was written; of a forwarded message, what it says."""
    if written := text_of(data.get("content")):
        return written
    forwarded = (object_of(shot.get("message")) for shot in objects_of(data.get("message_snapshots")))
    return "\n".join(text_of(message.get("content")) for message in forwarded)


def plain(text: str, data: Json) -> str:
    """Discord's marks for people, channels, emoji and commands, as people read them."""
    if "<" not in text:
        return text
    names = {
        id_of(user.get("id")): text_of(user.get("username")) for user in objects_of(data.get("mentions"))
    }

    def shown(found: re.Match[str]) -> str:
        if found["id"]:
            return found["at"][0] + (names.get(found["id"]) or found["id"])
        return f":{found['emoji']}:" if found["emoji"] else found["command"]

    return _MARK.sub(shown, text)


def _without_mention(text: str, me: Me, place: Place) -> str:
    if not text.lstrip().startswith("<@"):
        return text
    ours = rf"@!?{me.user}" + (rf"|@&{role}" if (role := me.roles.get(place.guild)) else "")
    return re.sub(rf"\A\s*<(?:{ours})>[\s:,，：]*", "", text)


def id_of(value: object) -> str:
    return value if isinstance(value, str) and value.isascii() and _SNOWFLAKE.fullmatch(value) else ""


def token_of(value: object) -> str:
    return value if isinstance(value, str) and value.isascii() and _TOKEN.fullmatch(value) else ""


def moment_of(snowflake: str) -> datetime:
    """When Discord made this id."""
    return datetime.fromtimestamp(((int(snowflake) >> 22) + DISCORDS_FIRST_MOMENT) / 1000, UTC)


def snowflake_at(moment: float) -> int:
    """The smallest id that Discord can have made at this time (seconds since 1970)."""
    return max(0, int(moment * 1000) - DISCORDS_FIRST_MOMENT) << 22
