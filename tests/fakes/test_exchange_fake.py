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
    ErrorInvalidSyncStateData,
    ErrorItemNotFound,
    ErrorItemSave,
    ErrorSchemaValidation,
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


def synced(of: Account, state: str | None, most: int = 512) -> tuple[list[tuple[str, Any]], str]:
    """All changes since a state, and the state after them."""
    of.inbox.item_sync_state = None  # exchangelib goes on from it where it is asked to begin
    changes = list(of.inbox.sync_items(sync_state=state, only_fields=["size"], max_changes_returned=most))
    return changes, of.inbox.item_sync_state


async def test_changes_are_told_since_a_state(server: FakeExchange) -> None:
    server.folders["Done"] = "msgfolderroot"
    for _ in range(5):
        server.deliver(RAW)
    elsewhere = server.deliver(RAW, folder="Done")
    read, changed, deleted, moved, _ = server.items[:5]

    def asked() -> list[list[tuple[str, str]]]:
        told = []
        with account(server) as of:
            first, state = synced(of, None)
            told.append([(kind, item.id) for kind, item in first])
            read.is_read = True
            changed.change += 1
            server.items.remove(deleted)
            server.move(moved, "Done")
            server.move(elsewhere, "inbox")
            later, state = synced(of, state)
            told.append(sorted((kind, getattr(item, "id", "") or item[0].id) for kind, item in later))
            told.append([(kind, item.id) for kind, item in synced(of, state)[0]])
        return told

    before = [item.id for item in server.items[:5]]
    first, later, nothing = await asyncio.to_thread(asked)
    assert first == [("create", item_id) for item_id in before]
    kinds = {"delete": [before[2], before[3]], "read_flag_change": [before[0]], "update": [before[1]]}
    expected = [(kind, item_id) for kind, ids in kinds.items() for item_id in ids]
    assert later == sorted([*expected, ("create", elsewhere.id)])
    assert nothing == []


async def test_changes_come_in_pages_that_can_be_asked_for_again(server: FakeExchange) -> None:
    for _ in range(1100):
        server.deliver(RAW)

    def asked() -> list[str]:
        with account(server) as of:
            return [item.id for _, item in synced(of, None)[0]]

    assert await asyncio.to_thread(asked) == [item.id for item in server.items]
    assert server.operations().count("SyncFolderItems") == 3


async def test_no_more_changes_than_the_schema_allows_are_asked_for(server: FakeExchange) -> None:
    def asked() -> None:
        with account(server) as of, pytest.raises(ErrorSchemaValidation):
            synced(of, None, 513)

    await asyncio.to_thread(asked)


async def test_a_state_is_good_for_its_folder_and_as_long_as_the_server_knows_it(
    server: FakeExchange,
) -> None:
    def asked() -> list[str]:
        with account(server) as of:
            list(of.sent.sync_items(only_fields=["size"]))
            good = synced(of, None)[1]
            changed = good[:-8] + ("A" if good[-8] != "A" else "B") + good[-7:]
            for bad in ("H4sI", "not base64", changed, of.sent.item_sync_state):
                with pytest.raises(ErrorInvalidSyncStateData):
                    synced(of, bad)
            server.changes.forget()
            with pytest.raises(ErrorInvalidSyncStateData):
                synced(of, good)
            return [good, synced(of, None)[1]]

    first, second = await asyncio.to_thread(asked)
    assert first != second
    assert len(first) > 1000


async def test_user_configurations_are_kept_by_folder_and_name(server: FakeExchange) -> None:
    def asked() -> list[bytes]:
        with account(server) as of:
            with pytest.raises(ErrorItemNotFound):
                of.root.get_user_configuration("Our.Place", properties="BinaryData")
            with pytest.raises(ErrorItemNotFound):
                of.root.update_user_configuration("Our.Place", binary_data=b"x")
            of.root.create_user_configuration("Our.Place", binary_data=b"one")
            with pytest.raises(ErrorItemSave):
                of.root.create_user_configuration("Our.Place", binary_data=b"two")
            one = of.root.get_user_configuration("Our.Place", properties="BinaryData")
            of.root.update_user_configuration("Our.Place", binary_data=b"three")
            three = of.root.get_user_configuration("Our.Place", properties="BinaryData")
            with pytest.raises(ErrorItemNotFound):
                of.inbox.get_user_configuration("Our.Place", properties="BinaryData")
            return [one.binary_data, three.binary_data]

    assert await asyncio.to_thread(asked) == [b"one", b"three"]


async def test_any_operation_can_be_busy_once(server: FakeExchange) -> None:
    server.busy["SyncFolderItems"] = 3

    def asked() -> float:
        with account(server) as of:
            with pytest.raises(ErrorServerBusy) as caught:
                synced(of, None)
            synced(of, None)
            return float(caught.value.back_off)

    assert await asyncio.to_thread(asked) == 3


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
