"""The people's app over a fake hub, reached through httpx's ASGI transport or a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from parley import settings
from parley.settings import Settings
from parley.web.app import people_app
from parley.web.limits import Rate
from tests.ports import free_ports
from tests.web.fake_front import FakeFront


@pytest.fixture
def front() -> FakeFront:
    return FakeFront()


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    """Settings with three free ports."""
    names = ("PARLEY_PORT", "PARLEY_HOOKS_PORT", "PARLEY_METRICS_PORT")
    chosen = dict(zip(names, map(str, free_ports(3)), strict=True))
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
