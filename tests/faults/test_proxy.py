"""The proxy does to a connection what it says, and to nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from tests.faults.proxy import Fault, Proxy
from tests.ports import free_port

T = TypeVar("T")


class Client:
    """One connection to a server that says everything again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def echo(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await within(self.reader.read(100))


async def within(work: Awaitable[T], seconds: float = 0.4) -> T:
    return await asyncio.wait_for(work, seconds)


CLIENTS: list[Client] = []


@asynccontextmanager
async def wire() -> AsyncIterator[Proxy]:
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        serving.add(task)
        try:
            while data := await reader.read(100):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        async with Proxy(port, delay=0.2) as proxy:
            try:
                yield proxy
            finally:
                for client in CLIENTS:
                    client.writer.transport.abort()
                CLIENTS.clear()
        await asyncio.gather(*serving)


async def connected(proxy: Proxy) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    CLIENTS.append(client)
    return client


async def set_to(proxy: Proxy, fault: Fault) -> None:
    proxy.now = fault
    await asyncio.sleep(0.1)


async def test_nothing_is_wrong() -> None:
    async with wire() as proxy:
        client = await connected(proxy)
        assert await client.echo(b"hello") == b"hello"
        client.writer.write_eof()
        assert await within(client.reader.read()) == b""


async def test_cut() -> None:
    async with wire() as proxy:
        client = await connected(proxy)
        assert await client.echo(b"hello") == b"hello"
        await set_to(proxy, Fault.CUT)
        with pytest.raises(ConnectionResetError):
            await within(client.reader.read())
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionResetError):
            await (await connected(proxy)).echo(b"again")
        assert proxy.attempts_in(began, began + 5) == 1
        await set_to(proxy, Fault.NONE)
        assert await (await connected(proxy)).echo(b"again") == b"again"


async def test_slow() -> None:
    async with wire() as proxy:
        client = await connected(proxy)
        await set_to(proxy, Fault.SLOW)
        began = asyncio.get_running_loop().time()
        client.writer.write(b"hello")
        assert await within(client.reader.read(100), 2) == b"hello"
        assert asyncio.get_running_loop().time() - began >= 0.4


async def test_a_black_hole() -> None:
    async with wire() as proxy:
        client = await connected(proxy)
        await set_to(proxy, Fault.BLACK_HOLE)
        with pytest.raises(TimeoutError):
            await client.echo(b"hello")
        await set_to(proxy, Fault.NONE)
        assert await within(client.reader.read(100)) == b"hello"


async def test_half_open() -> None:
    async with wire() as proxy:
        client = await connected(proxy)
        assert await client.echo(b"hello") == b"hello"
        await set_to(proxy, Fault.HALF_OPEN)
        with pytest.raises(TimeoutError):
            await client.echo(b"into nothing")
        await set_to(proxy, Fault.NONE)
        with pytest.raises(TimeoutError):
            await client.echo(b"into nothing")
        assert await (await connected(proxy)).echo(b"anew") == b"anew"


async def test_torn() -> None:
    async with wire() as proxy:
        client = await connected(proxy)
        await set_to(proxy, Fault.TORN)
        assert await client.echo(b"hello, hello") == b"hello,"
        with pytest.raises(ConnectionResetError):
            await within(client.reader.read())
