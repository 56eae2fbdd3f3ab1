"""What Discord keeps: people, channels, threads, messages, interactions; and its rules about them."""

from __future__ import annotations

import itertools
import re
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from parley.messages import File

Json = dict[str, Any]

BOT, APPLICATION, GUILD, OWN_ROLE = (
    "900000000000000001",
    "900000000000000002",
    "800000000000000001",
    "800000000000000002",
)
GENERAL, NEWS, VOICE, FORUM, OTHER = (f"70000000000000000{n}" for n in range(1, 6))
TEXT, DM, ANNOUNCEMENT, PUBLIC_THREAD, ANNOUNCEMENT_THREAD = 0, 1, 5, 11, 10
DEFAULT, REPLY, CHAT_INPUT = 0, 19, 20
EPHEMERAL, LOADING = 1 << 6, 1 << 7
GATEWAY_MESSAGE_CONTENT_LIMITED = 1 << 19
MAX_CONTENT, MAX_NONCE, MAX_CUSTOM_ID, MAX_LABEL = 2000, 25, 100, 80
MAX_UPLOAD, MAX_REQUEST = 10 * 1024 * 1024, 25 * 1024 * 1024

_COMMAND_NAME = re.compile(r"[-_'\w]{1,32}")


class Refusal(Exception):
    """What the REST interface answers with a status and a code of Discord's."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def invalid(why: str) -> Refusal:
    return Refusal(400, 50035, f"Invalid Form Body: {why}")


@dataclass
class Interaction:
    """One slash command, press or keystroke, and how it was answered."""

    id: str
    token: str
    user: str
    channel: str
    type: int
    made: float = field(default_factory=time.monotonic)
    answered: Json | None = None
    original: Json | None = None
    expired: bool = False


class World:
    """One server, its people and one bot. What happens is told to `tell(event, data)`."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.clock = 0
        self.flags = GATEWAY_MESSAGE_CONTENT_LIMITED
        self.people: dict[str, Json] = {BOT: user(BOT, "parley", bot=True)}
        self.channels: dict[str, Json] = {
            channel["id"]: channel
            for channel in (
                guild_channel(GENERAL, TEXT, "general"),
                guild_channel(OTHER, TEXT, "other"),
                guild_channel(NEWS, ANNOUNCEMENT, "news"),
                guild_channel(VOICE, 2, "voice"),
                guild_channel(FORUM, 15, "forum"),
            )
        }
        self.messages: dict[str, list[Json]] = {}
        self.nonces: dict[str, Json] = {}
        self.files: dict[str, File] = {}
        self.interactions: dict[str, Interaction] = {}
        self.commands: dict[str, list[Json]] = {}
        self.hidden: dict[str, Json] = {}
        self.posts: list[Json] = []
        self.no_threads: set[str] = set()
        self.unreadable: set[str] = set()
        self.closed_to_us: set[str] = set()
        self.answer_within = 3.0
        self.root = ""

    def tell(self, event: str, data: Json) -> None:
        """Overridden: somebody listens."""

    def snowflake(self) -> str:
        self.clock = max(self.clock + 1, int(time.time() * 1000) - 1_420_070_400_000)
        return str((self.clock << 22) | next(self.numbers) % 4096)

    # -- people and places

    def person(self, name: str) -> str:
        id_ = f"1{sum(ord(letter) * 131**at for at, letter in enumerate(name)) % 10**16:017d}"
        self.people.setdefault(id_, user(id_, name))
        return id_

    def direct(self, person: str) -> str:
        """The bot's direct conversation with somebody."""
        id_ = f"6{person[1:]}"
        self.channels.setdefault(
            id_,
            {"id": id_, "type": DM, "last_message_id": None, "recipients": [self.people[person]], "flags": 0},
        )
        return id_

    def channel(self, id_: str) -> Json:
        if id_ not in self.channels:
            raise Refusal(404, 10003, "Unknown Channel")
        if id_ in self.unreadable or self.channels[id_].get("parent_id") in self.unreadable:
            raise Refusal(403, 50001, "Missing Access")
        return self.channels[id_]

    def message(self, channel: str, id_: str) -> Json:
        for message in self.messages.get(channel, []):
            if message["id"] == id_:
                return message
        raise Refusal(404, 10008, "Unknown Message")

    def begin_thread(self, channel: str, message: str, name: str, owner: str) -> Json:
        parent = self.channel(channel)
        if parent["type"] not in {TEXT, ANNOUNCEMENT}:
            raise Refusal(400, 50024, "Cannot execute action on this channel type")
        if channel in self.no_threads:
            raise Refusal(403, 50013, "Missing Permissions")
        if not 1 <= len(name) <= 100:
            raise invalid("name")
        self.message(channel, message)
        if message in self.channels:
            raise Refusal(400, 160004, "A thread has already been created for this message")
        kind = ANNOUNCEMENT_THREAD if parent["type"] == ANNOUNCEMENT else PUBLIC_THREAD
        return self.add_thread(message, kind, channel, name, owner)

    def add_thread(self, id_: str, kind: int, parent: str, name: str, owner: str) -> Json:
        thread: Json = {
            "id": id_, "type": kind, "guild_id": GUILD, "parent_id": parent, "name": name, "owner_id": owner,
            "last_message_id": None, "message_count": 0, "member_count": 1, "rate_limit_per_user": 0, "flags": 0,
            "thread_metadata": {
                "archived": False, "auto_archive_duration": 1440, "archive_timestamp": stamp(), "locked": False
            },
        }  # fmt: skip
        if owner == BOT:
            thread["member"] = {"id": id_, "user_id": BOT, "join_timestamp": stamp(), "flags": 0}
        self.channels[id_] = thread
        self.tell("THREAD_CREATE", {**thread, "newly_created": True})
        return thread

    # -- messages

    def write(
        self,
        channel: str,
        author: str,
        body: Json,
        files: Iterable[File] = (),
        *,
        id_: str = "",
        extra: Json | None = None,
    ) -> Json:
        """A message, kept and told. `body` is checked before."""
        place = self.channels[channel]
        self._revive(place)
        message: Json = {
            "id": id_ or self.snowflake(), "type": DEFAULT, "channel_id": channel, "author": self.people[author],
            "content": str(body.get("content") or "").strip() if author == BOT else body.get("content", ""),
            "timestamp": stamp(), "edited_timestamp": None, "tts": False, "mention_everyone": False,
            "mention_roles": re.findall(r"<@&(\d+)>", body.get("content") or ""), "embeds": [], "pinned": False,
            "mentions": self._mentioned(body), "attachments": [self._attach(channel, file) for file in files],
            "components": numbered(body.get("components") or []), "flags": body.get("flags", 0),
            **(extra or {}),
        }  # fmt: skip
        answered = (body.get("message_reference") or {}).get("message_id")
        if answered:
            head = next((m for m in self.messages.get(channel, []) if m["id"] == answered), None)
            if head is None and (body["message_reference"].get("fail_if_not_exists", True)):
                raise invalid("message_reference: Unknown message")
            if head is not None:
                message |= {"type": REPLY, "referenced_message": dict(head)}
                message["message_reference"] = {"channel_id": channel, "message_id": answered}
        self.messages.setdefault(channel, []).append(message)
        place["last_message_id"] = message["id"]
        if "thread_metadata" in place:
            self._join(place, author, message["mentions"])
        self.tell("MESSAGE_CREATE", self.told(message, nonce=body.get("nonce")))
        return message

    def told(self, message: Json, *, nonce: object = None) -> Json:
        """A message as the gateway tells it."""
        place = self.channels[message["channel_id"]]
        data = {**message, "channel_type": place["type"]}
        if "guild_id" in place:
            data |= {"guild_id": GUILD, "member": {"nick": None, "roles": [], "flags": 0}}
        return data if nonce is None else {**data, "nonce": nonce}

    def change(
        self, message: Json, body: Json, files: Iterable[File] | None = None, *, edited: bool = True
    ) -> Json:
        place = self.channels[message["channel_id"]]
        if place.get("thread_metadata", {}).get("archived"):
            raise Refusal(400, 50083, "Thread is archived")
        for key in ("content", "components", "flags"):
            if key in body:
                message[key] = numbered(body[key]) if key == "components" else body[key]
        if files:
            message["attachments"] = [self._attach(message["channel_id"], file) for file in files]
        if edited:
            message["edited_timestamp"] = stamp()
        if message["id"] not in self.hidden:
            self.tell("MESSAGE_UPDATE", self.told(message))
        return message

    def _revive(self, place: Json) -> None:
        state = place.get("thread_metadata")
        if state and state["archived"]:
            if state["locked"]:
                raise Refusal(400, 50083, "Thread is archived")
            state["archived"] = False

    def _join(self, thread: Json, author: str, mentions: list[Json]) -> None:
        if author == BOT or any(one["id"] == BOT for one in mentions):
            thread.setdefault(
                "member", {"id": thread["id"], "user_id": BOT, "join_timestamp": stamp(), "flags": 0}
            )

    def _mentioned(self, body: Json) -> list[Json]:
        allowed = body.get("allowed_mentions")
        if allowed is not None and "users" not in (allowed.get("parse") or []):
            return []
        ids = dict.fromkeys(re.findall(r"<@!?(\d+)>", body.get("content") or ""))
        return [self.people[id_] for id_ in ids if id_ in self.people]

    def _attach(self, channel: str, file: File) -> Json:
        id_ = self.snowflake()
        self.files[id_] = file
        url = f"{self.root}/attachments/{channel}/{id_}/file?ex=1&is=1&hm=1"
        return {
            "id": id_, "filename": file.name, "size": len(file.content), "url": url, "proxy_url": url,
            "content_type": file.media_type,
        }  # fmt: skip


def user(id_: str, name: str, *, bot: bool = False) -> Json:
    return {
        "id": id_, "username": name, "global_name": None, "discriminator": "0", "avatar": None, "bot": bot,
        "public_flags": 0,
    }  # fmt: skip


def guild_channel(id_: str, kind: int, name: str) -> Json:
    return {
        "id": id_, "type": kind, "guild_id": GUILD, "name": name, "position": 0, "parent_id": None, "nsfw": False,
        "permission_overwrites": [], "last_message_id": None, "flags": 0, "rate_limit_per_user": 0,
        "bitrate": 64000, "user_limit": 0, "available_tags": [],
    }  # fmt: skip


def stamp() -> str:
    return datetime.now(UTC).isoformat()


def numbered(rows: list[Json]) -> list[Json]:
    """Components as Discord keeps them: each with a number."""
    count = itertools.count(1)
    return [
        {**row, "id": next(count), "components": [{**one, "id": next(count)} for one in row["components"]]}
        for row in rows
    ]


# --- checks ----------------------------------------------------------------------------------------------------------


def check_message(body: Json, files: list[File], *, editing: bool = False) -> None:
    content = body.get("content")
    if content is not None and len(content) > MAX_CONTENT:
        raise invalid("content: Must be 2000 or fewer in length.")
    if any(len(file.content) > MAX_UPLOAD for file in files) or len(files) > 10:
        raise Refusal(413, 40005, "Request entity too large")
    if sum(len(file.content) for file in files) > MAX_REQUEST:
        raise Refusal(413, 40005, "Request entity too large")
    if not editing and not (
        (content or "").strip() or files or body.get("embeds") or body.get("sticker_ids")
    ):
        raise Refusal(400, 50006, "Cannot send an empty message")
    if len(str(body.get("nonce") or "")) > MAX_NONCE:
        raise invalid("nonce: Must be 25 or fewer in length.")
    _check_components(body.get("components") or [])


def _check_components(rows: list[Json]) -> None:
    ids = [one.get("custom_id") for row in rows for one in row["components"]]
    if len(rows) > 5 or any(row["type"] != 1 or not 1 <= len(row["components"]) <= 5 for row in rows):
        raise invalid("components: BASE_TYPE_BAD_LENGTH")
    if len(set(ids)) != len(ids):
        raise invalid("components: Component custom id cannot be duplicated")
    for one in (one for row in rows for one in row["components"]):
        if one["type"] != 2 or one["style"] not in {1, 2, 3, 4} or len(one["label"]) > MAX_LABEL:
            raise invalid("components: button")
        if not 1 <= len(one["custom_id"]) <= MAX_CUSTOM_ID:
            raise invalid("components: custom_id: Must be between 1 and 100 in length.")


def check_commands(commands: Any) -> list[Json]:
    """Commands as Discord keeps them. Raises `Refusal`."""
    if not isinstance(commands, list) or len(commands) > 100:
        raise Refusal(400, 30032, "Maximum number of application commands reached (100)")
    names = [command.get("name") for command in commands]
    if len(set(names)) != len(names):
        raise invalid("APPLICATION_COMMANDS_DUPLICATE_NAME")
    return [_check_command(command) for command in commands]


def _check_command(command: Json) -> Json:
    options = command.get("options") or []
    _check_name(command)
    if len(options) > 25:
        raise invalid("options: Must be 25 or fewer in length.")
    if len({option["name"] for option in options}) != len(options):
        raise invalid("APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS")
    wanted = [bool(option.get("required")) for option in options]
    if wanted != sorted(wanted, reverse=True):
        raise invalid("APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID")
    for option in options:
        _check_option(option)
    if _length(command) > 8000:
        raise invalid("APPLICATION_COMMAND_TOO_LARGE")
    return {
        "id": str(700_000_000 + hash(command["name"]) % 10**6), "application_id": APPLICATION, "version": "1",
        "default_member_permissions": None, "type": 1, "nsfw": False, "name_localizations": None,
        "description_localizations": None, "dm_permission": True, "contexts": None, "integration_types": [0],
        **command, "options": [_kept(option) for option in options],
    }  # fmt: skip


def _check_option(option: Json) -> None:
    _check_name(option)
    choices = option.get("choices") or []
    if choices and option.get("autocomplete"):
        raise invalid("autocomplete: may not be set to true if choices are present")
    if len(choices) > 25 or any(not 1 <= len(choice["name"]) <= 100 for choice in choices):
        raise invalid("choices")
    kinds: dict[int, tuple[type, ...]] = {3: (str,), 4: (int,), 10: (int, float)}
    if option["type"] not in {3, 4, 5, 10} or any(
        not isinstance(choice["value"], kinds[option["type"]]) for choice in choices
    ):
        raise invalid("type")
    for key in ("min_value", "max_value"):
        if key in option and (
            option["type"] not in {4, 10}
            or abs(option[key]) > 2**53
            or (option["type"] == 4 and not isinstance(option[key], int))
        ):
            raise invalid(key)


def _check_name(named: Json) -> None:
    name = named.get("name") or ""
    if (
        not _COMMAND_NAME.fullmatch(name)
        or name != name.lower()
        or unicodedata.normalize("NFC", name) != name
    ):
        raise invalid("APPLICATION_COMMAND_INVALID_NAME")
    if not 1 <= len(named.get("description") or "") <= 100:
        raise invalid("description: Must be between 1 and 100 in length.")


def _kept(option: Json) -> Json:
    kept = {key: value for key, value in option.items() if value not in ([], None) and value is not False}
    kept |= {"name_localizations": None, "description_localizations": None}
    if "choices" in kept:
        kept["choices"] = [{**choice, "name_localizations": None} for choice in kept["choices"]]
    return kept


def _length(command: Json) -> int:
    options = command.get("options") or []
    texts = [text for one in (command, *options) for text in (one["name"], one["description"])]
    texts += [
        str(choice[key])
        for one in options
        for choice in one.get("choices") or []
        for key in ("name", "value")
    ]
    return sum(map(len, texts))
