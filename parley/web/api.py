"""The REST API. Every route checks who asks; what they may do is the hub's to decide."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from contextlib import suppress
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request
from starlette.responses import Response

from parley.language.binding import refuse_prefect_markers
from parley.messages.model import MAX_TEXT, Accepted, File
from parley.messages.published import Happening
from parley.people.principals import Principal
from parley.web import approval_api, audit_api, dead_letter_api, sessions_api
from parley.web.auth import Caller, may_watch
from parley.web.bodies import add_schemas, json_object, json_of, shown
from parley.web.cursors import cursor, read_cursor
from parley.web.front import Front, MessageView
from parley.web.outgoing import automation_out, me_out, message_out, run_out
from parley.web.problems import MEDIA_TYPE, Problem, ProblemDetails
from parley.web.site import Site
from parley.web.wire import (
    API,
    AutomationOut,
    CancelOut,
    EventsOut,
    Me,
    MessageOut,
    NewEvent,
    NewMessage,
    NewPress,
    NewReplay,
    Page,
    RunOut,
)

Answer = TypeVar("Answer")

LONGEST_WAIT = 120.0

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,80}", re.ASCII | re.IGNORECASE)
_KEY = re.compile(r"[\x21-\x7e]{1,200}")

Wait = Annotated[
    float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the final answer.", examples=[30])
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Your own id of this message: sent again with the same one, nothing happens twice.",
    ),
]
Id = Annotated[str, Path(max_length=100)]

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }
    for code, text in {
        400: "Not understood.",
        401: "Not logged in.",
        403: "Not allowed.",
        404: "Not there.",
        409: "Say it once more: it may have had effects.",
        413: "Too large.",
        422: "Not valid.",
        429: "Too often.",
        503: "Not now; try again.",
    }.items()
}

router = APIRouter(prefix=API, responses=_PROBLEMS)

_STILL_GOING: dict[int | str, dict[str, Any]] = {
    202: {"model": MessageOut, "description": "Stored, not final yet: the present state."}
}


@router.post(
    "/messages",
    summary="Say something",
    tags=["messages"],
    responses=_STILL_GOING,
    openapi_extra=shown(
        NewMessage, command={"text": "/order 1024"}, sentence={"text": "where is order 1024?"}
    ),
)
async def post_message(
    request: Request,
    response: Response,
    caller: Caller,
    new: Annotated[NewMessage, Depends(json_of(NewMessage, large=True))],
    wait: Wait = 0,
    key: Key = None,
) -> MessageOut:
    """Stored when this answers. 200 with the final state if that came within `wait` seconds, else 202."""
    _check(new)
    taken = await _front(request).say(
        caller,
        new.text,
        files=new.files,
        native_id=_checked_key(key),
        thread=new.thread,
        acting_as=new.acting_as,
    )
    return await _outcome(request, response, caller, taken, wait)


@router.post(
    "/actions",
    summary="Press a button of a reply",
    tags=["messages"],
    responses=_STILL_GOING,
    openapi_extra=shown(NewPress),
)
async def post_action(
    request: Request,
    response: Response,
    caller: Caller,
    new: Annotated[NewPress, Depends(json_of(NewPress))],
    wait: Wait = 0,
    key: Key = None,
) -> MessageOut:
    """As for a message; `value` is the button's."""
    taken = await _front(request).press(caller, new.value, thread=new.thread, native_id=_checked_key(key))
    return await _outcome(request, response, caller, taken, wait)


@router.get("/messages/{message_id}", summary="A message and what became of it", tags=["messages"])
async def get_message(request: Request, caller: Caller, message_id: Id, wait: Wait = 0) -> MessageOut:
    """One's own messages; owners and auditors see all."""
    view = await _view(request, caller, message_id, wait)
    if view is None:
        raise Problem(404, "There is no such message of yours.")
    return message_out(view, _site(request).prefect)


@router.get(
    "/messages/{message_id}/replies/{reply_id}/files/{index}",
    summary="A file of a reply",
    tags=["messages"],
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def get_file(
    request: Request, caller: Caller, message_id: Id, reply_id: Id, index: Annotated[int, Path(ge=0, le=1000)]
) -> Response:
    """Always as an attachment."""
    return _attached(await _front(request).reply_file(caller, message_id, reply_id, index))


@router.get(
    "/console/replies/{reply_id}/files/{index}",
    summary="A file of a reply in your console",
    tags=["messages"],
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def get_console_file(
    request: Request, caller: Caller, reply_id: Id, index: Annotated[int, Path(ge=0, le=1000)]
) -> Response:
    """As for a message; also for what nobody asked for, such as a scheduled report."""
    return _attached(await _front(request).reply_file(caller, None, reply_id, index))


@router.get("/automations", summary="What you may run", tags=["automations"])
async def get_automations(
    request: Request,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    page: Annotated[str | None, Query(alias="cursor", max_length=400)] = None,
) -> Page[AutomationOut]:
    """By command."""
    specs = sorted(_front(request).automations(caller), key=lambda spec: spec.command)
    after = read_cursor(page)
    rest = [spec for spec in specs if after is None or spec.command > after]
    more = cursor(rest[limit - 1].command) if len(rest) > limit else None
    return Page(items=[automation_out(spec) for spec in rest[:limit]], next=more)


@router.post(
    "/automations/{name}/runs",
    summary="Run one automation",
    tags=["automations"],
    responses=_STILL_GOING,
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {"type": "object", "title": "Parameters"},
                    "examples": {"order": {"value": {"order_id": 1024}}},
                }
            }
        }
    },
)
async def post_run(
    request: Request,
    response: Response,
    caller: Caller,
    name: Id,
    values: Annotated[dict[str, Any], Depends(json_object)],
    wait: Wait = 0,
    key: Key = None,
) -> MessageOut:
    """The body holds its parameters by name. Answers as for a message."""
    refuse_prefect_markers(values)
    taken = await _front(request).start_automation(caller, name, values, native_id=_checked_key(key))
    return await _outcome(request, response, caller, taken, wait)


