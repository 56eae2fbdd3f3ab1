"""The people's app over a fake hub, reached through httpx's ASGI transport or a real socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from parley import settings
from parley.settings import Settings
from parley.web.app import people_app
from parley.web.limits import Rate
from tests.web.fake_front import FakeFront


@pytest.fixture
def front() -> FakeFront:
    return FakeFront()


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    """Settings with three free ports."""
    with free_ports(3) as ports:
        names = ("PARLEY_PORT", "PARLEY_HOOKS_PORT", "PARLEY_METRICS_PORT")
        chosen = dict(zip(names, map(str, ports), strict=True))
        return settings.load({"PARLEY_HOME": str(tmp_path), "HOME": str(tmp_path)} | chosen)


@pytest.fixture
def origin(configured: Settings) -> str:
    return f"http://127.0.0.1:{configured.port}"


@pytest.fixture
async def web(front: FakeFront, configured: Settings, origin: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of nobody in particular."""
    async with httpx.AsyncClient(
        transport=transport_of(front, configured), base_url=origin, timeout=10
    ) as client:
        yield client


@pytest.fixture
async def ada(web: httpx.AsyncClient) -> httpx.AsyncClient:
    """The owner's program."""
    web.headers["authorization"] = "Bearer token-ada"
    return web


@pytest.fixture
async def browser(front: FakeFront, configured: Settings, origin: str) -> AsyncIterator[httpx.AsyncClient]:
    """The owner's browser, logged in, on our own page."""
    async with httpx.AsyncClient(
        transport=transport_of(front, configured), base_url=origin, timeout=10, headers={"origin": origin}
    ) as client:
        entered = await client.get("/login", params={"code": "code-ada"})
        assert entered.status_code == 200
        yield client


def transport_of(front: FakeFront, configured: Settings, rate: Rate | None = None) -> httpx.ASGITransport:
    return httpx.ASGITransport(people_app(front, configured, rate=rate), raise_app_exceptions=False)


class free_ports:  # noqa: N801 - reads as a function
    """Numbers of ports that were free a moment ago; different from each other."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> list[int]:
        sockets = list(self._bound())
        numbers = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        return numbers

    def __exit__(self, *_: object) -> None:
        return None

    def _bound(self) -> Iterator[socket.socket]:
        for _ in range(self._count):
            one = socket.socket()
            one.bind(("127.0.0.1", 0))
            yield one
