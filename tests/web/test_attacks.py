"""Who must not get in, what must not get through: each gets a clear answer, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from parley.errors import ConfigurationError
from parley.messages.model import MAX_TEXT
from parley.settings import File, Settings, Web
from parley.web.limits import FILES_BODY, TEXT_BODY
from parley.web.site import site_of
from tests.web.fake_front import FakeFront

M = "/api/v1/messages"
JSON = {"content-type": "application/json"}


def is_problem(answer: httpx.Response, status: int, kind: str = "") -> bool:
    body = answer.json()
    return (
        answer.status_code == status == body["status"]
        and answer.headers["content-type"] == "application/problem+json"
        and bool(body["title"] and body["detail"])
        and (not kind or body["type"] == f"urn:parley:problem:{kind}")
    )


# -- who gets in


@pytest.mark.parametrize(
    "path", ["/api/v1/me", "/api/v1/runs", "/api/v1/automations", "/api/v1/status", f"{M}/m0000"]
)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic YTpi", "Bearer " + "x" * 5000])
async def test_nobody_gets_in(web: httpx.AsyncClient, path: str, header: str | None) -> None:
    answer = await web.get(path, headers={"authorization": header} if header else {})
    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_junk_in_headers_is_nobody(web: httpx.AsyncClient) -> None:
    answer = await web.get("/api/v1/me", headers=[(b"authorization", b"Bearer \xff\xfe")])
    assert is_problem(answer, 401)
    answer = await web.get("/api/v1/me", headers=[(b"cookie", b"\xff;;=;parley_session=\x80")])
    assert is_problem(answer, 401)


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "ü", "a\tb"])
async def test_an_idempotency_key_is_plain(ada: httpx.AsyncClient, front: FakeFront, key: str) -> None:
    headers = [(b"idempotency-key", key.encode())]
    assert is_problem(await ada.post(M, json={"text": "x"}, headers=headers), 400, "bad-key")
    assert not front.messages


async def test_a_wrong_token_is_not_saved_by_a_session(browser: httpx.AsyncClient) -> None:
    assert is_problem(await browser.get("/api/v1/me", headers={"authorization": "Bearer wrong"}), 401)


# -- where a browser asks from


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example", ""])
async def test_another_host_is_refused(ada: httpx.AsyncClient, host: str) -> None:
    """DNS rebinding: a page of evil.example, whose name was bent to 127.0.0.1."""
    assert is_problem(await ada.get("/api/v1/me", headers={"host": host}), 421, "host")


@pytest.mark.parametrize("asking", ["http://evil.example", "null", "http://127.0.0.1:1", "", None])
async def test_a_session_acts_only_from_our_own_page(
    browser: httpx.AsyncClient, front: FakeFront, asking: str | None
) -> None:
    del browser.headers["origin"]
    headers = {} if asking is None else {"origin": asking}
    assert is_problem(await browser.post(M, json={"text": "/order 1"}, headers=headers), 403, "origin")
    assert is_problem(await browser.post("/logout", headers=headers), 403, "origin")
    assert is_problem(
        await browser.post("/login", data={"secret": "token-ben"}, headers=headers), 403, "origin"
    )
    assert not front.messages
    assert front.sessions


async def test_a_session_acts_from_our_own_page(browser: httpx.AsyncClient, configured: Settings) -> None:
    for host in ("127.0.0.1", "localhost"):
        headers = {"origin": f"http://{host}:{configured.port}"}
        assert (await browser.post(M, json={"text": "/order 1"}, headers=headers)).status_code == 200


async def test_a_token_does_not_excuse_another_origin(ada: httpx.AsyncClient) -> None:
    headers = {"origin": "http://evil.example"}
    assert is_problem(await ada.post(M, json={"text": "/order 1"}, headers=headers), 403, "origin")


async def test_no_other_page_may_read_or_frame_us(ada: httpx.AsyncClient) -> None:
    answer = await ada.get("/api/v1/me", headers={"origin": "http://evil.example"})
    assert not {name for name in answer.headers if name.startswith("access-control")}
    for path in ("/login", "/api/v1/me", "/nothing", "/static/console.js"):
        headers = (await ada.get(path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"


# -- log in


async def test_a_link_logs_in_once(web: httpx.AsyncClient, configured: Settings) -> None:
    answer = await web.get("/login", params={"code": "code-ada"})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 200
    assert cookie.startswith(f"parley_session_{configured.port}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (await web.get("/api/v1/me")).json()["name"] == "ada"
    web.cookies.clear()
    assert (await web.get("/login", params={"code": "code-ada"})).status_code == 401


async def test_a_prefetch_does_not_use_up_the_link(web: httpx.AsyncClient, front: FakeFront) -> None:
    headers = {"sec-purpose": "prefetch;prerender"}
    assert (await web.get("/login", params={"code": "code-ada"}, headers=headers)).status_code == 503
    assert "code-ada" in front.codes


async def test_a_token_logs_a_browser_in_and_out(web: httpx.AsyncClient, origin: str) -> None:
    web.headers["origin"] = origin
    assert (await web.get("/")).headers["location"] == "/login"
    assert (await web.post("/login", data={"secret": "wrong"})).status_code == 401
    entered = await web.post("/login", data={"secret": " token-ben "})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    session = dict(web.cookies)
    assert "text/html" in (await web.get("/")).headers["content-type"]
    assert (await web.post("/logout")).status_code == 303
    web.cookies.update(session)
    assert is_problem(await web.get("/api/v1/me"), 401)


async def test_a_form_with_more_fields_than_ours_is_refused(web: httpx.AsyncClient, origin: str) -> None:
    web.headers["origin"] = origin
    form = {"content-type": "application/x-www-form-urlencoded"}
    for many in (6, 300):
        answer = await web.post("/login", content="&".join(f"f{n}=x" for n in range(many)), headers=form)
        assert is_problem(answer, 400, "form")


async def test_a_session_is_no_token_and_a_token_no_session(
    web: httpx.AsyncClient, front: FakeFront, configured: Settings
) -> None:
    session = await front.log_in("token-ben")
    assert is_problem(await web.get("/api/v1/me", headers={"authorization": f"Bearer {session}"}), 401)
    cookie = {"cookie": f"parley_session_{configured.port}=token-ben"}
    assert is_problem(await web.get("/api/v1/me", headers=cookie), 401)


async def test_the_login_page_speaks_the_browsers_language(web: httpx.AsyncClient) -> None:
    assert "登录 Parley" in (await web.get("/login", headers={"accept-language": "zh-CN,zh;q=0.9"})).text
    assert "Log in to Parley" in (await web.get("/login", headers={"accept-language": "de,zh"})).text


def test_origins_in_the_settings_are_origins(configured: Settings) -> None:
    def sited(*origins: str) -> Settings:
        return configured.model_copy(update={"file": File(web=Web(origins=origins))})

    site = site_of(sited("https://Parley.example", "http://box:8080"))
    assert site.owns("https://parley.example")
    assert site.knows_host("PARLEY.example")
    assert site.knows_host("box:8080")
    for wrong in ("parley.example", "https://a/", "https://a/b", "ftp://a", "*", "https://u@a"):
        with pytest.raises(ConfigurationError, match=r"web\.origins"):
            site_of(sited(wrong))


# -- what gets through


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "\xff\xfe"}',
        b"\xff\xfe{\x00}\x00",
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"",
        b"{",
        b'{"text": "a"} x',
    ],
)
async def test_what_is_not_json_is_400(ada: httpx.AsyncClient, front: FakeFront, body: bytes) -> None:
    assert is_problem(await ada.post(M, content=body, headers=JSON), 400, "bad-json")
    if body:
        run = await ada.post("/api/v1/automations/order/runs", content=body, headers=JSON)
        assert is_problem(run, 400, "bad-json")
    assert not front.messages


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"text": ""}, 422),
        ({"text": " \n\t"}, 422),
        ({"text": 1}, 422),
        ({"text": None}, 422),
        ({"text": "a", "more": 1}, 422),
        ({"text": "a", "files": [{"name": "x", "content": "!"}]}, 422),
        ({"text": "a", "files": [{"name": "x", "content": ""}] * 11}, 422),
        ({"text": "a", "thread": "x" * 257}, 422),
        ([], 422),
        ("a", 422),
    ],
)
async def test_what_is_no_message_is_422(
    ada: httpx.AsyncClient, front: FakeFront, body: object, status: int
) -> None:
    assert is_problem(await ada.post(M, json=body), status)
    assert not front.messages


async def test_what_is_wrong_is_pointed_at_and_not_repeated(ada: httpx.AsyncClient) -> None:
    body = {"text": "a", "files": [{"name": "x", "content": "canary-é"}]}
    answer = await ada.post(M, json=body)
    assert answer.json()["errors"][0]["pointer"] == "/files/0/content"
    assert "canary" not in answer.text


async def test_a_megabyte_of_text_gets_a_clear_answer(ada: httpx.AsyncClient, front: FakeFront) -> None:
    for letter in ("a", "字"):
        answer = await ada.post(M, json={"text": letter * (MAX_TEXT + 1)})
        assert is_problem(answer, 413, "text-too-long")
        assert "1,000,000" in answer.json()["detail"]
    assert not front.messages
    assert (await ada.post(M, json={"text": "a" * MAX_TEXT})).status_code == 200


async def endless(size: int) -> AsyncIterator[bytes]:
    """Says nothing of its length."""
    for _ in range(size // 65536 + 1):
        yield b"x" * 65536


@pytest.mark.parametrize(
    ("path", "limit"),
    [(M, FILES_BODY), ("/api/v1/automations/order/runs", TEXT_BODY), ("/api/v1/actions", TEXT_BODY)],
)
async def test_an_oversized_body_is_413(ada: httpx.AsyncClient, path: str, limit: int) -> None:
    assert is_problem(await ada.post(path, content=endless(limit), headers=JSON), 413)
    answer = await ada.post(path, content=b"{}", headers=JSON | {"content-length": str(limit + 1)})
    assert is_problem(answer, 413)


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/json; charset=gbk"]
)
async def test_a_form_of_another_page_is_415(ada: httpx.AsyncClient, kind: str) -> None:
    answer = await ada.post(M, content=json.dumps({"text": "a"}), headers={"content-type": kind})
    assert is_problem(answer, 415)


@pytest.mark.parametrize("wait", ["nan", "-1", "121", "x", "1e9", "inf"])
async def test_a_wait_is_bounded(ada: httpx.AsyncClient, wait: str) -> None:
    assert is_problem(await ada.post(M, json={"text": "/slow"}, params={"wait": wait}), 422)


async def test_every_refusal_of_the_framework_is_a_problem_too(ada: httpx.AsyncClient) -> None:
    assert is_problem(await ada.get("/nothing/here"), 404)
    assert is_problem(await ada.get("/api/v1/messages/" + "x" * 101), 422)
    answer = await ada.delete("/api/v1/me")
    assert is_problem(answer, 405)
    assert answer.headers["allow"] == "GET"
    assert is_problem(await ada.get("/static/../app.py"), 404)
    assert is_problem(await ada.get("/static/%2e%2e/app.py"), 404)
    assert is_problem(await ada.get(f"{M}/m0000/replies/r/files/-1"), 422)
