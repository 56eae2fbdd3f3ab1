"""What is Slack's own: how its payloads are read, how replies are put, and how its odd ways are met."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier

from connectors import _slack_write, slack
from connectors._slack_read import Me, hook_payload, plain, verify
from connectors._slack_write import mrkdwn
from connectors.slack import Slack, parse, render
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
    MAX_FILE,
    Accepted,
    Action,
    Button,
    ConversationKind,
    Edit,
    Event,
    File,
    HookRequest,
    Message,
    Reply,
    Route,
    Table,
)
from tests.fakes._driver import eventually
from tests.fakes.slack import (
    BOT_ID,
    BOT_TOKEN,
    BOT_USER,
    CHANNEL,
    GROUP_DM,
    SIGNING_SECRET,
    SlackDriver,
    SlackFake,
    direct,
)

ME = Me(user=BOT_USER, bot=BOT_ID)
DM = direct("UALICE")
TS = "1700000000.000100"


def event(**fields: Any) -> dict[str, Any]:
    """An Events API payload of a message in a direct conversation, with these fields changed."""
    said = {"type": "message", "user": "UALICE", "text": "hi", "ts": TS, "channel": DM, "channel_type": "im"}
    merged = {key: value for key, value in {**said, **fields}.items() if value is not None}
    return {"type": "event_callback", "event_id": "Ev1", "event": merged}


def read(**fields: Any) -> Event | None:
    return parse(event(**fields), "a", ME)


def message(**fields: Any) -> Message:
    found = read(**fields)
    assert isinstance(found, Message)
    return found


# --- parse: messages -------------------------------------------------------------------------------------------------


def test_a_message_is_known_by_its_channel_and_ts() -> None:
    found = message()
    assert found.native_id == f"{DM}:{TS}"
    assert found.sent_at == datetime(2023, 11, 14, 22, 13, 20, 100, tzinfo=UTC)
    assert (found.sender.id, found.sender.is_bot, found.automatic) == ("UALICE", False, False)


def test_both_reports_of_a_mention_are_the_same_message() -> None:
    """They differ in type and event id only, and come in any order: the inbox must see one."""
    text = f"<@{BOT_USER}> /order 1024"
    as_message = message(type="message", channel=CHANNEL, channel_type="channel", text=text)
    as_mention = message(type="app_mention", channel=CHANNEL, channel_type="channel", text=text)
    assert as_message == as_mention
    assert as_message.text == "/order 1024"


@pytest.mark.parametrize(
    ("fields", "kind", "thread"),
    [
        ({}, ConversationKind.DIRECT, None),
        ({"thread_ts": "1.1"}, ConversationKind.DIRECT, "1.1"),
        ({"channel": CHANNEL, "channel_type": "channel"}, ConversationKind.CHANNEL, TS),
        (
            {"channel": CHANNEL, "channel_type": "channel", "thread_ts": "1.1"},
            ConversationKind.CHANNEL,
            "1.1",
        ),
        ({"channel": CHANNEL, "channel_type": "group"}, ConversationKind.CHANNEL, TS),
        ({"channel": GROUP_DM, "channel_type": "mpim"}, ConversationKind.GROUP, TS),
        ({"channel": CHANNEL, "channel_type": None}, ConversationKind.CHANNEL, TS),
        ({"channel_type": None}, ConversationKind.DIRECT, None),
    ],
)
def test_the_answers_way_is_fixed(fields: dict[str, Any], kind: ConversationKind, thread: str | None) -> None:
    route = message(**fields).route
    assert (route.kind, route.thread, route.conversation) == (kind, thread, fields.get("channel", DM))


@pytest.mark.parametrize(
    ("fields", "automatic"),
    [
        ({"bot_id": "B0OTHER"}, True),
        ({"bot_id": "B0OTHER", "user": None, "subtype": "bot_message"}, True),
        ({"user": "USLACKBOT"}, True),
        ({"subtype": "thread_broadcast"}, False),
        ({"subtype": "file_share"}, False),
        ({"subtype": "me_message"}, False),
    ],
)
def test_other_bots_are_marked(fields: dict[str, Any], automatic: bool) -> None:
    found = message(**fields)
    assert (found.automatic, found.sender.is_bot) == (automatic, automatic)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": BOT_USER},
        {"user": None, "bot_id": BOT_ID, "subtype": "bot_message"},
        {"subtype": "message_deleted", "deleted_ts": TS},
        {"subtype": "channel_join"},
        {"subtype": "message_replied"},
        {"subtype": "tombstone"},
        {"type": "reaction_added"},
        {"user": None},
        {"ts": None},
        {"ts": "yesterday"},
        {"ts": 17},
        {"ts": "99999999999999.1"},
        {"channel": None},
        {"channel": "../x"},
        {"channel": {"id": "C1"}},
        {"user": "U" * 65},
        {"text": "x" * 1_000_001},
    ],
)
def test_what_is_no_message_of_a_person_is_left_out(fields: dict[str, Any]) -> None:
    assert read(**fields) is None


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (f"<@{BOT_USER}> /order 1024", "/order 1024"),
        (f"  <@{BOT_USER}|parley>: hello", "hello"),
        (f"<@{BOT_USER}>，查一下订单", "查一下订单"),
        (f"ask <@{BOT_USER}> about it", f"ask @{BOT_USER} about it"),
        ("a &lt;b&gt; &amp;amp; c", "a <b> &amp; c"),
        ("&amp;lt;", "&lt;"),
        ("<@U1|bob> and <@U2>", "@bob and @U2"),
        ("<#C1|general> <#C2>", "#general #C2"),
        ("<!here> <!subteam^S1|@ops> <!channel>", "@here @ops @channel"),
        ("<!date^1392734382^{date}|yesterday>", "yesterday"),
        ("<https://example.org/a?b=1&amp;c=2>", "https://example.org/a?b=1&c=2"),
        ("/ping <http://example.org|example.org>", "/ping example.org"),
        ("<https://example.org/|https://example.org/>", "https://example.org/"),
        ("<https://example.org|our site>", "[our site](https://example.org)"),
        ("<mailto:a@example.org|a@example.org>", "a@example.org"),
        ("<tel:+123|+123>", "+123"),
        ("<unknown>", "<unknown>"),
        ("NUL \x00 and half \ud83d a pair", "NUL \ufffd and half \ufffd a pair"),
        ("", ""),
    ],
)
def test_slacks_escapes_become_plain_text(typed: str, text: str) -> None:
    assert message(text=typed).text == text


@given(st.text(alphabet="<>&|@#!; \nab*_`~lgtmp:/.", max_size=60))
def test_what_we_escape_slack_shows_as_it_was(text: str) -> None:
    assert plain(_slack_write._escape(text)) == text


# --- parse: edits, buttons, commands ---------------------------------------------------------------------------------


def edit(now: dict[str, Any], before: dict[str, Any] | None = None, **fields: Any) -> Event | None:
    said = {"type": "message", "user": "UALICE", "ts": TS, "text": "before"}
    payload = event(
        subtype="message_changed",
        ts="1700000009.000200",
        user=None,
        text=None,
        message={**said, **now},
        previous_message={**said, **(before or {})},
        **fields,
    )
    return parse(payload, "a", ME)


def test_an_edit_names_the_message_that_it_changes() -> None:
    found = edit({"text": "after &amp; all", "edited": {"ts": "1700000009.000000"}})
    assert isinstance(found, Edit)
    assert (found.target, found.native_id, found.text) == (f"{DM}:{TS}", "Ev1", "after & all")
    assert found.route == message().route
    assert found.sent_at.second == 29


def test_an_edit_in_a_channel_answers_where_the_message_did() -> None:
    found = edit({"text": "after"}, channel=CHANNEL, channel_type="channel")
    assert isinstance(found, Edit)
    assert found.route == message(channel=CHANNEL, channel_type="channel").route


@pytest.mark.parametrize(
    "now",
    [{"text": "before"}, {"text": "x", "user": BOT_USER}, {"text": "x", "subtype": "tombstone"}, {"ts": ""}],
)
def test_changes_that_are_no_edits_of_a_person_are_left_out(now: dict[str, Any]) -> None:
    assert edit(now) is None


def press(**fields: Any) -> dict[str, Any]:
    return {
        "type": "block_actions",
        "user": {"id": "UALICE", "name": "alice"},
        "channel": {"id": CHANNEL, "name": "general"},
        "container": {"type": "message", "message_ts": TS, "channel_id": CHANNEL, "thread_ts": "1.1"},
        "actions": [
            {"action_id": "parley:0", "block_id": "b", "value": "yes:1", "action_ts": "1700000005.5"}
        ],
        **fields,
    }


def test_a_press_names_button_message_and_person() -> None:
    found = parse(press(), "a", ME)
    assert isinstance(found, Action)
    assert (found.value, found.target, found.sender.id) == ("yes:1", f"{CHANNEL}:{TS}", "UALICE")
    assert (found.route.thread, found.route.kind, found.route.private_to) == (
        "1.1",
        ConversationKind.CHANNEL,
        None,
    )


def test_a_press_is_one_event_each() -> None:
    again = [{"action_id": "parley:0", "block_id": "b", "value": "yes:1", "action_ts": "1700000006.5"}]
    payloads = [press(), press(), press(actions=again), press(user={"id": "UBOB"})]
    ids = [found.native_id for payload in payloads if (found := parse(payload, "a", ME))]
    assert len(ids) == 4
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_press_on_a_private_answer_is_answered_in_private() -> None:
    found = parse(press(container={"message_ts": TS, "is_ephemeral": True}), "a", ME)
    assert isinstance(found, Action)
    assert found.route.private_to == "UALICE"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("directmessage", ConversationKind.DIRECT),
        ("mpdm-a--b-1", ConversationKind.GROUP),
        ("privategroup", ConversationKind.CHANNEL),
        ("general", ConversationKind.CHANNEL),
        (None, ConversationKind.CHANNEL),
    ],
)
def test_a_named_conversation_has_a_kind(name: str | None, kind: ConversationKind) -> None:
    found = parse(press(channel={"id": CHANNEL, "name": name}), "a", ME)
    assert found is not None
    assert found.route.kind is kind


@pytest.mark.parametrize(
    "fields",
    [
        {"actions": []},
        {"actions": [{"action_ts": "1.1"}]},
        {"actions": [{"value": "v" * 2001, "action_ts": "1.1"}]},
        {"actions": "x"},
        {"user": {}},
        {"channel": None},
        {"container": {"type": "view"}},
    ],
)
def test_presses_that_cannot_be_understood_are_left_out(fields: dict[str, Any]) -> None:
    assert parse(press(**fields), "a", ME) is None


def command(**fields: Any) -> dict[str, Any]:
    given = {"command": "/order", "text": "1024", "channel_id": CHANNEL, "channel_name": "general"}
    return {**given, "user_id": "UALICE", "user_name": "alice", "trigger_id": "1.2.ab", **fields}


def test_a_slash_command_is_a_message_without_a_thread() -> None:
    found = parse(command(text="1024 note=&lt;x&gt;"), "a", ME)
    assert isinstance(found, Message)
    assert (found.text, found.native_id, found.sender.name) == (
        "/order 1024 note=<x>",
        "slash:1.2.ab",
        "alice",
    )
    assert (found.route.conversation, found.route.thread) == (CHANNEL, None)


def test_a_slash_command_may_have_no_text() -> None:
    found = parse(command(text=""), "a", ME)
    assert isinstance(found, Message)
    assert found.text == "/order"


@pytest.mark.parametrize(
    "fields", [{"trigger_id": None}, {"trigger_id": "a b"}, {"command": "order"}, {"user_id": ""}]
)
def test_commands_that_slack_would_not_send_are_left_out(fields: dict[str, Any]) -> None:
    assert parse(command(**fields), "a", ME) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["type", "event", "event_id", "command", "text", "channel", "channel_id", "channel_type", "user", "user_id",
        "ts", "thread_ts", "subtype", "message", "previous_message", "bot_id", "actions", "container", "message_ts",
        "value", "action_ts", "trigger_id", "id", "edited"]  # fmt: skip
VALUES = [
    "message",
    "app_mention",
    "block_actions",
    "event_callback",
    "message_changed",
    "C1",
    "D1",
    "U1",
    "1.1",
    "/x",
]
LIKELY = st.recursive(
    JSON | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
    max_leaves=24,
)


@settings(max_examples=300)
@given(JSON | LIKELY)
def test_parse_never_raises(payload: object) -> None:
    found = parse(payload, "a", ME)
    assert found is None or found.account == "a"


# --- render ----------------------------------------------------------------------------------------------------------

ROUTE = Route(account="a", conversation=CHANNEL, kind=ConversationKind.CHANNEL, thread=TS)


@pytest.mark.parametrize(
    ("ours", "slacks"),
    [
        ("**bold** and *italic*", "*bold* and _italic_"),
        ("**all *of* it**", "**all _of_ it**"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("a*b*c", "a*b*c"),
        ("[site](https://example.org/a?b=1&c=2)", "<https://example.org/a?b=1&amp;c=2|site>"),
        ("[wiki](https://example.org/A_(b))", "<https://example.org/A_(b)|wiki>"),
        ("[a|b](https://example.org/x|y)", "<https://example.org/x%7Cy|a¦b>"),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ("- one\n  * two\n+ three", "• one\n  • two\n• three"),
        ("`**not bold** <x>`", "`**not bold** &lt;x&gt;`"),
        ("```python\n**x** < 1\n```", "```\n**x** &lt; 1\n```"),
        ("```one line```", "```one line```"),
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"),
        ("**<!here>**", "*&lt;!here&gt;*"),
        ("[<!here>](https://example.org)", "<https://example.org|&lt;!here&gt;>"),
    ],
)
def test_our_markup_becomes_slacks(ours: str, slacks: str) -> None:
    assert mrkdwn(ours) == slacks


@given(st.text(alphabet="<>&|*_`[]()!@#-+ \nabchtps:/.", max_size=80))
def test_nothing_that_is_written_can_ping_anybody(text: str) -> None:
    shown = mrkdwn(text)
    for start in ("<!", "<@", "<#"):
        assert start not in shown


def test_a_reply_goes_where_its_route_says() -> None:
    request = render(Reply(text="x"), ROUTE)
    assert (request["channel"], request["thread_ts"], request["unfurl_links"]) == (CHANNEL, TS, False)
    assert "thread_ts" not in render(Reply(text="x"), ROUTE.model_copy(update={"thread": None}))


def test_buttons_come_in_rows_of_five() -> None:
    buttons = tuple(
        Button(label=f"b{n}", value=f"v{n}", style="danger" if n == 6 else "default") for n in range(7)
    )
    blocks = render(Reply(text="choose", buttons=buttons), ROUTE)["blocks"]
    assert [block["type"] for block in blocks] == ["section", "actions", "actions"]
    elements = [element for block in blocks[1:] for element in block["elements"]]
    assert [element["value"] for element in elements] == [f"v{n}" for n in range(7)]
    assert len({element["action_id"] for element in elements}) == 7
    assert [element.get("style") for element in elements] == [None] * 6 + ["danger"]


def test_buttons_without_text_still_notify() -> None:
    request = render(Reply(buttons=(Button(label="<Yes>", value="y"),)), ROUTE)
    assert request["text"] == "&lt;Yes&gt;"
    assert [block["type"] for block in request["blocks"]] == ["actions"]


@pytest.mark.parametrize(
    "text", ["x" * 4000, "&" * 1200, "line\n" * 800, "```\n" + "code & code\n" * 300 + "```"]
)
def test_a_long_text_beside_buttons_is_cut_into_sections(text: str) -> None:
    blocks = render(Reply(text=text, buttons=(Button(label="b", value="v"),)), ROUTE)["blocks"]
    parts = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    assert len(parts) > 1
    for part in parts:
        assert len(part) <= 3000
        assert part.count("```") % 2 == 0
        assert part.rfind("&") <= part.rfind(";")
    assert "".join(parts).replace("\n``````\n", "\n").replace("\n", "") == mrkdwn(text).replace("\n", "")


def test_what_slack_cannot_show_is_refused_before_it_is_sent() -> None:
    with pytest.raises(Unsupported):
        render(Reply(table=Table(columns=("a",), rows=())), ROUTE)
    with pytest.raises(Rejected):
        render(Reply(text="x" * 40_001), ROUTE)


# --- waits and signatures --------------------------------------------------------------------------------------------


def hook(
    body: bytes = b"{}", stamp: str = "1700000000", signature: str | None = None, **headers: str
) -> HookRequest:
    made = SignatureVerifier(SIGNING_SECRET).generate_signature(timestamp=stamp, body=body)
    given = {"x-slack-request-timestamp": stamp, "x-slack-signature": signature or made or "", **headers}
    return HookRequest(method="POST", path="/hooks/a", headers=given, body=body)


def test_what_slacks_own_sdk_signs_is_accepted() -> None:
    verify(SIGNING_SECRET, hook("中文 & x".encode()), 1_700_000_299)


@pytest.mark.parametrize(
    ("secret", "request_", "now"),
    [
        (SIGNING_SECRET, hook(), 1_700_000_301),
        (SIGNING_SECRET, hook(), 1_699_999_699),
        (SIGNING_SECRET, hook(signature="v0=00"), 1_700_000_000),
        (SIGNING_SECRET, hook(signature="v0=é\udcff"), 1_700_000_000),
        (SIGNING_SECRET, hook(stamp="soon"), 1_700_000_000),
        (SIGNING_SECRET, hook(stamp="-1"), 1_700_000_000),
        (SIGNING_SECRET, hook(stamp="٣"), 1_700_000_000),
        (SIGNING_SECRET, hook(stamp="9" * 400), 1_700_000_000),
        ("other", hook(), 1_700_000_000),
        ("", hook(), 1_700_000_000),
        (SIGNING_SECRET, HookRequest(method="POST", path="/", headers={}), 0),
    ],
    ids=[
        "old",
        "early",
        "wrong",
        "no ascii",
        "no number",
        "sign",
        "digits",
        "huge",
        "other secret",
        "no secret",
        "bare",
    ],
)
def test_what_slack_did_not_sign_now_is_refused(secret: str, request_: HookRequest, now: float) -> None:
    with pytest.raises(BadSignature):
        verify(secret, request_, now)


def test_a_changed_byte_breaks_the_signature() -> None:
    signed = hook(b'{"a":1}')
    with pytest.raises(BadSignature):
        verify(SIGNING_SECRET, signed.model_copy(update={"body": b'{"a":2}'}), 1_700_000_000)


@given(
    st.binary(max_size=200), st.sampled_from(["application/json", "application/x-www-form-urlencoded", ""])
)
def test_any_body_can_be_read(body: bytes, kind: str) -> None:
    headers = {"content-type": kind}
    assert isinstance(hook_payload(HookRequest(method="POST", path="/", headers=headers, body=body)), dict)


def test_a_deeply_nested_body_is_no_payload() -> None:
    headers = {"content-type": "application/json"}
    assert hook_payload(HookRequest(method="POST", path="/", headers=headers, body=b"[" * 100_000)) == {}


# --- with a workspace ------------------------------------------------------------------------------------------------


class Inbox:
    """Keeps what is accepted, once each."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.down = False

    async def accept(self, event: Event) -> Accepted:
        if self.down:
            raise StoreUnavailable("down")
        new = event.native_id not in {known.native_id for known in self.events}
        self.events += [event] if new else []
        return Accepted(id=event.native_id, new=new)

    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Message)]


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[SlackDriver]:
    async with SlackDriver() as running:
        yield running


@pytest.fixture
def fake(driver: SlackDriver) -> SlackFake:
    return driver.fake


@pytest_asyncio.fixture
async def connector(driver: SlackDriver) -> AsyncIterator[Slack]:
    async with driver.connector("a") as made:
        yield made


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@asynccontextmanager
async def listening(connector: Slack, inbox: Inbox) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(connector.listen(inbox.accept))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def settled(fake: SlackFake) -> None:
    """All that Slack sent was answered."""
    await eventually(lambda: all(envelope.acked for envelope in fake.envelopes), "all acknowledgements")


@pytest.mark.parametrize("mention_first", [True, False])
@pytest.mark.parametrize("place", [CHANNEL, GROUP_DM])
async def test_a_mention_is_one_message_in_any_order(
    fake: SlackFake, connector: Slack, inbox: Inbox, place: str, mention_first: bool
) -> None:
    """`app_mention` does not say what sort of conversation it is in: that is asked, so that both agree."""
    async with listening(connector, inbox):
        await fake.say(f"<@{BOT_USER}> hi", channel=place, mention_first=mention_first)
        await settled(fake)
    assert inbox.texts() == ["hi"]
    assert inbox.events[0].route.kind is (
        ConversationKind.CHANNEL if place == CHANNEL else ConversationKind.GROUP
    )


async def test_a_mention_in_a_conversation_that_may_not_be_asked_about(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    fake.scopes_missing.add("conversations.info")
    async with listening(connector, inbox):
        await fake.say(f"<@{BOT_USER}> hi", channel=CHANNEL, mention_first=True)
        await settled(fake)
    assert inbox.texts() == ["hi"]


async def test_in_a_channel_only_what_concerns_us_counts(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    async with listening(connector, inbox):
        await fake.say("among people", channel=CHANNEL)
        root = await fake.say(f"<@{BOT_USER}> root", channel=CHANNEL)
        await settled(fake)
        await fake.say("in our thread", channel=CHANNEL, thread=root)
        await fake.say("people again", channel=CHANNEL)
        await settled(fake)
    assert inbox.texts() == ["root", "in our thread"]


async def test_a_thread_that_we_answered_in_counts(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    root = await fake.say("root", channel=CHANNEL)
    async with listening(connector, inbox):
        await connector.send_message(Reply(text="an alert"), ROUTE.model_copy(update={"thread": root}))
        await fake.say("why?", channel=CHANNEL, thread=root)
        await settled(fake)
    assert inbox.texts() == ["why?"]
    assert "conversations.replies" not in [method for method, _ in fake.calls]


async def test_a_thread_under_our_message_counts(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    receipt = await connector.send_message(Reply(text="report"), ROUTE.model_copy(update={"thread": None}))
    ts = receipt.native_ids[0].split(":")[1]
    async with listening(connector, inbox):
        await fake.say("thanks", channel=CHANNEL, thread=ts)
        await settled(fake)
    assert inbox.texts() == ["thanks"]


async def test_our_threads_are_known_again_after_a_restart(driver: SlackDriver, inbox: Inbox) -> None:
    fake = driver.fake
    root = await fake.say("root", channel=CHANNEL)
    other = await fake.say("other", channel=CHANNEL)
    async with driver.connector("a") as before:
        await before.send_message(Reply(text="which order?"), ROUTE.model_copy(update={"thread": root}))
    async with driver.connector("a") as after, listening(after, inbox):
        await fake.say("1024", channel=CHANNEL, thread=root)
        await fake.say("not for us", channel=CHANNEL, thread=other)
        await fake.say("nor this", channel=CHANNEL, thread=other)
        await settled(fake)
    assert inbox.texts() == ["1024"]
    looked = [arguments["ts"] for method, arguments in fake.calls if method == "conversations.replies"]
    assert set(looked) == {root, other}


async def test_a_thread_that_may_not_be_read_needs_a_mention(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    fake.scopes_missing.add("conversations.replies")
    root = await fake.say("root", channel=CHANNEL)
    async with listening(connector, inbox):
        await fake.say("unheard", channel=CHANNEL, thread=root)
        await settled(fake)
        await fake.say(f"<@{BOT_USER}> heard", channel=CHANNEL, thread=root)
        await settled(fake)
        await fake.say("heard too", channel=CHANNEL, thread=root)
        await settled(fake)
    assert inbox.texts() == ["heard", "heard too"]


async def test_a_thread_that_cannot_be_read_now_is_not_acknowledged(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    root = await fake.say("root", channel=CHANNEL)
    fake.fail_next("server_error", "conversations.replies")
    async with listening(connector, inbox):
        await fake.say(f"<@{BOT_USER}> start", channel=CHANNEL)
        await fake.say("perhaps for us", channel=CHANNEL, thread=root)
        await eventually(lambda: not fake.faults, "the failure")
        assert not fake.envelopes[-1].acked
        await fake.redeliver(fake.envelopes[-1])
        await settled(fake)
    assert inbox.texts() == ["start"]


async def test_all_that_is_written_counts_when_so_set(driver: SlackDriver, inbox: Inbox) -> None:
    async with driver.connector("a", hear="all") as connector, listening(connector, inbox):
        await driver.fake.say("among people", channel=CHANNEL)
        await settled(driver.fake)
    assert inbox.texts() == ["among people"]


async def test_along_hands_on_what_is_said_to_others(driver: SlackDriver, inbox: Inbox) -> None:
    fake = driver.fake
    async with driver.connector("a", hear="along") as connector, listening(connector, inbox):
        ts = await fake.say("among people", channel=CHANNEL)
        await fake.say(f"<@{BOT_USER}> /help", channel=CHANNEL)
        await fake.edit(CHANNEL, ts, "among friends")
        await settled(fake)
    said = [(one.text, one.addressed) for one in inbox.events if isinstance(one, Message)]
    assert said == [("among people", False), ("/help", True)]
    assert [one.text for one in inbox.events if isinstance(one, Edit)] == ["among friends"]


async def test_edits_come_and_unfolded_links_do_not(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    async with listening(connector, inbox):
        ts = await fake.say("befor")
        await fake.edit(DM, ts, "", unfurl=True)
        await fake.edit(DM, ts, "before")
        await settled(fake)
    assert [(e.type, e.text) for e in inbox.events if not isinstance(e, Action)] == [
        ("message", "befor"),
        ("edit", "before"),
    ]


async def test_a_button_comes_back_to_its_place(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    reply = Reply(text="sure?", buttons=(Button(label="Yes", value="yes:1"),))
    receipt = await connector.send_message(reply, ROUTE)
    async with listening(connector, inbox):
        await fake.press(fake.posts[0])
        await settled(fake)
    (action,) = inbox.events
    assert isinstance(action, Action)
    assert (action.value, action.target) == ("yes:1", receipt.native_ids[0])
    assert action.route.same_place(ROUTE)


async def test_a_slash_command_is_answered_in_its_channel(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    async with listening(connector, inbox):
        envelope = await fake.slash("/order", "1024")
        await fake.redeliver(envelope)
        await settled(fake)
        await eventually(lambda: len(envelope.ids) == len(fake.acks), "both acknowledgements")
    (said,) = inbox.events
    await connector.send_message(Reply(text="on its way"), said.route)
    assert (fake.posts[0]["channel"], fake.posts[0].get("thread_ts")) == (CHANNEL, None)


async def test_an_announced_end_is_followed_by_a_new_connection(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    async with listening(connector, inbox):
        await eventually(lambda: fake.sockets, "a connection")
        await fake.disconnect("warning")
        await eventually(lambda: fake.connections == 2, "the second connection")
        await fake.say("after")
        await settled(fake)
    assert inbox.texts() == ["after"]


async def test_a_connection_that_is_alive_in_name_only_is_left(driver: SlackDriver, inbox: Inbox) -> None:
    """The socket stays open and nothing answers: only a ping from end to end can tell."""
    driver.fake.deaf = True
    async with driver.connector("a", heartbeat=0.2) as connector, listening(connector, inbox):
        await eventually(lambda: driver.fake.connections == 1, "the dead connection")
        driver.fake.deaf = False
        await eventually(lambda: driver.fake.connections >= 2, "another connection")
        await driver.fake.say("alive")
        await settled(driver.fake)
    assert inbox.texts() == ["alive"]


async def test_a_connection_without_hello_is_left(
    driver: SlackDriver, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack, "HELLO_WITHIN", 0.05)
    driver.fake.silent = True
    async with driver.connector("a") as connector, listening(connector, inbox):
        await eventually(lambda: driver.fake.connections >= 1, "a connection")
        driver.fake.silent = False
        await driver.fake.say("hello")
        await settled(driver.fake)


async def test_it_waits_as_slack_says_before_it_connects_again(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    fake.fail_next("rate_limited", "apps.connections.open", retry_after="0.3")
    began = asyncio.get_running_loop().time()
    async with listening(connector, inbox):
        await eventually(lambda: fake.sockets, "a connection")
    assert asyncio.get_running_loop().time() - began >= 0.3


async def test_a_token_that_is_revoked_later_ends_listening(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    async with listening(connector, inbox) as task:
        await eventually(lambda: fake.sockets, "a connection")
        fake.fail_next("error", "apps.connections.open", error="token_revoked")
        await fake.cut()
        await asyncio.wait({task}, timeout=10)
        assert isinstance(task.exception(), AuthError)


async def test_slack_insists_and_the_message_is_stored_once(inbox: Inbox) -> None:
    driver = SlackDriver()
    driver.fake.ack_within = 0.05
    inbox.down = True
    async with driver, driver.connector("a") as connector, listening(connector, inbox):
        await eventually(lambda: driver.fake.sockets, "a connection")
        await driver.fake.say("keep me")
        await eventually(lambda: driver.fake.envelopes[0].attempts >= 2, "a redelivery")
        inbox.down = False
        await settled(driver.fake)
    assert inbox.texts() == ["keep me"]


async def test_a_burst_larger_than_what_is_stored_at_once_comes_whole(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    """Nothing of it is left to Slack's redelivery, which the fake does not do here."""
    room = asyncio.Event()

    async def slowly(event: Event) -> Accepted:
        await room.wait()
        return await inbox.accept(event)

    task = asyncio.create_task(connector.listen(slowly))
    try:
        await eventually(lambda: fake.sockets, "a connection")
        for number in range(300):
            await fake.say(f"message {number}")
        room.set()
        await eventually(lambda: len(inbox.events) == 300, "all of it")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_neither_texts_nor_tickets_are_logged(
    fake: SlackFake, connector: Slack, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    inbox.down = True
    async with listening(connector, inbox):
        await fake.say("heard words")
        await connector.send_message(Reply(text="spoken words"), ROUTE)
        await eventually(lambda: "not acknowledged" in caplog.text, "the warning")
    for hidden in ("heard words", "spoken words", "ticket=one"):
        assert hidden not in caplog.text


# --- files in --------------------------------------------------------------------------------------------------------

FILE = File(name="a/b\\c.txt", media_type="text/plain", content=b"abc")


async def test_a_files_name_is_a_bare_name(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    async with listening(connector, inbox):
        await fake.say("see", files=(FILE,))
        await settled(fake)
    (said,) = inbox.events
    assert isinstance(said, Message)
    assert [(f.name, f.media_type, f.content) for f in said.files] == [("a_b_c.txt", "text/plain", b"abc")]


async def test_a_file_that_may_not_be_read_is_left_out(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    fake.scopes_missing.add("files")
    async with listening(connector, inbox):
        await fake.say("see", files=(FILE, FILE.model_copy(update={"media_type": "text/html"})))
        await settled(fake)
    assert [event.files for event in inbox.events if isinstance(event, Message)] == [()]
    assert "login" not in [method for method, _ in fake.calls]


async def test_a_file_that_cannot_be_read_now_comes_with_the_next_attempt(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    fake.fail_next("server_error", "download")
    async with listening(connector, inbox):
        await eventually(lambda: fake.sockets, "a connection")
        await fake.say("see", files=(FILE,))
        await eventually(lambda: not fake.faults, "the failure")
        await fake.redeliver(fake.envelopes[0])
        await settled(fake)
    assert [len(event.files) for event in inbox.events if isinstance(event, Message)] == [1]


async def test_the_last_attempt_keeps_the_message_rather_than_lose_it(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    for _ in range(4):
        fake.fail_next("server_error", "download")
    async with listening(connector, inbox):
        await eventually(lambda: fake.sockets, "a connection")
        await fake.say("see", files=(FILE,))
        for _ in range(3):
            await fake.redeliver(fake.envelopes[0])
        await settled(fake)
    assert [event.files for event in inbox.events if isinstance(event, Message)] == [()]


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://files.slack.com/files-pri/T1-F1/a.txt", True),
        ("https://slack.com/x", True),
        ("https://slack.com.evil.example/x", False),
        ("https://evilslack.com/x", False),
        ("http://files.slack.com/x", False),
        ("https://files.slack.com:8443/x", False),
        ("https://user@files.slack.com@evil.example/x", False),
        ("http://api.test:81/files/x", True),
        ("http://api.test:82/files/x", False),
        ("https://api.test:81/files/x", False),
        ("http://[::1", False),
        ("http://api.test:x/", False),
        ("", False),
    ],
)
def test_the_token_is_shown_to_slack_only(url: str, may: bool) -> None:
    assert Slack("a", bot_token="xoxb-1", base_url="http://api.test:81/api")._may_have_token(url) is may


async def test_a_file_elsewhere_is_not_fetched(fake: SlackFake, connector: Slack) -> None:
    with pytest.raises(Rejected):
        await connector._file({"url_private": "https://evil.example/x", "name": "x"})
    with pytest.raises(Rejected):
        await connector._file({"url_private": f"{fake.root}/files/F1/x", "size": MAX_FILE + 1})


# --- sending ---------------------------------------------------------------------------------------------------------


async def test_a_lost_answer_is_found_by_its_token(fake: SlackFake, connector: Slack) -> None:
    fake.fail_next("accepted_reset", "chat.postMessage")
    with pytest.raises(Unknown):
        await connector.send_message(Reply(text="once"), ROUTE, token="t-1")
    found = await connector.find_sent("t-1", ROUTE)
    assert found is not None
    assert found.native_ids == (f"{CHANNEL}:{fake.posts[0]['ts']}",)
    assert await connector.find_sent("t-2", ROUTE) is None


async def test_a_lost_answer_is_found_in_a_conversation_without_threads(
    fake: SlackFake, connector: Slack
) -> None:
    await fake.say("hi")
    route = Route(account="a", conversation=DM)
    for number in range(450):
        fake.messages[DM].append(
            {"type": "message", "user": "UALICE", "text": "x", "ts": f"{fake._clock}.{number:06d}"}
        )
    await connector.send_message(Reply(text="once"), route, token="t-1")
    fake.messages[DM].reverse()  # it is now on the last page
    assert await connector.find_sent("t-1", route) is not None


async def test_private_replies_cannot_be_looked_for(connector: Slack) -> None:
    with pytest.raises(Unknown):
        await connector.find_sent("t-1", ROUTE.model_copy(update={"private_to": "UALICE"}))


FILES = (File(name="r.csv", media_type="text/csv", content=b"a,b"),)


async def test_text_and_files_are_one_message(fake: SlackFake, connector: Slack) -> None:
    root = await fake.say("root", channel=CHANNEL)
    route = ROUTE.model_copy(update={"thread": root})
    await connector.send_message(Reply(text="**see**", files=FILES), route, token="t")
    (post,) = fake.posts
    assert (post["text"], post["thread_ts"], len(post["files"])) == ("*see*", root, 1)


async def test_files_are_shown_once_though_the_buttons_failed_first(
    fake: SlackFake, connector: Slack
) -> None:
    reply = Reply(text="sure?", files=FILES, buttons=(Button(label="Yes", value="y"),))
    fake.fail_next("error", "chat.postMessage", error="ratelimited")
    with pytest.raises(RateLimited):
        await connector.send_message(reply, ROUTE, token="t")
    receipt = await connector.send_message(reply, ROUTE, token="t")
    assert [bool(post.get("files")) for post in fake.posts] == [True, False]
    assert len(receipt.native_ids) == 2


async def test_files_whose_answer_was_lost_are_found(fake: SlackFake, connector: Slack) -> None:
    fake.fail_next("accepted_reset", "files.completeUploadExternal")
    with pytest.raises(Unknown):
        await connector.send_message(Reply(text="see", files=FILES), ROUTE, token="t")
    assert await connector.find_sent("t", ROUTE) is not None
    await connector.send_message(Reply(text="see", files=FILES), ROUTE, token="t")
    assert len(fake.posts) == 1


async def test_after_a_restart_files_that_may_have_been_shown_are_unknown(
    driver: SlackDriver, fake: SlackFake, connector: Slack
) -> None:
    """They carry no token, and who shared them has forgotten: a person has to look."""
    root = await fake.say("root", channel=CHANNEL)
    route = ROUTE.model_copy(update={"thread": root})
    fake.fail_next("accepted_reset", "files.completeUploadExternal")
    with pytest.raises(Unknown):
        await connector.send_message(Reply(text="see", files=FILES), route, token="t")
    async with driver.connector("a") as restarted:
        with pytest.raises(Unknown):
            await restarted.find_sent("t", route)


async def test_a_text_is_not_there_though_files_were_shown(fake: SlackFake, connector: Slack) -> None:
    """Who sent it remembers that it had no files, so that theirs say nothing about it."""
    await connector.send_message(Reply(text="see", files=FILES), ROUTE, token="t-1")
    fake.fail_next("reset", "chat.postMessage")
    with pytest.raises(Unknown):
        await connector.send_message(Reply(text="words"), ROUTE, token="t-2")
    assert await connector.find_sent("t-2", ROUTE) is None


async def test_after_a_restart_files_that_were_never_shown_are_not_there(
    driver: SlackDriver, fake: SlackFake, connector: Slack
) -> None:
    root = await fake.say("root", channel=CHANNEL)
    route = ROUTE.model_copy(update={"thread": root})
    fake.fail_next("reset", "files.completeUploadExternal")
    with pytest.raises(Unknown):
        await connector.send_message(Reply(text="see", files=FILES), route, token="t")
    await connector.send_message(Reply(text="another answer"), route, token="t-2")
    await fake.say("a picture of mine", channel=CHANNEL, thread=root, files=FILES)
    async with driver.connector("a") as restarted:
        assert await restarted.find_sent("t", route) is None


async def test_files_left_out_are_named(
    fake: SlackFake, connector: Slack, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack, "MAX_FILE", 3)
    monkeypatch.setattr(slack, "MAX_FILES", 2)
    files = tuple(File(name=f"{number}.txt", content=b"x" * number) for number in (3, 4, 1))
    async with listening(connector, inbox):
        await fake.say("see", files=files)
        await settled(fake)
    (message,) = inbox.events
    assert isinstance(message, Message)
    assert [file.name for file in message.files] == ["3.txt"]
    assert [line.partition(":")[0] for line in message.left_out] == ["4.txt", "1.txt"]


async def test_an_upload_that_failed_may_be_made_again(fake: SlackFake, connector: Slack) -> None:
    """Nobody has seen anything yet: what would be unknown for a message is safe to repeat for an upload."""
    fake.fail_next("server_error", "files.getUploadURLExternal")
    with pytest.raises(Unreachable):
        await connector.send_message(Reply(text="see", files=FILES), ROUTE, token="t")
    assert fake.posts == []


async def test_private_files_go_to_the_person_alone(fake: SlackFake, connector: Slack) -> None:
    route = ROUTE.model_copy(update={"private_to": "UALICE"})
    await connector.send_message(Reply(text="psst", files=FILES, private=True), route, token="t")
    shared, said = fake.posts
    assert (shared["channel"], shared.get("thread_ts")) == (DM, None)
    assert (said["channel"], said["user_only"], said["text"]) == (CHANNEL, "UALICE", "psst")


async def test_a_private_reply_is_where_slack_shows_it(fake: SlackFake, connector: Slack) -> None:
    """Below the question where nobody has answered it: Slack shows nothing private in a thread that has not begun."""
    ts = await fake.say("where is it?", channel=CHANNEL)
    route = Route(
        account="a", conversation=CHANNEL, kind=ConversationKind.CHANNEL, thread=ts, private_to="UALICE"
    )
    await connector.send_message(Reply(text="psst", private=True), route)
    await fake.say("I do not know", user="UBOB", channel=CHANNEL, thread=ts)
    await connector.send_message(Reply(text="psst again", private=True), route)
    assert [(post["text"], post.get("thread_ts")) for post in fake.posts] == [
        ("psst", None),
        ("psst again", ts),
    ]
    assert fake.unseen == []


async def test_nothing_is_said_twice_when_a_thread_cannot_be_read_now(
    fake: SlackFake, connector: Slack
) -> None:
    ts = await fake.say("where is it?", channel=CHANNEL)
    route = Route(
        account="a", conversation=CHANNEL, kind=ConversationKind.CHANNEL, thread=ts, private_to="UALICE"
    )
    fake.fail_next("server_error", "conversations.replies")
    with pytest.raises(Unreachable):
        await connector.send_message(Reply(text="psst", private=True), route)
    fake.fail_next("error", "conversations.replies", error="missing_scope")
    await connector.send_message(Reply(text="psst", private=True), route)
    assert [(post["text"], post.get("thread_ts")) for post in fake.posts] == [("psst", None)]


async def test_a_private_reply_for_nobody_is_not_shown_to_all(fake: SlackFake, connector: Slack) -> None:
    with pytest.raises(Rejected):
        await connector.send_message(Reply(text="secret", private=True), ROUTE)
    assert fake.posts == []


async def test_a_private_reply_in_a_direct_conversation_is_an_ordinary_one(
    fake: SlackFake, connector: Slack
) -> None:
    await fake.say("hi")
    route = Route(account="a", conversation=DM, private_to="UALICE")
    await connector.send_message(Reply(text="secret", private=True), route)
    assert "user_only" not in fake.posts[0]


async def test_an_edit_takes_the_buttons_away(fake: SlackFake, connector: Slack) -> None:
    reply = Reply(text="sure?", buttons=(Button(label="Yes", value="y"),))
    receipt = await connector.send_message(reply, ROUTE)
    await connector.edit_message(receipt.native_ids[0], Reply(text="**done**"), ROUTE)
    assert (fake.messages[CHANNEL][0]["text"], fake.messages[CHANNEL][0]["blocks"]) == ("*done*", [])


@pytest.mark.parametrize("native_id", ["C0OTHER:1.1", f"{CHANNEL}:F1", CHANNEL, ""])
async def test_a_message_elsewhere_is_not_edited(connector: Slack, native_id: str) -> None:
    with pytest.raises(Rejected):
        await connector.edit_message(native_id, Reply(text="x"), ROUTE)


async def test_files_are_not_edited(connector: Slack) -> None:
    with pytest.raises(Unsupported):
        await connector.edit_message(f"{CHANNEL}:1.1", Reply(text="x", files=FILES), ROUTE)


@pytest.mark.parametrize(
    ("how", "error", "expected"),
    [
        ("server_error", "", Unknown),
        ("html", "", Unknown),
        ("reset", "", Unknown),
        ("error", "internal_error", Unknown),
        ("error", "fatal_error", Unknown),
        ("error", "request_timeout", Unreachable),
        ("error", "invalid_auth", AuthError),
        ("error", "account_inactive", AuthError),
        ("error", "token_revoked", AuthError),
        ("error", "missing_scope", Rejected),
        ("error", "not_in_channel", Rejected),
        ("error", "something_new", Rejected),
        ("error", "<b>odd</b>", Unknown),
        ("status", "403", Unreachable),
        ("status", "407", Unreachable),
        ("status", "404", Rejected),
        ("status", "413", Rejected),
        ("status", "429", RateLimited),
        ("status", "502", Unknown),
    ],
)
async def test_failures_are_named_for_what_they_mean(
    fake: SlackFake, connector: Slack, how: str, error: str, expected: type[Exception]
) -> None:
    fake.fail_next(how, "chat.postMessage", error=error)
    with pytest.raises(ConnectorError) as caught:
        await connector.send_message(Reply(text="x"), ROUTE)
    assert type(caught.value) is expected
    assert len([method for method, _ in fake.calls if method == "chat.postMessage"]) == 1


async def test_an_answer_that_never_comes_is_unknown(driver: SlackDriver) -> None:
    driver.fake.fail_next("hang", "chat.postMessage")
    impatient = Slack(
        "a",
        bot_token=BOT_TOKEN,
        base_url=driver.fake.base_url,
        session=lambda: driver.line.session(sock_read=0.1),
    )
    async with impatient:
        with pytest.raises(Unknown):
            await impatient.send_message(Reply(text="x"), ROUTE)


async def test_a_missing_scope_is_a_matter_of_credentials_when_checked(
    fake: SlackFake, connector: Slack
) -> None:
    fake.scopes_missing.add("apps.connections.open")
    with pytest.raises(AuthError):
        await connector.check()


async def test_a_check_that_is_not_answered_is_unreachable(fake: SlackFake, connector: Slack) -> None:
    fake.fail_next("server_error", "auth.test")
    with pytest.raises(Unreachable):
        await connector.check()


# --- hooks -----------------------------------------------------------------------------------------------------------


async def test_a_hook_is_proven_by_its_challenge(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    answer = await connector.handle_hook(
        fake.hook({"type": "url_verification", "challenge": "abc"}), inbox.accept
    )
    assert (answer.status, answer.body) == (200, b"abc")


async def test_a_hook_brings_what_a_socket_brings(fake: SlackFake, connector: Slack, inbox: Inbox) -> None:
    ts = await fake.say("hi", files=(FILE,))
    said = fake.envelopes[0].payload
    for retry in (0, 1):  # a repeated hook is no reason to drop it: the first may never have been stored
        assert (await connector.handle_hook(fake.hook(said, retry=retry), inbox.accept)).status == 200
    await connector.handle_hook(fake.hook(press(), form="interactive"), inbox.accept)
    await connector.handle_hook(fake.hook(command(), form="command"), inbox.accept)
    assert [event.type for event in inbox.events] == ["message", "action", "message"]
    assert inbox.events[0].native_id == f"{DM}:{ts}"


async def test_a_hook_that_cannot_be_stored_is_an_error(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    inbox.down = True
    with pytest.raises(StoreUnavailable):
        await connector.handle_hook(fake.hook(event()), inbox.accept)


async def test_a_hook_whose_file_cannot_be_read_now_is_to_come_again(
    fake: SlackFake, connector: Slack, inbox: Inbox
) -> None:
    await fake.say("hi", files=(FILE,))
    fake.fail_next("server_error", "download")
    with pytest.raises(StoreUnavailable):
        await connector.handle_hook(fake.hook(fake.envelopes[0].payload), inbox.accept)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"event": {"type": []}},
        {"event": {"type": "message", "channel": "C1", "channel_type": {}}},
        {"event": {"type": "message", "channel": "C1", "subtype": "message_changed", "message": 1}},
        {"type": "block_actions", "event": [], "actions": [1]},
        {"type": ["url_verification"]},
        {"command": {}, "event": "x"},
        event(files="x"),
        event(files=[1, {}, {"url_private": 5}, {"name": "\x00", "size": "big", "url_private": "http://x"}]),
    ],
)
async def test_odd_hooks_are_answered_and_kept_out(
    fake: SlackFake, connector: Slack, inbox: Inbox, payload: dict[str, Any]
) -> None:
    assert (await connector.handle_hook(fake.hook(payload), inbox.accept)).status == 200
    assert all(isinstance(kept, Message) and not kept.files for kept in inbox.events)


async def test_an_account_with_hooks_only_waits(driver: SlackDriver, inbox: Inbox) -> None:
    driver.fake.fail_next("server_error", "auth.test")
    async with driver.connector("a", app_token="") as connector, listening(connector, inbox) as task:
        await eventually(
            lambda: len(driver.fake.calls) >= 2, "a second check, after the first was not answered"
        )
        assert not task.done()
    assert driver.fake.connections == 0


# --- the module ------------------------------------------------------------------------------------------------------


def test_importing_it_does_not_import_the_sdk() -> None:
    program = (
        "import sys, connectors; assert 'connectors.slack' not in sys.modules; import connectors.slack;"
        "assert not {'slack_sdk', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
