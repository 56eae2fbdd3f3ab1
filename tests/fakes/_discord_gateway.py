"""The gateway: sessions with numbered events, which are kept until the end of the test and replayed on RESUME."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.fakes._discord_world import APPLICATION, BOT, GUILD, OWN_ROLE, World, stamp, user

Json = dict[str, Any]

MESSAGE_CONTENT = 1 << 15


@dataclass
class GatewaySession:
    """One session: its events by number, and what the bot said that it has."""

    id: str
    intents: int
    events: list[tuple[str, Json]] = field(default_factory=list)
    heartbeats: list[int | None] = field(default_factory=list)
    resumed_from: list[int] = field(default_factory=list)
    socket: web.WebSocketResponse | None = None
    invalid: bool = False

    @property
    def acknowledged(self) -> int:
        """The highest number that a heartbeat or a RESUME carried."""
        return max([number for number in self.heartbeats if number] + self.resumed_from, default=0)


class GatewayFake:
    """The gateway of one bot. `token` is good; `heartbeat` is the interval in seconds."""

    def __init__(self, world: World, token: str, heartbeat: float = 0.05) -> None:
        self.world, self.token, self.heartbeat = world, token, heartbeat
        self.sessions: list[GatewaySession] = []
        self.connections = 0
        self.deaf = False
        self.resumable = True
        self.remaining = 1000
        self.url = ""
        self.sockets: set[web.WebSocketResponse] = set()
        self.on_ready: list[Any] = []
        self._sending: set[asyncio.Task[None]] = set()

    # -- events

    def tell(self, event: str, data: Json) -> None:
        """Number an event in each live session; those with a connection get it now."""
        for session in self.sessions:
            if not session.invalid:
                self._number(session, event, self._allowed(session, event, data))

    def _number(self, session: GatewaySession, event: str, data: Json) -> None:
        session.events.append((event, data))
        if session.socket is not None and not session.socket.closed:
            self._send(session.socket, {"op": 0, "t": event, "s": len(session.events), "d": data})

    def _send(self, socket: web.WebSocketResponse, frame: Json) -> None:
        """In order: aiohttp writes small frames whole, and the task of each begins in the order of their making."""
        task = asyncio.ensure_future(_sent(socket, frame))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def _allowed(self, session: GatewaySession, event: str, data: Json) -> Json:
        if not event.startswith("MESSAGE_") or "guild_id" not in data or session.intents & MESSAGE_CONTENT:
            return data
        if data["author"]["id"] == BOT or any(one["id"] == BOT for one in data["mentions"]):
            return data
        return {**data, "content": "", "attachments": [], "components": [], "embeds": []}

    # -- a connection

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if (request.query.get("v"), request.query.get("encoding")) != ("10", "json"):
            return web.Response(status=400)
        socket = web.WebSocketResponse(timeout=0.2, max_msg_size=1 << 20)
        await socket.prepare(request)
        self.connections += 1
        self.sockets.add(socket)
        session: GatewaySession | None = None
        try:
            await socket.send_json(
                {"op": 10, "d": {"heartbeat_interval": self.heartbeat * 1000}, "s": None, "t": None}
            )
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    session = await self._said(socket, session, json.loads(frame.data))
        finally:
            self.sockets.discard(socket)
            if session is not None and session.socket is socket:
                session.socket = None
            if session is not None and socket.close_code in {1000, 1001}:
                session.invalid = True
        return socket

    async def _said(
        self, socket: web.WebSocketResponse, session: GatewaySession | None, frame: Json
    ) -> GatewaySession | None:
        op: int = frame["op"]
        data: Any = frame.get("d")
        if op == 1:
            if session is not None:
                session.heartbeats.append(data)
            if not self.deaf:
                await socket.send_json({"op": 11, "d": None, "s": None, "t": None})
            return session
        if op == 2:
            return await self._identify(socket, data)
        if op == 6:
            return await self._resume(socket, data)
        await socket.close(code=4001)
        return session

    async def _identify(self, socket: web.WebSocketResponse, data: Json) -> GatewaySession | None:
        self.remaining -= 1
        if data["token"] != self.token:
            await socket.close(code=4004, message=b"Authentication failed.")
            return None
        if data["intents"] & MESSAGE_CONTENT and not self.world.flags:
            await socket.close(code=4014, message=b"Disallowed intent(s).")
            return None
        session = GatewaySession(secrets.token_hex(16), data["intents"], socket=socket)
        for before in self.sessions:
            before.invalid = before.socket is None  # a bot's older session dies when a new one is begun
        self.sessions.append(session)
        self._number(session, "READY", self._ready(session))
        self._number(session, "GUILD_CREATE", self.guild())
        for doing in self.on_ready:
            doing()
        self.on_ready.clear()
        return session

    async def _resume(self, socket: web.WebSocketResponse, data: Json) -> GatewaySession | None:
        known = next((one for one in self.sessions if one.id == data["session_id"] and not one.invalid), None)
        if data["token"] != self.token:
            await socket.close(code=4004)
            return None
        if known is None or not self.resumable:
            if known is not None:
                known.invalid = True
            await socket.send_json({"op": 9, "d": False, "s": None, "t": None})
            return None
        number = data["seq"] or 0
        if number > len(known.events):
            await socket.close(code=4007, message=b"Invalid seq.")
            return None
        known.socket = socket
        known.resumed_from.append(number)
        for at, (event, missed) in enumerate(known.events[number:], start=number + 1):
            self._send(socket, {"op": 0, "t": event, "s": at, "d": missed})
        self._number(known, "RESUMED", {"_trace": []})
        return known

    # -- what can be made to happen

    def cut(self) -> None:
        """Drop the connections as a network does; the sessions live on."""
        for socket in list(self.sockets):
            self.sockets.discard(socket)
            request = socket._req
            if request is not None and request.transport is not None:
                request.transport.abort()
        for session in self.sessions:
            session.socket = None

    async def order(self, op: int, data: Any = None) -> None:
        """Send an op to all connections: 7 to reconnect, 9 that the session is invalid, 1 to ask for a heartbeat."""
        for session in self.sessions:
            if op == 9 and data is False:
                session.invalid = True
        for socket in list(self.sockets):
            await socket.send_json({"op": op, "d": data, "s": None, "t": None})

    async def close(self, code: int) -> None:
        for socket in list(self.sockets):
            await socket.close(code=code)

    def _ready(self, session: GatewaySession) -> Json:
        return {
            "v": 10, "user": {**user(BOT, "parley", bot=True), "email": None, "verified": True, "mfa_enabled": False},
            "guilds": [{"id": GUILD, "unavailable": True}], "session_id": session.id, "session_type": "normal",
            "resume_gateway_url": f"{self.url}/resume", "private_channels": [], "relationships": [],
            "application": {"id": APPLICATION, "flags": self.world.flags}, "user_settings": {}, "_trace": [],
        }  # fmt: skip

    def guild(self) -> Json:
        channels = list(self.world.channels.values())
        roles = [role(GUILD, "@everyone", {}), role(OWN_ROLE, "parley", {"bot_id": BOT})]
        return {
            "id": GUILD, "name": "The server", "owner_id": "1", "joined_at": stamp(), "large": False,
            "unavailable": False, "member_count": 2, "roles": roles, "emojis": [], "stickers": [], "features": [],
            "channels": [dict(c) for c in channels if c.get("guild_id") and "thread_metadata" not in c],
            "threads": [
                dict(c) for c in channels if "thread_metadata" in c and not c["thread_metadata"]["archived"]
            ],
            "members": [{"user": user(BOT, "parley", bot=True), "roles": [OWN_ROLE], "joined_at": stamp(),
                         "deaf": False, "mute": False, "flags": 0}],
            "presences": [], "voice_states": [], "stage_instances": [], "guild_scheduled_events": [],
            "soundboard_sounds": [], "verification_level": 0, "default_message_notifications": 1, "nsfw_level": 0,
            "explicit_content_filter": 0, "mfa_level": 0, "premium_tier": 0, "preferred_locale": "en-US",
            "afk_timeout": 300, "afk_channel_id": None, "system_channel_id": None, "system_channel_flags": 0,
        }  # fmt: skip


def role(id_: str, name: str, tags: Json) -> Json:
    return {
        "id": id_, "name": name, "color": 0, "hoist": False, "position": 0, "permissions": "0", "managed": bool(tags),
        "mentionable": False, "flags": 0, **({"tags": tags} if tags else {}),
    }  # fmt: skip


async def _sent(socket: web.WebSocketResponse, frame: Json) -> None:
    if not socket.closed:
        with suppress(ConnectionError):  # it is kept, and replayed
            await socket.send_str(json.dumps(frame))
