"""Logging in with a passkey: a challenge that this browser keeps, and its answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from parley.people.passkey_desk import PasskeyDesk
from parley.web.auth import Doors
from parley.web.bodies import json_object
from parley.web.login import address_of, agent_of
from parley.web.passkey_place import CREDENTIAL_MEMBERS, PASSKEY, place_of
from parley.web.problems import Problem

router = APIRouter(include_in_schema=False)


@router.post("/login/passkey/options")
async def options(request: Request) -> Response:
    """What the browser signs."""
    _doors(request).check_origin(request)
    asked, cookie = _desk(request).ask(place_of(request))
    response = JSONResponse(asked)
    _doors(request).put(request, response, PASSKEY, cookie, 300)
    return response


@router.post("/login/passkey")
async def log_in(request: Request) -> Response:
    """The session, when the answer is a passkey's."""
    doors = _doors(request)
    doors.check_origin(request)
    answer = await json_object(request)
    if len(answer) > CREDENTIAL_MEMBERS:
        raise Problem(422, "This is no answer of a passkey.", kind="invalid")
    secret = await _desk(request).sign_in(
        answer,
        doors.got(request, PASSKEY),
        place_of(request),
        address=address_of(request),
        agent=agent_of(request),
    )
    if secret is None:
        raise Problem(401, "No passkey that is known here has answered; try once more.", kind="passkey")
    response = Response(status_code=204)
    doors.drop(request, response, PASSKEY)
    doors.keep(request, response, secret)
    return response


def _desk(request: Request) -> PasskeyDesk:
    desk: PasskeyDesk = request.app.state.front.sign_in.passkeys
    return desk


def _doors(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors
