"""The people's port: console page, REST API, health."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from importlib.resources import files

from fastapi import FastAPI
from pydantic_core import to_json
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from parley.settings import Settings
from parley.web import account, api, console, login, oidc_login, passkey_login, problems
from parley.web.auth import Doors
from parley.web.front import Front
from parley.web.guard import Guard
from parley.web.limits import LargeBodies, Rate
from parley.web.site import site_of
from parley.web.wire import API

_ABOUT = """
Say something to Parley as you would in a chat, or run one automation with typed parameters.

Log in with `Authorization: Bearer <token>`; `parley token` prints one. Every error is `application/problem+json`
(RFC 9457). Lists come in pages: give `next` as the following request's `cursor`. Send `Idempotency-Key` with
whatever you may have to send again.
"""


def people_app(front: Front, settings: Settings, *, rate: Rate | None = None) -> FastAPI:
    """The app of the people's port. Raises `ConfigurationError` when [web] origins are not origins."""
    site = site_of(settings)
    app = FastAPI(
        title="Parley",
        version=version("prefect-parley"),
        description=_ABOUT,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # FastAPI's pages for it load scripts from elsewhere
        redoc_url=None,
        middleware=[Middleware(Guard, site=site)],
    )
    app.state.front = front
    app.state.site = site
    app.state.doors = Doors(front, site, rate or Rate())
    app.state.large_bodies = LargeBodies()
    app.state.closing = asyncio.Event()
    problems.install(app)
    _add_health(app, front)
    app.include_router(login.router)
    app.include_router(passkey_login.router)
    app.include_router(oidc_login.router)
    app.include_router(account.router)
    app.include_router(console.router)
    app.include_router(api.router)
    app.mount("/static", StaticFiles(directory=str(files("parley.web") / "static")), name="static")
    api.complete_openapi(app)
    return app


def _add_health(app: FastAPI, front: Front) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        """The hub answers."""
        return Response(to_json({"status": "alive"}), media_type="application/json")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        """Every part is there; else 503 with those that are missing."""
        parts = await front.ready()
        missing = sorted(part for part, there in parts.items() if not there)
        if missing:
            return problems.Problem(
                503, f"Not ready: {', '.join(missing)}.", kind="not-ready", headers={"retry-after": "2"}
            ).response()
        return Response(to_json({"status": "ready", "parts": parts}), media_type="application/json")
