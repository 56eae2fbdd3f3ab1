"""A TCP proxy on loopback that lets one thing go wrong at a time; safe to steer from any thread.

async with Proxy(port) as wire:     # clients connect to wire.port
    wire.now = Fault.BLACK_HOLE     # ... and later Fault.NONE
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from tests.ports import free_port

CHUNK: Final = 65_536
LOOK: Final = 0.02


class Fault(StrEnum):
    """What is wrong with the wire."""

    NONE = "none"
    CUT = "cut"
    """Open connections are reset, and so is each new one."""
    SLOW = "slow"
    """Whatever passes takes `delay` seconds longer, in either direction."""
    BLACK_HOLE = "black hole"
    """Connections are made and nothing passes; what was on its way arrives once it is over, as TCP has it."""
    HALF_OPEN = "half open"
    """The server's ends of what is open are gone and nobody tells the clients: what they send vanishes for good."""
    TORN = "torn"
    """A connection is reset in the middle of the first answer that passes it."""


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    orphaned: bool = False
    """Its server is gone, and the client is not told."""


class Proxy:
    """Passes connections on to a port of this machine."""

    def __init__(self, to: int, *, delay: float = 2.0) -> None:
        self.port = free_port()
        self.now = Fault.NONE
        self.delay = delay
        self.attempts: list[float] = []
        """When each connection was asked for (monotonic)."""
        self._to = to
        self._open: dict[asyncio.Task[None], _Connection] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._watching.cancel()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(self._watching, *self._open, return_exceptions=True)

    def attempts_in(self, begin: float, end: float) -> int:
        """How often somebody tried to connect between these two moments."""
        return sum(1 for at in self.attempts if begin <= at < end)

    async def _watch(self) -> None:
        before = Fault.NONE
        while True:
            now = self.now
            for one in list(self._open.values()) if now is not before else ():
                one.orphaned |= now is Fault.HALF_OPEN
                if now is Fault.CUT:
                    _reset(one.client)
                if now in (Fault.CUT, Fault.HALF_OPEN):
                    _reset(one.server)
            before = now
            await asyncio.sleep(LOOK)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts.append(time.monotonic())
        one = _Connection(writer)
        task = asyncio.create_task(self._serve(reader, one))
        self._open[task] = one
        task.add_done_callback(self._open.pop)

    async def _serve(self, reader: asyncio.StreamReader, one: _Connection) -> None:
        try:
            if self.now is not Fault.CUT:
                source, one.server = await asyncio.open_connection("127.0.0.1", self._to)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._ask(reader, one, one.server))
                    both.create_task(self._answer(source, one))
        except* OSError:
            pass
        finally:
            _reset(one.client)
            _reset(one.server)

    async def _ask(
        self, reader: asyncio.StreamReader, one: _Connection, server: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(CHUNK):
            await self._hinder()
            if not one.orphaned:
                server.write(data)
                await _drained(server, one)
        if not one.orphaned:
            server.write_eof()

    async def _answer(self, source: asyncio.StreamReader, one: _Connection) -> None:
        try:
            while data := await source.read(CHUNK):
                await self._hinder()
                torn = self.now is Fault.TORN
                one.client.write(data[: len(data) // 2] if torn else data)
                await one.client.drain()
                if torn:
                    raise ConnectionResetError
        except OSError:
            if not one.orphaned:
                raise
        if not one.orphaned:
            one.client.write_eof()

    async def _hinder(self) -> None:
        while self.now is Fault.BLACK_HOLE:  # noqa: ASYNC110 - it is set from other threads
            await asyncio.sleep(LOOK)
        if self.now is Fault.SLOW:
            await asyncio.sleep(self.delay)


async def _drained(server: asyncio.StreamWriter, one: _Connection) -> None:
    try:
        await server.drain()
    except OSError:
        if not one.orphaned:
            raise


def _reset(end: asyncio.StreamWriter | None) -> None:
    """End a connection as a machine does that knows nothing of it: RST, not FIN. One that has ended stays as it is."""
    if end is None or end.transport.is_closing():
        return
    raw = end.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
