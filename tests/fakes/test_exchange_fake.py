"""The fake Exchange, driven by exchangelib alone as its users drive it: its answers must be what they expect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.policy import SMTP
from typing import Any

import pytest
import pytest_asyncio
from exchangelib import (
    BASIC,
    DELEGATE,
    Account,
    Configuration,
    Credentials,
    EWSDateTime,
    FailFast,
    Message,
    Version,
)
from exchangelib.errors import (
    ErrorFolderNotFound,
    ErrorInvalidRecipients,
    ErrorItemNotFound,
    ErrorServerBusy,
    ErrorSubscriptionNotFound,
    UnauthorizedError,
)
from exchangelib.properties import NewMailEvent
from exchangelib.protocol import close_connections
from exchangelib.version import EXCHANGE_2016

from tests.fakes.exchange import PASSWORD, USER, WRONG_PASSWORD, FakeExchange
from tests.fakes.mail import ASSISTANT, letter

RAW = letter("Grüße <& co>").as_bytes(policy=SMTP)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeExchange]:
    async with FakeExchange(minute=0.2) as running:
        yield running


@contextmanager
def account(server: FakeExchange, password: str = PASSWORD) -> Iterator[Account]:
    config = Configuration(
        service_endpoint=f"{server.url}/EWS/Exchange.asmx",
        credentials=Credentials(USER, password),
        auth_type=BASIC,
        version=Version(build=EXCHANGE_2016),
        retry_policy=FailFast(),
        max_connections=2,
    )
    try:
        yield Account(ASSISTANT, config=config, access_type=DELEGATE)
    finally:
        close_connections()


def mail(of: Account) -> Message:
    return Message(account=of, folder=of.sent, mime_content=RAW.replace(b"alice@", b"assistant@", 1))


async def test_it_says_which_exchange_it_is(server: FakeExchange) -> None:
    def asked() -> tuple[int, int]:
        with account(server) as of:
            _ = of.inbox.name
            return of.version.build.major_version, of.version.build.minor_version

    assert await asyncio.to_thread(asked) == (15, 2)


async def test_folders_are_where_they_belong(server: FakeExchange) -> None:
    server.folders["inbox/Bot"] = "inbox"

    def asked() -> list[str]:
        with account(server) as of:
            with pytest.raises(ErrorFolderNotFound):
                _ = of.inbox // "Nobody"
            return [of.inbox.name, of.sent.name, (of.inbox // "Bot").name]

    assert await asyncio.to_thread(asked) == ["inbox", "sentitems", "Bot"]


async def test_items_are_found_and_read(server: FakeExchange) -> None:
    begin = datetime.now(UTC).replace(microsecond=0)
    for number in range(120):  # more than a page
        server.deliver(RAW, received=begin + timedelta(seconds=number), is_read=number % 2 == 0)

    def asked() -> tuple[list[Any], Any]:
        with account(server) as of:
            late = EWSDateTime.from_datetime(begin + timedelta(seconds=10))
            found = of.inbox.filter(
                datetime_received__gte=late, is_read=False, item_class__startswith="IPM.Note"
            )
            moments = list(found.order_by("datetime_received").values_list("datetime_received", flat=True))
            (item,) = of.fetch(
                [(server.items[0].id, None)], only_fields=["mime_content", "headers", "author", "size"]
            )
            return moments, item

    moments, item = await asyncio.to_thread(asked)
    assert moments == [begin + timedelta(seconds=number) for number in range(11, 120, 2)]
    assert (item.mime_content, item.size) == (RAW, len(RAW))
    assert item.author.email_address == "alice@example.org"
    assert {header.name: header.value for header in item.headers}["To"] == ASSISTANT


async def test_what_is_not_there_is_an_error_of_its_own(server: FakeExchange) -> None:
    def asked() -> Any:
        with account(server) as of:
            (item,) = of.fetch([("AAAA", None)], only_fields=["size"])
            return item

    assert isinstance(await asyncio.to_thread(asked), ErrorItemNotFound)


async def test_a_mail_is_sent_and_its_copy_kept(server: FakeExchange) -> None:
    def asked() -> list[str]:
        with account(server) as of:
            mail(of).send_and_save()
            return list(
                of.sent.filter(message_id=server.sent()[0].message_id).values_list("subject", flat=True)
            )

    assert await asyncio.to_thread(asked) == ["A question"]


async def test_busy_is_told_with_the_time_to_wait(server: FakeExchange) -> None:
    def asked() -> float:
        with account(server) as of:
            server.fail_next("rate_limited", 7.5)
            with pytest.raises(ErrorServerBusy) as caught:
                mail(of).send_and_save()
            server.fail_next("rejected")
            with pytest.raises(ErrorInvalidRecipients):
                mail(of).send_and_save()
            return float(caught.value.back_off)

    assert await asyncio.to_thread(asked) == 7.5


async def test_a_wrong_password_is_refused(server: FakeExchange) -> None:
    def asked() -> None:
        with account(server, WRONG_PASSWORD) as of, pytest.raises(UnauthorizedError):
            _ = of.inbox

    await asyncio.to_thread(asked)
    assert server.asked == []


async def test_events_are_streamed_until_the_time_is_over(server: FakeExchange) -> None:
    def asked() -> list[Any]:
        with account(server) as of, of.inbox.streaming_subscription() as subscription:
            server.deliver(RAW)  # before anybody streams: it is kept
            notes = list(of.inbox.get_streaming_events(subscription, connection_timeout=1))
            return list(itertools.chain.from_iterable(note.events for note in notes))

    events = await asyncio.to_thread(asked)
    assert [event.item_id.id for event in events if isinstance(event, NewMailEvent)] == [server.items[0].id]
    assert server.subscriptions == {}, "the subscription was given back"


async def test_a_subscription_that_is_gone_is_said_to_be(server: FakeExchange) -> None:
    def asked() -> None:
        with account(server) as of, pytest.raises(ErrorSubscriptionNotFound):
            list(of.inbox.get_streaming_events("JwBl999999", connection_timeout=1))

    await asyncio.to_thread(asked)
