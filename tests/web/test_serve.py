"""The three ports on real sockets: who may open them, who is cut off, how they close."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from parley.errors import ConfigurationError
from parley.messages.model import Reply
from parley.metrics import MOST_VALUES, Metrics
from parley.people.principals import Role
from parley.settings import File, Hooks, MetricsPort, Settings, Tls, Web
from parley.web import console, serve
from parley.web.limits import HOOK_BODY
from tests.certificates import self_signed
from tests.fakes._driver import eventually
from tests.web.fake_front import REPORT, FakeFront


@pytest.fixture
async def served(front: FakeFront, configured: Settings) -> AsyncIterator[Settings]:
    async with serve.serve(front, configured, metrics=Metrics()):
        yield configured


@asynccontextmanager
async def page(front: FakeFront, configured: Settings, **headers: str) -> AsyncIterator[ClientConnection]:
    """A browser's WebSocket, logged in as the owner."""
    session = await front.log_in("token-ada")
    origin = f"http://127.0.0.1:{configured.port}"
    given = {"Origin": origin, "Cookie": f"parley_session_{configured.port}={session}"} | headers
    given = {name: value for name, value in given.items() if value}
    uri = f"ws://127.0.0.1:{configured.port}/ws"
    async with connect(uri, additional_headers=given, proxy=None) as opened:
        yield opened


async def heard(opened: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await asyncio.wait_for(opened.recv(), 10))
    return found


async def closing_of(opened: ClientConnection) -> ConnectionClosed:
    """How the other side closed, whatever it said before."""
    try:
        while True:
            await asyncio.wait_for(opened.recv(), 10)
    except ConnectionClosed as closed:
        return closed


# -- ports


async def test_a_taken_port_is_named_with_its_variable(front: FakeFront, configured: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", configured.hooks_port))
        other.listen()
        with pytest.raises(ConfigurationError, match=rf"{configured.hooks_port} is taken.*PARLEY_HOOKS_PORT"):
            async with serve.serve(front, configured, metrics=Metrics()):
                pass
    async with serve.serve(front, configured, metrics=Metrics()):
        pass


@pytest.mark.parametrize("file", [File(web=Web(host="0.0.0.0")), File(hooks=Hooks(host="192.0.2.1"))])
async def test_the_network_gets_no_port_without_tls(
    front: FakeFront, configured: Settings, file: File
) -> None:
    with pytest.raises(ConfigurationError, match="there is no TLS"):
        async with serve.serve(front, configured.model_copy(update={"file": file}), metrics=Metrics()):
            pass


async def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(served: Settings) -> None:
    """With Nagle's algorithm each answer on a kept connection takes the 40 ms of a delayed acknowledgement."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", trust_env=False) as client:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            (await client.get("/healthz")).raise_for_status()
            times.append(time.perf_counter() - began)

    assert min(times[1:]) < 0.03


async def test_files_that_do_not_work_are_told_before_a_port_is_opened(
    front: FakeFront, configured: Settings, tmp_path: Path
) -> None:
    web = Web(certificate=tmp_path / "c.pem", key=tmp_path / "k.pem")
    secure = configured.model_copy(update={"file": File(web=web)})
    with pytest.raises(ConfigurationError, match="cannot be used"):
        async with serve.serve(front, secure, metrics=Metrics()):
            pass


async def test_figures_may_ask_for_a_token(front: FakeFront, configured: Settings, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    asking = configured.model_copy(update={"file": File(metrics=MetricsPort(token_file=token))})
    url = f"http://127.0.0.1:{configured.metrics_port}/metrics"
    async with (
        serve.serve(front, asking, metrics=Metrics()),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        assert (await client.get(url)).status_code == 401
        assert (
            await client.get(url, headers={"authorization": "Bearer 0123456789abcdeg"})
        ).status_code == 401
        assert (
            await client.get(url, headers={"authorization": "bearer 0123456789abcdef"})
        ).status_code == 200


@pytest.mark.parametrize("text", ["short", "", "0123456789 abcdef"])
async def test_a_token_that_protects_nothing_is_refused(
    front: FakeFront, configured: Settings, tmp_path: Path, text: str
) -> None:
    token = tmp_path / "token"
    token.write_text(text)
    token.chmod(0o600)
    asking = configured.model_copy(update={"file": File(metrics=MetricsPort(token_file=token))})
    with pytest.raises(ConfigurationError, match="token_file"):
        async with serve.serve(front, asking, metrics=Metrics()):
            pass
    token.write_text("0123456789abcdef")
    token.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod"):
        async with serve.serve(front, asking, metrics=Metrics()):
            pass


async def test_with_a_certificate_nothing_below_tls_1_3(
    front: FakeFront, configured: Settings, tmp_path: Path
) -> None:
    certificate, key = certificate_files(tmp_path)
    secure = configured.model_copy(update={"file": File(web=Web(certificate=certificate, key=key))})
    async with serve.serve(front, secure, metrics=Metrics()):
        trusting = ssl.create_default_context(cafile=str(certificate))
        url = f"https://127.0.0.1:{configured.port}"
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            entered = await client.get(f"{url}/login", params={"code": "code-ada"})
            assert entered.headers["set-cookie"].startswith("__Host-parley=")
            assert "Secure" in entered.headers["set-cookie"]
            assert "strict-transport-security" in entered.headers
            assert (await client.get(f"{url}/api/v1/me")).json()["name"] == "ada"
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)


async def test_behind_a_proxy_with_tls_the_session_never_travels_in_clear(
    front: FakeFront, configured: Settings
) -> None:
    proxied = configured.model_copy(
        update={"file": File(web=Web(origins=("https://parley.example.com", "http://plain.example.com")))}
    )
    url = f"http://127.0.0.1:{configured.port}/login"
    async with (
        serve.serve(front, proxied, metrics=Metrics()),
        httpx.AsyncClient(trust_env=False, params={"code": "token-ada"}) as client,
    ):
        secured = await client.get(url, headers={"host": "parley.example.com"})
        assert "Secure" in secured.headers["set-cookie"]
        assert "strict-transport-security" in secured.headers
        for host in ("plain.example.com", f"127.0.0.1:{configured.port}", f"localhost:{configured.port}"):
            plain = await client.get(url, headers={"host": host})
            assert "Secure" not in plain.headers["set-cookie"], "a browser would not send it back"
            assert "strict-transport-security" not in plain.headers


async def test_a_hub_that_stops_leaves_nobody_waiting(front: FakeFront, configured: Settings) -> None:
    """Who waits for an answer gets the present state; pages are told to come back."""
    headers = {"authorization": "Bearer token-ada"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        async with serve.serve(front, configured, metrics=Metrics()), page(front, configured) as opened:
            url = f"http://127.0.0.1:{configured.port}/api/v1/messages"
            waiting = asyncio.create_task(client.post(url, params={"wait": 60}, json={"text": "/slow"}))
            await front.stored.wait()
            await heard(opened)
        assert (await waiting).status_code == 202
        await closing_of(opened)


# -- connections that bring nothing


async def test_slow_headers_are_cut_off(served: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "HEADER_SECONDS", 0.1)
    for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.hooks_port)
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_slow_headers_of_a_second_request_are_cut_off(
    served: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEADER_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 ")
    closed = asyncio.create_task(reader.read())
    began = time.monotonic()
    while not closed.done() and time.monotonic() - began < 10:
        writer.write(b"G")  # one byte after the other, none of which begins the time anew
        await asyncio.sleep(0.02)
    assert time.monotonic() - began < 5
    with suppress(ConnectionError):
        await closed
    writer.close()


async def test_a_slow_handshake_is_cut_off(
    front: FakeFront, configured: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEADER_SECONDS", 0.1)
    certificate, key = certificate_files(tmp_path)
    secure = configured.model_copy(update={"file": File(tls=Tls(certificate=certificate, key=key))})
    async with serve.serve(front, secure, metrics=Metrics()):
        for port in (configured.port, configured.hooks_port, configured.metrics_port):
            for said in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()


async def test_a_slow_body_is_cut_off(served: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley.web.hooks.HOOK_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.hooks_port)
    writer.write(b"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer
    writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 160,
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n b\0c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000,
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_junk_is_400_and_the_port_goes_on(served: Settings, said: bytes) -> None:
    for port in (served.port, served.hooks_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400")
        writer.close()
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{served.port}/healthz")).status_code == 200


# -- the page's WebSocket


async def test_a_page_hears_its_history_then_what_comes(served: Settings, front: FakeFront) -> None:
    accepted = await front.say(front.tokens["token-ada"], "/order 1024")
    async with page(front, served) as opened:
        hello = await heard(opened)
        assert (hello["type"], hello["me"]["name"]) == ("hello", "ada")
        assert hello["prefect"] == "http://127.0.0.1:4200"
        mine, theirs = (await heard(opened))["lines"]
        assert (mine["who"], mine["text"]) == ("me", "/order 1024")
        assert (theirs["who"], theirs["message_id"]) == ("parley", accepted.id)
        assert theirs["files"][0]["url"] == f"/api/v1/console/replies/{theirs['id']}/files/0"
        front.tell("ada", Reply(text="The daily report.", files=(REPORT,)), "r-9")
        front.tell("ben", Reply(text="Not for ada."), "r-10")
        front.tell("ada", Reply(text="Done."), "r-11")
        assert [(await heard(opened))["id"] for _ in range(2)] == ["r-9", "r-11"]
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{served.port}/api/v1/console/replies/r-9/files/0"
        for name, status in (("ada", 200), ("ben", 404)):
            answer = await client.get(url, headers={"authorization": f"Bearer token-{name}"})
            assert answer.status_code == status


async def test_a_page_watches_its_messages(served: Settings, front: FakeFront) -> None:
    accepted = await front.say(front.tokens["token-ada"], "/slow")
    async with page(front, served) as opened:
        for _ in range(2):
            await heard(opened)
        await opened.send(json.dumps({"type": "watch", "id": accepted.id}))
        assert (await heard(opened))["state"] == "running"
        front.finish(accepted.id, Reply(text="There."))
        states = [await heard(opened) for _ in range(2)]
        assert {one["type"] for one in states} == {"reply", "state"}
        assert next(one for one in states if one["type"] == "state")["timings"] == {"total_ms": 184.2}


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Cookie", "", 401),
        ("Cookie", "parley_session_1=x", 401),
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "", 403),
        ("Authorization", "Bearer wrong", 401),
    ],
)
async def test_a_page_of_nobody_or_of_elsewhere_hears_nothing(
    served: Settings, front: FakeFront, header: str, value: str, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with page(front, served, **{header: value}):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["content-type"] == "application/problem+json"


async def test_a_page_of_another_host_hears_nothing(served: Settings, front: FakeFront) -> None:
    session = await front.log_in("token-ada")
    headers = {
        "Cookie": f"parley_session_{served.port}={session}",
        "Origin": f"http://127.0.0.1:{served.port}",
    }
    uri = f"ws://evil.example:{served.port}/ws"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(uri, additional_headers=headers, host="127.0.0.1", port=served.port, proxy=None):
            pass
    assert refused.value.response.status_code == 421


@pytest.mark.parametrize("said", ["", "{", "[]", '{"type": "say"}', '{"type": "watch", "id": ""}', b"\x00"])
async def test_a_page_that_talks_nonsense_is_closed(
    served: Settings, front: FakeFront, said: str | bytes
) -> None:
    async with page(front, served) as opened:
        await opened.send(said)
        await closing_of(opened)
    assert not any(front.pages.values())


async def test_a_page_stops_hearing_when_its_session_ends(
    served: Settings, front: FakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "RECHECK_SECONDS", 0.05)
    async with page(front, served) as opened:
        front.sessions.clear()
        closed = await closing_of(opened)
    assert closed.rcvd is not None
    assert closed.rcvd.code == console.LOGGED_OUT


async def test_a_page_that_stays_open_goes_on_with_the_rights_of_now(
    served: Settings, front: FakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner who is one no more hears of nobody else's message, on the page that was open all the time."""
    monkeypatch.setattr(console, "RECHECK_SECONDS", 0.05)
    theirs = [await front.say(front.tokens["token-ben"], "/slow") for _ in range(2)]
    mine = await front.say(front.tokens["token-ada"], "/slow")
    async with page(front, served) as opened:
        for _ in range(2):
            await heard(opened)
        await opened.send(json.dumps({"type": "watch", "id": theirs[0].id}))
        assert (await heard(opened))["id"] == theirs[0].id
        asked = front.asked_for_sessions
        front.sessions = {key: replace(who, role=Role.USER) for key, who in front.sessions.items()}
        await eventually(lambda: front.asked_for_sessions > asked + 1, "the page is looked at again")
        front.finish(theirs[0].id, Reply(text="There."))
        for identifier in (theirs[1].id, mine.id):
            await opened.send(json.dumps({"type": "watch", "id": identifier}))
        assert (await heard(opened))["id"] == mine.id, "and none of ben's before it"


# -- hooks and metrics


async def test_a_hook_goes_on_as_it_came(served: Settings, front: FakeFront) -> None:
    body = b'{"a": \xff}'
    url = f"http://127.0.0.1:{served.hooks_port}/hooks/shop"
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = [("X-Signature", "one"), ("x-signature", "two")]
        answer = await client.post(url, content=body, headers=headers, params={"q": "1"})
        assert (answer.status_code, answer.content) == (200, b"taken")
    (hooked,) = front.hooked
    assert (hooked.method, hooked.path, hooked.query, hooked.body) == ("POST", "/hooks/shop", "q=1", body)
    assert hooked.headers["x-signature"] == "one, two"
    assert hooked.remote == "127.0.0.1"


async def test_the_hooks_port_has_nothing_else(served: Settings, front: FakeFront) -> None:
    base = f"http://127.0.0.1:{served.hooks_port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        found = [
            (await client.get(path)).status_code
            for path in ("/", "/hooks", "/hooks/nobody", "/api/v1/me", "/docs")
        ]
        assert found == [404] * 5
        assert (await client.put("/hooks/shop")).status_code == 405
        assert (await client.post("/hooks/shop", content=b"x" * (HOOK_BODY + 1))).status_code == 413
    assert not front.hooked


