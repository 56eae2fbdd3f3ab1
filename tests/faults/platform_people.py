"""People on fake and real platforms who write to one stack: each platform delivers as the real one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.fakes import discord, slack, wecom, wecom_bot, xmpp
from tests.faults.platform_history import Promise, Room
from tests.servers.prosody import DOMAIN

FIRM = Promise()

WECOM = Promise(
    lost_answer="WeCom has no token by which it would know an answer again, and no way to look what was sent",
    given_up="WeCom calls four times, and then no more",
    swapped="WeCom calls again after five seconds, and tells meanwhile what was said since",
)
BOT = Promise(
    lost_said="WeCom says each message once, to the connection there is, and asks for no acknowledgement",
    lost_answer="WeCom knows an answer by nothing, and has no way to look what was sent",
)
DISCORD = Promise(
    lost_answer="Discord keeps no nonce with a message: a successor cannot tell two equal answers apart",
)
DISCORD_DIRECT = Promise(
    lost_said="Discord tells a new session nothing of before it, and a bot cannot list its direct conversations",
    lost_answer=DISCORD.lost_answer,
)
SLACK = Promise(
    given_up="Slack sends again thrice, here within ten seconds, and then no more",
    swapped="Slack sends again what was not acknowledged, and tells meanwhile what was said since",
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """A saying on its platform: its id, where its answer must be seen, whether it was heard or is kept until it is."""

    native: str
    place: str
    reached: bool = True


Say = Callable[[str], Any]
"""Says a text; a coroutine function that returns `Spoken`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A person somewhere, writing."""

    name: str
    promise: Promise
    say: Say = field(repr=False)


class Platform(Protocol):
    """One platform with people on it, as it looks from outside."""

    name: str
    user_ids: tuple[str, ...]
    """Under which the owner of the installation writes here."""
    room: Room

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *error: object) -> None: ...

    def account(self) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
        """The type of its Block, the secrets to seal, the other fields."""

    def conversations(self) -> list[Conversation]:
        """Who writes where."""

    def acknowledged(self, native: str) -> bool:
        """Whether the platform was told that we have it; always False where it asks for no such thing."""

    def seen(self) -> list[tuple[str, str]]:
        """Place and text of all that people saw of us so far, oldest first."""


class Wecom:
    """An application of WeCom: calls our hook, again after five seconds, thrice."""

    name = "wecom"
    user_ids: tuple[str, ...] = ("alice", "bob")
    room = Room(platform="wecom", place=f"chat:{wecom.CHAT}", promise=WECOM)

    def __init__(self, callback: str) -> None:
        self.fake = wecom.WecomFake(retry_after=wecom.ANSWER_WITHIN, callback=callback)

    async def __aenter__(self) -> None:
        await self.fake.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.fake.__aexit__(*error)

    def account(self) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
        secrets = {"secret": wecom.SECRET, "token": wecom.TOKEN, "encoding_aes_key": wecom.AES_KEY}
        fields = {"corp_id": wecom.CORP_ID, "agent_id": wecom.AGENT_ID, "base_url": self.fake.url}
        return "parley-wecom-app", secrets, fields

    def conversations(self) -> list[Conversation]:
        return [Conversation(name=user, promise=WECOM, say=self._says(user)) for user in self.user_ids]

    def _says(self, user: str) -> Say:
        async def say(text: str) -> Spoken:
            return Spoken((await self.fake.say(text, user=user)).native_id, user)

        return say

    def acknowledged(self, native: str) -> bool:
        return any(call.acked for call in self.fake.calls if call.native_id == native)

    def seen(self) -> list[tuple[str, str]]:
        return [
            (
                post.get("touser") or f"chat:{post['chatid']}",
                post.get(post["msgtype"], {}).get("content", str(post)),
            )
            for post in self.fake.posts
        ]


class Bot:
    """A robot of WeCom over its long connection."""

    name = "wecom_bot"
    user_ids: tuple[str, ...] = ("alice", "bob")
    room = Room(platform="wecom_bot", place=wecom_bot.CHAT, promise=BOT)

    def __init__(self) -> None:
        self.fake = wecom_bot.WecomBotFake()

    async def __aenter__(self) -> None:
        await self.fake.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.fake.__aexit__(*error)

    def account(self) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
        fields = {"bot_id": wecom_bot.BOT_ID, "bot_name": wecom_bot.BOT_NAME, "url": self.fake.url}
        return "parley-wecom-bot-account", {"secret": wecom_bot.SECRET}, fields

    def conversations(self) -> list[Conversation]:
        return [
            Conversation(name="alice", promise=BOT, say=self._says("alice", "")),
            Conversation(name="the group", promise=BOT, say=self._says("bob", wecom_bot.CHAT)),
        ]

    def _says(self, user: str, chat: str) -> Say:
        async def say(text: str) -> Spoken:
            return Spoken(await self.fake.say(text, user=user, chat=chat), chat or user)

        return say

    def acknowledged(self, native: str) -> bool:
        return False

    def seen(self) -> list[tuple[str, str]]:
        return [
            (post.chat, post.body[post.body["msgtype"]].get("content", str(post.body)))
            for post in self.fake.posts
        ]


class Discord:
    """A bot in a server of Discord: a channel, a thread of its own, a direct conversation."""

    name = "discord"
    room = Room(platform="discord", place=discord.NEWS, promise=DISCORD)

    def __init__(self) -> None:
        self.fake = discord.DiscordFake(host="127.0.0.1", heartbeat=1.0)
        self.user_ids: tuple[str, ...] = (self.fake.person("alice"),)
        self._thread = ""
        self._port = 0

    async def __aenter__(self) -> None:
        await self.fake.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.fake.__aexit__(*error)

    @property
    def port(self) -> int:
        """Where the fake listens."""
        return int(self.fake.root.rpartition(":")[2])

    def lead_through(self, port: int) -> None:
        """Have the account come through a proxy at this port, the gateway's connection too."""
        self._port = port
        self.fake.gateway.url = f"ws://127.0.0.1:{port}"

    def account(self) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
        base = f"http://127.0.0.1:{self._port or self.port}/api/v10"
        return "parley-discord-account", {"bot_token": discord.TOKEN}, {"base_url": base}

    def conversations(self) -> list[Conversation]:
        return [
            Conversation(name="the channel", promise=DISCORD, say=self._in_channel),
            Conversation(name="a thread", promise=DISCORD, say=self._in_thread),
            Conversation(name="alice", promise=DISCORD_DIRECT, say=self._alone),
        ]

    async def _in_channel(self, text: str) -> Spoken:
        id_ = self.fake.say(f"<@{discord.BOT}> {text}", channel=discord.GENERAL)
        return Spoken(id_, id_)  # the answer's thread is begun with the message, and has its id

    async def _in_thread(self, text: str) -> Spoken:
        if self._thread not in self.fake.channels:
            spoken = await self._in_channel(text)
            self._thread = spoken.place
            return spoken
        return Spoken(self.fake.say(text, channel=self._thread), self._thread)

    async def _alone(self, text: str) -> Spoken:
        sessions = self.fake.gateway.sessions
        reached = any(one.socket is not None and not one.invalid for one in sessions)
        return Spoken(self.fake.say(text), self.fake.direct(self.user_ids[0]), reached)

    def acknowledged(self, native: str) -> bool:
        return any(
            event == "MESSAGE_CREATE" and data["id"] == native and number <= session.acknowledged
            for session in self.fake.gateway.sessions
            for number, (event, data) in enumerate(session.events, start=1)
        )

    def seen(self) -> list[tuple[str, str]]:
        return [(post["channel_id"], post["content"]) for post in self.fake.posts]


