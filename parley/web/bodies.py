"""JSON bodies: read within limits, parsed strictly, shown in the OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from pydantic_core import from_json

from parley.web.limits import FILES_BODY, TEXT_BODY, LargeBodies, body_of
from parley.web.problems import Problem

In = TypeVar("In", bound=BaseModel)


def json_of(model: type[In], *, large: bool = False) -> Callable[[Request], Awaitable[In]]:
    """A dependency: the body as this model. Raises `Problem` 400, 408, 413, 415, or 422 by way of ValidationError."""

    async def read(request: Request) -> In:
        check_media_type(request)
        if not large:
            return model.model_validate_json(await body_of(request, TEXT_BODY))
        bodies: LargeBodies = request.app.state.large_bodies
        async with bodies.room(request):
            return model.model_validate_json(await body_of(request, FILES_BODY))

    return read


async def json_object(request: Request) -> dict[str, Any]:
    """A dependency: the body as a JSON object; an empty body is an empty one."""
    body = await body_of(request, TEXT_BODY)
    if not body:
        return {}
    check_media_type(request)
    try:
        # Nesting is bounded by the parser; what is not a number in JSON (NaN) is none here.
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"This is not JSON in UTF-8: {error}.", kind="bad-json") from None
    if not isinstance(value, dict):
        raise Problem(422, 'Give the parameters as an object: {"name": value}.', kind="invalid")
    return value


def check_media_type(request: Request) -> None:
    """Raises `Problem` 415 for anything but JSON in UTF-8: a form of another page cannot send that unasked."""
    kind, _, options = request.headers.get("content-type", "").lower().partition(";")
    charset = options.replace(" ", "").partition("charset=")[2].strip('"')
    if kind.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise Problem(415, "Send JSON: `Content-Type: application/json`, in UTF-8.")


def shown(model: type[BaseModel], **examples: dict[str, Any]) -> dict[str, Any]:
    """What a route's OpenAPI says of its body; `add_schemas` brings the schema itself."""
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def add_schemas(document: dict[str, Any], *models: type[BaseModel]) -> None:
    """Put the schemas of these models, and of what they hold, into an OpenAPI document."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
