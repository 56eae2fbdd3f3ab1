"""Mail over the wire: against a real Dovecot, and an SMTP server that fails as asked."""

from __future__ import annotations

import asyncio
import json
import smtplib
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
import pytest_asyncio

from connectors.mail import Mail
from parley.errors import AuthError, RateLimited, Rejected, Unknown, Unreachable
from parley.messages import Accepted, ConversationKind, Event, Message, Reply, Route
from tests.certificates import self_signed
from tests.connectors.hearing import Heard, listening
from tests.fakes._driver import eventually
from tests.fakes.mail import ASSISTANT, PASSWORD, TAKEN, TOKEN, Dovecot, MailDriver, letter

pytestmark = pytest.mark.servers

ROUTE = Route(account="office", conversation="alice@example.org", kind=ConversationKind.MAIL)


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[MailDriver]:
    async with MailDriver() as running:
        yield running


@pytest_asyncio.fixture
async def mail(driver: MailDriver) -> AsyncIterator[Mail]:
    async with driver.connector("office") as connector:
        yield connector


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def append(driver: MailDriver, raw: bytes, received: datetime | None = None) -> None:
    await asyncio.to_thread(driver.dovecot.append, ASSISTANT, raw, received)


async def flags(driver: MailDriver) -> list[tuple[bytes, ...]]:
    return await asyncio.to_thread(driver.dovecot.flags, ASSISTANT)


def imap_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("parley-imap")]


# --- what is taken, and once -----------------------------------------------------------------------------------------


async def test_nothing_is_taken_twice_over_a_restart(driver: MailDriver, heard: Heard) -> None:
    for text in ("one", "two"):
        async with driver.connector("office") as connector, listening(connector, heard):
            native_id = await driver.person_says(text)
            await heard.hears(text)
            await eventually(lambda n=native_id: driver.acknowledged(n), "the keyword")  # type: ignore[misc]
    assert heard.texts == ["one", "two"]


async def test_mail_that_came_while_nobody_listened_is_taken(
    driver: MailDriver, mail: Mail, heard: Heard
) -> None:
    for text in ("one", "two", "three"):
        await driver.person_says(text)
    async with listening(mail, heard):
        await heard.hears("one", "two", "three")
    assert heard.texts == ["one", "two", "three"]


async def test_a_crash_before_the_keyword_delivers_the_same_id_again(
    driver: MailDriver, heard: Heard
) -> None:
    stored: list[str] = []

    async def accept(event: Event) -> Accepted:
        stored.append(event.native_id)
        await asyncio.Event().wait()  # the process ends here
        raise AssertionError

    native_id = await driver.person_says("once")
    async with driver.connector("office") as connector:
        task = asyncio.create_task(connector.listen(accept))
        await eventually(lambda: stored, "the mail")
        task.cancel()
        await asyncio.wait({task})
        assert not driver.acknowledged(native_id)
        async with listening(connector, heard):
            await heard.hears("once")
    assert stored == [heard.messages[0].native_id] == [native_id]


async def test_a_failing_store_keeps_the_order(driver: MailDriver, mail: Mail, heard: Heard) -> None:
    heard.down = True
    async with listening(mail, heard):
        await driver.person_says("one")
        await driver.person_says("two")
        await eventually(lambda: heard.attempts >= 2, "a second attempt")
        assert not any(TAKEN.encode() in each for each in await flags(driver))
        heard.down = False
        await heard.hears("one", "two")
    assert heard.texts == ["one", "two"]


async def test_mail_from_before_the_account_is_left_alone(driver: MailDriver, heard: Heard) -> None:
    now = datetime.now(UTC)
    await append(driver, letter("old").as_bytes(), now - timedelta(minutes=10))
    await append(driver, letter("new").as_bytes(), now - timedelta(minutes=2))
    connector = Mail("office", driver.settings(since=now - timedelta(minutes=5)))
    async with connector, listening(connector, heard):
        await heard.hears("new")
        await driver.person_says("newer")
        await heard.hears("newer")
    assert heard.texts == ["new", "newer"]
    assert TAKEN.encode() not in (await flags(driver))[0]


async def test_mail_that_waited_too_long_is_left_alone(driver: MailDriver, heard: Heard) -> None:
    now = datetime.now(UTC)
    await append(driver, letter("stale").as_bytes(), now - timedelta(hours=3))
    connector = Mail("office", driver.settings(since=now - timedelta(days=30), max_age=3600))
    async with connector, listening(connector, heard):
        await driver.person_says("fresh")
        await heard.hears("fresh")
    assert heard.texts == ["fresh"]


async def test_without_a_since_only_unread_mail_of_a_day_is_taken(driver: MailDriver, heard: Heard) -> None:
    now = datetime.now(UTC)
    await append(driver, letter("last week").as_bytes(), now - timedelta(days=6))
    await append(driver, letter("read").as_bytes())
    await asyncio.to_thread(_mark_seen, driver.dovecot)
    await append(driver, letter("unread").as_bytes(), now - timedelta(hours=2))
    connector = Mail("office", driver.settings(since=None))
    async with connector, listening(connector, heard):
        await heard.hears("unread")
        await driver.person_says("new")
        await heard.hears("new")
    assert heard.texts == ["unread", "new"]


def _mark_seen(dovecot: Dovecot) -> None:
    with dovecot.as_user(ASSISTANT) as client:
        client.add_flags(client.search("ALL"), ["\\Seen"])


async def test_a_mailbox_that_was_rebuilt_gives_the_same_ids(driver: MailDriver, heard: Heard) -> None:
    """UIDVALIDITY changes and our keywords are lost: what the inbox knows already comes again under its old key."""
    native_id = await driver.person_says("once")
    async with driver.connector("office") as connector, listening(connector, heard):
        await heard.hears("once")
        await eventually(lambda: driver.acknowledged(native_id), "the keyword")
        await driver.dovecot.stop()
        (inbox,) = (driver.dovecot.base / "homes").iterdir()
        for path in inbox.rglob("dovecot*"):
            path.unlink()
        for path in (inbox / "cur").iterdir():
            path.rename(inbox / "new" / path.name.partition(":")[0])
        await driver.dovecot.start()
        await eventually(lambda: len(heard.messages) == 2, "the mail again")
    assert {message.native_id for message in heard.messages} == {native_id}


async def test_nothing_is_missed_between_a_search_and_the_next(
    driver: MailDriver, mail: Mail, heard: Heard
) -> None:
    """Mail that comes while another one is being taken is told of with that one's answer, and never again."""
    texts = [f"mail {number}" for number in range(60)]
    async with listening(mail, heard):
        for text in texts:
            await driver.person_says(text)
        await heard.hears(*texts)
    assert heard.texts == texts


async def test_a_mail_that_names_nobody_holds_up_nothing(
    driver: MailDriver, mail: Mail, heard: Heard
) -> None:
    await append(driver, b"Subject: from nobody\r\n\r\nhello")
    await append(driver, b"\xff\xfe\x00garbage")
    async with listening(mail, heard):
        await driver.person_says("hello")
        await heard.hears("hello")
    assert heard.texts == ["hello"]
    assert all(TAKEN.encode() in each for each in (await flags(driver))[:2])


async def test_a_mail_that_nobody_foresaw_holds_up_nothing(
    driver: MailDriver,
    mail: Mail,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import connectors.mail as module

    parse = module.parse

    def failing(raw: bytes, arrival: Any) -> Message | None:
        if b"breaks" in raw:
            raise ZeroDivisionError
        return parse(raw, arrival)

    monkeypatch.setattr(module, "parse", failing)
    await driver.person_says("breaks")
    async with listening(mail, heard):
        await driver.person_says("hello")
        await heard.hears("hello")
    assert heard.texts == ["hello"]
    assert "could not be read" in caplog.text


async def test_of_a_huge_mail_only_the_beginning_is_fetched(
    driver: MailDriver, mail: Mail, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors._mail_imap.MOST_MAIL", 20_000)
    monkeypatch.setattr("connectors._mail_imap.BEGINNING", 4_000)
    big = letter("/order 1024")
    big.add_attachment(b"x" * 30_000, maintype="application", subtype="x", filename="big.bin")
    await append(driver, big.as_bytes())
    async with listening(mail, heard):
        await heard.hears("/order 1024")
    (message,) = heard.messages
    assert message.files == ()
    assert "only its beginning" in message.route.context["notice"]


# --- servers that lack something -------------------------------------------------------------------------------------


async def test_without_idle_it_polls(heard: Heard) -> None:
    driver = MailDriver()
    driver.dovecot.capabilities = "IMAP4rev1 LITERAL+ SASL-IR LOGIN-REFERRALS"
    async with driver:
        connector = Mail("office", driver.settings(poll=0.05))
        async with connector, listening(connector, heard):
            for text in ("one", "two"):
                await driver.person_says(text)
                await heard.hears(text)


async def test_without_keywords_seen_is_the_mark(heard: Heard) -> None:
    driver = MailDriver()
    driver.dovecot.rights = "lrsip"
    async with driver:
        for text in ("one", "two"):
            async with driver.connector("office") as connector, listening(connector, heard):
                await driver.person_says(text)
                await heard.hears(text)
                await asyncio.to_thread(_until_seen, driver.dovecot)
        assert heard.texts == ["one", "two"]
        assert all(b"\\Seen" in each and TAKEN.encode() not in each for each in await flags(driver))


def _until_seen(dovecot: Dovecot) -> None:
    with dovecot.as_user(ASSISTANT) as client:
        for _ in range(1000):
            if not client.search("UNSEEN"):
                return
            client.noop()
    raise AssertionError("never seen")


async def test_a_folder_that_may_not_be_marked_or_does_not_exist(heard: Heard) -> None:
    driver = MailDriver()
    driver.dovecot.rights = "lr"
    async with driver:
        for changed, said in (({}, "read-only"), ({"folder": "Nowhere"}, "Nowhere")):
            async with Mail("office", driver.settings(**changed)) as connector:
                with pytest.raises(AuthError, match=said):
                    await connector.listen(heard.accept)


async def test_it_survives_a_restart_of_the_server(driver: MailDriver, mail: Mail, heard: Heard) -> None:
    async with listening(mail, heard):
        native_id = await driver.person_says("before")
        await heard.hears("before")
        await eventually(lambda: driver.acknowledged(native_id), "the keyword")
        await driver.dovecot.stop()
        await driver.dovecot.start()
        await driver.person_says("after")
        await heard.hears("after")
    assert heard.texts == ["before", "after"]


async def test_a_connection_that_only_looks_alive_is_found_out(driver: MailDriver, heard: Heard) -> None:
    async with Wire(driver.dovecot.imap_port) as wire:
        connector = Mail("office", driver.settings(imap_port=wire.port, idle=0.2, timeout=0.5))
        async with connector, listening(connector, heard):
            native_id = await driver.person_says("before")
            await heard.hears("before")
            await eventually(lambda: driver.acknowledged(native_id), "the keyword")
            wire.freeze()
            await driver.person_says("after")
            await heard.hears("after")
    assert wire.connections >= 2


async def test_cancelling_in_idle_is_quick_and_leaves_no_thread(
    driver: MailDriver, mail: Mail, heard: Heard
) -> None:
    async with listening(mail, heard) as task:
        await driver.person_says("hello")
        await heard.hears("hello")
        await eventually(imap_threads, "the thread")
        began = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.wait({task})
        assert asyncio.get_running_loop().time() - began < 1
    assert imap_threads() == []


async def test_cancelling_while_the_server_is_silent_leaves_no_thread(
    driver: MailDriver, heard: Heard
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connector = Mail("office", driver.settings(imap_port=silent.getsockname()[1], timeout=1))
        task = asyncio.create_task(connector.listen(heard.accept))
        await eventually(imap_threads, "the thread")
        task.cancel()
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled()
        await eventually(lambda: not imap_threads(), "the end of the thread")


# --- encryption and logins -------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def encrypted(tmp_path: Any) -> AsyncIterator[MailDriver]:
    driver = MailDriver()
    driver.dovecot.certificate = self_signed("localhost", address="")
    for name, content in zip(("cert", "key"), driver.dovecot.certificate, strict=True):
        (tmp_path / name).write_bytes(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    driver.post.tls = context
    async with driver:
        yield driver


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_mail_over_tls(encrypted: MailDriver, heard: Heard, security: str) -> None:
    port = encrypted.dovecot.imaps_port if security == "tls" else encrypted.dovecot.imap_port
    assert encrypted.dovecot.certificate
    changed = {
        "imap_host": "localhost",
        "imap_port": port,
        "imap_security": security,
        "smtp_host": "localhost",
        "smtp_security": "starttls",
        "ca_certificates": encrypted.dovecot.certificate[0].decode(),
    }
    async with Mail("office", encrypted.settings(**changed)) as connector:
        await connector.check()
        async with listening(connector, heard) as task:
            await encrypted.person_says("one")
            await heard.hears("one")
            await encrypted.person_says("two")
            await heard.hears("two")
            await connector.send_message(Reply(text="answer"), heard.messages[0].route)
            await encrypted.sent(1)
            task.cancel()
            await asyncio.wait({task}, timeout=2)
            assert task.cancelled()
    assert imap_threads() == []


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("wrong", ["authority", "host"])
async def test_a_certificate_that_is_not_the_servers_is_refused(
    encrypted: MailDriver, security: str, wrong: str
) -> None:
    assert encrypted.dovecot.certificate
    trusted = self_signed("localhost", address="") if wrong == "authority" else encrypted.dovecot.certificate
    port = encrypted.dovecot.imaps_port if security == "tls" else encrypted.dovecot.imap_port
    host = "localhost" if wrong == "authority" else "127.0.0.1"
    common = {"ca_certificates": trusted[0].decode()}
    imap = {"imap_host": host, "imap_port": port, "imap_security": security}
    smtp = {"smtp_host": host, "smtp_security": "starttls"}
    async with Mail("office", encrypted.settings(**common, **imap)) as connector:
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await connector.check()
    async with Mail("office", encrypted.settings(**common, **smtp)) as connector:
        with pytest.raises(Unreachable):
            await connector.send_message(Reply(text="x"), ROUTE)


async def test_a_server_without_starttls_is_refused(driver: MailDriver) -> None:
    """Nothing falls back to clear text: whoever strips STARTTLS would read the password."""
    async with Mail("office", driver.settings(imap_security="starttls")) as connector:
        with pytest.raises(Unreachable):
            await connector.check()
    async with Mail("office", driver.settings(smtp_security="starttls")) as connector:
        with pytest.raises(Unreachable):
            await connector.send_message(Reply(text="x"), ROUTE)
    assert driver.post.logins == 0


async def test_login_with_an_access_token(heard: Heard) -> None:
    async with Introspection() as oauth:
        driver = MailDriver()
        driver.dovecot.introspection = oauth.url
        async with driver:
            async with Mail("office", driver.settings(password="", access_token=TOKEN)) as connector:
                await connector.check()
                async with listening(connector, heard):
                    await driver.person_says("hello")
                    await heard.hears("hello")
                    await connector.send_message(Reply(text="answer"), heard.messages[0].route)
            assert len(await driver.sent(1)) == 1
            for changed in ({"imap_port": driver.dovecot.imap_port}, {}):
                async with Mail("office", driver.settings(access_token="expired", **changed)) as connector:
                    with pytest.raises(AuthError):
                        await connector.listen(heard.accept)
                    with pytest.raises(AuthError):
                        await connector.send_message(Reply(text="x"), ROUTE)


async def test_a_refused_login_at_either_server(driver: MailDriver) -> None:
    async with driver.broken_connector("office") as connector:
        with pytest.raises(AuthError, match="IMAP"):
            await connector.check()
        with pytest.raises(AuthError, match="SMTP"):
            await connector.send_message(Reply(text="x"), ROUTE)


async def test_a_login_that_cannot_be_checked_now_is_no_refusal(driver: MailDriver, mail: Mail) -> None:
    driver.post.fail_next("login")
    with pytest.raises(Unreachable):
        await mail.send_message(Reply(text="x"), ROUTE)
    await mail.send_message(Reply(text="x"), ROUTE)


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_one_connection_is_used_again_and_replaced_when_it_is_gone(
    driver: MailDriver, mail: Mail
) -> None:
    await asyncio.gather(*(mail.send_message(Reply(text=str(number)), ROUTE) for number in range(5)))
    assert driver.post.logins == 1
    driver.post.cut()
    await mail.send_message(Reply(text="after"), ROUTE)
    assert driver.post.logins == 2
    assert sorted(sent.text.strip() for sent in await driver.sent(6)) == ["0", "1", "2", "3", "4", "after"]


async def test_the_name_of_this_machine_is_not_told(driver: MailDriver, mail: Mail) -> None:
    await mail.send_message(Reply(text="x"), ROUTE)
    assert set(driver.post.greetings) == {"example.org"}
    (arrived,) = driver.post.arrived
    for name in {socket.gethostname(), socket.getfqdn()} - {"localhost"}:
        assert name.encode() not in arrived.raw


@pytest.mark.parametrize(("choice", "sender"), [("address", ASSISTANT), ("empty", "")])
async def test_the_envelope_sender_is_chosen(driver: MailDriver, choice: str, sender: str) -> None:
    async with Mail("office", driver.settings(envelope_sender=choice)) as connector:
        await connector.send_message(Reply(text="x"), ROUTE)
    assert [arrived.sender for arrived in driver.post.arrived] == [sender]


async def test_no_answer_after_the_content_is_unknown(driver: MailDriver) -> None:
    async with Mail("office", driver.settings(timeout=2)) as connector:
        driver.post.fail_next("hang")
        with pytest.raises(Unknown):
            await connector.send_message(Reply(text="x"), ROUTE)
        await connector.send_message(Reply(text="next"), ROUTE)


async def test_later_after_the_content_is_a_wait(driver: MailDriver, mail: Mail) -> None:
    driver.post.fail_next("later")
    with pytest.raises(RateLimited) as caught:
        await mail.send_message(Reply(text="x"), ROUTE)
    assert caught.value.retry_after == 180
    await mail.send_message(Reply(text="next"), ROUTE)
    assert [sent.text.strip() for sent in await driver.sent(1)] == ["next"]


async def test_a_server_that_is_not_there(driver: MailDriver) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with Mail("office", driver.settings(smtp_port=port)) as connector:
            with pytest.raises(Unreachable):
                await connector.send_message(Reply(text="x"), ROUTE)
        async with Mail("office", driver.settings(imap_port=port)) as connector:
            with pytest.raises(Unreachable):
                await connector.check()


async def test_cancelling_a_send_drops_its_connection(driver: MailDriver, mail: Mail) -> None:
    driver.post.fail_next("hang")
    task = asyncio.create_task(mail.send_message(Reply(text="x"), ROUTE))
    await eventually(lambda: driver.post.hanging, "the content")
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    driver.post.fail_next("rejected")
    with pytest.raises(Rejected):
        await mail.send_message(Reply(text="y"), ROUTE)
    await mail.send_message(Reply(text="z"), ROUTE)
    assert [sent.text.strip() for sent in await driver.sent(1)] == ["z"]


async def test_a_cancellation_is_never_forgotten(driver: MailDriver) -> None:
    """Python 3.11 forgets one that comes together with a server's answer: at the last one the mail is sent."""
    for number in range(10):
        async with driver.connector("office") as connector:
            task = asyncio.create_task(connector.send_message(Reply(text="x"), ROUTE, token=f"t{number}"))
            await eventually(lambda n=number: driver.post.logins > n, "the login")  # type: ignore[misc]
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                assert task.result().native_ids == (str(driver.post.arrived[-1].mail["Message-ID"]),)


async def test_it_never_writes_to_itself(driver: MailDriver, mail: Mail) -> None:
    with pytest.raises(Rejected):
        await mail.send_message(Reply(text="x"), ROUTE.model_copy(update={"conversation": ASSISTANT}))
    assert driver.post.greetings == []


async def test_an_address_beyond_ascii(driver: MailDriver, mail: Mail) -> None:
    await mail.send_message(Reply(text="x"), ROUTE.model_copy(update={"conversation": "张三@例え.jp"}))
    (arrived,) = driver.post.arrived
    assert arrived.recipients == ("张三@例え.jp",)


# --- the whole way ---------------------------------------------------------------------------------------------------


async def test_a_person_asks_by_smtp_and_is_answered_in_the_thread(
    driver: MailDriver, mail: Mail, heard: Heard
) -> None:
    async with listening(mail, heard):
        question = letter("/order 1024")
        await asyncio.to_thread(_submit, driver.post.smtp_port, question)
        await heard.hears("/order 1024")
        (message,) = heard.messages
        assert not message.automatic
        await mail.send_message(Reply(text="on its way"), message.route, token="t")
        (_, answer) = driver.post.arrived
        assert answer.mail["In-Reply-To"] == question["Message-ID"]
        with suppress(AssertionError):
            await eventually(lambda: len(heard.messages) > 1, "an echo", within=0.3)
    assert heard.texts == ["/order 1024"]


async def test_two_assistants_stop_after_one_answer_each(driver: MailDriver, heard: Heard) -> None:
    """The other one answers everything it is not told to leave; ours marks what it says, and sees what is marked."""
    other_heard = Heard()
    other = Mail("other", driver.settings(address="alice@example.org", username="alice@example.org"))
    async with (
        driver.connector("office") as mail,
        other,
        listening(mail, heard),
        listening(other, other_heard),
    ):
        await driver.person_says("hello")
        await heard.hears("hello")
        await mail.send_message(Reply(text="hi, I am a machine"), heard.messages[0].route)
        await other_heard.hears("hi, I am a machine")
        assert other_heard.messages[0].automatic
        await other.send_message(Reply(text="me too"), other_heard.messages[0].route)
        await heard.hears("me too")
    assert [message.automatic for message in heard.messages] == [False, True]


def _submit(port: int, mail: Any) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
        client.login("alice@example.org", PASSWORD)
        client.send_message(mail)


class Wire:
    """A TCP connection that can be frozen: alive to look at, and dead."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Event] = set()
        self._now = asyncio.Event()
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        """Nothing goes through the connections that there are; new ones work."""
        self._now.set()
        self._now = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        frozen = self._now
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._to)
        for source, sink in ((reader, other_writer), (other_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink, frozen))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, frozen: asyncio.Event
    ) -> None:
        try:
            while data := await source.read(65536):
                if frozen.is_set():
                    continue
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


class Introspection:
    """The endpoint that Dovecot asks about access tokens."""

    url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/introspect"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        told = {"active": TOKEN.encode() in body, "username": ASSISTANT}
        answer = json.dumps(told)
        lines = [
            "HTTP/1.1 200 OK",
            "Content-Type: application/json",
            f"Content-Length: {len(answer)}",
            "Connection: close",
        ]
        writer.write("\r\n".join([*lines, "", answer]).encode())
        await writer.drain()
        writer.close()
