"""The hub as other processes see it: one connection that comes back by itself, and calls that survive its loss."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel
from pydantic_core import to_json
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import InvalidHandshake, InvalidMessage

from parley import tls
from parley.errors import Denied, LinkError
from parley.link.calls import Hello, ProveCall, Role, Welcome
from parley.link.connection import MAX_FRAME, UNPROVEN_FRAME, Connection, Disconnected, Handler
from parley.settings import Settings

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0
_DENIED_WAIT = 3.0


def default_address(settings: Settings) -> str:
    """Where the hub is: `PARLEY_HUB` (`unix:/path` or `wss://host:port`), by default this installation's socket."""
    return os.environ.get("PARLEY_HUB") or f"unix:{settings.socket}"


def role_token(settings: Settings, role: Role) -> str:
    """The token of a role on this machine. Raises `LinkError` when there is none: nothing has been started here yet."""
    given = os.environ.get(f"PARLEY_{role.name}_TOKEN")
    if given:
        return given
    try:
        return (settings.run_folder / f"{role.value}.token").read_text().strip()
    except OSError as error:
        raise LinkError(
            f"nothing has been started in {settings.home} yet: run `parley up` ({error.strerror})."
        ) from None


class HubClient:
    """A connection to the hub that is made again whenever it breaks.

    A call waits for the connection, and is sent again after a break, until its time-out: every call of the link may
    be repeated. `handlers` answer the hub's calls; `on_connected` runs after each (re)connection, before any call.
    `token` is asked anew at each connection where it is a function: a hub that was set up anew has other ones. While
    the hub refuses it every call fails at once, and it is tried again some seconds later.
    """

    def __init__(
        self,
        address: str,
        role: Role,
        token: str | Callable[[], str] = "",
        *,
        handlers: Mapping[str, Handler] | None = None,
        name: str = "",
        on_connected: Callable[[HubClient], Awaitable[None]] | None = None,
    ) -> None:
        self._address = address
        self._token = token
        self._hello = Hello(role=role, token="", pid=os.getpid(), name=name)
        self._handlers = handlers or {}
        self._on_connected = on_connected
        self._connection: Connection | None = None
        self._changed = asyncio.Condition()
        self._refused: LinkError | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._keeping = asyncio.create_task(self._keep())

    async def call(
        self, name: str, args: BaseModel | Mapping[str, Any] | None = None, *, timeout: float | None = 60.0
    ) -> Any:
        """Call the hub. Raises the hub's error as its class, or `LinkError` when `timeout` seconds have passed."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    connection = await self._connected()
                    with suppress(Disconnected):
                        if self._hello.role is Role.RUN and not connection.is_proven:
                            await _prove(connection, args)
                        answer = await connection.call(name, args, timeout=None)
                        connection.is_proven = True
                        return answer
                    await self._lost(connection)
        except TimeoutError:
            raise LinkError(f"the hub did not answer {name!r} within {timeout:g} s") from None

    async def aclose(self) -> None:
        """Close the connection and stop making new ones."""
        if self._keeping:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None

    async def _connected(self) -> Connection:
        async with self._changed:
            await self._changed.wait_for(lambda: self._connection or self._refused)
        if self._connection is None:
            raise self._refused or LinkError("not connected")
        return self._connection

    async def _lost(self, connection: Connection) -> None:
        # Another reader may not have noticed yet: wait until the keeper has put this connection away.
        async with self._changed:
            await self._changed.wait_for(lambda: self._connection is not connection)

    async def _keep(self) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                await self._serve_once()
                wait = _FIRST_WAIT
            except Denied as error:
                await self._set(None, LinkError(str(error)))
                wait = _DENIED_WAIT
            except (LinkError, OSError, InvalidHandshake, InvalidMessage, TimeoutError, EOFError):
                pass
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311  jitter
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _serve_once(self) -> None:
        async with self._open() as socket:
            connection = Connection(socket, self._handlers)
            running = asyncio.create_task(connection.run())
            try:
                await self._set(None)  # whoever was refused before waits for what comes of this one
                await self._greet(connection)
                await self._set(connection)
                await running
            finally:
                await self._set(None)
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    async def _greet(self, connection: Connection) -> None:
        token = self._token if isinstance(self._token, str) else self._token()
        hello = self._hello.model_copy(update={"token": token})
        try:
            Welcome.model_validate(await connection.call("hello", hello, timeout=10))
        except Disconnected as error:
            raise ConnectionResetError("closed during hello") from error
        if self._on_connected:
            direct = _Direct(connection)
            await self._on_connected(direct)  # type: ignore[arg-type]

    async def _set(self, connection: Connection | None, refused: LinkError | None = None) -> None:
        async with self._changed:
            self._connection, self._refused = connection, refused
            self._changed.notify_all()

    def _open(self) -> connect:
        if self._address.startswith("unix:"):
            path = self._address.removeprefix("unix:")
            return unix_connect(path, "ws://hub/link", max_size=MAX_FRAME, compression=None, open_timeout=5)
        return connect(self._address, max_size=MAX_FRAME, compression=None, ssl=_tls(), open_timeout=10)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


_PROOF = tuple(ProveCall.model_fields)


async def _prove(connection: Connection, args: BaseModel | Mapping[str, Any] | None) -> None:
    """Say whose process this is before a first call that is too large for who has not said it."""
    if args is None or len(to_json(args, bytes_mode="base64")) < UNPROVEN_FRAME // 2:
        return
    given = args if isinstance(args, Mapping) else {name: getattr(args, name, "") for name in _PROOF}
    proof = ProveCall.model_validate({name: given.get(name, "") for name in _PROOF})
    await connection.call("prove", proof, timeout=None)


class _Direct:
    """What `on_connected` gets: calls that go over this very connection and are not repeated."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def call(
        self, name: str, args: BaseModel | Mapping[str, Any] | None = None, *, timeout: float | None = 60.0
    ) -> Any:
        return await self._connection.call(name, args, timeout=timeout)


def _tls() -> ssl.SSLContext:
    return tls.client(ca_file=os.environ.get("PARLEY_HUB_CA"), least=ssl.TLSVersion.TLSv1_3)


def has_socket(address: str) -> bool:
    """Whether a local address has its socket file; true for remote ones."""
    return not address.startswith("unix:") or Path(address.removeprefix("unix:")).is_socket()


__all__ = ["HubClient", "default_address", "has_socket", "role_token"]
