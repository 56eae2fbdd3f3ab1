"""The metrics' port: `/metrics` for Prometheus, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.responses import Response

from parley.metrics import CONTENT_TYPE, Metrics
from parley.web import problems


def metrics_app(metrics: Metrics, refresh: Callable[[], None] | None = None) -> FastAPI:
    """The app of the metrics' port. `refresh` brings gauges up to date just before they are read."""
    app = FastAPI(title="Parley metrics", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)

    @app.get("/metrics")
    async def read() -> Response:
        """All figures."""
        if refresh is not None:
            refresh()
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})

    return app
