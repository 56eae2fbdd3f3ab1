"""Errors on the wire: application/problem+json (RFC 9457), whatever went wrong and wherever.

A problem says what is wrong and how to mend it; never a traceback, a path or a secret.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from parley.errors import (
    BadArguments,
    BadSignature,
    Denied,
    LinkError,
    NeedsConfirmation,
    ParleyError,
    PolicyError,
    RateLimited,
    StoreUnavailable,
    UnknownCommand,
    Unreachable,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20

_STATUS: Sequence[tuple[type[ParleyError], int]] = (
    (UnknownCommand, 404),
    (BadArguments, 400),
    (NeedsConfirmation, 409),
    (Denied, 403),
    (PolicyError, 403),
    (RateLimited, 429),
    (StoreUnavailable, 503),
    (LinkError, 503),
    (Unreachable, 503),
    (BadSignature, 401),
)

_CHALLENGE = {"www-authenticate": 'Bearer realm="parley"'}


class Mistake(BaseModel):
    """One thing that is wrong with what was sent; `pointer` leads to it (RFC 6901)."""

    pointer: str = Field(examples=["/files/0/name"])
    detail: str = Field(examples=["Field required"])


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str = Field(description="What kind of problem it is.", examples=["urn:parley:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(
        description="What is wrong, and how to mend it.", examples=["There is no such message."]
    )
    errors: list[Mistake] | None = None


class Problem(Exception):
    """Ends a request with this answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mistake] = (),
    ) -> None:
        super().__init__(detail)
        self.status: int = status
        self.detail: str = detail
        self.kind: str = kind or HTTPStatus(status).phrase.lower().replace(" ", "-")
        self.headers: dict[str, str] = dict(headers or {})
        self.errors: list[Mistake] = list(errors)

    def body(self) -> bytes:
        """The JSON."""
        details = ProblemDetails(
            type=f"urn:parley:problem:{self.kind}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            errors=self.errors or None,
        )
        return to_json(details, exclude_none=True)

    def response(self) -> Response:
        """The answer."""
        return Response(self.body(), self.status, self.headers, media_type=MEDIA_TYPE)


def not_logged_in() -> Problem:
    """401, with how to log in."""
    return Problem(
        401,
        "Log in, or send `Authorization: Bearer <token>`; `parley token` prints one.",
        headers=_CHALLENGE,
    )


def of_error(error: ParleyError) -> Problem:
    """The problem that an error of ours is; one that has no place in an answer becomes a plain 500."""
    status = next((status for cls, status in _STATUS if isinstance(error, cls)), 500)
    if status == 500:
        logger.error("a request ended with %s: %s", type(error).__name__, error)
        return Problem(500, "Something went wrong here; the log of the hub says more.")
    headers = {}
    if status in (429, 503):
        headers["retry-after"] = str(math.ceil(getattr(error, "retry_after", 1.0)) or 1)
    return Problem(status, str(error), kind=_kind(error), headers=headers)


def of_validation(errors: Sequence[ErrorDetails]) -> Problem:
    """422 with every mistake; 400 when what was sent is not JSON at all. What was sent is not repeated."""
    broken = next((error for error in errors if error["type"] == "json_invalid"), None)
    if broken is not None:
        return Problem(400, f"This is not JSON in UTF-8: {broken['msg']}.", kind="bad-json")
    mistakes = [
        Mistake(pointer=_pointer(error["loc"]), detail=error["msg"]) for error in errors[:MOST_ERRORS]
    ]
    first = mistakes[0] if mistakes else Mistake(pointer="/", detail="not valid")
    return Problem(422, f"{first.pointer or '/'}: {first.detail}", kind="invalid", errors=mistakes)


def install(app: FastAPI) -> None:
    """Let every error of this app be a problem."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return error.response()

    @app.exception_handler(ParleyError)
    async def own(_: Request, error: ParleyError) -> Response:
        return of_error(error).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return of_http(error, request.url.path).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return of_validation(_details(error.errors())).response()

    @app.exception_handler(ValidationError)
    async def wrong(_: Request, error: ValidationError) -> Response:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return of_validation(details).response()

    @app.exception_handler(Exception)
    async def anything(_: Request, __: Exception) -> Response:
        # Starlette raises it again after the answer, so that the server logs the traceback.
        return Problem(500, "Something went wrong here; the log of the hub says more.").response()


def of_http(error: HTTPException, path: str) -> Problem:
    """What the framework itself refuses: no such path, no such method."""
    details = {404: f"There is nothing at {path[:200]}.", 405: "This path does not take that method."}
    headers = dict(error.headers or {})
    return Problem(error.status_code, details.get(error.status_code, str(error.detail)), headers=headers)


def _details(errors: Sequence[Any]) -> list[ErrorDetails]:
    return [
        ErrorDetails(type=one["type"], loc=tuple(one["loc"]), msg=one["msg"], input=None) for one in errors
    ]


def _pointer(location: Sequence[int | str]) -> str:
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in location]
    return "".join(f"/{part}" for part in parts)


def _kind(error: ParleyError) -> str:
    name = type(error).__name__
    return "".join(f"-{char.lower()}" if char.isupper() else char for char in name).removeprefix("-")
