"""The hub's side of the link: a Unix socket, and for other machines a TLS port."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from parley.errors import ConfigurationError, Denied, LinkError
from parley.link.calls import Hello, Role, Welcome
from parley.link.connection import MAX_FRAME, UNPROVEN_FRAME, Connection, Handler

logger = logging.getLogger(__name__)

Tokens = Mapping[Role, str]

HELLO_SECONDS = 10.0
"""A connection has to say who it is within this time."""


class Peer:
    """A process that said hello. `call` reaches it; `gone` is set when it has left."""

    def __init__(self, connection: Connection, hello: Hello) -> None:
        self._connection = connection
        self.role: Role = hello.role
        self.pid: int = hello.pid
        self.name: str = hello.name
        self.gone: asyncio.Event = asyncio.Event()

    async def call(self, name: str, args: Any = None, *, timeout: float | None = 30) -> Any:
        """Call this process. Raises its error, `Disconnected` or `TimeoutError`."""
        return await self._connection.call(name, args, timeout=timeout)

    @property
    def latency(self) -> float:
        """Seconds to this process and back, by the last ping; 0 before the first."""
        return self._connection.latency

    def __repr__(self) -> str:
        return f"{self.role}[{self.pid}]"


HandlersOf = Callable[[Peer], Mapping[str, Handler]]
"""The calls that this peer may make; called once, after its hello."""


def make_tokens(folder: Path) -> dict[Role, str]:
    """The role tokens of this installation, made at the first start: one 0600 file each in a 0700 folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {role: _token(folder / f"{role.value}.token") for role in Role if role is not Role.RUN}


def _token(path: Path) -> str:
    with suppress(FileNotFoundError):
        if token := path.read_text().strip():
            return token
    secret = secrets.token_urlsafe(32)
    # Whole or not at all: other processes wait for this file, and read it in the moment in which it is there.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secret)
    temporary.replace(path)
    return secret


def _proving(call: Handler, trust: Callable[[], None]) -> Handler:
    """This call of a run, which is refused without the run's token: once it was answered, it is known whose it was."""

    async def answered(args: dict[str, Any]) -> Any:
        result = await call(args)
        trust()
        return result

    return answered


class LinkServer:
    """Greets connections, checks their role's token, and gives each its handlers."""

    def __init__(
        self,
        tokens: Tokens,
        handlers_of: HandlersOf,
        *,
        joined: Callable[[Peer], None] | None = None,
        hello_seconds: float = HELLO_SECONDS,
    ) -> None:
        self._tokens = tokens
        self._handlers_of = handlers_of
        self._joined = joined
        self._hello_seconds = hello_seconds
        self.id: str = secrets.token_hex(8)
        self.peers: set[Peer] = set()

    @asynccontextmanager
    async def listen(
        self, path: Path, tls: tuple[str, int, ssl.SSLContext] | None = None
    ) -> AsyncIterator[None]:
        """Serve on the Unix socket at `path`, and on (host, port, context) too when given."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # noqa: ASYNC240  once, at the start
        if len(os.fsencode(path)) > 100:
            raise ConfigurationError(
                f"the path {path} is too long for a Unix socket: set PARLEY_HOME to a shorter one."
            )
        options: dict[str, Any] = {
            "max_size": UNPROVEN_FRAME,
            "compression": None,
            "ping_interval": 20,
            "ping_timeout": 60,
        }
        async with serve(self._serve, unix=True, path=str(path), **options):
            path.chmod(0o600)  # noqa: ASYNC240  once, at the start
            if tls is None:
                yield
                return
            host, port, context = tls
            async with serve(self._serve, host, port, ssl=context, **options):
                yield

    async def _serve(self, socket: ServerConnection) -> None:
        handlers: dict[str, Handler] = {}
        connection = Connection(socket, handlers)
        arrived: list[Peer] = []

        def trust() -> None:
            # Read with each frame that arrives; the other side sends a large one only once it has been answered.
            socket.protocol.max_size = MAX_FRAME

        async def hello(args: dict[str, Any]) -> Welcome:
            said = Hello.model_validate(args)
            self._check(said)
            if not arrived:
                peer = Peer(connection, said)
                arrived.append(peer)
                calls = self._handlers_of(peer)
                if said.role is Role.RUN:
                    calls = {name: _proving(call, trust) for name, call in calls.items()}
                else:
                    trust()
                handlers.update(calls)
                self.peers.add(peer)
                if self._joined:
                    self._joined(peer)
            return Welcome(hub=self.id)

        async def close_unless_known() -> None:
            await asyncio.sleep(self._hello_seconds)
            if not arrived:
                await connection.close()

        handlers["hello"] = hello
        impatient = asyncio.create_task(close_unless_known())
        try:
            await connection.run()
        finally:
            impatient.cancel()
            for peer in arrived:
                self.peers.discard(peer)
                peer.gone.set()

    def _check(self, hello: Hello) -> None:
        # A run proves itself with its own token in each call, so its connection needs none; until the first one was
        # answered its frames are small ones.
        if hello.role is Role.RUN:
            return
        expected = self._tokens.get(hello.role)
        if not expected:
            raise LinkError(f"the role {hello.role} is not served here")
        if not hmac.compare_digest(expected.encode(), hello.token.encode()):
            logger.warning("pid %s said it is %s with a wrong token", hello.pid, hello.role)
            raise Denied(f"the token of {hello.role} is wrong: it belongs to another installation.")

    def by_role(self, role: Role) -> list[Peer]:
        """The peers of this role that are connected now."""
        return [peer for peer in self.peers if peer.role is role]
