"""A whole installation under attack: it goes on answering, keeps its size, and does nothing that nobody asked for."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as open_page

from parley.web.serve import HEADER_SECONDS
from tests.attacks.effort import PENTEST
from tests.attacks.injections import injections
from tests.fakes.webhook import call
from tests.stack import Stack
from tests.system import effects

pytestmark = [pytest.mark.serial, pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

MOST_MEMORY: Final = 50 * 2**20


def hooks(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.environment['PARLEY_HOOKS_PORT']}"


def left(stack: Stack) -> list[str]:
    return effects.effects(Path(stack.environment[effects.FILE]))


# -- connections that bring nothing, bodies that bring too much


async def test_five_hundred_slow_connections_hold_nobody_up(stack: Stack) -> None:
    """Half of them send headers, half a body to the hooks' port, one byte a second; all are cut off in time."""
    web, hook = int(stack.environment["PARLEY_PORT"]), int(stack.environment["PARLEY_HOOKS_PORT"])
    body = b"POST /hooks/shop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"
    began = time.monotonic()
    slow = [asyncio.create_task(drip(web, b"GET / HTTP/1.1\r\nX: ")) for _ in range(250)]
    slow += [asyncio.create_task(drip(hook, body)) for _ in range(250)]
    times: list[float] = []
    async with httpx.AsyncClient(base_url=stack.url, headers=stack.headers, trust_env=False) as client:
        await client.get("/api/v1/me")
        while time.monotonic() - began < HEADER_SECONDS - 2:
            asked = time.monotonic()
            assert (await client.get("/api/v1/me", timeout=10)).status_code == 200
            times.append(time.monotonic() - asked)
            await asyncio.sleep(0.02)
    lived = await asyncio.gather(*slow)
    assert len(times) > 100
    assert sorted(times)[int(len(times) * 0.99)] < 0.2
    assert max(lived) < HEADER_SECONDS + 5, "one was let stay"
    assert min(lived) > 1, "they were refused at once: nothing was tried"


async def drip(port: int, begin: bytes) -> float:
    """Send this and then a byte a second; seconds until the other side closes."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    gone = asyncio.create_task(reader.read())
    with suppress(ConnectionError):
        writer.write(begin)
        while not gone.done() and time.monotonic() - began < 60:
            writer.write(b"a")
            await writer.drain()
            await asyncio.wait({gone}, timeout=1)
    with suppress(ConnectionError):
        await gone
    writer.close()
    return time.monotonic() - began


async def endless(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 2**16):
        yield bytes(2**16)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_of_a_hundred_megabytes_is_refused(stack: Stack, declared: bool) -> None:
    hub = psutil.Process(stack.pid("hub"))
    before = hub.memory_info().rss
    size = 100 * 2**20
    headers = {"content-type": "application/json"} | ({"content-length": str(size)} if declared else {})
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for url, more in (
            (f"{stack.url}/api/v1/messages", stack.headers),
            (f"{hooks(stack)}/hooks/shop", {}),
        ):
            answer = await refused(client, url, {**headers, **more}, size)
            assert answer in (413, None), answer
    assert hub.memory_info().rss - before < MOST_MEMORY
    assert stack.say("/peek host=a")["state"] == "done"


async def refused(client: httpx.AsyncClient, url: str, headers: dict[str, str], size: int) -> int | None:
    """The status; None when the connection was closed on us in the middle of it."""
    try:
        return (await client.post(url, content=endless(size), headers=headers)).status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return None


def test_what_was_packed_is_not_unpacked(stack: Stack) -> None:
    """A thousand to one, three times: refused as it is, by whoever gets it."""
    listeners = psutil.Process(stack.pid("listeners"))
    before = listeners.memory_info().rss
    bomb = gzip.compress(gzip.compress(gzip.compress(bytes(200 * 2**20), 9), 9), 9)
    signed = call(bomb)
    headers = {**signed.headers, "content-encoding": "gzip"}
    with httpx.Client(trust_env=False, timeout=20) as client:
        began = time.monotonic()
        answer = client.post(f"{hooks(stack)}/hooks/shop", content=bomb, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        answer = client.post(
            f"{stack.url}/api/v1/messages",
            content=bomb,
            headers=stack.headers | {"content-encoding": "gzip", "content-type": "application/json"},
        )
        assert 400 <= answer.status_code < 500, answer.text
        assert time.monotonic() - began < 5
    assert listeners.memory_info().rss - before < MOST_MEMORY


# -- paths, numbers, pages of others


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../settings.py", "/static/%2e%2e/%2e%2e/settings.py", "/static/..%2f..%2fsettings.py",
        "/static/....//x",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..\\..\\settings.py", "/static/%00",
        "/static/\x7f",
        "/../../etc/passwd", "/api/v1/../../etc/passwd", "//etc/passwd", "/static/", "/static", "/%c0%ae%c0%ae/x",
    ],
)  # fmt: skip
def test_no_path_leads_out(stack: Stack, path: str) -> None:
    """Sent as they are: a client would tidy them up."""
    for port in ("PARLEY_PORT", "PARLEY_HOOKS_PORT"):
        answer = raw(
            int(stack.environment[port]),
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{stack.environment[port]}\r\nConnection: close\r\n\r\n",
        )
        assert re.match(rb"HTTP/1\.1 [34]\d\d ", answer), answer[:200]
        assert b"root:" not in answer
        assert b"import " not in answer


def raw(port: int, request: str) -> bytes:
    """All that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.encode("latin-1"))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


