"""What each request to Prefect's server goes through, without a task, a stream or a thread of its own.

===============================  ============================================  =====================================
in Prefect                       cost a request                                here
===============================  ============================================  =====================================
two functions that look at a     1 ms each: Starlette's middleware for         the same functions, asked before the
request before it is answered    functions that may change the answer too      request goes on
a CSRF token is read from the    4 ms with its middleware                      remembered for `TOKEN_SECONDS`
database
dependencies that only return    0.3 ms each: FastAPI calls what is not        the same functions, called where
a value                          asynchronous in a thread                      they are asked for
===============================  ============================================  =====================================

What is let in, refused and answered stays as it is: these are Prefect's own functions, but for the CSRF check, which
believes a token that another has replaced for `TOKEN_SECONDS` longer, until the new one is used.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies import utils
from prefect.logging import get_logger
from prefect.server import models
from prefect.server.api import dependencies
from prefect.server.api.middleware import CsrfMiddleware
from prefect.server.api.workers import WorkerLookups
from prefect.server.database import provide_database_interface
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from parley.runs import patches
from parley.runs.patches import Patch, source_digest

TOKEN_SECONDS: Final = 30.0
"""For how long a client's CSRF token is believed without another look; a newer one is taken up at once."""

MOST_TOKENS: Final = 1000

CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

DECIDING: Final = {"db70626868980bc0": "token_validation", "2537feb899936313": "default_content_type"}
"""Digests of Prefect's functions that only decide before a request goes on, and never look at its answer."""

CSRF_DIGEST: Final = "e007b7c1205f3cf0"

AT_ONCE: Final = frozenset(
    (
        provide_database_interface,
        dependencies.provide_request_api_version,
        dependencies.get_prefect_client_version,
        dependencies.get_created_by,
        dependencies.get_updated_by,
        WorkerLookups,
    )
)
"""Dependencies of the calls that a run makes; none of them waits for anything."""

Dispatch = Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]

tokens: Any = models.csrf_token  # Prefect's decorator of its functions hides their types


def make_lean(app: FastAPI) -> list[str]:
    """Do it to Prefect's application before its first request; returns what was left as Prefect has it."""
    api: Any = next(route.app for route in app.routes if isinstance(route, Mount) and route.path == "/api")
    left = [*_replace(app.user_middleware), *_replace(api.user_middleware)]
    if left:
        get_logger("parley").warning("Left as this Prefect has them, and slower: %s.", ", ".join(left))
    return [*left, *patches.install(PATCHES)]


def _replace(stack: list[Any]) -> Iterable[str]:
    for number, middleware in enumerate(stack):
        dispatch = middleware.kwargs.get("dispatch")
        if middleware.cls is CsrfMiddleware and source_digest(CsrfMiddleware) == CSRF_DIGEST:
            stack[number] = Middleware(CsrfGuard)
        elif middleware.cls is BaseHTTPMiddleware and source_digest(dispatch) in DECIDING:
            stack[number] = Middleware(DecidingFirst, dispatch=dispatch)
        elif issubclass(middleware.cls, BaseHTTPMiddleware):
            yield getattr(dispatch or middleware.cls, "__name__", "")


def _without_a_thread(original: Any) -> Any:
    async def run_in_threadpool(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if function in AT_ONCE:
            return function(*arguments, **named)
        return await original(function, *arguments, **named)

    return run_in_threadpool


class DecidingFirst:
    """ASGI application that asks a function like those of `@app.middleware("http")` whether a request goes on."""

    def __init__(self, app: ASGIApp, dispatch: Dispatch) -> None:
        self._app = app
        self._dispatch = dispatch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            answer = await self._dispatch(Request(scope, receive), _go_on)
            if answer is not _GOES_ON:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


_GOES_ON: Final = Response()


async def _go_on(_: Request) -> Response:
    return _GOES_ON


class CsrfGuard:
    """ASGI application that answers 403, as Prefect does, to a change without the client's CSRF token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] in CHANGING:
            headers = Headers(scope=scope)
            refusal = await self._refusal(
                headers.get("Prefect-Csrf-Token"), headers.get("Prefect-Csrf-Client")
            )
            if refusal:
                await JSONResponse({"detail": refusal}, status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refusal(self, token: str | None, client: str | None) -> str:
        if token is None:
            return "Missing CSRF token."
        if client is None:
            return "Missing client identifier."
        known, until = self._known.get(client, ("", 0.0))
        if time.monotonic() < until and _same(known, token):
            return ""
        current, seconds = await _stored_token(client)
        if not current or not _same(current, token):
            return "Invalid CSRF token or client identifier."
        self._known[client] = (current, time.monotonic() + min(seconds, TOKEN_SECONDS))
        if len(self._known) > MOST_TOKENS:
            self._known.popitem(last=False)
        return ""


async def _stored_token(client: str) -> tuple[str, float]:
    """The client's token and for how many seconds it counts; empty where there is none."""
    async with provide_database_interface().session_context() as session:
        found = await tokens.read_token_for_client(session=session, client=client)
    if found is None:
        return "", 0.0
    return found.token, (found.expiration - datetime.now(UTC)).total_seconds()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


PATCHES: Final = (Patch(utils, "run_in_threadpool", frozenset({"d6ae32f8faf0bafe"}), _without_a_thread),)
"""How FastAPI calls a dependency that is not asynchronous."""
