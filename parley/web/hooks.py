"""The hooks' port: what platforms and services call. The body goes on as it came; the account's connector judges it."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import Response

from parley.errors import ParleyError
from parley.messages.model import HookRequest
from parley.metrics import Metrics
from parley.web import problems
from parley.web.front import Front
from parley.web.limits import HOOK_BODY, LargeBodies, body_of

HOOK_SECONDS = 10.0
"""A hook's body has to arrive within this time."""

_LONGEST_NAME = 128
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "date", "server", "set-cookie"})


def hooks_app(front: Front, metrics: Metrics) -> FastAPI:
    """The app of the hooks' port."""
    app = FastAPI(title="Parley hooks", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)
    large = LargeBodies()

    @app.api_route("/hooks/{account}", methods=["GET", "POST"])
    async def hook(request: Request, account: str) -> Response:
        """A request for this account."""
        if len(account) > _LONGEST_NAME:
            raise problems.Problem(404, "There is no such account.")
        async with large.room(request):
            body = await body_of(request, HOOK_BODY, HOOK_SECONDS)
        try:
            answer = await front.hook(account, _as_it_came(request, body))
        except ParleyError as error:
            problem = problems.of_error(error)
            metrics.hook(account, problem.status)
            return problem.response()
        metrics.hook(account, answer.status)
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _OURS}
        return Response(answer.body, answer.status, {"x-content-type-options": "nosniff"} | headers)

    return app


def _as_it_came(request: Request, body: bytes) -> HookRequest:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        # A header given twice is one value, as HTTP reads it: no connector is to see only the harmless half.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return HookRequest(
        method=request.method,
        path=request.url.path,
        query=request.url.query,
        headers=headers,
        body=body,
        remote=request.client.host if request.client else "",
    )