HUGE: Final = "9" * 30


@pytest.mark.parametrize(
    "path",
    [
        f"/events?topic=%23&after={HUGE}", f"/events?topic=%23&limit={HUGE}",
        "/events?topic=%23&after=9223372036854775808",
        f"/runs?limit={HUGE}", "/runs?cursor=%00", "/runs?cursor=////", f"/dead-letters?limit={HUGE}",
        "/messages/%00",
        "/messages/%ff", "/messages/m/replies/r/files/" + HUGE, "/dead-letters/%00", "/events?topic=%00",
        "/events?topic=" + "%23." * 200,
    ],
)  # fmt: skip
def test_no_number_or_id_is_an_error_of_ours(stack: Stack, path: str) -> None:
    answer = stack.client.get(f"/api/v1{path}")
    assert answer.status_code < 500, answer.text


def test_another_page_can_do_nothing_with_our_session(stack: Stack) -> None:
    link = stack.admin("login_link")["url"]
    with httpx.Client(base_url=stack.url, trust_env=False, follow_redirects=True, timeout=20) as browser:
        browser.get(link)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies.jar)
        assert cookies, "no session: nothing would be tried"
        own = {"origin": stack.url}
        assert browser.post("/api/v1/messages", json={"text": "/help"}, headers=own).is_success
        for origin in (
            "https://evil.example",
            "null",
            "http://127.0.0.1:1",
            "http://localhost.evil.example",
            "",
        ):
            answer = browser.post(
                "/api/v1/messages", json={"text": "/mark x"}, headers={"origin": origin} if origin else {}
            )
            assert answer.status_code == 403, (origin, answer.text)
            form = browser.post(
                "/api/v1/messages", data={"text": "/mark x"}, headers={"origin": origin} if origin else {}
            )
            assert form.status_code in (403, 415)
            assert browser.post("/logout", headers={"origin": origin} if origin else {}).status_code == 403
    address = stack.url.replace("http", "ws", 1) + "/ws"
    for elsewhere in ("https://evil.example", "null", "http://127.0.0.1:1", None):
        shown = {"Cookie": cookies} | ({"Origin": elsewhere} if elsewhere else {})
        with (
            pytest.raises(InvalidStatus) as closed,
            open_page(address, additional_headers=shown, proxy=None),
        ):
            pass
        assert closed.value.response.status_code == 403
    with open_page(address, additional_headers={"Cookie": cookies, "Origin": stack.url}, proxy=None) as page:
        assert json.loads(page.recv(timeout=20))


# -- words that are more than words

FORGED: Final = "2026-11-23 08:00:00,000 INFO parley.audit: the owner allowed it"
LINES: Final = (
    f"a\n{FORGED}",
    f"a\r\n{FORGED}",
    f"a\u2028{FORGED}",
    f"\x1b[2K\x1b[1G{FORGED}",
    f'"}}\n{{"level": "{FORGED}',
)


def test_nothing_that_is_sent_makes_a_record_of_its_own(stack: Stack) -> None:
    """In every field that may be logged, also where it makes something fail; what was said is in no log at all."""
    for number, text in enumerate(LINES):
        for body in (
            {"text": text, "thread": text[:200]},
            {"text": f"/complain text='{text}'"},
            {"text": "x", "files": [{"name": text[:200], "content": "eA=="}]},
            {"text": "x", "acting_as": text[:60]},
        ):
            stack.client.post("/api/v1/messages", params={"wait": 10}, json=body)
        stack.client.post("/api/v1/automations/complain/runs", params={"wait": 20}, json={"text": text})
        stack.client.post(f"/api/v1/automations/{quote(text[:60])}/runs", json={})
        notice = {"type": "a.b", "title": text, "text": text, "key": text, "data": {text: text}}
        signed = call(notice, message_id=f"msg_{number}")
        with httpx.Client(trust_env=False, timeout=20) as client:
            client.post(f"{hooks(stack)}/hooks/shop", content=signed.body, headers=signed.headers)
            line = text.translate({10: " ", 13: " ", 0x2028: " "})
            client.post(
                f"{hooks(stack)}/hooks/{quote(text[:60])}",
                headers={"user-agent": line},
            )
            client.get(stack.url, headers={"x-forwarded-for": line, "referer": line})
    logs = [path.read_text(errors="replace") for path in (stack.home / "logs").glob("*.log*")]
    assert logs
    for log in logs:
        assert "\x1b" not in log
        assert not [line for line in log.splitlines() if line.startswith(FORGED[:23])]


def test_no_words_of_others_make_anything_run(stack: Stack) -> None:
    """Quoted, forwarded, disguised or attached orders: nothing is marked or wiped, whoever passes them on."""
    stack.admin("person_add", name="eve", role="user")
    token = stack.admin("token", as_name="eve")["token"]
    people = {"owner": stack.headers, "eve": {"Authorization": f"Bearer {token}"}}
    bodies = list(injections())
    assert len(bodies) == 200
    for person, headers in people.items():
        for body in bodies if PENTEST else bodies[:: 4 if person == "eve" else 10]:
            if person == "owner" and body["text"].startswith("/"):
                continue
            answer = stack.client.post("/api/v1/messages", params={"wait": 30}, json=body, headers=headers)
            assert answer.status_code == 200, (body, answer.text)
            assert answer.json()["state"] not in ("running", "queued"), body
    with httpx.Client(trust_env=False, timeout=20) as client:
        for number, body in enumerate(bodies[::10]):
            signed = call({"text": body["text"], "conversation": "eve"}, message_id=f"inject_{number}")
            assert client.post(
                f"{hooks(stack)}/hooks/shop", content=signed.body, headers=signed.headers
            ).is_success
    done = stack.say("/peek host=last")
    assert done["state"] == "done"
    assert not [line for line in left(stack) if not line.startswith("peek:")]


def test_the_trap_would_close(stack: Stack) -> None:
    """The same order, given by somebody who may give it and confirmed by them, is carried out."""
    asked = stack.say("mark db7", thread="trap")
    assert asked["state"] != "done", asked
    assert "mark:'db7'" not in left(stack)
    button = next(one for reply in asked["replies"] for one in reply["buttons"])
    answer = stack.client.post(
        "/api/v1/actions", params={"wait": 30}, json={"value": button["value"], "thread": "trap"}
    )
    assert answer.is_success, answer.text
    stack.until(lambda: "mark:'db7'" in left(stack), 30, "it is marked")