class Slack:
    """An app of Slack in Socket Mode: a channel, where each question has its thread, and a direct conversation."""

    name = "slack"
    user_ids: tuple[str, ...] = ("UALICE", "UBOB")
    room = Room(platform="slack", place=f"{slack.CHANNEL}:", promise=SLACK)

    def __init__(self) -> None:
        self.fake = slack.SlackFake(host="127.0.0.1", ack_within=3.0)

    async def __aenter__(self) -> None:
        await self.fake.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self.fake.__aexit__(*error)

    def account(self) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
        secrets = {"bot_token": slack.BOT_TOKEN, "app_token": slack.APP_TOKEN}
        return "parley-slack-account", secrets, {"base_url": self.fake.base_url}

    def conversations(self) -> list[Conversation]:
        return [
            Conversation(name="the channel", promise=SLACK, say=self._in_channel),
            Conversation(name="alice", promise=SLACK, say=self._alone),
        ]

    async def _in_channel(self, text: str) -> Spoken:
        ts = await self.fake.say(f"<@{slack.BOT_USER}> {text}", user="UBOB", channel=slack.CHANNEL)
        return Spoken(f"{slack.CHANNEL}:{ts}", f"{slack.CHANNEL}:{ts}")

    async def _alone(self, text: str) -> Spoken:
        ts = await self.fake.say(text, user="UALICE")
        place = slack.direct("UALICE")
        return Spoken(f"{place}:{ts}", f"{place}:")

    def acknowledged(self, native: str) -> bool:
        channel, _, ts = native.partition(":")
        return any(
            envelope.acked
            for envelope in self.fake.envelopes
            if (envelope.payload["event"].get("channel"), envelope.payload["event"].get("ts"))
            == (channel, ts)
        )

    def seen(self) -> list[tuple[str, str]]:
        return [(f"{post['channel']}:{post.get('thread_ts', '')}", post["text"]) for post in self.fake.posts]