@router.get("/runs", summary="Requests and their runs", tags=["runs"])
async def get_runs(
    request: Request,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    page: Annotated[str | None, Query(alias="cursor", max_length=400)] = None,
) -> Page[RunOut]:
    """Newest first: one's own; owners and auditors see all."""
    views = await _front(request).runs(caller, limit=limit + 1, before=read_cursor(page))
    more = cursor(views[limit - 1].id) if len(views) > limit else None
    return Page(items=[run_out(view, _site(request).prefect) for view in views[:limit]], next=more)


@router.post("/runs/{request_id}/cancel", summary="Cancel", tags=["runs"], status_code=202)
async def post_cancel(request: Request, caller: Caller, request_id: Id) -> CancelOut:
    """Asks a request of one's own to end; 404 when there is none that is open."""
    if not await _front(request).cancel(caller, request_id):
        raise Problem(404, "There is no such request of yours that is still open.")
    return CancelOut(id=request_id, asked=True)


@router.post(
    "/events", summary="Publish an event", tags=["events"], status_code=204, openapi_extra=shown(NewEvent)
)
async def post_event(
    request: Request, caller: Caller, new: Annotated[NewEvent, Depends(json_of(NewEvent))], key: Key = None
) -> None:
    """Published when this answers, with all that it leads to. For the owner and operators."""
    event = Happening.model_validate(new.model_dump())
    await _front(request).publish(caller, event, native_id=_checked_key(key))


@router.get("/events", summary="Read events", tags=["events"])
async def get_events(
    request: Request,
    caller: Caller,
    topic: Annotated[
        list[str], Query(description="Patterns: `*` is one word, `#` none or more.", examples=[["github.#"]])
    ],
    after: Annotated[
        int | None, Query(ge=0, lt=2**63, description="The last answer's; without it: from now on.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    wait: Wait = 0,
) -> EventsOut:
    """In order, each once, over restarts too; they are kept for a week. For the owner and operators."""
    read = _front(request).events(caller, topic, after=after, limit=limit, seconds=wait)
    try:
        view = await _unless_closing(request, read)
    except TimeoutError:
        view = await _front(request).events(caller, topic, after=after, limit=limit, seconds=0)
    return EventsOut.model_validate(view.model_dump())


router.include_router(dead_letter_api.router)
router.include_router(approval_api.router)
router.include_router(audit_api.router)
router.include_router(sessions_api.router)


@router.get("/status", summary="How the installation is doing", tags=["installation"])
async def get_status(request: Request, caller: Caller) -> dict[str, Any]:
    """Processes, accounts, queue."""
    may_watch(caller)
    return await _front(request).status()


@router.get("/me", summary="Who you are", tags=["installation"])
async def get_me(caller: Caller) -> Me:
    """The principal behind the token or the session."""
    return me_out(caller)


def complete_openapi(app: FastAPI) -> None:
    """Let the OpenAPI document of this app also show bodies, problems, and how to log in."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            add_schemas(document, NewMessage, NewPress, NewEvent, NewReplay, ProblemDetails)
            document["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": _site_of(app).cookie},
            }
            document["security"] = [{"token": []}, {"session": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _check(new: NewMessage) -> None:
    if len(new.text) > MAX_TEXT:
        raise Problem(
            413,
            f"The text has {len(new.text):,} characters; {MAX_TEXT:,} is the most. Send it as a file.",
            kind="text-too-long",
        )
    if not new.text.strip() and not new.files:
        raise Problem(422, "The message is empty: write something, or add a file.", kind="empty")


async def _outcome(
    request: Request, response: Response, caller: Principal, taken: Accepted, wait: float
) -> MessageOut:
    view = await _view(request, caller, taken.id, wait)
    if view is None:
        raise Problem(404, "The message is stored, but is not one of yours.")
    response.status_code = 200 if view.final else 202
    response.headers["location"] = f"{API}/messages/{quote(view.id, safe='')}"
    return message_out(view, _site(request).prefect)


async def _view(request: Request, caller: Principal, message_id: str, wait: float) -> MessageView | None:
    if wait:
        with suppress(TimeoutError):
            return await _unless_closing(request, _front(request).wait_for(caller, message_id, wait))
    return await _front(request).message(caller, message_id)


async def _unless_closing(request: Request, waited: Awaitable[Answer]) -> Answer:
    # Whoever waits while the hub stops gets the present state, and asks the next hub for the rest.
    closing: asyncio.Event = request.app.state.closing
    answer, end = asyncio.ensure_future(waited), asyncio.create_task(closing.wait())
    try:
        await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise TimeoutError
    finally:
        end.cancel()
        answer.cancel()


def _attached(file: File | None) -> Response:
    if file is None:
        raise Problem(404, "There is no such file of yours.")
    kind = file.media_type if _MEDIA_TYPE.fullmatch(file.media_type) else "application/octet-stream"
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
        "content-security-policy": "sandbox; default-src 'none'",
        # Set here, so that no `charset` is guessed for a text in another encoding.
        "content-type": kind,
    }
    return Response(file.content, headers=headers)


def _checked_key(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(400, "Idempotency-Key: 1 to 200 visible ASCII characters.", kind="bad-key")
    return key


def _front(request: Request) -> Front:
    front: Front = request.app.state.front
    return front


def _site(request: Request) -> Site:
    return _site_of(request.app)


def _site_of(app: FastAPI) -> Site:
    site: Site = app.state.site
    return site
