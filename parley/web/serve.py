"""The three ports, served inside the hub's own event loop."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from parley.errors import ConfigurationError
from parley.metrics import Metrics
from parley.settings import PortName, Settings
from parley.tls.ports import check_host, served
from parley.web.app import people_app
from parley.web.front import Front
from parley.web.hooks import hooks_app
from parley.web.metrics import metrics_app, read_token

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10.0
"""A request's headers have to arrive within this time of its first byte, the first one's of the connection."""

HEADER_BYTES = 32 * 1024
GRACE_SECONDS = 5
MOST_CONNECTIONS = 1000
MOST_FRAME = 64 * 1024
"""Largest frame from the page: it sends over REST, and only asks over its WebSocket."""


@dataclass(frozen=True, slots=True)
class Port:
    """Where a port is bound, and which variable chooses it."""

    name: PortName
    host: str
    number: int
    variable: str


@asynccontextmanager
async def serve(
    front: Front, settings: Settings, *, metrics: Metrics, refresh: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Serve people, hooks and metrics until left; what is being answered then gets a few seconds to end.

    Raises `ConfigurationError`: a port is taken, or would be open to the network without TLS.
    """
    people = people_app(front, settings)
    web, hooks, figures = (settings.host(name) for name in ("web", "hooks", "metrics"))
    token_file = settings.file.metrics.token_file
    token = read_token(token_file) if token_file else None
    ports: list[tuple[Port, ASGIApp]] = [
        (Port("web", web, settings.port, "PARLEY_PORT"), people),
        (Port("hooks", hooks, settings.hooks_port, "PARLEY_HOOKS_PORT"), hooks_app(front, metrics)),
        (
            Port("metrics", figures, settings.metrics_port, "PARLEY_METRICS_PORT"),
            metrics_app(metrics, refresh, token=token),
        ),
    ]
    renewed = [served(settings, port.name) for port, _ in ports]
    async with AsyncExitStack() as stack:
        # All are bound before one answers: a taken port is found out before anybody is let in.
        sockets = [
            stack.enter_context(bind(port, secure=tls is not None))
            for (port, _), tls in zip(ports, renewed, strict=True)
        ]
        for listening, (_, app), tls in zip(sockets, ports, renewed, strict=True):
            await stack.enter_async_context(_running(app, listening, tls.context if tls else None))
        stack.callback(people.state.closing.set)
        yield


def bind(port: Port, *, secure: bool) -> socket.socket:
    """A bound socket. Raises `ConfigurationError` when it is taken, or open to the network without TLS."""
    check_host(port.name, port.host, secure=secure)
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    # With its protocol named: only then asyncio switches Nagle's algorithm off for each connection. With it an answer
    # waits 40 ms for the acknowledgement of its own head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((port.host, port.number))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise ConfigurationError(_why_not(port, error)) from None
    listening.setblocking(False)
    return listening


class _Server(uvicorn.Server):
    """Leaves signals to the process that it runs in, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. As uvicorn does it, but that nobody has a minute for a handshake."""
        config, loop = self.config, asyncio.get_running_loop()
        patience = HEADER_SECONDS if config.ssl else None
        self.servers = [
            await loop.create_server(
                self._protocol,
                sock=one,
                backlog=config.backlog,
                ssl=config.ssl,
                ssl_handshake_timeout=patience,
            )
            for one in sockets or ()
        ]
        self.started = True
        self.listening.set()

    def _protocol(self) -> asyncio.Protocol:
        return _Impatient(self.config, self.server_state, self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take none."""
        yield


class _Impatient(H11Protocol):
    """Closes connections whose headers do not come: uvicorn alone would wait for ever."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._mind()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mind()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _mind(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@asynccontextmanager
async def _running(app: ASGIApp, listening: socket.socket, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    options: dict[str, Any] = {"ssl_context_factory": lambda *_: tls} if tls else {}
    config = uvicorn.Config(
        app,
        http=_Impatient,
        ws="websockets-sansio",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws_max_size=MOST_FRAME,
        ws_per_message_deflate=False,
        **options,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="web")
    try:
        await _first(task, asyncio.create_task(server.listening.wait()))
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)


async def _first(serving: asyncio.Task[None], listening: asyncio.Task[Any]) -> None:
    await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    if serving.done():
        serving.result()


def _why_not(port: Port, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port.number} is taken: end what listens there, or choose another one with {port.variable}, "
            f"for example {port.variable}={port.number + 10000 if port.number < 50000 else 18080} parley up."
        )
    if error.errno == errno.EACCES:
        return f"port {port.number} is not ours to open: choose one above 1023 with {port.variable}."
    return (
        f"{port.host}:{port.number} cannot be opened ({error.strerror}): see {port.variable} and parley.toml."
    )