class Xmpp:
    """A real Prosody: a room, and a direct conversation. What a person has said the server has, at once."""

    name = "xmpp"
    user_ids: tuple[str, ...] = tuple(f"{name}@{DOMAIN}" for name in ("alice", "bob"))
    room = Room(platform="xmpp", place=f"{xmpp.ROOM}:", promise=FIRM)

    def __init__(self) -> None:
        self.driver = xmpp.XMPPDriver()
        self._port = 0

    async def __aenter__(self) -> None:
        await self.driver.__aenter__()
        await self.driver.person("bob")

    async def __aexit__(self, *error: object) -> None:
        await self.driver.__aexit__(*error)

    @property
    def port(self) -> int:
        """Where Prosody listens."""
        return self.driver.server.port

    def lead_through(self, port: int) -> None:
        """Have the account come through a proxy at this port."""
        self._port = port

    def account(self) -> tuple[str, Mapping[str, str], Mapping[str, Any]]:
        port = self._port or self.port
        fields = {"jid": xmpp.BOT, "host": "127.0.0.1", "port": port, "nick": xmpp.NICK}
        more = {"rooms": [xmpp.ROOM], "allow_plain_on_loopback": True}
        return "parley-xmpp-account", {"password": xmpp.PASSWORD}, {**fields, **more}

    def conversations(self) -> list[Conversation]:
        return [
            Conversation(name="the room", promise=FIRM, say=self._in_room),
            Conversation(name="alice", promise=FIRM, say=self._alone),
        ]

    async def _in_room(self, text: str) -> Spoken:
        person, thread = await self.driver.person("bob"), "the-thread-of-bob"
        element = xmpp._element("jabber:client", "thread", thread)
        await person.say(xmpp.ROOM, f"{xmpp.NICK}: {text}", element, kind="groupchat")
        return Spoken("taken", f"{xmpp.ROOM}:{thread}")

    async def _alone(self, text: str) -> Spoken:
        await (await self.driver.person("alice")).say(xmpp.BOT, text)
        return Spoken("taken", self.user_ids[0])

    def acknowledged(self, native: str) -> bool:
        return native == "taken"  # Prosody has it in its archive

    def seen(self) -> list[tuple[str, str]]:
        """With alice's eyes, who is in the room too; what is shown twice she sees twice."""
        found = []
        for one in self.driver.people["alice"].heard:
            author, text = one.get("from", ""), one.findtext("{jabber:client}body")
            if text is None or one.get("type") == "error":
                continue
            if author.startswith(f"{xmpp.ROOM}/{xmpp.NICK}"):
                found.append((f"{xmpp.ROOM}:{one.findtext('{jabber:client}thread') or ''}", text))
            elif author.startswith(f"{xmpp.BOT}/"):
                found.append((self.user_ids[0], text))
        return found


async def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until it holds, but not for longer; whether it does."""
    end = asyncio.get_running_loop().time() + seconds
    while not holds():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.05)
    return True
