"""What a run in a container can reach: a folder of Unix sockets, made for this run and mounted into its container.

The container has no network at all. `prefect.sock` is an HTTP gate that lets through what `Rules` allow and adds
Prefect's password itself, so that no container ever holds it; `hub.sock` leads to the hub, where only what the run's
own token proves is answered; `0.sock`, `1.sock` ... lead to the addresses that the automation names, and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import uvicorn
from prefect.events.clients import get_events_client
from prefect.events.schemas.events import Event
from prefect.settings import get_current_settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from parley import tls
from parley.errors import ConfigurationError
from parley.link.forward import Connect, Forwarder, tcp, unix
from parley.runs.container_rules import MOST_BODY, Rules
from parley.web.guarded_http import trusted

logger = logging.getLogger(__name__)

PREFECT_SOCKET: Final = "prefect.sock"
HUB_SOCKET: Final = "hub.sock"

_TO_SERVER: Final = frozenset(
    {
        "accept",
        "content-type",
        "user-agent",
        "x-prefect-api-version",
        "prefect-csrf-token",
        "prefect-csrf-client",
    }
)
_TO_RUN: Final = frozenset({"content-type", "retry-after"})
_SECONDS: Final = 60.0
_MOST_EVENT: Final = 1024 * 1024


def server_client() -> httpx.AsyncClient:
    """A client of Prefect's API with this process's own credentials. Raises `ConfigurationError` without an address."""
    chosen = get_current_settings()
    if not chosen.api.url:
        raise ConfigurationError("there is no address of Prefect's API: set PREFECT_API_URL.")
    headers = {}
    if chosen.api.auth_string is not None:
        token = base64.b64encode(chosen.api.auth_string.get_secret_value().encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    elif chosen.api.key is not None:
        headers["Authorization"] = f"Bearer {chosen.api.key.get_secret_value()}"
    return httpx.AsyncClient(
        base_url=chosen.api.url, headers=headers, verify=_trusted(), timeout=_SECONDS, trust_env=False
    )


def _trusted() -> ssl.SSLContext:
    # Whatever Prefect's own settings say of skipping it: what is sent here opens the whole server.
    authority = get_current_settings().api.ssl_cert_file
    try:
        return tls.client(ca_file=authority) if authority else trusted()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"PREFECT_API_SSL_CERT_FILE={authority} cannot be used: {error}.") from None


class PrefectGate:
    """The HTTP application of one run; `client` goes to Prefect's API."""

    def __init__(self, rules: Rules, client: httpx.AsyncClient) -> None:
        self._rules = rules
        self._client = client
        self.app = Starlette(
            routes=[
                Route("/api/{path:path}", self._ask, methods=["GET", "POST", "PATCH"]),
                WebSocketRoute("/api/events/in", self._events),
            ]
        )

    async def _ask(self, request: Request) -> Response:
        path = "/" + request.path_params["path"]
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BODY:
                return JSONResponse({"detail": "The request is too large."}, 413)
        if not self._rules.allow(request.method, path, bytes(body)):
            logger.warning("flow run %s may not %s %r", self._rules.flow_run_id, request.method, path[:500])
            return JSONResponse({"detail": "A run in a container may not ask this."}, 403)
        headers = {name: value for name, value in request.headers.items() if name in _TO_SERVER}
        try:
            answer = await self._client.request(
                request.method, path, params=request.query_params, content=bytes(body), headers=headers
            )
        except httpx.HTTPError as error:
            logger.warning("Prefect does not answer: %r", error)
            return JSONResponse({"detail": "Prefect does not answer."}, 503, {"Retry-After": "1"})
        kept = {name: value for name, value in answer.headers.items() if name in _TO_RUN}
        return Response(answer.content, answer.status_code, kept)

    async def _events(self, websocket: WebSocket) -> None:
        await websocket.accept(
            subprotocol="prefect" if "prefect" in websocket.scope["subprotocols"] else None
        )
        with suppress(WebSocketDisconnect, RuntimeError):
            # Whatever it calls itself: that it can reach this socket is its proof.
            _ = await websocket.receive_text()
            await websocket.send_json({"type": "auth_success"})
            async with get_events_client() as events:
                while True:
                    text = await websocket.receive_text()
                    if len(text) <= _MOST_EVENT and (event := self._event(text)):
                        await events.emit(event)

    def _event(self, text: str) -> Event | None:
        try:
            said = json.loads(text)
            if isinstance(said, dict) and self._rules.allow_event(said):
                return Event.model_validate(said)
        except ValueError:
            pass
        logger.warning("flow run %s sent an event that is not about itself", self._rules.flow_run_id)
        return None


@asynccontextmanager
async def opened(
    folder: Path, rules: Rules, client: httpx.AsyncClient, hub: str, targets: Sequence[str]
) -> AsyncIterator[None]:
    """`folder` has its sockets until this is left; then it is gone. Raises `ConfigurationError` for a path too long."""
    _make(folder)
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_served(PrefectGate(rules, client).app, folder / PREFECT_SOCKET))
            ways: list[tuple[str, Connect]] = [(HUB_SOCKET, unix(hub.removeprefix("unix:")))]
            for number, target in enumerate(targets):
                host, _, port = target.rpartition(":")
                ways.append((f"{number}.sock", tcp(host, int(port))))
            for name, connect in ways:
                forwarder = Forwarder(f"{folder.name}/{name}", connect)
                await forwarder.listen(_socket(folder / name))
                stack.push_async_callback(forwarder.aclose)
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _served(app: Starlette, path: Path) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[_socket(path)]), name="gate")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)


class _Server(uvicorn.Server):
    """Leaves signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take none."""
        yield


def _make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # For the container's user too; the folders above are ours alone.
    folder.chmod(0o755)


def _socket(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen(256)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"the socket {path} cannot be made ({error}): set PARLEY_HOME to a shorter path."
        ) from None
    listening.setblocking(False)
    return listening