async def test_metrics_are_counted_and_bounded(front: FakeFront, configured: Settings) -> None:
    metrics = Metrics()
    refreshed: list[int] = []
    metrics.request_ended("order", "done", "console")
    for number in range(MOST_VALUES + 50):
        metrics.answered(f"c{number}", 0.1)
    metrics.hook("x" * 1000, 404)
    metrics.account("team", up=True)
    metrics.account_gone("team")
    async with (
        serve.serve(front, configured, metrics=metrics, refresh=lambda: refreshed.append(1)),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{configured.metrics_port}", trust_env=False) as client,
    ):
        answer = await client.get("/metrics")
        assert (await client.get("/")).status_code == 404
    text = answer.text
    assert refreshed == [1]
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'ai_assistant_requests_total{command="order",outcome="done",platform="console"} 1.0' in text
    assert 'ai_assistant_hook_requests_total{account="other",status="404"} 1.0' in text
    assert text.count("ai_assistant_answer_seconds_count{") == MOST_VALUES
    assert "xxxx" not in text
    assert 'account="team"' not in text


def certificate_files(folder: Path) -> tuple[Path, Path]:
    files = (folder / "certificate.pem", folder / "key.pem")
    for file, content in zip(files, self_signed(), strict=True):
        file.write_bytes(content)
        file.chmod(0o600)
    return files
