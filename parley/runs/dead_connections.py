"""A connection to Prefect that was cut in silence is noticed by its silence, long before a slow answer is given up.

Where a firewall, a router or a machine that is gone drops what is sent, no error ever comes, and a client waits as long
as it would for a server that is slow. Here an answer is waited for a short while first. When it does not come, every
connection that is at rest is dropped, and the same is asked once more on a new one, for as long as the client waits
anyway. When that takes long too, then the server is slow, and for a while nothing is asked twice.

Only what may be asked twice is: what reads, and what sets something to a value. All else waits as ever.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, Final

import httpx

FIRST: Final = 8.0
"""Seconds without a byte after which a connection is doubted."""

SLOW_FOR: Final = 60.0
"""Seconds for which a server that answered late on a new connection too is believed to be slow."""

KEEP_ALIVE: Final[list[tuple[int, int, int]]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        # Asked after 10 s of silence, twice; gone when what was sent is not taken within 20 s. By Linux's names: macOS
        # calls the first TCP_KEEPALIVE and has no last.
        for name, value in (
            ("TCP_KEEPIDLE", 10),
            ("TCP_KEEPALIVE", 10),
            ("TCP_KEEPINTVL", 5),
            ("TCP_KEEPCNT", 2),
            ("TCP_USER_TIMEOUT", 20_000),
        )
        if hasattr(socket, name)
    ),
]
"""Options of a socket with which the system itself finds out that the other side is gone, also while nobody asks."""


def by_meaning(request: httpx.Request) -> bool:
    """Whether Prefect understands the second of two equal requests as the same: it reads, or sets to a value.

    A state that was set names its transition: Prefect takes that once.
    """
    if request.method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        return True
    return request.method == "POST" and request.url.path.endswith(("/filter", "/set_state"))


class _Doubt:
    """Whether silence is the connection's or the server's."""

    def __init__(self, may_repeat: Callable[[httpx.Request], bool], first: float) -> None:
        self._may_repeat = may_repeat
        self._first = first
        self._slow_until = 0.0

    def first_wait(self, request: httpx.Request) -> float | None:
        """Seconds to wait before the connection is doubted; None where it must not be."""
        waits = _waits(request).get("read")
        if waits is not None and waits <= self._first:
            return None
        repeatable = isinstance(request.stream, httpx.ByteStream) and self._may_repeat(request)
        return self._first if repeatable and time.monotonic() >= self._slow_until else None

    def answered_again(self, seconds: float) -> None:
        """A new connection took so long."""
        if seconds > self._first:
            self._slow_until = time.monotonic() + SLOW_FOR


class AsyncRenewing(httpx.AsyncBaseTransport):
    """`inner` for one asynchronous client. `may_repeat`: what may be asked twice; `first`: after how many seconds."""

    def __init__(
        self,
        inner: httpx.AsyncHTTPTransport,
        may_repeat: Callable[[httpx.Request], bool] = by_meaning,
        *,
        first: float = FIRST,
    ) -> None:
        self._inner = inner
        self._doubt = _Doubt(may_repeat, first)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, by a second request if need be. Raises as `inner` does."""
        first = self._doubt.first_wait(request)
        if first is None:
            return await self._inner.handle_async_request(request)
        try:
            return await self._ask(_waiting(request, first))
        except httpx.ReadTimeout:
            await self._drop_idle()
        began = time.monotonic()
        try:
            return await self._ask(request)
        finally:
            self._doubt.answered_again(time.monotonic() - began)

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        # With its body, which may be cut too: Prefect's answers are small.
        answer = await self._inner.handle_async_request(request)
        try:
            body = b"".join([part async for part in answer.stream])  # type: ignore[union-attr]
        finally:
            await answer.aclose()
        return _whole(answer, body)

    async def _drop_idle(self) -> None:
        for connection in self._inner._pool.connections:  # noqa: SLF001 - httpx has no name for it, httpcore has
            if connection.is_idle():
                await connection.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class Renewing(httpx.BaseTransport):
    """The same for one synchronous client, which several threads may use."""

    def __init__(
        self,
        inner: httpx.HTTPTransport,
        may_repeat: Callable[[httpx.Request], bool] = by_meaning,
        *,
        first: float = FIRST,
    ) -> None:
        self._inner = inner
        self._doubt = _Doubt(may_repeat, first)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, by a second request if need be. Raises as `inner` does."""
        first = self._doubt.first_wait(request)
        if first is None:
            return self._inner.handle_request(request)
        try:
            return self._ask(_waiting(request, first))
        except httpx.ReadTimeout:
            self._drop_idle()
        began = time.monotonic()
        try:
            return self._ask(request)
        finally:
            self._doubt.answered_again(time.monotonic() - began)

    def _ask(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        try:
            body = b"".join(answer.stream)  # type: ignore[arg-type]
        finally:
            answer.close()
        return _whole(answer, body)

    def _drop_idle(self) -> None:
        for connection in self._inner._pool.connections:  # noqa: SLF001 - as above
            if connection.is_idle():
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()


def doubting(client: httpx.AsyncClient | httpx.Client) -> None:
    """Have a client that somebody else made doubt its connections; one that asks no network stays as it is."""
    inner: Any = client._transport  # noqa: SLF001 - httpx has no other way to a client that is there already
    if isinstance(inner, httpx.AsyncHTTPTransport):
        client._transport = AsyncRenewing(inner)  # noqa: SLF001
    elif isinstance(inner, httpx.HTTPTransport):
        client._transport = Renewing(inner)  # noqa: SLF001


def _waits(request: httpx.Request) -> dict[str, float | None]:
    found: dict[str, float | None] = request.extensions.get("timeout", {})
    return found


def _waiting(request: httpx.Request, seconds: float) -> httpx.Request:
    """The same request, for whose answer is waited so long."""
    timeouts = _waits(request) | {"read": seconds}
    return httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "timeout": timeouts},
    )


def _whole(answer: httpx.Response, body: bytes) -> httpx.Response:
    return httpx.Response(
        answer.status_code,
        headers=answer.headers,
        stream=httpx.ByteStream(body),
        extensions=answer.extensions,
    )
