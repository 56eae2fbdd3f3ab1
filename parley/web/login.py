"""Logging in and out with a browser: the page, the link that `make up` prints, the session."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from parley.language.characters import Language
from parley.web.auth import Doors
from parley.web.front import Front
from parley.web.limits import body_of
from parley.web.problems import Problem

router = APIRouter(include_in_schema=False)

_LONGEST_FORM = 4096

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "lang": "en",
        "title": "Log in to Parley",
        "label": "Token or one-time code",
        "hint": "On the machine where Parley runs, <code>parley token</code> prints a token.",
        "button": "Log in",
        "wrong": "That is not a valid token or code, or it was used before.",
    },
    "zh": {
        "lang": "zh-CN",
        "title": "登录 Parley",
        "label": "令牌或一次性登录码",
        "hint": "在运行 Parley 的机器上执行 <code>parley token</code> 即可获得令牌。",
        "button": "登录",
        "wrong": "令牌或登录码无效，或已被使用。",
    },
}


@router.get("/login")
async def login_page(request: Request, code: str = "") -> Response:
    """The form; or, with the code of a link, the session itself."""
    if not code:
        return _form(request)
    if "prefetch" in request.headers.get("sec-purpose", ""):
        # A browser that fetches ahead must not use up the code.
        raise Problem(503, "Open the link to log in.", kind="prefetch")
    secret = await _front(request).log_in(code, agent=_agent(request))
    if secret is None:
        return _form(request, wrong=True)
    # Not a redirect: after a click in a mail or a chat page that would count as coming from there, and a strict
    # cookie would stay at home.
    response = HTMLResponse(_page("entered", request))
    _doors(request).keep(request, response, secret)
    return response


@router.post("/login")
async def log_in(request: Request) -> Response:
    """The form was sent."""
    _doors(request).check_origin(request)
    fields = parse_qs(
        (await body_of(request, _LONGEST_FORM, 10)).decode("utf-8", "replace"), max_num_fields=5
    )
    secret = await _front(request).log_in(fields.get("secret", [""])[0].strip(), agent=_agent(request))
    if secret is None:
        return _form(request, wrong=True)
    response = RedirectResponse("/", 303)
    _doors(request).keep(request, response, secret)
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session here and in the store."""
    doors = _doors(request)
    doors.check_origin(request)
    secret = doors.session(request)
    if secret:
        await _front(request).log_out(secret)
    response = RedirectResponse("/login", 303)
    doors.forget(request, response)
    return response


def language_of_browser(request: Request) -> Language:
    """Chinese when the browser prefers it, else English."""
    preferred = request.headers.get("accept-language", "").partition(",")[0].strip().lower()
    return "zh" if preferred.startswith("zh") else "en"


def _agent(request: Request) -> str:
    return request.headers.get("user-agent", "")


def _form(request: Request, *, wrong: bool = False) -> Response:
    note = (
        f'<p class="wrong" role="alert">{_WORDS[language_of_browser(request)]["wrong"]}</p>' if wrong else ""
    )
    return HTMLResponse(_page("login", request).replace("{{note}}", note), 401 if wrong else 200)


def _page(name: str, request: Request) -> str:
    text = _template(name)
    for word, meaning in _WORDS[language_of_browser(request)].items():
        text = text.replace("{{" + word + "}}", meaning)
    return text


@cache
def _template(name: str) -> str:
    return (files("parley.web") / "pages" / f"{name}.html").read_text("utf-8")


def _front(request: Request) -> Front:
    front: Front = request.app.state.front
    return front


def _doors(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors
