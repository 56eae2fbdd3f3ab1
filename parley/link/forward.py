"""Passing connections on, byte for byte: from a port or a Unix socket here to one there, for those who may."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

logger = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 512
"""Of one forwarder at a time; one more is closed at once."""

CONNECT_SECONDS: Final = 10.0

_PIECE: Final = 65_536

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


class Forwarder:
    """Passes each connection that `admits` lets in on to what `connect` opens; whoever is not let in is closed on.

    `what` names it in the log. A side that has said all is passed on as such; when both have, the connection is over.
    """

    def __init__(
        self, what: str, connect: Connect, *, admits: Callable[[object], bool] = lambda _peer: True
    ) -> None:
        self._what = what
        self._connect = connect
        self._admits = admits
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._closed = False

    async def listen(self, listening: socket.socket) -> None:
        """Begin; `listening` is a bound stream socket and belongs to this from now on."""
        # A callback and no coroutine: asyncio would keep a task for each that nobody could end.
        if listening.family == socket.AF_UNIX:
            self._server = await asyncio.start_unix_server(self._arrived, sock=listening)
        else:
            self._server = await asyncio.start_server(self._arrived, sock=listening)

    async def aclose(self) -> None:
        """Take no more, and end what is there."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        peer = writer.get_extra_info("peername")
        if not self._admits(peer):
            logger.warning("%s: %s is not let in", self._what, peer)
            writer.transport.abort()
            return
        if len(self._tasks) >= MOST_CONNECTIONS:
            logger.warning("%s: too many connections", self._what)
            writer.transport.abort()
            return
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Here too: a task that is cancelled before it begins does nothing.
        task.add_done_callback(lambda _task: writer.transport.abort())

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                there = await self._connect()
        except (OSError, TimeoutError) as error:
            logger.info("%s: no connection: %s", self._what, str(error) or "no answer")
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
        except OSError:
            pass  # either side broke off, which the other is told by the end of its own connection
        finally:
            writer.transport.abort()
            there[1].transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()
        await writer.drain()


def tcp(host: str, port: int) -> Connect:
    """Connect to a port."""
    return lambda: asyncio.open_connection(host, port)


def unix(path: str) -> Connect:
    """Connect to a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)


def bound(host: str, port: int) -> socket.socket:
    """A bound stream socket. Raises OSError."""
    # With its protocol named: only then asyncio sends small packets at once.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening
