"""Logging in and out with a browser: the page, the link that `make up` prints, a password, the session."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from parley.errors import RateLimited
from parley.language.characters import Language
from parley.web.auth import Doors
from parley.web.front import Front
from parley.web.limits import body_of
from parley.web.problems import Problem

router = APIRouter(include_in_schema=False)

BROWSER: Final = "browser"
"""The cookie by which a browser is known in which somebody signed in with a password."""

BROWSER_SECONDS: Final = 180 * 86_400
_LONGEST_FORM: Final = 4096
_MOST_FIELDS: Final = 5

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "lang": "en",
        "title": "Log in to Parley",
        "label": "Token or one-time code",
        "hint": "On the machine where Parley runs, <code>parley token</code> prints a token.",
        "button": "Log in",
        "wrong": "That is not a valid token or code, or it was used before.",
        "name": "Name",
        "password": "Password",
        "unknown": "The name or the password is wrong.",
        "later": "Too many tries. Come again in {seconds} seconds.",
        "refused": "The sign-in was not accepted. Try once more, or ask whoever looks after this installation.",
        "passkey": "Use a passkey",
        "with": "Go on with {provider}",
        "other": "With a token or a code",
        "failed": "That did not work. Try once more.",
    },
    "zh": {
        "lang": "zh-CN",
        "title": "登录 Parley",
        "label": "令牌或一次性登录码",
        "hint": "在运行 Parley 的机器上执行 <code>parley token</code> 即可获得令牌。",
        "button": "登录",
        "wrong": "令牌或登录码无效，或已被使用。",
        "name": "名称",
        "password": "密码",
        "unknown": "名称或密码不正确。",
        "later": "尝试次数过多，请在 {seconds} 秒后重试。",
        "refused": "登录未被接受。请重试，或联系本系统的管理者。",
        "passkey": "使用通行密钥",
        "with": "使用 {provider} 登录",
        "other": "使用令牌或登录码",
        "failed": "登录未成功，请重试。",
    },
}


@router.get("/login")
async def login_page(request: Request, code: str = "", refused: bool = False) -> Response:
    """The form; or, with the code of a link, the session itself."""
    if not code:
        return _form(request, "refused" if refused else "", 200)
    if "prefetch" in request.headers.get("sec-purpose", ""):
        # A browser that fetches ahead must not use up the code.
        raise Problem(503, "Open the link to log in.", kind="prefetch")
    try:
        secret = await _by_secret(request, code)
    except RateLimited as error:
        return _later(request, error)
    return _form(request, "wrong", 401) if secret is None else entered(request, secret)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """The form was sent: name and password, or a token or code."""
    doors = _doors(request)
    doors.check_origin(request)
    fields = await _fields(request)
    response: Response = RedirectResponse("/", 303)
    try:
        if "name" in fields:
            found = await _by_password(request, fields)
            if found is None:
                return _form(request, "unknown", 401)
            secret, mark = found
            doors.put(request, response, BROWSER, mark, BROWSER_SECONDS)
        else:
            made = await _by_secret(request, fields.get("secret", [""])[0].strip())
            if made is None:
                return _form(request, "wrong", 401)
            secret = made
    except RateLimited as error:
        return _later(request, error)
    doors.keep(request, response, secret)
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


def entered(request: Request, secret: str) -> Response:
    """The page that leads on, and the session.

    Not a redirect: after a click in a mail or a provider's page that would count as coming from there, and a strict
    cookie would stay at home.
    """
    response = HTMLResponse(_page("entered", request))
    _doors(request).keep(request, response, secret)
    return response


def language_of_browser(request: Request) -> Language:
    """Chinese when the browser prefers it, else English."""
    preferred = request.headers.get("accept-language", "").partition(",")[0].strip().lower()
    return "zh" if preferred.startswith("zh") else "en"


def agent_of(request: Request) -> str:
    """What the browser says it is."""
    return request.headers.get("user-agent", "")


def address_of(request: Request) -> str:
    """From where the request comes, as far as we see: behind a proxy that is the proxy."""
    return request.client.host if request.client else ""


async def _fields(request: Request) -> dict[str, list[str]]:
    text = (await body_of(request, _LONGEST_FORM, 10)).decode("utf-8", "replace")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Problem(400, "The log-in page sends no such form.", kind="form") from None


async def _by_secret(request: Request, secret: str) -> str | None:
    return await _front(request).log_in(secret, agent=agent_of(request), address=address_of(request))


async def _by_password(request: Request, fields: dict[str, list[str]]) -> tuple[str, str] | None:
    return await _front(request).sign_in.passwords.sign_in(
        fields["name"][0],
        fields.get("password", [""])[0],
        address=address_of(request),
        agent=agent_of(request),
        mark=_doors(request).got(request, BROWSER),
    )


def _later(request: Request, error: RateLimited) -> Response:
    response = _form(request, "later", 429, seconds=str(int(error.retry_after)))
    response.headers["retry-after"] = str(int(error.retry_after))
    return response


def _form(request: Request, note: str, status: int, **values: str) -> Response:
    words = _WORDS[language_of_browser(request)]
    said = f'<p class="wrong" role="alert">{words[note].format(**values)}</p>' if note else ""
    buttons = "".join(
        f'<button type="button" data-provider="{escape(quote(name, safe=""))}">'
        f"{words['with'].format(provider=escape(label))}</button>"
        for name, label in _front(request).sign_in.providers
    )
    page = _page("login", request).replace("{{note}}", said).replace("{{providers}}", buttons)
    return HTMLResponse(page, status)


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
