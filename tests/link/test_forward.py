"""Connections are passed on byte for byte, to the end of each side, for those who may."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from parley.link import forward
from parley.link.forward import Forwarder


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Answers only when it has heard all: that an end is passed on is part of what is tested.
    heard = await reader.read()
    writer.write(heard[::-1])
    await writer.drain()
    writer.close()


async def _ask(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except OSError:
        return b""
    finally:
        writer.close()


async def test_both_sides_are_heard_to_their_ends() -> None:
    async with await asyncio.start_server(_echo, "127.0.0.1", 0) as server:
        there = server.sockets[0].getsockname()[1]
        listening = forward.bound("127.0.0.1", 0)
        port = listening.getsockname()[1]
        forwarder = Forwarder("test", forward.tcp("127.0.0.1", there))
        await forwarder.listen(listening)
        text = bytes(range(256)) * 4096
        assert await _ask(port, text) == text[::-1]
        answers = await asyncio.gather(*(_ask(port, f"{n}".encode()) for n in range(100, 150)))
        assert answers == [f"{n}".encode()[::-1] for n in range(100, 150)]
        await forwarder.aclose()


async def test_a_way_leads_from_a_port_through_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with await asyncio.start_unix_server(_echo, str(path)):
        listening = forward.bound("127.0.0.1", 0)
        port = listening.getsockname()[1]
        forwarder = Forwarder("test", forward.unix(str(path)))
        await forwarder.listen(listening)
        assert await _ask(port, b"abc") == b"cba"
        await forwarder.aclose()


async def test_who_is_not_let_in_reaches_nobody() -> None:
    reached: list[bool] = []

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(True)
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
        there = server.sockets[0].getsockname()[1]
        listening = forward.bound("127.0.0.1", 0)
        port = listening.getsockname()[1]
        forwarder = Forwarder("test", forward.tcp("127.0.0.1", there), admits=lambda _peer: False)
        await forwarder.listen(listening)
        assert await _ask(port, b"abc") == b""
        await forwarder.aclose()
    assert reached == []


async def test_a_target_that_is_away_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        away = gone.getsockname()[1]
    listening = forward.bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    forwarder = Forwarder("test", forward.tcp("127.0.0.1", away))
    await forwarder.listen(listening)
    assert await _ask(port, b"abc") == b""
    await forwarder.aclose()


async def test_closing_ends_what_is_open() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        listening = forward.bound("127.0.0.1", 0)
        port = listening.getsockname()[1]
        forwarder = Forwarder("test", forward.tcp("127.0.0.1", server.sockets[0].getsockname()[1]))
        await forwarder.listen(listening)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"abc")
        await writer.drain()
        await forwarder.aclose()
        try:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        except ConnectionError:
            pass
        finally:
            writer.close()
        before = asyncio.all_tasks()
        assert not [task for task in before if "_pass_on" in repr(task)]
