"""One's own account at the console: sessions, password, passkeys. For a browser that is signed in; no token counts."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from parley.people.sign_in import SignIn
from parley.web.auth import Doors
from parley.web.bodies import json_of
from parley.web.passkey_place import CREDENTIAL_MEMBERS, NEW_PASSKEY, place_of
from parley.web.problems import Problem
from parley.web.sessions_api import session_out

router = APIRouter(include_in_schema=False)

_PAGE = (files("parley.web") / "pages" / "account.html").read_text("utf-8")


class NewPassword(BaseModel):
    """From the page. Its `repr` hides the password."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    password: str = Field(max_length=1000, repr=False)


class NewPasskey(BaseModel):
    """From the page: what the browser made, and what the person calls it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str = Field(max_length=200)
    credential: dict[str, Any] = Field(max_length=CREDENTIAL_MEMBERS)


@router.get("/account")
async def page(request: Request) -> Response:
    """The page, for who is logged in."""
    if await _doors(request).visitor(request) is None:
        return RedirectResponse("/login", 303)
    return HTMLResponse(_PAGE)


@router.get("/account/state")
async def state(request: Request) -> Response:
    """What the page shows."""
    who, session = await _doors(request).signed_in(request)
    sign_in = _sign_in(request)
    _, open_ones = await sign_in.sessions.of(who)
    return JSONResponse(
        {
            "name": who.name,
            "session": session.id,
            "recent": session.is_recent,
            "sessions": [session_out(one).model_dump(mode="json") for one in open_ones],
            "password": await sign_in.passwords.exists(who),
            "passkeys": [
                {
                    "id": one.id,
                    "name": one.name,
                    "created_at": one.created_at.isoformat(),
                    "used_at": one.used_at.isoformat() if one.used_at else None,
                }
                for one in await sign_in.passkeys.of(who)
            ],
            "providers": await sign_in.connections(who),
        }
    )


@router.post("/account/password")
async def set_password(request: Request) -> Response:
    """A first password, or another one; other sessions end."""
    who, session = await _doors(request).signed_in(request)
    new = await json_of(NewPassword)(request)
    await _sign_in(request).passwords.set(who, session, new.password)
    return Response(status_code=204)


@router.delete("/account/password")
async def remove_password(request: Request) -> Response:
    """No password any more; other sessions end."""
    who, session = await _doors(request).signed_in(request)
    if not await _sign_in(request).passwords.remove(who, session):
        raise Problem(404, "There is no password.")
    return Response(status_code=204)


@router.post("/account/passkeys/options")
async def ask_for_passkey(request: Request) -> Response:
    """What the browser makes a new passkey from."""
    who, session = await _doors(request).signed_in(request)
    options, cookie = await _sign_in(request).passkeys.ask_for_new(who, session, place_of(request))
    response = JSONResponse(options)
    _doors(request).put(request, response, NEW_PASSKEY, cookie, 300)
    return response


@router.post("/account/passkeys")
async def add_passkey(request: Request) -> Response:
    """Keep what the browser made."""
    doors = _doors(request)
    who, session = await doors.signed_in(request)
    new = await json_of(NewPasskey)(request)
    cookie = doors.got(request, NEW_PASSKEY)
    await _sign_in(request).passkeys.add(who, session, new.credential, cookie, place_of(request), new.name)
    response = Response(status_code=204)
    doors.drop(request, response, NEW_PASSKEY)
    return response


@router.delete("/account/passkeys/{passkey_id}")
async def remove_passkey(request: Request, passkey_id: str) -> Response:
    """Take one away; what was signed in with it ends."""
    who, session = await _doors(request).signed_in(request)
    if not await _sign_in(request).passkeys.remove(who, session, passkey_id[:100]):
        raise Problem(404, "There is no such passkey.")
    return Response(status_code=204)


def _sign_in(request: Request) -> SignIn:
    sign_in: SignIn = request.app.state.front.sign_in
    return sign_in


def _doors(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors
