"""Discord's gateway, spoken by discord.py: identify, heartbeats, resume, compression, what a close code means.

All that is taken from inside discord.py stands in this module, and nothing of it is changed for others in the process:
`DiscordWebSocket.from_client` with an address and a socket of ours, its `sequence` made ours, and the state's table of
`parsers`, which hands us each event as it came. `tests/connectors/test_discord_gateway.py` fails when one of these
goes. Not used are its models and caches: a large server would be kept in memory for nothing.

discord.py counts an event as received when it has read it. Here the number that heartbeats and RESUME carry is that of
the last event which is stored, and all before it: what was not stored is still Discord's to send again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from connectors._discord_rest import Rest, same_host
from connectors._waiting import bounded
from parley.errors import AuthError, Unreachable

if TYPE_CHECKING:
    import aiohttp
    from discord import Client
    from discord.gateway import DiscordWebSocket

Json = Mapping[str, Any]
OnEvent = Callable[["Session", int, str, Json], None]
"""Takes one event, at once and without raising; `Session.done` says later that it is stored."""

GREETED_WITHIN = 30.0
LARGEST_FRAME = 64 * 1024 * 1024  # a server with all its channels comes in one frame
KEPT_ALIVE_WITHIN = 60.0  # as discord.py's own default: a connection silent for longer is dead
CLOSED_WITHIN = 2.0

_REFUSED = {
    4004: "Discord refuses our bot token. Reset it in the Developer Portal, under Bot, and save it.",
    4010: "Discord refuses our connection: wrong shard.",
    4011: "This bot is in more servers than one connection may serve.",
    4012: "Discord no longer speaks this version of its gateway.",
    4013: "Discord does not know what we ask for (intents).",
    4014: "Discord does not allow what we ask for: switch on the Message Content Intent in the Developer Portal,"
    " under Bot.",
}


class Session:
    """One session at the gateway, over all its connections: its address, and how far its events are stored."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.url: str | None = None
        self.received: int | None = None
        self._stored: int | None = None
        self._open: dict[int, bool] = {}

    @property
    def stored(self) -> int | None:
        """The number of the last event which is stored, as all before it are."""
        return self._stored

    @property
    def open(self) -> int:
        """How many events are not, or stand behind one that is not."""
        return len(self._open)

    def begin(self, number: int) -> bool:
        """Note an event that came. False for one that is known: a resumed session repeats what is not stored yet."""
        if number in self._open or (self._stored is not None and number <= self._stored):
            return False
        self._open[number] = False
        return True

    def done(self, number: int) -> None:
        """Note that an event is stored."""
        if number not in self._open:
            return
        self._open[number] = True
        while self._open and self._open[first := next(iter(self._open))]:
            del self._open[first]
            self._stored = first

    def forget(self) -> None:
        """Nobody stores any more what is open: the next RESUME brings it again."""
        self._open.clear()


class Gateway:
    """One bot's connection. `intents` are Discord's bits; `on_event` is told of every event, in order."""

    def __init__(self, token: str, rest: Rest, on_event: OnEvent, *, identify_every: float = 5.0) -> None:
        self._token, self._rest, self._on_event = token, rest, on_event
        self._identify_every = identify_every
        self._identified_at = -identify_every
        self.session = Session()
        self.intents = 0
        _quiet()

    async def connect(self, room: asyncio.Event) -> None:
        """One connection, until it ends; the session goes on with the next one where Discord allows it.

        Events are read only while `room` is set. Raises `AuthError` or `Unreachable`, and what `Rest.ask` raises.
        """
        import aiohttp
        from discord.errors import ConnectionClosed
        from discord.gateway import ReconnectWebSocket

        if self.session.id is None:
            await self._start_session()
        try:
            await self._read(room)
        except ReconnectWebSocket as wish:
            if not wish.resume:
                self.session = Session()
        except ConnectionClosed as closed:
            self.session = Session()
            if closed.code in _REFUSED:
                raise AuthError(_REFUSED[closed.code]) from None
            raise Unreachable(f"Discord closed the connection ({closed.code}).") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"The connection to Discord failed ({type(error).__name__}).") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # A frame that is not as documented; discord.py trusts what it reads.
            self.session = Session()
            raise Unreachable(f"Discord sent what cannot be read ({type(error).__name__}).") from None

    async def _start_session(self) -> None:
        answer = (await self._rest.patiently("GET", "/gateway/bot")).taken()
        stated = answer if isinstance(answer, dict) else {}
        limit = stated.get("session_start_limit")
        limit = limit if isinstance(limit, dict) else {}
        if limit.get("remaining") == 0:
            # Beyond its number of sessions a day Discord resets a bot's token.
            wait = bounded(_thousandth(limit.get("reset_after")))
            raise _Exhausted(wait)
        self.session = Session()
        self.session.url = self._checked(stated.get("url"))
        await asyncio.sleep(self._identified_at + self._identify_every - time.monotonic())
        self._identified_at = time.monotonic()

    def _checked(self, url: object) -> str:
        """An address to which the token may be shown: over TLS, or to the host that we speak to anyway."""
        given = url if isinstance(url, str) else ""
        plain = given.replace("ws://", "http://", 1)
        if not (given.startswith("wss://") or same_host(plain, self._rest.base_url)):
            raise Unreachable("Discord names no address of its gateway that can be trusted.")
        return given

    async def _read(self, room: asyncio.Event) -> None:
        import yarl

        session = self.session
        kind = _socket_class()
        holder = kind.bound(session)
        try:
            async with asyncio.timeout(GREETED_WITHIN):
                socket = await holder.from_client(
                    self._client(session),
                    initial=True,
                    gateway=yarl.URL(session.url or ""),
                    session=session.id,
                    sequence=session.stored,
                    resume=session.id is not None,
                )
            while True:
                await socket.poll_event()
                await room.wait()
        finally:
            await _close(holder.opened)

    def _client(self, session: Session) -> Client:
        """A client that keeps nothing: what `from_client` reads its settings from."""
        import discord

        intents = discord.Intents.none()
        intents.value = self.intents
        client = discord.Client(
            intents=intents,
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            heartbeat_timeout=KEPT_ALIVE_WITHIN,
        )
        client.loop = asyncio.get_running_loop()
        http = _http_class()(client.loop)
        http.token, http.ours = self._token, self._rest.session
        client.http = http
        client._connection.parsers = _Parsers(lambda event, data: self._told(session, event, data))  # noqa: SLF001 - see above
        return client

    def _told(self, session: Session, event: str, data: Json) -> None:
        number = session.received
        if number is None or not isinstance(data, dict):
            return
        if event == "READY":
            session.id = str(data.get("session_id") or "") or None
            session.url = self._checked(data.get("resume_gateway_url") or session.url)
        if session.begin(number):
            self._on_event(session, number, event, data)


class _Exhausted(Unreachable):
    """No session may be started for `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("Discord lets us start no more sessions for a while.")
        self.retry_after = retry_after


class _Parsers(dict[str, Callable[[Any], None]]):
    """discord.py's table of events, in which every event is found."""

    def __init__(self, told: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._told = told

    def __missing__(self, event: str) -> Callable[[Any], None]:
        return lambda data: self._told(event, data)


@cache
def _http_class() -> Any:
    from discord.http import HTTPClient

    class Http(HTTPClient):
        """Opens the gateway's socket with our HTTP client."""

        ours: aiohttp.ClientSession

        async def ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
            import aiohttp

            return await self.ours.ws_connect(
                url,
                max_msg_size=LARGEST_FRAME,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSED_WITHIN),
                # discord.py reads the close code before it closes from its side.
                autoclose=False,
                headers={"User-Agent": self.user_agent},
                compress=compress,
            )

    return Http


@cache
def _socket_class() -> Any:
    from discord.gateway import DiscordWebSocket

    class Socket(DiscordWebSocket):
        """A connection whose place in the sequence is what is stored, not what was read."""

        told: Session
        opened: DiscordWebSocket | None = None

        @classmethod
        def bound(cls, session: Session) -> type[Socket]:
            """A class for one connection: it knows the session before the first heartbeat."""
            return type("Socket", (cls,), {"told": session})

        def __init__(
            self, socket: aiohttp.ClientWebSocketResponse, *, loop: asyncio.AbstractEventLoop
        ) -> None:
            super().__init__(socket, loop=loop)
            type(self).opened = self

        @property
        def sequence(self) -> int | None:
            return self.told.stored

        @sequence.setter
        def sequence(self, number: int | None) -> None:
            self.told.received = number if isinstance(number, int) else None

    return Socket


async def _close(socket: DiscordWebSocket | None) -> None:
    """End the connection and its thread of heartbeats. The session stays open for a RESUME: not code 1000 or 1001."""
    from discord.gateway import KeepAliveHandler

    if socket is None:
        return
    with suppress(OSError, RuntimeError, TimeoutError):
        await socket.close(4000)
    # The thread was told to stop; one that is just sending still needs this loop, which may be closed after us.
    beating = [one for one in threading.enumerate() if isinstance(one, KeepAliveHandler) and one.ws is socket]
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSED_WITHIN):
            while any(one.is_alive() for one in beating):  # noqa: ASYNC110 - a thread tells no loop of its end
                await asyncio.sleep(0.005)


def _thousandth(value: object) -> float | None:
    return value / 1000 if isinstance(value, int | float) else None


def _quiet() -> None:
    """discord.py writes whole events to its log at DEBUG, with what people wrote and interactions' tokens.

    Its client warns of what voice would need, which is not used.
    """
    for name, level in (("discord.gateway", logging.WARNING), ("discord.client", logging.ERROR)):
        log = logging.getLogger(name)
        if log.level == logging.NOTSET:
            log.setLevel(level)
