"""Prefect's server application, as our launcher serves it; importing this module imports Prefect's server (seconds)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import sqlalchemy.exc
from fastapi import FastAPI
from prefect.server import models, schemas
from prefect.server.api import collections
from prefect.server.api.server import UI_VERSION_COOKIE_NAME, create_app
from prefect.server.database import provide_database_interface
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import Message, Receive, Scope, Send

from deployments import lean_http, lean_server
from deployments.sqlite_connection import use_one_connection
from parley.runs import pool

RUN_PAGES: Final = "/runs/flow-run/"

workers: Any = models.workers  # Prefect's decorator of these functions hides their types


class PageHeaders:
    """ASGI application that adds security headers to every answer of the one inside."""

    def __init__(self, app: FastAPI, content_policy: str) -> None:
        self.app = app
        self._inner = RunLinks(app)
        self._headers = [
            (b"content-security-policy", content_policy.encode("ascii")),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._inner(scope, receive, send_with_headers if scope["type"] == "http" else send)


class RunLinks:
    """ASGI application that has the links to runs which we give open in Prefect's second pages.

    Prefect does so for `/` only, and its first pages show "not found" to whoever follows a link without being logged
    in; the second ask for the password and go on. A browser in which somebody chose the first pages keeps them.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].startswith(RUN_PAGES):
            request = Request(scope)
            if request.cookies.get(UI_VERSION_COOKIE_NAME) != "v1":
                query = f"?{request.url.query}" if request.url.query else ""
                elsewhere = RedirectResponse(f"/v2{scope['path']}{query}", 307)
                await elsewhere(scope, receive, send)
                return
        await self.app(scope, receive, send)


def make_app(content_policy: str) -> PageHeaders:
    """Return Prefect's application on the database that the environment names, fetching nothing from outside."""
    use_one_connection()
    stay_offline()
    lean_server.install()
    app = create_app(final=True)
    lean_http.make_lean(app)
    return PageHeaders(app, content_policy)


def prefect_application(app: PageHeaders) -> FastAPI:
    """Return the application inside, whose lifespan starts and ends the database and the services."""
    return app.app


def stay_offline() -> None:
    """Make the collection registry answer from the package, our worker type included, and never from GitHub."""
    bundled = (
        Path(collections.__file__).parent / "collections_data" / "views" / "aggregate-worker-metadata.json"
    )
    views: dict[str, dict[str, Any]] = {view: {} for view in collections.KNOWN_VIEWS}
    views["aggregate-worker-metadata"] = (
        json.loads(bundled.read_text(encoding="utf-8")) | pool.worker_metadata()
    )
    # A plain dictionary in place of the cache that expires: what is always there is never fetched.
    collections.GLOBAL_COLLECTIONS_VIEW_CACHE = views  # type: ignore[assignment]


async def create_work_pools(bodies: list[dict[str, Any]]) -> None:
    """Create the work pools that are missing; one that is there stays as its owner has changed it."""
    database = provide_database_interface()
    for body in bodies:
        wanted = schemas.actions.WorkPoolCreate.model_validate(body)
        async with database.session_context() as session:
            known = await workers.read_work_pool_by_name(session=session, work_pool_name=wanted.name)
        if known is None:
            await _create_work_pool(wanted)


async def _create_work_pool(wanted: schemas.actions.WorkPoolCreate) -> None:
    try:
        async with provide_database_interface().session_context(begin_transaction=True) as session:
            await workers.create_work_pool(session=session, work_pool=wanted)
    except sqlalchemy.exc.IntegrityError:
        pass  # another server on the same database was first
