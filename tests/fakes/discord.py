"""Discord on this machine: one server, one bot, its gateway, its REST interface and its files.

Strict where Discord is: tokens, intents, lengths, names of commands, three seconds for an interaction, numbered events
that are replayed on RESUME. `tests/fakes/test_discord_fake.py` proves it by driving it with discord.py and with
discord.js's REST client.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from connectors._discord_write import value_of
from connectors.discord import Discord
from parley.messages import Button, File
from tests.fakes._discord_api import Api, Fault
from tests.fakes._discord_gateway import GatewayFake
from tests.fakes._discord_world import (
    APPLICATION,
    BOT,
    DM,
    FORUM,
    GENERAL,
    GUILD,
    LOADING,
    NEWS,
    OTHER,
    OWN_ROLE,
    VOICE,
    Interaction,
    Json,
    World,
)
from tests.fakes._driver import Failure, Sent, eventually

__all__ = [
    "APPLICATION", "BOT", "DRIVER", "FORUM", "GENERAL", "GUILD", "LOADING", "NEWS", "OTHER", "OWN_ROLE", "TOKEN",
    "VOICE", "DiscordDriver", "DiscordFake", "Line",
]  # fmt: skip

HOST = "discord.localhost"
TOKEN = "OTAwMDAwMDAwMDAwMDAwMDAx.fake.bot-token-0123456789"
_WRONG = "OTAwMDAwMDAwMDAwMDAwMDAx.fake.wrong-token-987654321"
_SENDING = ("send", "follow_up", "fill_in", "edit")
_STYLES = {1: "primary", 2: "default", 4: "danger"}


class DiscordFake(World):
    """The whole of it. `api` and `gateway` let things go wrong; `posts` are the messages from us, as they are now."""

    def __init__(
        self, host: str = HOST, heartbeat: float = 0.05, listen: tuple[str, ...] = ("127.0.0.1",)
    ) -> None:
        """`listen`: this machine's addresses, one more than loopback where a container has to reach it."""
        super().__init__()
        self.host, self._listen = host, listen
        self.gateway = GatewayFake(self, TOKEN, heartbeat)
        self.api = Api(self, self.gateway)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        self.api.add_to(app)
        app.router.add_get("/", self.gateway.handle)
        app.router.add_get("/resume", self.gateway.handle)
        app.router.add_get("/attachments/{channel}/{id}/{name}", self._file)
        app.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        port = 0
        for address in self._listen:
            await web.TCPSite(self._runner, address, port).start()
            port = self._runner.addresses[0][1]
        self.root, self.gateway.url = f"http://{self.host}:{port}", f"ws://{self.host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gateway.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"{self.root}/api/v10"

    def tell(self, event: str, data: Json) -> None:
        self.gateway.tell(event, data)

    def fail_next(self, how: Any, *names: str, **fields: Any) -> None:
        """Let the next request of one of these names fail so, once."""
        self.api.faults.append(Fault(how, names or _SENDING, **fields))

    def count(self, name: str) -> int:
        """How often something was asked for."""
        return sum(1 for called, _ in self.api.calls if called == name)

    async def _file(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        if file is None:
            return web.Response(status=404)
        return web.Response(body=file.content, content_type=file.media_type)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    # -- people

    def say(
        self,
        text: str,
        *,
        person: str = "alice",
        channel: str | None = None,
        files: tuple[File, ...] = (),
        reply_to: str = "",
        id_: str = "",
        **extra: Any,
    ) -> str:
        """A person writes, by default to us alone; returns the message's id."""
        user = self.person(person)
        body: Json = {"content": text}
        if reply_to:
            body["message_reference"] = {"message_id": reply_to}
        return str(self.write(channel or self.direct(user), user, body, files, id_=id_, extra=extra)["id"])

    def rewrite(self, channel: str, id_: str, text: str) -> None:
        """A person edits what they wrote."""
        self.change(self.message(channel, id_), {"content": text})

    def preview(self, channel: str, id_: str) -> None:
        """Discord adds a link's preview: an update that nobody made."""
        self.change(self.message(channel, id_), {}, edited=False)

    def slash(
        self, name: str, options: Mapping[str, Any] | None = None, *, person: str = "alice",
        channel: str = GENERAL, typing: str = "", locale: str = "en-US",
    ) -> Interaction:  # fmt: skip
        """A person chooses a slash command; with `typing` they are still typing this option."""
        kinds = {bool: 5, str: 3, int: 4, float: 10}
        given: list[Json] = [
            {"name": key, "type": kinds[type(value)], "value": value}
            for key, value in (options or {}).items()
        ]
        for one in given:
            if one["name"] == typing:
                one["focused"] = True
        data = {"id": "1", "name": name, "type": 1, "options": given}
        return self._interact(4 if typing else 2, data, person, channel, {}, locale)

    def press(
        self, message: Json, number: int = 0, *, person: str = "alice", custom_id: str = ""
    ) -> Interaction:
        """A person presses a button of a message."""
        buttons = [one for row in message["components"] for one in row["components"]]
        data = {"custom_id": custom_id or buttons[number]["custom_id"], "component_type": 2, "id": 2}
        return self._interact(3, data, person, message["channel_id"], {"message": dict(message)}, "en-US")

    def _interact(
        self, kind: int, data: Json, person: str, channel: str, extra: Json, locale: str
    ) -> Interaction:
        user, place = self.person(person), self.channels[channel]
        made = Interaction(self.snowflake(), secrets.token_urlsafe(60), user, channel, kind)
        made.made = asyncio.get_running_loop().time()
        self.interactions[made.token] = made
        event: Json = {
            "id": made.id, "application_id": APPLICATION, "type": kind, "token": made.token, "version": 1,
            "data": data, "channel_id": channel, "channel": dict(place), "locale": locale, "entitlements": [],
            "authorizing_integration_owners": {"0": GUILD}, "attachment_size_limit": 10485760,
            "app_permissions": "0", "context": 1 if place["type"] == DM else 0, **extra,
        }  # fmt: skip
        if place["type"] == DM:
            event["user"] = self.people[user]
        else:
            member: Json = {"user": self.people[user], "nick": None, "roles": [], "permissions": "0", "flags": 0,
                      "joined_at": "2026-01-01T00:00:00+00:00", "deaf": False, "mute": False}  # fmt: skip
            event |= {"guild_id": GUILD, "guild_locale": "en-US", "member": member}
        self.tell("INTERACTION_CREATE", event)
        return made

    def tell_again(self, id_: str) -> None:
        """The same message once more."""
        message = next(one for many in self.messages.values() for one in many if one["id"] == id_)
        self.tell("MESSAGE_CREATE", self.told(message))


class Line(AbstractResolver):
    """The way to the fake, which can be down: the name then does not resolve, and nothing leaves this machine."""

    def __init__(self) -> None:
        self.down = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.down:
            self.down -= 1
            raise OSError("no way there")
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Nothing is held."""

    def session(self, **timeouts: float) -> aiohttp.ClientSession:
        """A client that asks for the way at each request."""
        connector = aiohttp.TCPConnector(resolver=self, use_dns_cache=False, force_close=True)
        return aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(**{"total": 10, **timeouts})
        )


class DiscordDriver:
    """The fake with people on it, for the contract suite."""

    name: ClassVar[str] = "discord"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self) -> None:
        self.fake = DiscordFake()
        self.line = Line()

    async def __aenter__(self) -> Self:
        await self.fake.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fake.__aexit__()

    def connector(self, account: str, **options: Any) -> Discord:
        given = {"bot_token": TOKEN, "identify_every": 0.01, **options}
        return Discord(account, base_url=self.fake.base_url, session=self.line.session, **given)

    def broken_connector(self, account: str) -> Discord:
        return self.connector(account, bot_token=_WRONG)

    def secrets(self) -> tuple[str, ...]:
        return (TOKEN, _WRONG)

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        """As Discord does it: nobody tells a bot later what was said to it alone before its first session.

        Where there is none yet, the person writes as soon as there is; that channels are read up is tested apart.
        """
        id_, typed = self.fake.snowflake(), text if direct else f"<@{BOT}> {text}"
        place = None if direct else thread or GENERAL

        def write() -> None:
            self.fake.say(typed, person=person, channel=place, files=files, id_=id_)

        if any(not session.invalid for session in self.fake.gateway.sessions):
            write()
        else:
            self.fake.gateway.on_ready.append(write)
        return id_

    async def redeliver(self, native_id: str) -> None:
        self.fake.tell_again(native_id)

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self.fake.posts) >= n, f"{n} messages from us")
        return [self.as_seen(post) for post in self.fake.posts]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        if how == "unreachable":
            self.line.down += 1
        elif how == "rate_limited":
            self.fake.fail_next("rate_limited", retry_after=retry_after)
        elif how == "unknown":
            self.fake.fail_next("reset")
        elif how == "auth":
            self.fake.fail_next("refused", status=401, code=0, message="401: Unauthorized")
        else:
            self.fake.fail_next("refused", status=403, code=50013, message="Missing Permissions")

    async def cut(self) -> None:
        self.fake.gateway.cut()

    def acknowledged(self, native_id: str) -> bool:
        """Discord was told a number in the sequence at or behind that of the message."""
        return any(
            event == "MESSAGE_CREATE" and data["id"] == native_id and number <= session.acknowledged
            for session in self.fake.gateway.sessions
            for number, (event, data) in enumerate(session.events, start=1)
        )

    def as_seen(self, post: Json) -> Sent:
        place = self.fake.channels[post["channel_id"]]
        in_thread = "thread_metadata" in place
        seen_by = post.get("seen_by") or (place["recipients"][0]["id"] if place["type"] == DM else None)
        buttons = [one for row in post["components"] for one in row["components"]]
        return Sent(
            text=post["content"],
            thread=place["id"] if in_thread else None,
            files=tuple(self.fake.files[about["id"]] for about in post["attachments"]),
            buttons=tuple(
                Button.model_validate(
                    {
                        "label": one["label"],
                        "value": value_of(one["custom_id"], {}),
                        "style": _STYLES[one["style"]],
                    }
                )
                for one in buttons
            ),
            conversation=place["parent_id"] if in_thread else place["id"],
            private_to=seen_by,
        )


DRIVER = DiscordDriver
