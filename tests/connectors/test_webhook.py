"""The generic webhook: what may be said in a call, where it may post to, and what answers mean."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from connectors._hook_json import Unreadable
from connectors._hook_post import Poster, Reach, target_of
from connectors._webhook_form import MAX_DATA, Spoken, parse, render
from connectors.webhook import Webhook
from parley.errors import (
    AuthError,
    BadSignature,
    ConfigurationError,
    RateLimited,
    Rejected,
    StoreUnavailable,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.messages import (
    Accepted,
    Button,
    ConversationKind,
    Event,
    File,
    Message,
    Notice,
    Reply,
    Route,
    Table,
)
from parley.web.guarded_http import PRIVATE, is_allowed
from parley.web.guarded_http import trusted as trusted_authorities
from tests.fakes._driver import eventually
from tests.fakes.webhook import OLD_SECRET, SECRET, WRONG_SECRET, Fault, Program, WebhookDriver, call

NOTICES = Spoken(account="a", service="shop", speaks=False)
SPEAKS = Spoken(account="a", service="shop", speaks=True)
ROUTE = Route(account="a", conversation="shop", kind=ConversationKind.DIRECT)


class Inbox:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.down = False

    async def accept(self, event: Event) -> Accepted:
        if self.down:
            raise StoreUnavailable("down")
        self.events.append(event)
        return Accepted(id=event.native_id, new=True)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[WebhookDriver]:
    async with WebhookDriver() as running:
        yield running


@pytest.fixture
def program(driver: WebhookDriver) -> Program:
    return driver.program


@pytest_asyncio.fixture
async def connector(driver: WebhookDriver) -> AsyncIterator[Webhook]:
    made = driver.connector("a")
    yield made
    await made.aclose()


# --- in --------------------------------------------------------------------------------------------------------------


def test_a_whole_notice() -> None:
    body = {
        "type": "order.Late",
        "timestamp": "2025-10-09T08:00:00Z",
        "title": "Order 1024 is late",
        "text": "By **two** days.",
        "url": "https://shop.example/orders/1024",
        "key": "order-1024",
        "closes": True,
        "severity": "critical",
        "conversation": "orders",
        "data": {"order_id": 1024, "lines": [{"sku": "x", "left": None}]},
        "more": "is left alone",
    }
    notice = parse(body, NOTICES, "msg_1")
    assert isinstance(notice, Notice)
    assert (notice.topic, notice.native_id, notice.sender.name) == ("order.late", "msg_1", "shop")
    assert (notice.title, notice.text) == ("Order 1024 is late", "By **two** days.")
    assert (notice.key, notice.closes, notice.severity) == ("order-1024", True, "critical")
    assert notice.route.conversation == "orders"
    assert notice.data == body["data"]


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ({"type": "order.late"}, "order.late"),
        ({"type": "order.late", "text": "Two days.\nMore."}, "Two days."),
        ({"type": "order.late", "title": "  "}, "order.late"),
        ({"type": "order.late", "data": None, "url": None, "key": None}, "order.late"),
    ],
)
def test_the_least_that_a_notice_needs(body: dict[str, Any], title: str) -> None:
    notice = parse(body, NOTICES, "1")
    assert isinstance(notice, Notice)
    assert (notice.title, notice.severity, notice.data, notice.route.conversation) == (
        title,
        "info",
        {},
        "shop",
    )


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "type"),
        ({"type": None}, "type"),
        ({"type": 7}, "type"),
        ({"type": "order late"}, "type"),
        ({"type": "order..late"}, "type"),
        ({"type": "x" * 201}, "type"),
        ({"type": "a", "title": 7}, "title"),
        ({"type": "a", "title": "x" * 501}, "title"),
        ({"type": "a", "text": "x" * 20_001}, "text"),
        ({"type": "a", "url": "javascript:alert(1)"}, "url"),
        ({"type": "a", "severity": "fatal"}, "severity"),
        ({"type": "a", "closes": "no"}, "closes"),
        ({"type": "a", "data": []}, "data"),
        ({"type": "a", "data": {"a": "x" * MAX_DATA}}, "data"),
        ({"type": "a", "data": json.loads('{"a": 1e999}')}, "data"),
        ({"text": "/order 1024"}, "speaks"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_wrong_is_refused_by_its_part(body: dict[str, Any], named: str) -> None:
    with pytest.raises(Unreadable, match=named):
        parse(body, NOTICES, "1")


def test_a_service_that_speaks_asks_as_itself() -> None:
    message = parse({"text": "/order 1024", "conversation": "till-3", "thread": "t"}, SPEAKS, "msg_1")
    assert isinstance(message, Message)
    assert (message.text, message.sender.id, message.sender.name) == ("/order 1024", "service", "shop")
    assert message.sender.is_bot is False
    assert message.route == Route(
        account="a", conversation="till-3", kind=ConversationKind.DIRECT, thread="t", reply_to="msg_1"
    )
    assert isinstance(parse({"type": "order.late", "text": "x"}, SPEAKS, "1"), Notice)


@pytest.mark.parametrize(
    "body",
    [
        {"text": ""},
        {"text": " \n"},
        {"text": 7},
        {"text": "x", "files": {}},
        {"text": "x", "files": [7]},
        {"text": "x", "files": [{"name": "../a", "content": ""}]},
        {"text": "x", "files": [{"name": "..", "content": ""}]},
        {"text": "x", "files": [{"name": "a", "content": "*"}]},
        {"text": "x", "files": [{"name": "a", "content": 7}]},
        {"text": "x", "files": [{"name": "a", "media_type": "text\nhtml", "content": ""}]},
        {"text": "x", "files": [{"name": "a", "content": ""}] * 11},
    ],
    ids=str,
)
def test_a_message_that_is_wrong_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        parse(body, SPEAKS, "1")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
MEMBERS = [
    "type",
    "title",
    "text",
    "url",
    "key",
    "closes",
    "severity",
    "conversation",
    "data",
    "thread",
    "files",
]


@given(st.dictionaries(st.sampled_from(MEMBERS), ANY | st.just("order.late"), max_size=8))
def test_any_body_is_taken_or_refused(body: dict[str, Any]) -> None:
    try:
        event = parse(body, SPEAKS, "1")
    except Unreadable:
        return
    assert type(event).model_validate_json(event.model_dump_json()) == event


async def test_a_call_is_stored_before_it_is_answered(inbox: Inbox) -> None:
    connector = Webhook("a", secret=SECRET)
    request = call({"type": "order.late"}, message_id="msg_1")
    inbox.down = True
    with pytest.raises(StoreUnavailable):
        await connector.handle_hook(request, inbox.accept)
    inbox.down = False
    assert (await connector.handle_hook(request, inbox.accept)).status == 200
    assert [event.native_id for event in inbox.events] == ["msg_1"]


@pytest.mark.parametrize("age", [-400, 400])
async def test_a_call_of_another_time_is_refused(inbox: Inbox, age: int) -> None:
    request = call({"type": "a"}, at=datetime.now(UTC).timestamp() - age)
    with pytest.raises(BadSignature):
        await Webhook("a", secret=SECRET).handle_hook(request, inbox.accept)


async def test_both_secrets_are_taken_while_one_is_changed(inbox: Inbox) -> None:
    both = Webhook("a", secret=SECRET, old_secret=OLD_SECRET)
    for secret in (SECRET, OLD_SECRET):
        assert (await both.handle_hook(call({"type": "a"}, secret=secret), inbox.accept)).status == 200
    for one in (both, Webhook("a", secret=OLD_SECRET)):
        with pytest.raises(BadSignature):
            await one.handle_hook(call({"type": "a"}, secret=WRONG_SECRET), inbox.accept)


async def test_a_body_that_cannot_be_read_is_answered_with_the_reason(inbox: Inbox) -> None:
    answer = await Webhook("a", secret=SECRET).handle_hook(call({"type": "Order Late"}), inbox.accept)
    assert (answer.status, inbox.events) == (422, [])
    assert b"`type`" in answer.body


# --- out -------------------------------------------------------------------------------------------------------------


async def test_a_post_is_what_the_page_says(connector: Webhook, program: Program) -> None:
    route = ROUTE.model_copy(update={"thread": "case-7", "reply_to": "msg_1"})
    file = File(name="a.txt", media_type="text/plain", content=b"\x00\xff")
    receipt = await connector.send_message(
        Reply(text="It is **late**.", files=(file,)), route, token="0199-abc"
    )
    (post,) = program.posts
    assert post["type"] == "message"
    assert datetime.fromisoformat(post["timestamp"]).tzinfo
    assert post["data"] == {
        "id": "0199-abc",
        "text": "It is **late**.",
        "conversation": "shop",
        "thread": "case-7",
        "reply_to": "msg_1",
        "files": [
            {"name": "a.txt", "media_type": "text/plain", "content": base64.b64encode(b"\x00\xff").decode()}
        ],
    }
    (headers,) = program.headers
    assert headers["webhook-id"] == "0199-abc" == receipt.native_ids[0]
    assert headers["content-type"] == "application/json"
    assert headers["host"] == program.url.split("/")[2]


async def test_an_edit_names_the_message(connector: Webhook, program: Program) -> None:
    for text in ("one", "two", "one"):
        await connector.edit_message("msg_7", Reply(text=text), ROUTE)
    assert [(post["type"], post["data"]["id"], post["data"]["text"]) for post in program.posts] == [
        ("message.edited", "msg_7", "one"),
        ("message.edited", "msg_7", "two"),
        ("message.edited", "msg_7", "one"),
    ]


async def test_posts_are_signed_with_both_secrets_while_one_is_changed(driver: WebhookDriver) -> None:
    async with driver.connector("a", secret=OLD_SECRET, old_secret=SECRET) as connector:
        await connector.check()
        await connector.send_message(Reply(text="x"), ROUTE)
    assert len(driver.program.posts) == 1


@pytest.mark.parametrize("token", ["", "a b", "ü", "x" * 300])
async def test_any_token_becomes_an_id(connector: Webhook, program: Program, token: str) -> None:
    for _ in range(2):
        await connector.send_message(Reply(text="x"), ROUTE, token=token)
    assert len(program.posts) == (1 if token else 2)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(400), Rejected),
        (Fault(404), Rejected),
        (Fault(410), Rejected),
        (Fault(413), Rejected),
        (Fault(301, {"Location": "http://127.0.0.1:1/"}), Rejected),
        (Fault(308, {"Location": "http://169.254.169.254/"}), Rejected),
        (Fault(401), AuthError),
        (Fault(403), AuthError),
        (Fault(408), Unreachable),
        (Fault(503), Unreachable),
        (Fault(500), Unknown),
        (Fault(502), Unknown),
        (Fault(504), Unknown),
        (Fault(drop=True), Unknown),
        (Fault(429), RateLimited),
        (Fault(503, {"Retry-After": "9"}), RateLimited),
    ],
    ids=str,
)
async def test_what_an_answer_means(
    connector: Webhook, program: Program, fault: Fault, error: type[Exception]
) -> None:
    program.faults.append(fault)
    with pytest.raises(error) as raised:
        await connector.send_message(Reply(text="x"), ROUTE, token="t")
    assert type(raised.value) is error
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after == (9 if fault.headers else 5)


async def test_nobody_at_the_address(inbox: Inbox) -> None:
    async with Webhook("a", secret=SECRET, url="http://127.0.0.1:1/", reach="private") as connector:
        with pytest.raises(Unreachable):
            await connector.send_message(Reply(text="x"), ROUTE)
        with pytest.raises(Unreachable):
            await connector.check()
        # Its calls are taken all the same, and listening goes on.
        listening = asyncio.create_task(connector.listen(inbox.accept))
        await connector.handle_hook(call({"type": "a"}), inbox.accept)
        assert not listening.done()
        listening.cancel()
        await asyncio.wait({listening})
        assert listening.cancelled()


async def test_listening_proves_the_address_once_it_is_there(driver: WebhookDriver, inbox: Inbox) -> None:
    async with driver.connector("a") as connector:
        listening = asyncio.create_task(connector.listen(inbox.accept))
        await eventually(lambda: driver.program.pings, "the ping")
        assert not listening.done()
        listening.cancel()
        await asyncio.wait({listening})
    assert driver.program.posts == []


async def test_without_an_address_nothing_is_sent() -> None:
    connector = Webhook("a", secret=SECRET)
    await connector.check()
    with pytest.raises(Rejected, match="no url"):
        await connector.send_message(Reply(text="x"), ROUTE)
    with pytest.raises(Rejected, match="another account"):
        await connector.send_message(Reply(text="x"), ROUTE.model_copy(update={"account": "b"}))


def test_what_a_webhook_cannot_carry_is_refused() -> None:
    channel = ROUTE.model_copy(update={"kind": ConversationKind.CHANNEL})
    for reply in (
        Reply(text="x", buttons=(Button(label="a", value="a"),)),
        Reply(table=Table(columns=("a",), rows=())),
    ):
        with pytest.raises(Unsupported):
            render(reply, ROUTE, "message", "1")
    with pytest.raises(Unsupported):
        render(Reply(text="x", private=True), channel, "message", "1")
    with pytest.raises(Rejected):
        render(Reply(), ROUTE, "message", "1")


# --- where it may post to --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("10.0.0.1", False, True),
        ("172.16.3.4", False, True),
        ("192.168.1.1", False, True),
        ("127.0.0.1", False, True),
        ("100.64.0.1", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("64:ff9b::a00:1", False, True),
        ("2002:a00:1::", False, True),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fe80::1%eth0", False, False),
        ("fd00:ec2::254", False, False),
        ("100.100.100.200", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("255.255.255.255", False, False),
        ("240.0.0.1", False, False),
    ],
)
def test_addresses(address: str, public: bool, private: bool) -> None:
    found = ip_address(address)
    assert (is_allowed(found), is_allowed(found, PRIVATE)) == (public, private)


@pytest.mark.parametrize(
    "url",
    [
        "shop.example",
        "ftp://shop.example",
        "https://",
        "https://a:b@shop.example/",
        "http://[::1",
        "https:// x",
        "//x",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url"):
        Webhook("a", secret=SECRET, url=url, reach="private")


def test_what_goes_over_the_internet_is_not_sent_in_clear() -> None:
    with pytest.raises(ConfigurationError, match="https"):
        Webhook("a", secret=SECRET, url="http://shop.example/")


def resolving(*answers: Sequence[str]) -> Any:
    """A resolver that gives these answers one after the other."""
    left = list(answers)

    async def look_up(host: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return look_up


def aimed(program: Program, reach: Reach, *answers: Sequence[str], host: str = "shop.example") -> Poster:
    port = int(program.url.rpartition(":")[2].partition("/")[0])
    return Poster(f"http://{host}:{port}/in", reach, look_up=resolving(*answers))


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"]],
    ids=str,
)
async def test_a_name_that_means_a_forbidden_machine_leads_nowhere(
    program: Program, addresses: list[str]
) -> None:
    poster = aimed(program, "public", addresses)
    with pytest.raises(Rejected, match="must not"):
        await poster.post(b"{}", {})
    await poster.aclose()


async def test_the_machine_that_was_checked_is_the_one_that_is_called(program: Program) -> None:
    """A name is looked up once a post: what it means a moment later does not matter."""
    poster = aimed(program, "private", ["127.0.0.1"], ["169.254.169.254"])
    status, _ = await poster.post(b"{}", {})
    assert status == 401
    with pytest.raises(Rejected):
        await poster.post(b"{}", {})
    await poster.aclose()
    await poster.aclose()


async def test_nothing_goes_over_the_internet_in_clear(program: Program) -> None:
    for addresses in (["93.184.216.34"], ["127.0.0.1", "2606:2800:220:1::1"]):
        with pytest.raises(Rejected, match="https"):
            await aimed(program, "private", addresses).post(b"{}", {})


async def test_a_name_that_nobody_knows_is_unreachable(program: Program) -> None:
    async def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    with pytest.raises(Unreachable):
        await Poster("http://shop.example/", "private", look_up=nobody).post(b"{}", {})
    with pytest.raises(Unreachable):
        await aimed(program, "private", []).post(b"{}", {})


async def test_a_proxy_of_the_environment_is_not_used(
    connector: Webhook, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    await connector.send_message(Reply(text="x"), ROUTE)
    assert len(program.posts) == 1


def test_a_target_is_taken_apart() -> None:
    assert target_of("https://shop.example/in?a=b#c", "url") == "https://shop.example/in?a=b"
    assert target_of("https://bücher.example", "url") == "https://xn--bcher-kva.example"
    assert target_of("http://[::1]:8080", "url") == "http://[::1]:8080"


# --- TLS -------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """A certificate for this name that has signed itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@asynccontextmanager
async def over_tls(file: Path) -> AsyncIterator[int]:
    """A program that answers 204 over TLS with this certificate; its port."""

    async def take(request: web.Request) -> web.Response:
        assert request.host.startswith("shop.example:")
        return web.Response(status=204)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    app = web.Application()
    app.router.add_post("/in", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("name", "trusted", "taken"),
    [("shop.example", True, True), ("other.example", True, False), ("shop.example", False, False)],
)
async def test_the_certificate_must_be_the_names_and_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool, taken: bool
) -> None:
    """The connection goes to an address; the certificate is checked for the name."""
    file = certificate(tmp_path, name)
    if trusted:  # as an authority of the house is: known to the machine
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    trusted_authorities.cache_clear()
    try:
        async with over_tls(file) as port:
            poster = Poster(f"https://shop.example:{port}/in", "private", look_up=resolving(["127.0.0.1"]))
            try:
                if taken:
                    assert (await poster.post(b"{}", {}))[0] == 204
                else:
                    with pytest.raises(Unreachable):
                        await poster.post(b"{}", {})
            finally:
                await poster.aclose()
    finally:
        trusted_authorities.cache_clear()
