"""JSON messages over a pair of Unix sockets: the worker, the processes that fork for it, and their children.

A frame is four bytes of length and that much JSON; open files travel beside the first byte of a frame.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json, to_json

_HEADER: Final = 4
_FILES: Final = 4


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets; neither outlives an exec unless it is handed on."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def adopt(number: int) -> socket.socket:
    """The socket behind an inherited file number."""
    os.set_inheritable(number, False)
    return socket.socket(fileno=number)


class Channel:
    """One end, for a process without an event loop: calls block."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(True)

    def fileno(self) -> int:
        """The socket's file number, to wait on."""
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send; silent when the other end is gone, which `receive` tells."""
        try:
            self._socket.sendall(_frame(message))
        except (BrokenPipeError, ConnectionResetError):
            return

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message with the files beside it, or None once the other end is gone."""
        try:
            header, files, _, _ = socket.recv_fds(self._socket, _HEADER, _FILES)
            header += self._exactly(_HEADER - len(header)) if header else b""
            if not header:
                return None
            return from_json(self._exactly(int.from_bytes(header, "big"))), files
        except (ConnectionResetError, EOFError):
            return None

    def close(self) -> None:
        """Close; the other end is told."""
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


class AsyncChannel:
    """One end, for a process with an event loop."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._sending = asyncio.Lock()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send; silent when the other end is gone, which `receive` tells."""
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, _frame(message))
            except OSError:
                return

    def send_file(self, message: Mapping[str, Any], file: socket.socket) -> None:
        """Send a small message with an open socket beside it; the other end gets its own copy. Raises `OSError`."""
        socket.send_fds(self._socket, [_frame(message)], [file.fileno()])

    async def receive(self) -> dict[str, Any] | None:
        """The next message, or None once the other end is gone."""
        try:
            header = await self._exactly(_HEADER)
            message: dict[str, Any] = from_json(await self._exactly(int.from_bytes(header, "big")))
            return message
        except (OSError, EOFError):
            return None

    def close(self) -> None:
        """Close; the other end is told. Nothing may be receiving."""
        self._socket.close()

    def end(self) -> None:
        """Tell the other end that nothing more will come; what it still says, and its end, is heard."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    async def _exactly(self, size: int) -> bytes:
        loop, parts = asyncio.get_running_loop(), bytearray()
        while len(parts) < size:
            part = await loop.sock_recv(self._socket, min(size - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _frame(message: Mapping[str, Any]) -> bytes:
    body = to_json(message)
    return len(body).to_bytes(_HEADER, "big") + body


def close_files(files: Sequence[int]) -> None:
    """Close files that came with a message and were not asked for."""
    for number in files:
        os.close(number)
