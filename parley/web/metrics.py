"""The metrics' port: `/metrics` for Prometheus, and nothing else."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response

from parley.errors import ConfigurationError
from parley.metrics import CONTENT_TYPE, Metrics
from parley.tls.server import check_key
from parley.web import problems

LEAST_TOKEN = 16
"""Characters of a token that nobody guesses."""


def metrics_app(
    metrics: Metrics, refresh: Callable[[], None] | None = None, *, token: str | None = None
) -> FastAPI:
    """The app of the metrics' port. `refresh` brings gauges up to date just before they are read.

    With a `token` a reader has to bring it: `Authorization: Bearer <token>`.
    """
    app = FastAPI(title="Parley metrics", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)

    @app.get("/metrics")
    async def read(request: Request) -> Response:
        """All figures."""
        if token is not None and not _has(request, token):
            raise problems.Problem(
                401,
                "Bring the token that [metrics] token_file holds, as a bearer token.",
                kind="not-logged-in",
                headers={"www-authenticate": "Bearer"},
            )
        if refresh is not None:
            refresh()
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})

    return app


def read_token(path: Path) -> str:
    """The token in this file, which nobody else may read. Raises `ConfigurationError`."""
    check_key(path)
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"[metrics] token_file {path} holds no token: write one line of {LEAST_TOKEN} characters or more, as "
            "`openssl rand -hex 32` makes it."
        )
    return token


def _has(request: Request, token: str) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
