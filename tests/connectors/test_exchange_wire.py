"""Exchange over the wire: against a server that speaks Exchange Web Services, logs in as asked and fails as asked."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from email.policy import SMTP
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connectors.exchange import Exchange
from parley.errors import (
    AuthError,
    ConnectorError,
    RateLimited,
    Rejected,
    Unknown,
    Unreachable,
)
from parley.messages import Assurance, ConversationKind, File, Reply, Route
from tests.connectors.hearing import Heard, listening
from tests.fakes._driver import eventually
from tests.fakes._ews_tls import server_tls
from tests.fakes.exchange import (
    CLIENT_SECRET,
    PASSWORD,
    TAKEN,
    TENANT,
    USER,
    WRONG_PASSWORD,
    ExchangeDriver,
)
from tests.fakes.mail import ASSISTANT, letter

ALICE = "alice@example.org"
ROUTE = Route(account="office", conversation=ALICE, kind=ConversationKind.MAIL)
APP = {
    "auth": "oauth2",
    "username": "",
    "password": "",
    "client_id": "app-1",
    "client_secret": CLIENT_SECRET,
    "tenant_id": TENANT,
}


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[ExchangeDriver]:
    async with ExchangeDriver() as running:
        yield running


@pytest_asyncio.fixture
async def exchange(driver: ExchangeDriver) -> AsyncIterator[Exchange]:
    async with driver.connector("office") as connector:
        yield connector


@pytest.fixture
def heard() -> Heard:
    return Heard()


def with_settings(driver: ExchangeDriver, **changed: Any) -> Exchange:
    return Exchange("office", driver.settings(**changed))


def written(text: str, **headers: str) -> bytes:
    mail = letter(text)
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    return mail.as_bytes(policy=SMTP)


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("parley-exchange")]


def marks(driver: ExchangeDriver) -> list[bool]:
    return [TAKEN in item.properties for item in driver.server.items if item.folder == "inbox"]


# --- what is taken, and once -----------------------------------------------------------------------------------------


async def test_nothing_is_taken_twice_over_a_restart(driver: ExchangeDriver, heard: Heard) -> None:
    for text in ("one", "two"):
        async with driver.connector("office") as connector, listening(connector, heard):
            native_id = await driver.person_says(text)
            await heard.hears(text)
            await eventually(partial(driver.acknowledged, native_id), "the mark")
    assert heard.texts == ["one", "two"]


async def test_mail_that_came_while_nobody_listened_is_taken_oldest_first(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=30)
    texts = [f"mail {number}" for number in range(230)]
    for number in reversed(range(230)):  # not stored in the order of their arrival
        driver.server.deliver(written(texts[number]), received=begin + timedelta(seconds=number))
    async with listening(exchange, heard):
        await eventually(lambda: len(heard.texts) >= 230, "all of them", within=60)
    assert heard.texts == texts


async def test_a_crash_before_the_mark_delivers_the_same_id_again(
    driver: ExchangeDriver, heard: Heard
) -> None:
    native_id = await driver.person_says("once")
    heard.stuck = True
    async with driver.connector("office") as connector, listening(connector, heard):
        await heard.hears("once")
    assert not driver.acknowledged(native_id)
    heard.stuck = False
    async with driver.connector("office") as connector, listening(connector, heard):
        await eventually(partial(driver.acknowledged, native_id), "the mark")
    assert [message.native_id for message in heard.messages] == [native_id, native_id]


async def test_what_cannot_be_stored_is_tried_again(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    heard.down = True
    async with listening(exchange, heard):
        native_id = await driver.person_says("keep me")
        await eventually(lambda: "could not be stored" in caplog.text, "the first attempt")
        assert not driver.acknowledged(native_id)
        heard.down = False
        await heard.hears("keep me")


async def test_mail_from_before_the_account_was_connected_is_left_alone(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    driver.server.deliver(written("older"), received=datetime.now(UTC) - timedelta(hours=2))
    async with listening(exchange, heard):
        await driver.person_says("newer")
        await heard.hears("newer")
    assert heard.texts == ["newer"]
    assert marks(driver)[0] is False


async def test_where_nobody_said_since_when_unread_mail_of_the_last_day_is_taken(
    driver: ExchangeDriver, heard: Heard
) -> None:
    now = datetime.now(UTC)
    driver.server.deliver(written("yesterday, unread"), received=now - timedelta(hours=23))
    driver.server.deliver(written("yesterday, read"), received=now - timedelta(hours=22), is_read=True)
    driver.server.deliver(written("long ago"), received=now - timedelta(hours=24, minutes=1))
    async with with_settings(driver, since=None) as connector, listening(connector, heard):
        await heard.hears("yesterday, unread")
        await driver.person_says("now")
        await heard.hears("now")
    assert heard.texts == ["yesterday, unread", "now"]


async def test_mail_that_waited_too_long_is_left_alone(driver: ExchangeDriver, heard: Heard) -> None:
    since = datetime.now(UTC) - timedelta(days=30)
    driver.server.deliver(written("too old"), received=datetime.now(UTC) - timedelta(hours=2))
    async with with_settings(driver, since=since, max_age=3600) as connector, listening(connector, heard):
        await driver.person_says("new")
        await heard.hears("new")
    assert heard.texts == ["new"]


async def test_a_mail_that_somebody_moves_in_is_taken(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    async with listening(exchange, heard):
        await driver.person_says("first")
        await heard.hears("first")
        # Older than what was taken last: a position in the folder would have passed it by.
        driver.server.deliver(written("moved"), received=datetime.now(UTC) - timedelta(minutes=20))
        await heard.hears("moved")


async def test_appointments_and_contacts_are_not_touched(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    for item_class in ("IPM.Schedule.Meeting.Request", "IPM.Contact", "IPM.Task"):
        driver.server.deliver(written("not for us"), item_class=item_class)
    async with listening(exchange, heard):
        await driver.person_says("for us")
        await heard.hears("for us")
        await eventually(lambda: marks(driver)[-1], "the mark")
    assert marks(driver) == [False, False, False, True]


async def test_reports_are_stored_and_marked_as_automatic(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    driver.server.deliver(written("not delivered"), item_class="REPORT.IPM.Note.NDR")
    async with listening(exchange, heard):
        await heard.hears("not delivered")
    assert heard.messages[0].automatic


async def test_another_folder_can_be_read(driver: ExchangeDriver, heard: Heard) -> None:
    driver.server.folders["inbox/Assistant"] = "inbox"
    driver.server.folders["Projects"] = "msgfolderroot"
    driver.server.deliver(written("in the inbox"))
    for folder in ("inbox/Assistant", "Projects"):
        driver.server.deliver(written(f"in {folder}"), folder=folder)
        async with with_settings(driver, folder=folder) as connector, listening(connector, heard):
            await heard.hears(f"in {folder}")
    assert "in the inbox" not in heard.texts


async def test_a_folder_that_does_not_exist_is_named(driver: ExchangeDriver, heard: Heard) -> None:
    async with with_settings(driver, folder="Nowhere") as connector:
        with pytest.raises(AuthError, match="Nowhere"):
            await connector.check()
        with pytest.raises(AuthError, match="Nowhere"):
            await connector.listen(heard.accept)


async def test_a_mailbox_where_nothing_can_be_marked_is_refused(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    driver.server.writable = False
    await driver.person_says("hello")
    with pytest.raises(AuthError, match="ErrorAccessDenied"):
        await asyncio.wait_for(exchange.listen(heard.accept), 10)


async def test_a_mark_that_does_not_hold_does_not_begin_a_circle(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    driver.server.forgetful = True
    await driver.person_says("one")
    async with listening(exchange, heard):
        await heard.hears("one")
        await driver.person_says("two")
        await heard.hears("two")
        await eventually(lambda: driver.server.operations().count("UpdateItem") >= 2, "both marks")
    assert heard.texts == ["one", "two"]


@pytest.mark.parametrize("code", ["ErrorItemCorrupt", "ErrorCorruptData"])
async def test_an_item_that_cannot_be_read_holds_nobody_up(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard, code: str
) -> None:
    driver.server.deliver(written("broken"), broken=code, received=datetime.now(UTC) - timedelta(minutes=5))
    await driver.person_says("whole")
    async with listening(exchange, heard):
        await heard.hears("whole")
        await driver.person_says("also whole")
        await heard.hears("also whole")
    assert heard.texts == ["whole", "also whole"]


@pytest.mark.parametrize("told", [{"size": 60_000_000}, {"broken": "ErrorMimeContentConversionFailed"}])
async def test_of_what_cannot_be_fetched_whole_the_sender_is_told(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard, told: dict[str, Any]
) -> None:
    item = driver.server.deliver(written("not read"), **told)
    async with listening(exchange, heard):
        await eventually(lambda: heard.messages, "the mail")
        await eventually(lambda: TAKEN in item.properties, "the mark")
    (message,) = heard.messages
    assert (message.text, message.sender.id) == ("", ALICE)
    await exchange.send_message(Reply(text="What do you mean?"), message.route)
    (answer,) = await driver.sent(1)
    assert "only its subject was" in answer.text


async def test_exchange_says_who_is_internal(driver: ExchangeDriver, heard: Heard) -> None:
    vouched = {"X_MS_Exchange_Organization_AuthAs": "Internal"}
    driver.server.deliver(written("internal", **vouched))
    driver.server.deliver(written("for another", **vouched), sender="secretary@example.org")
    driver.server.deliver(written("from outside"))
    async with with_settings(driver, trust_internal=True) as connector, listening(connector, heard):
        await heard.hears("internal", "for another", "from outside")
    found = {message.text: message.sender.assurance for message in heard.messages}
    assert found == {
        "internal": Assurance.VERIFIED,
        "for another": Assurance.CLAIMED,
        "from outside": Assurance.CLAIMED,
    }


async def test_files_come_in_and_go_out(driver: ExchangeDriver, exchange: Exchange, heard: Heard) -> None:
    file = File(
        name="Bericht März.bin", media_type="application/octet-stream", content=bytes(range(256)) * 4000
    )
    async with listening(exchange, heard):
        await driver.person_says("see", files=(file,))
        await heard.hears("see")
    assert [(each.name, each.content) for each in heard.messages[0].files] == [(file.name, file.content)]
    await exchange.send_message(Reply(text="back", files=(file,)), heard.messages[0].route)
    (sent,) = await driver.sent(1)
    assert [(each.name, each.content) for each in sent.files] == [(file.name, file.content)]


# --- notifications ---------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_over_goes_on(heard: Heard) -> None:
    async with ExchangeDriver(minute=0.05) as driver, driver.connector("office") as connector:
        async with listening(connector, heard):
            await eventually(
                lambda: driver.server.operations().count("GetStreamingEvents") >= 4, "four streams"
            )
            await driver.person_says("hello")
            await heard.hears("hello")
        assert driver.server.operations().count("Subscribe") == 1


async def test_a_subscription_that_is_lost_is_made_anew(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    async with listening(exchange, heard):
        await eventually(lambda: driver.server.streams, "the stream")
        driver.server.subscriptions.clear()
        driver.server.cut()
        await driver.person_says("hello")
        await heard.hears("hello")
        await eventually(lambda: driver.server.operations().count("Subscribe") == 2, "the new subscription")


async def test_a_cut_stream_keeps_its_subscription(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    async with listening(exchange, heard):
        for text in ("one", "two"):
            await eventually(lambda: driver.server.streams, "the stream")
            driver.server.cut()
            await driver.person_says(text)
            await heard.hears(text)
    assert driver.server.operations().count("Subscribe") == 1


async def test_where_no_notifications_are_granted_it_looks_now_and_then(
    driver: ExchangeDriver, heard: Heard
) -> None:
    driver.server.refuse["Subscribe"] = "ErrorExceededSubscriptionCount"
    async with with_settings(driver, poll=0.05) as connector, listening(connector, heard):
        await eventually(lambda: driver.server.operations().count("Subscribe") >= 2, "two looks")
        await driver.person_says("hello")
        await heard.hears("hello")
        driver.server.refuse.clear()
        await eventually(lambda: driver.server.streams, "the stream")


async def test_a_mailbox_that_is_away_for_a_while_is_waited_for(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    driver.server.refuse["SyncFolderItems"] = "ErrorMailboxMoveInProgress"
    await driver.person_says("hello")
    async with listening(exchange, heard):
        await eventually(lambda: "ErrorMailboxMoveInProgress" in caplog.text, "the refusal")
        driver.server.refuse.clear()
        await heard.hears("hello")


async def test_cancelling_ends_a_stream_at_once(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    async with listening(exchange, heard):
        await eventually(lambda: driver.server.streams, "the stream")
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    await eventually(lambda: not driver.server.streams, "the stream's end")
    assert driver.server.subscriptions == {}, "the subscription was given back"
    await exchange.aclose()
    assert threads() == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancelling_ends_the_wait_for_a_server_that_says_nothing(
    driver: ExchangeDriver, heard: Heard, scheme: str
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        endpoint = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/EWS/Exchange.asmx"
        async with with_settings(driver, endpoint=endpoint, timeout=60, connect_timeout=60) as connector:
            async with listening(connector, heard):
                taken, _ = await asyncio.to_thread(silent.accept)
                begun = time.monotonic()
            assert time.monotonic() - begun < 2
            taken.close()
        assert threads() == []


async def test_closing_ends_a_send_that_hangs(driver: ExchangeDriver) -> None:
    connector = with_settings(driver, timeout=60)
    driver.server.fail_next("hang")
    sending = asyncio.create_task(connector.send_message(Reply(text="x"), ROUTE))
    await driver.server.hanging.wait()
    begun = time.monotonic()
    await connector.aclose()
    with pytest.raises(Unknown):
        await sending
    assert time.monotonic() - begun < 2
    assert threads() == []


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_an_answer_that_was_lost_is_found(driver: ExchangeDriver, exchange: Exchange) -> None:
    driver.server.fail_next("lost")
    with pytest.raises(Unknown):
        await exchange.send_message(Reply(text="x"), ROUTE, token="t-1")
    found = await exchange.find_sent("t-1", ROUTE)
    assert found is not None
    assert found.native_ids == (driver.server.sent()[0].message_id,)


async def test_what_was_not_sent_is_not_found(driver: ExchangeDriver, exchange: Exchange) -> None:
    await exchange.send_message(Reply(text="another"), ROUTE, token="t-0")
    driver.server.fail_next("unknown")
    with pytest.raises(Unknown):
        await exchange.send_message(Reply(text="x"), ROUTE, token="t-1")
    assert await exchange.find_sent("t-1", ROUTE) is None
    again = await exchange.send_message(Reply(text="x"), ROUTE, token="t-1")
    assert again.native_ids == (driver.server.sent()[1].message_id,)


async def test_a_mail_that_is_still_on_its_way_is_found(driver: ExchangeDriver) -> None:
    async with with_settings(driver, settle=30) as connector:
        driver.server.fail_next("lost")
        with pytest.raises(Unknown):
            await connector.send_message(Reply(text="x"), ROUTE, token="t-1")
        (item,) = driver.server.sent()
        item.folder = "nowhere yet"
        looking = asyncio.create_task(connector.find_sent("t-1", ROUTE))
        before = len(driver.server.asked)
        await eventually(lambda: driver.server.operations()[before:].count("FindItem") >= 3, "the first look")
        item.folder = "outbox"
        assert await looking is not None


async def test_it_is_not_said_that_nothing_was_sent_where_that_cannot_be_seen(driver: ExchangeDriver) -> None:
    async with driver.connector("office") as connector:
        driver.server.refuse["FindItem"] = "ErrorMailboxMoveInProgress"
        with pytest.raises(Unreachable):
            await connector.find_sent("t-1", ROUTE)


async def test_no_answer_in_time_is_unknown(driver: ExchangeDriver) -> None:
    async with with_settings(driver, timeout=0.3) as connector:
        driver.server.fail_next("hang")
        with pytest.raises(Unknown):
            await connector.send_message(Reply(text="x"), ROUTE)


@pytest.mark.parametrize(
    ("how", "raised"),
    [
        ("too_large", Rejected),
        ("send_as", AuthError),
        ("failover", Unknown),
        (302, Unreachable),
        (400, Rejected),
        (403, AuthError),
        (404, Unreachable),
        (413, Rejected),
        (429, RateLimited),
        (500, Unknown),
        (502, Unknown),
        (503, RateLimited),
        (504, Unknown),
    ],
)
async def test_each_refusal_is_named_for_what_it_is(
    driver: ExchangeDriver, exchange: Exchange, how: Any, raised: type[ConnectorError]
) -> None:
    driver.server.fail_next(how, 7)
    with pytest.raises(ConnectorError) as caught:
        await exchange.send_message(Reply(text="x"), ROUTE)
    assert type(caught.value) is raised
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 7
    assert driver.server.sent() == []


async def test_a_server_that_is_not_there_is_unreachable(driver: ExchangeDriver) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        endpoint = f"http://127.0.0.1:{gone.getsockname()[1]}/EWS/Exchange.asmx"
    async with with_settings(driver, endpoint=endpoint) as connector:
        for asking in (connector.check(), connector.send_message(Reply(text="x"), ROUTE)):
            with pytest.raises(Unreachable):
                await asking


async def test_a_connection_that_dies_between_two_mails_does_no_harm(
    driver: ExchangeDriver, exchange: Exchange
) -> None:
    await exchange.send_message(Reply(text="one"), ROUTE)
    driver.server.cut()
    await asyncio.sleep(0)  # the loop closes the sockets
    await exchange.send_message(Reply(text="two"), ROUTE)
    assert [sent.text.strip() for sent in await driver.sent(2)] == ["one", "two"]


async def test_many_mails_at_once_all_arrive(
    driver: ExchangeDriver, exchange: Exchange, heard: Heard
) -> None:
    async with listening(exchange, heard):
        await asyncio.gather(*(exchange.send_message(Reply(text=f"mail {n}"), ROUTE) for n in range(12)))
        await driver.person_says("hello")
        await heard.hears("hello")
    assert {sent.text.strip() for sent in await driver.sent(12)} == {f"mail {n}" for n in range(12)}
    assert len(threads()) <= 4


async def test_what_follows_a_mail_of_ours_goes_under_it(driver: ExchangeDriver, exchange: Exchange) -> None:
    head = await exchange.send_message(Reply(text="Build 7 is broken\n\nsee there"), ROUTE, token="n-1")
    under = ROUTE.model_copy(update={"thread": head.native_ids[0]})
    await exchange.send_message(Reply(text="it is mended"), under, token="n-2")
    _, follows = driver.server.sent()
    assert follows.headers["In-Reply-To"] == head.native_ids[0]
    assert follows.headers["Subject"] == "Re: Build 7 is broken"


async def test_an_answer_for_somebody_else_is_not_sent(driver: ExchangeDriver, exchange: Exchange) -> None:
    with pytest.raises(Rejected):
        await exchange.send_message(
            Reply(text="secret", private=True), ROUTE.model_copy(update={"private_to": "bob@example.org"})
        )
    assert driver.server.asked == []


async def test_more_than_a_mail_can_carry_is_not_sent(driver: ExchangeDriver, exchange: Exchange) -> None:
    files = tuple(File(name=f"{n}.bin", content=bytes(15_000_000)) for n in range(3))
    with pytest.raises(Rejected, match="more than one mail"):
        await exchange.send_message(Reply(text="x", files=files), ROUTE)
    assert driver.server.asked == []


# --- logging in ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def secure(auth: str) -> AsyncIterator[tuple[ExchangeDriver, dict[str, Any]]]:
    """A server with TLS, and what a client must be told to use it."""
    tls, certificate = server_tls()
    async with ExchangeDriver(auth=auth, tls=tls) as driver:
        yield driver, {"ca_certificates": certificate, "authority": driver.server.url}


async def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    async with secure("basic") as (driver, told):
        async with with_settings(driver, **told) as connector:
            await connector.check()
        async with with_settings(driver) as connector:
            for asking in (connector.check(), connector.send_message(Reply(text="x"), ROUTE)):
                with pytest.raises(Unreachable):
                    await asking
    assert {asked.operation for asked in driver.server.asked} == {"GetFolder"}


async def test_no_environment_variable_makes_a_certificate_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with secure("basic") as (driver, told):
        (tmp_path / "ca.pem").write_text(told["ca_certificates"])
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        async with with_settings(driver) as connector:
            with pytest.raises(Unreachable):
                await connector.check()


async def test_an_app_acts_as_the_mailbox(heard: Heard) -> None:
    async with secure("oauth2") as (driver, told), with_settings(driver, **APP, **told) as connector:
        async with listening(connector, heard):
            await driver.person_says("hello")
            await heard.hears("hello")
        await connector.send_message(Reply(text="hi"), heard.messages[0].route)
    assert {asked.impersonated for asked in driver.server.asked} == {ASSISTANT}
    (form,) = driver.server.token_forms
    assert form["grant_type"] == "client_credentials"
    assert form["scope"] == f"https://127.0.0.1:{driver.server.port}/.default"


async def test_an_app_acts_as_a_user() -> None:
    as_user = APP | {"username": ASSISTANT, "password": PASSWORD}
    async with secure("oauth2") as (driver, told), with_settings(driver, **as_user, **told) as connector:
        await connector.send_message(Reply(text="hi"), ROUTE)
    assert {asked.impersonated for asked in driver.server.asked} == {""}
    (form,) = driver.server.token_forms
    assert (form["grant_type"], form["username"]) == ("password", ASSISTANT)
    assert form["scope"] == f"https://127.0.0.1:{driver.server.port}/EWS.AccessAsUser.All"


async def test_a_token_that_is_withdrawn_is_replaced() -> None:
    async with secure("oauth2") as (driver, told), with_settings(driver, **APP, **told) as connector:
        await connector.send_message(Reply(text="one"), ROUTE)
        driver.server.fail_next("stale")
        await connector.send_message(Reply(text="two"), ROUTE)
        assert [sent.text.strip() for sent in await driver.sent(2)] == ["one", "two"]
        assert len(driver.server.token_forms) == 2


async def test_a_token_that_is_never_taken_is_an_auth_error() -> None:
    async with secure("ntlm") as (driver, told), with_settings(driver, **APP, **told) as connector:
        with pytest.raises(AuthError):
            await connector.check()
        assert len(driver.server.token_forms) == 1, "a second token would be refused as well"


@pytest.mark.parametrize(
    "wrong", [{"client_secret": "wrong"}, {"username": ASSISTANT, "password": WRONG_PASSWORD}]
)
async def test_an_authority_that_refuses_is_an_auth_error(wrong: dict[str, str], heard: Heard) -> None:
    async with (
        secure("oauth2") as (driver, told),
        with_settings(driver, **(APP | wrong), **told) as connector,
    ):
        for asking in (
            connector.check(),
            connector.send_message(Reply(text="x"), ROUTE),
            connector.listen(heard.accept),
        ):
            with pytest.raises(AuthError, match="invalid_client"):
                await asking


async def test_an_authority_that_is_away_is_unreachable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        authority = f"https://127.0.0.1:{gone.getsockname()[1]}"
    async with secure("oauth2") as (driver, told):
        connector = with_settings(driver, **APP, **(told | {"authority": authority}))
        for asking in (connector.check(), connector.send_message(Reply(text="x"), ROUTE)):
            with pytest.raises(Unreachable):
                await asking
        await connector.aclose()


async def test_ntlm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "users").write_text(USER.replace("\\", ":") + f":{PASSWORD}\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(tmp_path / "users"))
    async with ExchangeDriver(auth="ntlm") as driver:
        async with with_settings(driver, auth="ntlm") as connector, listening(connector, heard):
            await driver.person_says("hello")
            await heard.hears("hello")
            await connector.send_message(Reply(text="hi"), heard.messages[0].route)
        assert [sent.text.strip() for sent in await driver.sent(1)] == ["hi"]
        async with with_settings(driver, auth="ntlm", password=WRONG_PASSWORD) as broken:
            for asking in (
                broken.check(),
                broken.send_message(Reply(text="x"), ROUTE),
                broken.listen(heard.accept),
            ):
                with pytest.raises(AuthError):
                    await asking


async def test_autodiscover_tells_where_the_mailbox_is() -> None:
    async with secure("basic") as (driver, told):
        asked = {"endpoint": "", "server": f"127.0.0.1:{driver.server.port}", "autodiscover": True}
        async with with_settings(driver, **asked, **told) as connector:
            await connector.check()
        async with with_settings(driver, **asked) as connector:
            with pytest.raises(Unreachable, match="Autodiscover"):
                await connector.check()


@pytest.mark.parametrize(
    "told",
    [
        {"Url": "http://example.org/EWS"},
        {"Url": ["x"]},
        {"Url": "https://u:p@example.org/"},
        {},
        ["x"],
        "x",
        None,
    ],
)
async def test_what_autodiscover_tells_is_checked(told: Any) -> None:
    async with secure("basic") as (driver, trusted):
        driver.server.discovered = told
        asked = {"endpoint": "", "server": f"127.0.0.1:{driver.server.port}", "autodiscover": True}
        async with with_settings(driver, **asked, **trusted) as connector:
            with pytest.raises(Unreachable, match="set the endpoint by hand"):
                await connector.check()
    assert driver.server.asked == [], "no credentials went anywhere"


async def test_two_accounts_with_one_login_do_not_share_connections(
    driver: ExchangeDriver, heard: Heard
) -> None:
    async with driver.connector("one") as one, listening(one, heard):
        await eventually(lambda: driver.server.streams, "the stream")
        async with driver.connector("two") as two:
            await two.check()
        await driver.person_says("hello")
        await heard.hears("hello")
        assert driver.server.operations().count("GetStreamingEvents") == 1


async def test_no_mail_and_no_token_is_ever_logged(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with secure("oauth2") as (driver, told), with_settings(driver, **APP, **told) as connector:
        async with listening(connector, heard):
            await driver.person_says("a private question")
            await heard.hears("a private question")
        for how in ("lost", "too_large", 500):
            driver.server.fail_next(how)
            with pytest.raises(ConnectorError):
                await connector.send_message(Reply(text="a private answer"), heard.messages[0].route)
        said = [CLIENT_SECRET, *driver.server.tokens, "private question", "private answer"]
        assert [secret for secret in said if secret in caplog.text] == []
