"""A silent connection is left for a new one, and a slow server is asked once more at the most; over real TCP."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx
import pytest

from parley.runs.dead_connections import AsyncRenewing, Renewing, by_meaning, doubting
from tests.faults.proxy import Fault, Proxy
from tests.ports import free_port

FIRST: Final = 0.4
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n"


@dataclass
class Server:
    """Answers `true` to all, after `takes` seconds, half of it at once where it stops `in_the_middle`."""

    asked: Counter[str] = field(default_factory=Counter)
    takes: float = 0.0
    in_the_middle: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                sized = [line for line in head.lower().splitlines() if line.startswith("content-length:")]
                await reader.readexactly(int(sized[0].partition(":")[2]) if sized else 0)
                self.asked[" ".join(head.split()[:2])] += 1
                await asyncio.sleep(self.takes)
                if self.in_the_middle:
                    self.in_the_middle = False
                    writer.write(HEAD + b"tr")
                    await asyncio.sleep(60)
                writer.write(HEAD + b"true")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Server, Proxy]]:
    server, port = Server(), free_port()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", port)
    try:
        async with Proxy(port) as wire:
            yield server, wire
    finally:
        listening.close()


def asynchronous(wire: Proxy, may_repeat: Callable[[httpx.Request], bool] = by_meaning) -> httpx.AsyncClient:
    transport = AsyncRenewing(httpx.AsyncHTTPTransport(), may_repeat, first=FIRST)
    return httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{wire.port}", timeout=30)


async def cut(wire: Proxy) -> None:
    """Have the server's ends of all that is open gone, and nobody told."""
    wire.now = Fault.HALF_OPEN
    await asyncio.sleep(0.1)
    wire.now = Fault.NONE
    await asyncio.sleep(0.1)


async def test_a_dead_connection_is_left_and_none_of_its_kind_is_tried() -> None:
    async with wired() as (server, wire), asynchronous(wire) as client:
        await asyncio.gather(*(client.get(f"/warm/{number}") for number in range(5)))
        await cut(wire)
        began = time.monotonic()
        for number in range(5):
            assert (await client.get(f"/next/{number}")).json() is True
        assert FIRST <= time.monotonic() - began < 4 * FIRST, "each of the five was found dead by itself"
        assert all(server.asked[f"GET /next/{number}"] == 1 for number in range(5))


async def test_what_is_on_its_way_when_the_connection_dies_is_asked_again() -> None:
    async with wired() as (server, wire), asynchronous(wire) as client:
        server.takes = 0.3
        asking = asyncio.create_task(client.post("/flow_runs/filter", json={"limit": 1}))
        await asyncio.sleep(0.15)
        await cut(wire)
        assert (await asking).json() is True
        assert server.asked["POST /flow_runs/filter"] == 2


async def test_an_answer_that_stops_in_the_middle_is_asked_for_again() -> None:
    async with wired() as (server, wire), asynchronous(wire) as client:
        server.in_the_middle = True
        assert (await client.get("/half")).json() is True
        assert server.asked["GET /half"] == 2


async def test_a_slow_server_is_asked_twice_once_and_then_only_once() -> None:
    async with wired() as (server, wire), asynchronous(wire) as client:
        server.takes = 2.5 * FIRST
        for number in range(3):
            assert (await client.get(f"/slow/{number}")).json() is True
        assert [server.asked[f"GET /slow/{number}"] for number in range(3)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("method", "path", "twice"),
    [
        ("GET", "/flow_runs/1", True),
        ("PATCH", "/flow_runs/1", True),
        ("POST", "/flow_runs/1/set_state", True),
        ("POST", "/artifacts/filter", True),
        ("POST", "/artifacts/", False),
        ("POST", "/deployments/1/create_flow_run", False),
        ("POST", "/logs/", False),
    ],
)
async def test_only_what_means_the_same_twice_is_asked_twice(method: str, path: str, twice: bool) -> None:
    async with wired() as (server, wire), asynchronous(wire) as client:
        server.takes = 2 * FIRST
        assert (await client.request(method, path, json={})).json() is True
        assert server.asked[f"{method} {path}"] == (2 if twice else 1)


async def test_a_client_may_say_that_all_it_asks_may_be_asked_twice() -> None:
    async with wired() as (server, wire), asynchronous(wire, lambda _: True) as client:
        server.takes = 2 * FIRST
        await client.post("/deployments/1/create_flow_run", json={"idempotency_key": "1"})
        assert server.asked["POST /deployments/1/create_flow_run"] == 2


async def test_a_wait_that_is_shorter_anyway_stays_as_it_is() -> None:
    async with wired() as (server, wire), asynchronous(wire) as client:
        server.takes = 3.0
        began = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/health", timeout=0.2)
        assert time.monotonic() - began < server.takes
        assert server.asked["GET /health"] == 1


async def test_the_synchronous_client_does_the_same() -> None:
    async with wired() as (server, wire):
        transport = Renewing(httpx.HTTPTransport(), first=FIRST)
        with httpx.Client(
            transport=transport, base_url=f"http://127.0.0.1:{wire.port}", timeout=30
        ) as client:
            await asyncio.to_thread(client.get, "/warm")
            await cut(wire)
            began = time.monotonic()
            for number in range(3):
                assert (await asyncio.to_thread(client.get, f"/next/{number}")).json() is True
            assert FIRST <= time.monotonic() - began < 3 * FIRST
            server.takes = 2.5 * FIRST
            for number in range(2):
                assert (await asyncio.to_thread(client.get, f"/slow/{number}")).json() is True
            assert [server.asked[f"GET /slow/{number}"] for number in range(2)] == [2, 1]


async def test_a_client_that_asks_no_network_stays_as_it_is() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with httpx.AsyncClient(transport=transport, base_url="http://one.example") as client:
        doubting(client)
        assert (await client.get("/")).is_success
