"""The contract of a connector: one suite, run against every connector there is, each with its own fake or real peer.

A new connector needs `tests/fakes/<its name>.py` with a `DRIVER` that keeps `tests.fakes._driver.Driver`; without one
every test here errors. What a platform cannot do is said by its `Capabilities` alone and is tested as such. A service
that only calls us has a contract of its own, in test_callers.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, cast

import psutil
import pytest
import pytest_asyncio

import connectors
from parley.errors import (
    AuthError,
    BadSignature,
    ConnectorError,
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
    CommandEntry,
    CommandParameter,
    Connector,
    ConversationKind,
    Event,
    File,
    HookRequest,
    Message,
    Reply,
    Route,
)
from parley.messages.rendering import render_down
from tests.fakes._driver import Driver, Failure, eventually

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

ACCOUNT = "the-account"
LARGEST_TRIED = 200_000
"""Longest text that a limit is tried with; platforms that take more are as good as unlimited here."""


def only_calls(name: str) -> bool:
    """Whether this is a service that only calls us; one that cannot be loaded fails every test here instead."""
    try:
        return not connectors.load(name).capabilities.sends
    except Exception:  # noqa: BLE001 - whatever it is, it must not take the others' tests with it
        return False


CALLERS = {name for name in connectors.names() if only_calls(name)}

PEER_FAILURES: dict[Failure, type[ConnectorError]] = {
    "rate_limited": RateLimited,
    "unreachable": Unreachable,
    "unknown": Unknown,
    "auth": AuthError,
    "rejected": Rejected,
}


def failing(*failures: Failure) -> list[ParameterSet]:
    """A platform and a failure of it; those that a platform does not know are skipped for the reason it gives."""
    return [
        pytest.param(name, how, id=f"{name}-{how}", marks=_skipped(name, how))
        for name in connectors.names()
        for how in failures
    ]


def _skipped(name: str, how: Failure) -> list[pytest.MarkDecorator]:
    reason = "only calls us" if name in CALLERS else _cannot_fail(name).get(how)
    return [pytest.mark.skip(reason=reason)] if reason else []


def _cannot_fail(name: str) -> Mapping[Failure, str]:
    try:
        known: Mapping[Failure, str] = import_module(f"tests.fakes.{name}").DRIVER.cannot_fail
    except ModuleNotFoundError:
        return {}  # then the fixture `driver` errors, in every test of this platform
    return known


class Inbox:
    """An inbox that keeps what it is given, and can be out of order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.attempts = 0
        self.down = False
        self.stuck = False

    async def accept(self, event: Event) -> Accepted:
        self.attempts += 1
        if self.down:
            raise StoreUnavailable("down")
        if self.stuck:
            await asyncio.Event().wait()
        new = event.native_id not in {known.native_id for known in self.events}
        if new:
            self.events.append(event)
        return Accepted(id=event.native_id, new=new)

    def texts(self) -> list[str]:
        return [event.text.strip() for event in self.events if isinstance(event, Message)]

    def files(self) -> list[File]:
        return [file for event in self.events if isinstance(event, Message) for file in event.files]

    async def holds(self, text: str) -> Message:
        await eventually(lambda: text in self.texts(), f"the message {text!r}")
        return next(e for e in self.events if isinstance(e, Message) and e.text.strip() == text)


@pytest_asyncio.fixture(params=sorted({*connectors.names()} - CALLERS))
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    module = import_module(f"tests.fakes.{request.param}")
    async with module.DRIVER() as running:
        yield running


@pytest_asyncio.fixture
async def connector(driver: Driver) -> AsyncIterator[Connector]:
    made = driver.connector(ACCOUNT)
    yield made
    await made.aclose()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@asynccontextmanager
async def listening(connector: Connector, inbox: Inbox) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(connector.listen(inbox.accept))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled(), f"listening ended by itself: {task.exception()!r}"


async def route_to(driver: Driver, connector: Connector, inbox: Inbox, *, direct: bool = True) -> Route:
    """The route of an answer to somebody who has just said hello."""
    async with listening(connector, inbox):
        await driver.person_says("hello", direct=direct)
        return (await inbox.holds("hello")).route


# --- receiving -------------------------------------------------------------------------------------------------------


async def test_its_name_is_its_modules(connector: Connector, driver: Driver) -> None:
    assert connector.name == driver.name
    assert connector.account == ACCOUNT


async def test_what_a_person_says_is_accepted(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    async with listening(connector, inbox):
        native_id = await driver.person_says("where is order 1024?")
        message = await inbox.holds("where is order 1024?")
    assert (message.account, message.native_id) == (ACCOUNT, native_id)
    assert message.route.account == ACCOUNT
    assert message.route.kind in {ConversationKind.DIRECT, ConversationKind.MAIL}
    assert message.sender.id
    assert not message.automatic
    assert message.sent_at.tzinfo is not None


async def test_text_comes_in_as_it_was_typed(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    typed = '/run restart host=web1 note="a <b> & c" 中文 🚀'
    async with listening(connector, inbox):
        await driver.person_says(typed)
        await inbox.holds(typed)


async def test_two_people_are_two_senders(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    if driver.name == "webhook":
        pytest.skip("only one program speaks there")
    async with listening(connector, inbox):
        await driver.person_says("one", person="alice")
        await driver.person_says("two", person="bob")
        one, two = await inbox.holds("one"), await inbox.holds("two")
    assert one.sender.id != two.sender.id


async def test_a_file_comes_in(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    if not connector.capabilities.max_file:
        pytest.skip("takes no files")
    sent = File(name="données.csv", media_type="text/csv", content=b"a,b\n\x00\xff")
    async with listening(connector, inbox):
        await driver.person_says("see", files=(sent,))
        await inbox.holds("see")
        # With the words, or, where a file has none beside it, as a message of its own.
        await eventually(inbox.files, "the file")
    assert [(file.name, file.content) for file in inbox.files()] == [(sent.name, sent.content)]


async def test_a_redelivery_has_the_same_id(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    async with listening(connector, inbox):
        native_id = await driver.person_says("once", direct=False)
        await eventually(lambda: driver.acknowledged(native_id), "the acknowledgement")
        await driver.redeliver(native_id)
        await driver.person_says("after")
        await inbox.holds("after")
    assert inbox.texts().count("once") == 1


async def test_nothing_is_acknowledged_before_it_is_stored(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    inbox.down = True
    async with listening(connector, inbox):
        native_id = await driver.person_says("keep me")
        await eventually(lambda: inbox.attempts >= 1, "the first attempt")
        await driver.redeliver(native_id)
        await eventually(lambda: inbox.attempts >= 2, "the second attempt")
        assert not driver.acknowledged(native_id)
        inbox.down = False
        await driver.redeliver(native_id)
        await eventually(lambda: driver.acknowledged(native_id), "the acknowledgement")
    assert inbox.texts() == ["keep me"]


async def test_what_we_say_is_not_taken_for_a_message(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    async with listening(connector, inbox):
        await driver.person_says("hello", direct=False)
        route = (await inbox.holds("hello")).route
        await connector.send_message(Reply(text="an answer"), route)
        await driver.sent(1)
        await driver.person_says("after")
        await inbox.holds("after")
    assert inbox.texts() == ["hello", "after"]


async def test_it_is_there_again_after_a_cut(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    async with listening(connector, inbox):
        await driver.person_says("before")
        await inbox.holds("before")
        await driver.cut()
        await driver.person_says("after")
        await inbox.holds("after")


async def test_cancelling_leaves_no_task_and_no_socket(driver: Driver, inbox: Inbox) -> None:
    tasks, sockets = asyncio.all_tasks(), _sockets()
    connector = driver.connector(ACCOUNT)
    inbox.stuck = True
    async with listening(connector, inbox):
        await driver.person_says("hello")
        await eventually(lambda: inbox.attempts, "the message")
    await connector.aclose()
    # The peer's tasks, one a connection, end when ours are closed.
    await eventually(lambda: asyncio.all_tasks() <= tasks, f"the end of {asyncio.all_tasks() - tasks}")
    await eventually(lambda: _sockets() <= sockets, "closed sockets")


async def test_messages_can_be_iterated(driver: Driver, connector: Connector) -> None:
    first = await driver.person_says("one")
    async with aclosing(cast("AsyncGenerator[Event]", connector.receive_messages())) as events:
        one = await anext(events)
        assert isinstance(one, Message)
        assert one.text.strip() == "one"
        assert not driver.acknowledged(first)
        await driver.person_says("two")
        two = await anext(events)
        assert isinstance(two, Message)
        assert two.text.strip() == "two"
        await eventually(lambda: driver.acknowledged(first), "the acknowledgement of what was taken")


async def test_a_callback_is_awaited_before_the_acknowledgement(driver: Driver, connector: Connector) -> None:
    heard: list[Event] = []
    go_on = asyncio.Event()

    async def handler(event: Event) -> None:
        heard.append(event)
        await go_on.wait()

    task = asyncio.create_task(connector.register_callback(handler))
    native_id = await driver.person_says("hello")
    await eventually(lambda: heard, "the message")
    assert not driver.acknowledged(native_id)
    go_on.set()
    await eventually(lambda: driver.acknowledged(native_id), "the acknowledgement")
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_an_answer_arrives_where_it_was_asked(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    route = await route_to(driver, connector, inbox)
    receipt = await connector.send_message(Reply(text="on its way"), route, token="t-1")
    (sent,) = await driver.sent(1)
    assert (sent.text.strip(), sent.conversation) == ("on its way", route.conversation)
    assert receipt.native_ids
    assert all(receipt.native_ids)


async def test_an_answer_goes_into_the_thread(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    if not connector.capabilities.threads:
        pytest.skip("has no threads")
    route = await route_to(driver, connector, inbox, direct=False)
    await connector.send_message(Reply(text="on its way"), route)
    (sent,) = await driver.sent(1)
    assert route.thread is not None
    assert (sent.conversation, sent.thread) == (route.conversation, route.thread)


async def test_a_thread_goes_on(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    if not connector.capabilities.threads:
        pytest.skip("has no threads")
    async with listening(connector, inbox):
        await driver.person_says("hello", direct=False)
        route = (await inbox.holds("hello")).route
        await connector.send_message(Reply(text="which one?"), route)
        await driver.person_says("1024", thread=route.thread, direct=False)
        assert (await inbox.holds("1024")).route.same_place(route)


@pytest.mark.parametrize(
    "text",
    [
        "plain & <not a tag> 100%",
        "中文，全角（符号）",
        "emoji 🚀 é ñ",
        "back\\slash $x {y} #z |w|",
        "a\nb\n\nc",
    ],
)
async def test_characters_survive(driver: Driver, connector: Connector, inbox: Inbox, text: str) -> None:
    route = await route_to(driver, connector, inbox)
    await connector.send_message(Reply(text=text), route)
    (sent,) = await driver.sent(1)
    assert sent.text.strip() == text


async def test_markup_keeps_its_words(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    route = await route_to(driver, connector, inbox)
    text = "**bold** *italic* `x < 1` [site](https://example.org/a?b=1&c=2)\n\n- one\n- two\n\n```python\nprint(1)\n```"
    await connector.send_message(Reply(text=text), route)
    (sent,) = await driver.sent(1)
    for word in (
        "bold",
        "italic",
        "x < 1",
        "site",
        "https://example.org/a?b=1&c=2",
        "one",
        "two",
        "print(1)",
    ):
        assert word in sent.text


@pytest.mark.parametrize("more", [0, 1])
async def test_a_text_at_the_limit_arrives_whole(
    driver: Driver, connector: Connector, inbox: Inbox, more: int
) -> None:
    can = connector.capabilities
    if can.max_text > LARGEST_TRIED:
        pytest.skip("as good as unlimited")
    route = await route_to(driver, connector, inbox)
    text = ("word " * can.max_text)[: can.max_text + more - 1] + "."
    parts = render_down(Reply(text=text), can)
    assert len(parts) == 1 + more
    for part in parts:
        await connector.send_message(part, route)
    sent = await driver.sent(len(parts))
    assert " ".join(part.text.strip() for part in sent).split() == text.split()


@pytest.mark.parametrize(("driver", "how"), failing(*PEER_FAILURES), indirect=["driver"])
async def test_a_failure_is_named_for_what_it_is(
    driver: Driver, connector: Connector, inbox: Inbox, how: Failure
) -> None:
    route = await route_to(driver, connector, inbox)
    driver.refuse_next(how, retry_after=7)
    with pytest.raises(ConnectorError) as caught:
        await connector.send_message(Reply(text="first"), route, token="t-1")
    assert type(caught.value) is PEER_FAILURES[how]
    if isinstance(caught.value, RateLimited):
        assert 6 <= caught.value.retry_after <= 7
    await connector.send_message(Reply(text="second"), route, token="t-2")
    assert [sent.text.strip() for sent in await driver.sent(1)] == ["second"]


@pytest.mark.parametrize("retry_after", ["soon", "", "-5", "nan", "inf", "1e999", 0.5])
@pytest.mark.parametrize(("driver", "how"), failing("rate_limited"), indirect=["driver"])
async def test_an_unreadable_wait_is_a_bounded_wait(
    driver: Driver, connector: Connector, inbox: Inbox, how: Failure, retry_after: float | str
) -> None:
    route = await route_to(driver, connector, inbox)
    driver.refuse_next(how, retry_after=retry_after)
    with pytest.raises(RateLimited) as caught:
        await connector.send_message(Reply(text="first"), route)
    assert math.isfinite(caught.value.retry_after)
    assert 0 <= caught.value.retry_after <= 3600


async def test_nothing_is_not_sent(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    route = await route_to(driver, connector, inbox)
    with pytest.raises(Rejected):
        await connector.send_message(Reply(), route)


async def test_another_accounts_route_is_refused(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    route = await route_to(driver, connector, inbox)
    with pytest.raises(Rejected):
        await connector.send_message(Reply(text="x"), route.model_copy(update={"account": "another"}))


# --- credentials and closing -----------------------------------------------------------------------------------------


async def test_good_credentials_are_found_good(connector: Connector) -> None:
    await connector.check()


async def test_bad_credentials_are_found_bad(driver: Driver, inbox: Inbox) -> None:
    async with driver.broken_connector(ACCOUNT) as broken:
        with pytest.raises(AuthError):
            await broken.check()
        with pytest.raises(AuthError):
            await asyncio.wait_for(broken.listen(inbox.accept), 10)


async def test_secrets_are_never_shown(
    driver: Driver, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    async with driver.connector(ACCOUNT) as good, driver.broken_connector(ACCOUNT) as broken:
        shown += [repr(good), str(good), repr(broken)]
        route = await route_to(driver, good, inbox)
        for how in PEER_FAILURES.keys() - driver.cannot_fail.keys():
            driver.refuse_next(how)
            with pytest.raises(ConnectorError) as caught:
                await good.send_message(Reply(text="x"), route)
            shown += [repr(caught.value), *traceback.format_exception(caught.value)]
        with pytest.raises(AuthError) as refused:
            await broken.listen(inbox.accept)
        shown += [repr(refused.value), *traceback.format_exception(refused.value)]
    everything = "\n".join([*shown, caplog.text])
    assert [secret for secret in driver.secrets() if secret in everything] == []


async def test_it_closes_twice(driver: Driver) -> None:
    connector = driver.connector(ACCOUNT)
    await connector.check()
    await connector.aclose()
    await connector.aclose()


async def test_it_closes_unused(driver: Driver) -> None:
    await driver.connector(ACCOUNT).aclose()


# --- capabilities are true -------------------------------------------------------------------------------------------


async def test_buttons_arrive(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    most = connector.capabilities.max_buttons
    if not most:
        pytest.skip("has no buttons")
    buttons = tuple(Button(label=f"Choice {number}", value=f"choice:{number}") for number in range(most))
    route = await route_to(driver, connector, inbox)
    await connector.send_message(Reply(text="choose", buttons=buttons), route)
    (sent,) = await driver.sent(1)
    assert sent.buttons == buttons


async def test_more_buttons_than_there_can_be_are_refused(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    most = connector.capabilities.max_buttons
    buttons = tuple(Button(label=f"Choice {number}", value=f"choice:{number}") for number in range(most + 1))
    route = await route_to(driver, connector, inbox)
    with pytest.raises(Unsupported):
        await connector.send_message(Reply(text="choose", buttons=buttons), route)


async def test_files_arrive(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    if not connector.capabilities.max_file:
        pytest.skip("takes no files")
    files = (
        File(name="report.csv", media_type="text/csv", content=b"a,b\n1,2\n"),
        File(name="figure.png", media_type="image/png", content=bytes(range(256))),
    )
    route = await route_to(driver, connector, inbox, direct=False)
    await connector.send_message(Reply(text="the report", files=files), route, token="t-1")
    (sent,) = await driver.sent(1)
    assert (sent.text.strip(), sent.thread) == ("the report", route.thread)
    assert [(file.name, file.content) for file in sent.files] == [(file.name, file.content) for file in files]


async def test_a_private_answer_is_for_one(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    if not connector.capabilities.private:
        pytest.skip("has no private answers")
    async with listening(connector, inbox):
        await driver.person_says("hello", direct=False)
        message = await inbox.holds("hello")
    route = message.route.model_copy(update={"private_to": message.sender.id})
    await connector.send_message(Reply(text="only you", private=True), route)
    (sent,) = await driver.sent(1)
    assert (sent.text.strip(), sent.private_to) == ("only you", message.sender.id)


async def test_a_private_answer_is_never_shown_to_all(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    route = await route_to(driver, connector, inbox, direct=False)
    if route.kind in {ConversationKind.DIRECT, ConversationKind.MAIL}:
        pytest.skip("nobody reads along")
    with pytest.raises((Unsupported, Rejected)):
        await connector.send_message(Reply(text="for one", private=True), route)


async def test_editing_is_as_declared(driver: Driver, connector: Connector, inbox: Inbox) -> None:
    route = await route_to(driver, connector, inbox)
    receipt = await connector.send_message(Reply(text="running"), route)
    if connector.capabilities.edits:
        edited = await connector.edit_message(receipt.native_ids[0], Reply(text="done"), route)
        assert edited.native_ids
    else:
        with pytest.raises(Unsupported):
            await connector.edit_message(receipt.native_ids[0], Reply(text="done"), route)


async def test_hooks_are_as_declared(connector: Connector, inbox: Inbox) -> None:
    unsigned = HookRequest(method="POST", path=f"/hooks/{ACCOUNT}", headers={}, body=b"{}")
    expected = BadSignature if connector.capabilities.hooks else Unsupported
    with pytest.raises(expected):
        await connector.handle_hook(unsigned, inbox.accept)
    assert not inbox.events


async def test_typing_and_commands_are_never_an_error(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    route = await route_to(driver, connector, inbox)
    await connector.show_typing(route)
    number = CommandParameter(name="order_id", type="integer", description="Order number.", minimum=1)
    states = CommandParameter(name="state", required=False, choices=("open", "late"))
    order = CommandEntry(name="order", summary="Show where an order is.", parameters=(number, states))
    await connector.catalogue_changed((order, CommandEntry(name="report", summary="")))


async def test_a_second_send_with_the_same_token_arrives_once_where_declared(
    driver: Driver, connector: Connector, inbox: Inbox
) -> None:
    if not connector.capabilities.idempotent_send:
        pytest.skip("does not remove duplicates")
    route = await route_to(driver, connector, inbox)
    for _ in range(2):
        await connector.send_message(Reply(text="once"), route, token="t-1")
    await connector.send_message(Reply(text="after"), route, token="t-2")
    assert [sent.text.strip() for sent in await driver.sent(2)] == ["once", "after"]


def _sockets() -> int:
    return len(psutil.Process().net_connections(kind="inet"))
