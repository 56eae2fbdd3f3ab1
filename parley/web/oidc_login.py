"""Logging in by an OpenID provider: the way there, the way back, and the provider's word that somebody left."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from parley.errors import BadArguments, ParleyError, RateLimited
from parley.people.oidc import Answer, OidcDesk
from parley.people.principals import Principal
from parley.people.sessions import Session
from parley.web.auth import Doors
from parley.web.limits import body_of
from parley.web.login import address_of, agent_of, entered
from parley.web.problems import Problem
from parley.web.site import Site

router = APIRouter(include_in_schema=False)

PROVIDER: Final = "provider"
"""The cookie of a challenge."""

_LONGEST_LOGOUT = 64 * 1024
_CONNECTED = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/account">'
    '<title>Parley</title><p><a href="/account">Parley</a></p>'
)


@router.post("/login/provider/{name}")
async def there(request: Request, name: str) -> Response:
    """Where to sign in: the page goes there."""
    _doors(request).check_origin(request)
    return await _go(request, name, None)


@router.post("/account/providers/{name}")
async def connect(request: Request, name: str) -> Response:
    """As `there`, to connect what is there to who is signed in here."""
    return await _go(request, name, await _doors(request).signed_in(request))


@router.delete("/account/providers/{name}")
async def disconnect(request: Request, name: str) -> Response:
    """Let what is there be nobody here; what began with it ends."""
    who, session = await _doors(request).signed_in(request)
    if not await _desk(request).disconnect(who, session, name):
        raise Problem(404, "That is not connected.")
    return Response(status_code=204)


@router.get("/login/provider/{name}/callback")
async def back(
    request: Request, name: str, code: str = "", state: str = "", iss: str | None = None
) -> Response:
    """Back from the provider."""
    doors = _doors(request)
    answer = Answer(code=code, state=state, issuer=iss)
    cookie = doors.got(request, PROVIDER)
    try:
        found = await _desk(request).come_back(
            name, answer, cookie, address=address_of(request), agent=agent_of(request)
        )
    except RateLimited:
        found = None
    if found is None:
        response: Response = RedirectResponse("/login?refused=true", 303)
    elif found.secret is None:
        response = HTMLResponse(_CONNECTED)
    else:
        response = entered(request, found.secret)
    doors.drop(request, response, PROVIDER)
    return response


@router.post("/login/provider/{name}/logout")
async def out(request: Request, name: str) -> Response:
    """Back-channel logout: the provider's own program calls, and proves itself by the token that it signed."""
    text = (await body_of(request, _LONGEST_LOGOUT, 10)).decode("utf-8", "replace")
    try:
        token = parse_qs(text, max_num_fields=5).get("logout_token", [""])[0]
        await _desk(request).end_there(name, token, address=address_of(request))
    except RateLimited:
        raise
    except (ParleyError, ValueError):
        raise Problem(400, "This ends nothing here.", kind="logout-token") from None
    return Response(status_code=200)


async def _go(request: Request, name: str, link: tuple[Principal, Session] | None) -> Response:
    doors = _doors(request)
    site: Site = request.app.state.site
    origin = (request.headers.get("origin") or "").lower()
    if not site.owns(origin):
        raise Problem(403, "This request does not come from this installation's own page.", kind="origin")
    redirect = f"{origin}/login/provider/{quote(name, safe='')}/callback"
    try:
        where, cookie = await _desk(request).begin(name, redirect, address=address_of(request), link=link)
    except BadArguments as error:
        raise Problem(404, str(error)) from None
    response = JSONResponse({"location": where})
    doors.put(request, response, PROVIDER, cookie, 300, for_return=True)
    return response


def _desk(request: Request) -> OidcDesk:
    desk: OidcDesk = request.app.state.front.sign_in.oidc
    return desk


def _doors(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors
