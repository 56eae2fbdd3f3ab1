"""The contract of services that only call us: one suite, run against each connector that declares `sends` false.

Each needs `tests/fakes/<its name>.py` with a `DRIVER` that keeps `tests.fakes._caller.Caller`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from importlib import import_module

import pytest

import connectors
from connectors._hook_source import SENDER_ID, HookSource
from parley.errors import BadSignature, StoreUnavailable, Unsupported
from parley.messages import (
    Accepted,
    Assurance,
    ConversationKind,
    Event,
    HookRequest,
    Notice,
    Reply,
    Route,
)
from tests.contract.test_connectors import only_calls
from tests.fakes._caller import Caller

ACCOUNT = "the-account"
CALLERS = [name for name in connectors.names() if only_calls(name)]


class Inbox:
    """An inbox that keeps what it is given, once each, and can be out of order from some event on."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.attempts = 0
        self.down = False

    async def accept(self, event: Event) -> Accepted:
        self.attempts += 1
        if self.down:
            raise StoreUnavailable("down")
        assert type(event).model_validate_json(event.model_dump_json()) == event, "it can be stored"
        new = event.native_id not in {known.native_id for known in self.events}
        if new:
            self.events.append(event)
        return Accepted(id=event.native_id, new=new)


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> Caller:
    made: Caller = import_module(f"tests.fakes.{request.param}").DRIVER()
    return made


@pytest.fixture
def connector(caller: Caller) -> HookSource:
    return caller.connector(ACCOUNT)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


async def taken(connector: HookSource, inbox: Inbox, request: HookRequest) -> Notice:
    """The one notice of a call."""
    before = len(inbox.events)
    answer = await connector.handle_hook(request, inbox.accept)
    assert answer.status == 200, answer.body
    (event,) = inbox.events[before:]
    assert isinstance(event, Notice)
    return event


async def test_its_name_is_its_modules(connector: HookSource, caller: Caller) -> None:
    assert (connector.name, connector.account) == (caller.name, ACCOUNT)
    assert connector.capabilities.hooks


async def test_each_call_is_a_notice_of_its_topic(
    caller: Caller, connector: HookSource, inbox: Inbox
) -> None:
    for topic, request in caller.calls().items():
        notice = await taken(connector, inbox, request)
        assert notice.topic == topic
        assert (notice.account, notice.route.account) == (ACCOUNT, ACCOUNT)
        assert notice.route.kind is ConversationKind.CHANNEL
        assert notice.route.conversation
        assert notice.title.strip()
        assert notice.data
    assert len({event.native_id for event in inbox.events}) == len(caller.calls())


async def test_the_sender_is_the_service_itself(caller: Caller, connector: HookSource, inbox: Inbox) -> None:
    for request in caller.calls().values():
        notice = await taken(connector, inbox, request)
        assert (notice.sender.id, notice.sender.name) == (SENDER_ID, connector.service)
        assert notice.sender.assurance is connector.assurance is Assurance.VERIFIED


async def test_the_same_sent_again_is_the_same_notice(
    caller: Caller, connector: HookSource, inbox: Inbox
) -> None:
    for topic, request in caller.calls().items():
        await taken(connector, inbox, request)
        before = len(inbox.events)
        answer = await connector.handle_hook(caller.again(topic), inbox.accept)
        assert (answer.status, len(inbox.events)) == (200, before), topic


async def test_nothing_is_acknowledged_before_it_is_stored(
    caller: Caller, connector: HookSource, inbox: Inbox
) -> None:
    inbox.down = True
    for request in caller.calls().values():
        with pytest.raises(StoreUnavailable):
            await connector.handle_hook(request, inbox.accept)
    assert inbox.attempts == len(caller.calls())
    inbox.down = False
    for topic in caller.calls():
        assert (await connector.handle_hook(caller.again(topic), inbox.accept)).status == 200
    assert len(inbox.events) == len(caller.calls())


async def test_what_is_of_no_use_is_taken_and_not_stored(
    caller: Caller, connector: HookSource, inbox: Inbox
) -> None:
    answer = await connector.handle_hook(caller.idle(), inbox.accept)
    assert (answer.status, inbox.events) == (204, [])


async def test_forged_calls_are_refused(caller: Caller, connector: HookSource, inbox: Inbox) -> None:
    bare = HookRequest(method="POST", path="/hooks/the-account", headers={}, body=b"{}")
    for what, request in {**caller.forged(), "nothing at all": bare}.items():
        with pytest.raises(BadSignature):
            await connector.handle_hook(request, inbox.accept)
        assert not inbox.attempts, what


async def test_a_changed_body_is_refused_where_calls_are_signed(
    caller: Caller, connector: HookSource, inbox: Inbox
) -> None:
    if caller.cannot_sign:
        pytest.skip(caller.cannot_sign)
    for request in caller.calls().values():
        for changed in (request.body + b" ", request.body.replace(b"e", b"a", 1), b"", b"{}"):
            with pytest.raises(BadSignature):
                await connector.handle_hook(request.model_copy(update={"body": changed}), inbox.accept)
    assert not inbox.attempts


@pytest.mark.parametrize("seconds", [301, 86_400, -301])
async def test_old_calls_are_refused(
    caller: Caller, connector: HookSource, inbox: Inbox, seconds: int
) -> None:
    if caller.cannot_age:
        pytest.skip(caller.cannot_age)
    with pytest.raises(BadSignature):
        await connector.handle_hook(caller.aged(seconds), inbox.accept)
    await taken(connector, inbox, caller.aged(299 if seconds > 0 else -299))


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE"])
async def test_another_method_is_refused(
    caller: Caller, connector: HookSource, inbox: Inbox, method: str
) -> None:
    request = next(iter(caller.calls().values())).model_copy(update={"method": method})
    answer = await connector.handle_hook(request, inbox.accept)
    assert (answer.status, answer.headers["allow"], inbox.attempts) == (405, "POST", 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": ""},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-encoding": "gzip"},
    ],
    ids=str,
)
async def test_another_form_is_refused(
    caller: Caller, connector: HookSource, inbox: Inbox, headers: dict[str, str]
) -> None:
    good = next(iter(caller.calls().values()))
    answer = await connector.handle_hook(
        good.model_copy(update={"headers": good.headers | headers}), inbox.accept
    )
    assert (answer.status, inbox.attempts) == (415, 0)


async def test_nothing_can_be_sent(connector: HookSource) -> None:
    route = Route(account=ACCOUNT, conversation="x", kind=ConversationKind.CHANNEL)
    with pytest.raises(Unsupported):
        await connector.send_message(Reply(text="hello"), route)
    with pytest.raises(Unsupported):
        await connector.edit_message("1", Reply(text="hello"), route)


async def test_listening_waits_until_it_is_cancelled(connector: HookSource, inbox: Inbox) -> None:
    tasks = asyncio.all_tasks()
    listening = asyncio.create_task(connector.listen(inbox.accept))
    await connector.check()
    await asyncio.sleep(0)
    assert not listening.done()
    listening.cancel()
    await asyncio.wait({listening})
    assert listening.cancelled()
    assert asyncio.all_tasks() <= tasks
    await connector.aclose()
    await connector.aclose()


async def test_secrets_are_never_shown(
    caller: Caller, connector: HookSource, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [repr(connector), str(connector)]
    for request in caller.forged().values():
        with pytest.raises(BadSignature) as refused:
            await connector.handle_hook(request, inbox.accept)
        shown += [str(refused.value), *traceback.format_exception(refused.value)]
    everything = "\n".join([*shown, caplog.text])
    assert [secret for secret in caller.secrets() if secret in everything] == []


def test_strangers_text_makes_no_markup(caller: Caller, connector: HookSource) -> None:
    """Whatever a stranger can write into a payload: no link, no mention, no markup of theirs works."""
    evil = "**x** `y` [a](https://evil.example) @channel <@U1>"
    for topic, request in caller.calls().items():
        form = request.headers["content-type"]
        body = json.dumps(_spiked(json.loads(request.body), evil)).encode()
        spiked = request.model_copy(
            update={"body": body, "headers": request.headers | {"content-type": form}}
        )
        for event in connector.events(spiked):
            assert isinstance(event, Notice)
            for part in (event.title, event.text):
                assert "**" not in part, topic
                assert "`" not in part, topic
                assert "](https://evil" not in part, topic
                assert "@channel" not in part, topic
                assert "<@U1>" not in part, topic


def _spiked(value: object, evil: str, name: str = "") -> object:
    """The payload with this text appended wherever people write."""
    if isinstance(value, dict):
        return {key: _spiked(item, evil, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_spiked(item, evil, name) for item in value]
    written = {
        "title", "body", "message", "note", "description", "name", "login", "username", "user_username", "culprit",
        "display_title", "summary", "alertname", "instance", "content", "tag_name", "triggered_rule", "job",
        "description_title", "description_text", "source_branch", "target_branch", "full_name", "user_name",
        "path_with_namespace",
    }  # fmt: skip
    return f"{value} {evil}" if isinstance(value, str) and name in written else value
