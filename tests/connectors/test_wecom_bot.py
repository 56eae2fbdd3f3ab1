"""What is WeCom's robots' own: one connection, answers by request, cards that are updated, files behind a key."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors._wecom_bot_media import NotToBeHad, client, fetch
from connectors._wecom_bot_read import Media, decrypt, media_of, name_of
from connectors._wecom_bot_write import harmless, raise_for, raise_for_subscription
from connectors.wecom_bot import WecomBot, parse, render
from parley.errors import (
    AuthError,
    ConnectorError,
    RateLimited,
    Rejected,
    StoreUnavailable,
    Superseded,
    Unknown,
    Unreachable,
    Unsupported,
)
from parley.messages import (
    Accepted,
    Action,
    Assurance,
    Button,
    ConversationKind,
    Event,
    File,
    Message,
    Reply,
    Route,
    Table,
)
from tests.fakes._driver import eventually
from tests.fakes.wecom_bot import BOT_NAME, CHAT, SECRET, Silent, WecomBotDriver

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
YES, NO = Button(label="Yes", value="y"), Button(label="No", value="n")


def frame(**fields: Any) -> dict[str, Any]:
    """A message frame of a direct conversation, with these fields of its body changed."""
    body = {
        "msgid": "M1",
        "aibotid": "aib1",
        "chattype": "single",
        "from": {"userid": "alice"},
        "create_time": 1_700_000_000,
        "msgtype": "text",
        "text": {"content": "hi"},
    }
    merged = {key: value for key, value in {**body, **fields}.items() if value is not None}
    return {"cmd": "aibot_msg_callback", "headers": {"req_id": "R1"}, "body": merged}


def event(event: Any, **fields: Any) -> dict[str, Any]:
    return {**frame(msgtype="event", text=None, event=event, **fields), "cmd": "aibot_event_callback"}


def message(bot_name: str = "", **fields: Any) -> Message:
    found = parse(frame(**fields), "a", bot_name=bot_name)
    assert isinstance(found, Message)
    return found


# --- parse -----------------------------------------------------------------------------------------------------------


def test_a_message_has_wecoms_own_id_and_is_vouched_for() -> None:
    found = message()
    assert (found.native_id, found.text, found.sender.id) == ("M1", "hi", "alice")
    assert found.sender.assurance is Assurance.VERIFIED
    assert found.sent_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert found.route == Route(account="a", conversation="alice", context={"req_id": "R1"})


def test_a_group_is_a_group() -> None:
    found = message(chattype="group", chatid=CHAT)
    assert (found.route.conversation, found.route.kind) == (CHAT, ConversationKind.GROUP)


@pytest.mark.parametrize(
    ("name", "said", "text"),
    [
        ("", "@Parley /order 1024", "/order 1024"),
        ("", "@Parley\u2005/order 1024", "/order 1024"),
        ("", "@Parley", ""),
        ("", "ask @Parley", "ask @Parley"),
        (BOT_NAME, f"@{BOT_NAME} /order 1024", "/order 1024"),
        (BOT_NAME, f" @{BOT_NAME}，查一下", "，查一下"),
        (BOT_NAME, "@bob hello", "hello"),
    ],
)
def test_the_mention_that_brought_it_here_is_taken_off(name: str, said: str, text: str) -> None:
    assert message(name, chattype="group", chatid=CHAT, text={"content": said}).text == text


def test_nothing_is_taken_off_where_nobody_has_to_mention() -> None:
    assert message(text={"content": "@bob is late"}).text == "@bob is late"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"msgtype": "voice", "voice": {"content": "where is it"}}, "where is it"),
        (
            {
                "msgtype": "mixed",
                "mixed": {
                    "msg_item": [
                        {"msgtype": "text", "text": {"content": "one"}},
                        {"msgtype": "image", "image": {"url": "https://x/1"}},
                        {"msgtype": "text", "text": {"content": "two"}},
                    ]
                },
            },
            "one\ntwo",
        ),
        ({"msgtype": "image", "image": {"url": "https://x/1"}}, ""),
        ({"text": {"content": "NUL \x00 half \ud83d"}}, "NUL \ufffd half \ufffd"),
    ],
)
def test_every_kind_of_message_has_its_text(fields: dict[str, Any], text: str) -> None:
    assert message(**fields).text == text


def test_files_are_those_of_the_message_and_of_what_it_quotes() -> None:
    mixed = {
        "msg_item": [
            {"msgtype": "image", "image": {"url": "https://x/1", "aeskey": "k"}},
            {"msgtype": "text"},
            7,
        ]
    }
    said = frame(
        msgtype="mixed",
        mixed=mixed,
        quote={"msgtype": "file", "file": {"url": "https://x/2", "filename": "a.txt"}},
    )
    assert media_of(said) == (
        Media("image", "https://x/1", "k"),
        Media("file", "https://x/2", "", name="a.txt"),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"from": None},
        {"from": {"userid": 7}},
        {"from": {"userid": "u" * 600}},
        {"msgtype": "stream", "stream": {"id": "s"}},
        {"msgtype": None},
        {"chattype": "group"},
        {"text": {"content": "x" * 1_000_001}},
    ],
)
def test_what_is_no_message_is_left_out(fields: dict[str, Any]) -> None:
    assert parse(frame(**fields), "a") is None


def test_without_an_id_the_same_message_has_the_same_one() -> None:
    assert message(msgid=None).native_id == message(msgid=None).native_id
    assert message(msgid=None).native_id != message(msgid=None, text={"content": "ho"}).native_id


@pytest.mark.parametrize(
    "said",
    [
        {"eventtype": "template_card_event", "template_card_event": {"event_key": "0:yes", "task_id": "t"}},
        {"eventtype": "template_card_event", "event_key": "0:yes", "task_id": "t"},
    ],
)
def test_a_press_is_an_action_and_pushed_answers_follow(said: dict[str, Any]) -> None:
    found = parse(event(said, chattype="group", chatid=CHAT), "a")
    assert isinstance(found, Action)
    assert (found.value, found.target, found.native_id) == ("yes", "t", "M1")
    assert (found.route.conversation, found.route.context) == (CHAT, {})


@pytest.mark.parametrize(
    "said",
    [
        {"eventtype": "feedback_event", "feedback_event": {"id": "f"}},
        {"eventtype": "enter_chat"},
        {},
        None,
        "x",
    ],
)
def test_other_events_say_nothing(said: Any) -> None:
    assert parse(event(said), "a") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
known = st.sampled_from(
    ["text", "image", "mixed", "quote", "event", "from", "chatid", "msgtype", "create_time"]
)


@settings(deadline=None)
@given(
    st.dictionaries(known, json_values, max_size=6),
    st.sampled_from(["aibot_msg_callback", "aibot_event_callback"]),
)
def test_nothing_that_comes_is_an_exception(fields: dict[str, Any], cmd: str) -> None:
    said = {**frame(**fields), "cmd": cmd}
    parse(said, "a")
    media_of(said)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "A" * 43),
        (b"x" * 15, "A" * 43),
        (b"x" * 32, "A" * 43),
        (b"x" * 32, "short"),
        (b"x" * 32, "not base64 !!"),
        (b"x" * 32, ""),
    ],
)
def test_what_does_not_open_is_an_error_of_ours(content: bytes, key: str) -> None:
    with pytest.raises(ValueError, match=r"key|encrypted|damaged"):
        decrypt(content, key)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK uses the older interface of websockets
@settings(deadline=None)
@given(st.binary(max_size=80))
def test_the_vendors_own_reader_agrees(content: bytes) -> None:
    from aibot.crypto_utils import decrypt_file  # type: ignore[import-untyped]
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = os.urandom(32)
    padding = 32 - len(content) % 32
    maker = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    sealed = maker.update(content + bytes([padding]) * padding) + maker.finalize()
    shown = base64.b64encode(key).decode().rstrip("=")
    assert decrypt(sealed, shown) == content == decrypt_file(sealed, shown)


@pytest.mark.parametrize(
    ("header", "named", "content", "name", "media_type"),
    [
        ("attachment; filename*=UTF-8''%E8%A1%A8.csv", "", b"", "表.csv", "text/csv"),
        ('attachment; filename="a b.txt"', "", b"", "a b.txt", "text/plain"),
        ("attachment; filename=../../etc/passwd", "", b"", ".._.._etc_passwd", "application/octet-stream"),
        ("", "given.pdf", b"", "given.pdf", "application/pdf"),
        ("", "", PNG, "image.png", "image/png"),
        ("", "", b"?", "image", "application/octet-stream"),
    ],
)
def test_a_file_has_a_bare_name(header: str, named: str, content: bytes, name: str, media_type: str) -> None:
    assert name_of(header, Media("image", "https://x", "", named), content) == (name, media_type)


# --- render ----------------------------------------------------------------------------------------------------------


def test_a_short_line_stands_on_the_card_itself() -> None:
    (card,) = render(Reply(text="Restart web1?", buttons=(YES, NO)), ROUTE)
    shown = card["template_card"]
    assert shown["main_title"] == {"title": "Restart web1?"}
    assert [(b["text"], b["key"]) for b in shown["button_list"]] == [("Yes", "0:y"), ("No", "1:n")]


def test_a_longer_line_does_so_as_its_subtitle() -> None:
    (card,) = render(Reply(text="x" * 100, buttons=(YES,)), ROUTE)
    assert card["template_card"]["sub_title_text"] == "x" * 100


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("**bold** words", "bold words"),
        ("# `two`\nlines", "two"),
        ("x" * 113, "x" * 25 + "…"),
        ("see https://example.org", "see https://example.org"),
        ("```\ncode\n```", "…"),
    ],
)
def test_what_a_card_cannot_show_comes_before_it(text: str, title: str) -> None:
    said, card = render(Reply(text=text, buttons=(YES,)), ROUTE)
    assert said == {"msgtype": "markdown", "markdown": {"content": text}}
    assert card["template_card"]["main_title"] == {"title": title}


def test_every_card_is_a_new_one() -> None:
    ids = {render(Reply(text="x", buttons=(YES,)), ROUTE)[0]["template_card"]["task_id"] for _ in range(50)}
    assert len(ids) == 50


def test_a_text_mentions_nobody() -> None:
    assert (
        harmless("hello <@alice> and <@all> < @b <@ c>") == "hello <\u2060@alice> and <\u2060@all> < @b <@ c>"
    )


@pytest.mark.parametrize(
    ("reply", "route", "error"),
    [
        (Reply(), {}, Rejected),
        (Reply(text=" \n"), {}, Rejected),
        (Reply(text="中" * 6827), {}, Rejected),
        (Reply(text="x", table=Table(columns=("a",), rows=())), {}, Unsupported),
        (Reply(text="x", buttons=(YES,) * 7), {}, Unsupported),
        (Reply(text="x", private=True), {"kind": ConversationKind.GROUP}, Unsupported),
        (Reply(text="x"), {"kind": ConversationKind.GROUP, "private_to": "alice"}, Unsupported),
        (Reply(text="x", files=(File(name="empty.txt", content=b"12345"),)), {}, Rejected),
        (Reply(text="x", files=(File(name="big", content=bytes(20 * 2**20 + 1)),)), {}, Rejected),
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_is(
    reply: Reply, route: dict[str, Any], error: type[ConnectorError]
) -> None:
    with pytest.raises(error):
        render(reply, ROUTE.model_copy(update=route))


ROUTE = Route(account="a", conversation="alice", context={"req_id": "R1"})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (45009, RateLimited),
        (853000, AuthError),
        (846609, Unreachable),
        (-1, Unknown),
        (40008, Rejected),
        (846605, Rejected),
        (None, Rejected),
        ("45009", Rejected),
    ],
)
def test_a_refusal_is_named_for_what_it_means(code: Any, error: type[ConnectorError]) -> None:
    with pytest.raises(error) as caught:
        raise_for(code, "a message")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (853000, AuthError),
        (93019, AuthError),
        (40058, AuthError),
        (45009, RateLimited),
        (-1, Unreachable),
        (99, Unreachable),
        (None, Unreachable),
    ],
)
def test_a_refused_subscription_is_about_the_credentials_or_passes(
    code: Any, error: type[ConnectorError]
) -> None:
    with pytest.raises(error) as caught:
        raise_for_subscription(code)
    assert type(caught.value) is error


# --- with the gateway ------------------------------------------------------------------------------------------------


class Inbox:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.down = 0

    async def accept(self, event: Event) -> Accepted:
        if self.down:
            self.down -= 1
            raise StoreUnavailable("down")
        self.events.append(event)
        return Accepted(id=event.native_id, new=True)

    async def holds(self, n: int) -> list[Event]:
        await eventually(lambda: len(self.events) >= n, f"{n} events")
        return self.events

    async def message(self) -> Message:
        (found,) = await self.holds(1)
        assert isinstance(found, Message)
        return found


@pytest.fixture
async def driver() -> AsyncIterator[WecomBotDriver]:
    async with WecomBotDriver() as running:
        yield running


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@asynccontextmanager
async def listening(
    driver: WecomBotDriver, inbox: Inbox, **options: Any
) -> AsyncIterator[tuple[WecomBot, asyncio.Task[None]]]:
    async with driver.connector("a", **options) as bot:
        before = driver.fake.subscriptions
        task = asyncio.create_task(bot.listen(inbox.accept))
        try:
            await eventually(lambda: driver.fake.subscriptions > before, "the subscription")
            yield bot, task
        finally:
            task.cancel()
            await asyncio.wait({task})


def commands(driver: WecomBotDriver) -> list[str]:
    return [post.cmd for post in driver.fake.posts]


async def test_checking_does_not_take_the_connection_from_listening(
    driver: WecomBotDriver, inbox: Inbox
) -> None:
    async with driver.connector("a") as bot:
        await bot.check()
        await driver.fake.say("between the two")
        task = asyncio.create_task(bot.listen(inbox.accept))
        assert (await inbox.message()).text == "between the two"
        await bot.check()
        await bot.send_message(Reply(text="hi"), inbox.events[0].route)
        assert (driver.fake.subscriptions, driver.fake.superseded) == (1, [])
        task.cancel()
        await asyncio.wait({task})


async def test_another_process_is_not_fought(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox) as (older, ended), driver.connector("a") as newer:
        await newer.check()
        with pytest.raises(Superseded, match="another process holds this bot"):
            await asyncio.wait_for(asyncio.shield(ended), 10)
        for _ in range(3):
            with pytest.raises(Unreachable, match="another process holds this bot"):
                await older.send_message(Reply(text="x"), ROUTE)
            with pytest.raises(Superseded):
                await older.check()
        await newer.check()
        assert driver.fake.subscriptions == 2


async def test_what_came_before_another_process_is_still_stored(driver: WecomBotDriver, inbox: Inbox) -> None:
    inbox.down = 2
    async with listening(driver, inbox) as (_, ended), driver.connector("a") as newer:
        await driver.fake.say("mine")
        await newer.check()
        with pytest.raises(Superseded):
            await asyncio.wait_for(asyncio.shield(ended), 10)
    assert (await inbox.message()).text == "mine"


async def test_to_listen_anew_is_to_take_the_bot_again(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox) as (older, ended), driver.connector("a") as newer:
        await newer.check()
        await asyncio.wait({ended})
        again = asyncio.create_task(older.listen(inbox.accept))
        await eventually(lambda: driver.fake.subscriptions == 3, "a subscription of the older one")
        with pytest.raises(Superseded):
            await newer.check()
        again.cancel()
        await asyncio.wait({again})


async def test_what_the_store_cannot_take_is_kept_here(driver: WecomBotDriver, inbox: Inbox) -> None:
    """WeCom says everything once, and a lost connection does not lose what was heard over it."""
    inbox.down = 3
    async with listening(driver, inbox):
        await driver.fake.say("only once")
        await eventually(lambda: inbox.down < 3, "the first attempt")
        await driver.fake.cut()
        assert (await inbox.message()).text == "only once"


async def test_what_the_store_could_not_take_is_stored_in_its_order(
    driver: WecomBotDriver, inbox: Inbox
) -> None:
    """What overtakes another may mean something else."""
    inbox.down = 3
    said = [str(number) for number in range(12)]
    async with listening(driver, inbox):
        for text in said:
            await driver.fake.say(text)
        events = await inbox.holds(len(said))
    assert [event.text for event in events if isinstance(event, Message)] == said


async def test_an_answer_responds_to_its_message(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("hi", chat=CHAT)
        route = (await inbox.message()).route
        await bot.send_message(Reply(text="one"), route)
        await bot.send_message(Reply(text="two"), route)
    assert commands(driver) == ["aibot_respond_msg", "aibot_respond_msg"]
    assert [post.chat for post in driver.fake.posts] == [CHAT, CHAT]


async def test_answers_to_one_message_wait_for_each_other(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("hi")
        route = (await inbox.message()).route
        sent = [bot.send_message(Reply(text=str(number)), route) for number in range(8)]
        receipts = await asyncio.gather(*sent)
    assert sorted(s.text for s in await driver.sent(8)) == sorted("01234567")
    assert len({receipt.native_ids for receipt in receipts}) == 8


async def test_where_wecom_has_forgotten_the_message_the_answer_is_pushed(
    driver: WecomBotDriver, inbox: Inbox
) -> None:
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("hi", chat=CHAT)
        route = (await inbox.message()).route
        await driver.fake.cut()
        await eventually(lambda: driver.fake.subscriptions == 2, "a new connection")
        await bot.send_message(Reply(text="late"), route)
    assert commands(driver) == ["aibot_send_msg"]
    assert driver.fake.posts[0].chat == CHAT


async def test_after_a_lost_answer_its_id_answers_nothing_more(driver: WecomBotDriver, inbox: Inbox) -> None:
    """The lost answer could still come, and would be taken for the next one's."""
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("hi")
        route = (await inbox.message()).route
        driver.fake.faults.append(Silent)
        with pytest.raises(Unknown):
            await bot.send_message(Reply(text="lost"), route)
        await bot.send_message(Reply(text="next"), route)
    responded = [f for f in driver.fake.frames if f["cmd"] == "aibot_respond_msg"]
    assert len(responded) == 1
    assert commands(driver) == ["aibot_send_msg"]


async def test_what_is_too_frequent_waits_a_minute(driver: WecomBotDriver, inbox: Inbox) -> None:
    driver.fake.a_minute = 1
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("hi")
        route = (await inbox.message()).route
        await bot.send_message(Reply(text="one"), route)
        with pytest.raises(RateLimited) as caught:
            await bot.send_message(Reply(text="two"), route)
    assert caught.value.retry_after == 60


async def test_a_second_attempt_goes_on_where_the_first_one_stopped(
    driver: WecomBotDriver, inbox: Inbox
) -> None:
    file = File(name="a.csv", content=b"a,b,c\n")
    reply = Reply(text="**which one?**\n", buttons=(YES, NO), files=(file,))
    driver.fake.a_minute = 2
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("hi")
        route = (await inbox.message()).route
        with pytest.raises(RateLimited):
            await bot.send_message(reply, route, token="t")
        driver.fake.a_minute = 30
        receipt = await bot.send_message(reply, route, token="t")
    assert [post.body["msgtype"] for post in driver.fake.posts] == ["stream", "template_card", "file"]
    assert len(set(receipt.native_ids)) == 3


async def test_pictures_are_shown_and_other_files_are_files(driver: WecomBotDriver, inbox: Inbox) -> None:
    files = (
        File(name="chart.png", media_type="image/png", content=PNG),
        File(name="no-picture.png", media_type="image/png", content=b"<svg>...</svg>"),
        File(name="large.bin", content=os.urandom(1_200_000)),
    )
    async with listening(driver, inbox) as (bot, _):
        await bot.send_message(Reply(files=files), ROUTE)
    assert [post.body["msgtype"] for post in driver.fake.posts] == ["image", "file", "file"]
    arrived = [
        driver.fake.uploaded[post.body[post.body["msgtype"]]["media_id"]][1] for post in driver.fake.posts
    ]
    assert [(f.name, f.content) for f in arrived] == [(f.name, f.content) for f in files]


@pytest.mark.parametrize(
    ("code", "error"), [(-1, Unreachable), (45009, RateLimited), (40006, Rejected), (853000, AuthError)]
)
async def test_a_file_that_was_not_taken_was_seen_by_nobody(
    driver: WecomBotDriver, inbox: Inbox, code: int, error: type[ConnectorError]
) -> None:
    """Whatever became of an upload, it can be made again: never is it unknown whether people have the file."""
    driver.fake.upload_faults.append(code)
    async with listening(driver, inbox) as (bot, _):
        with pytest.raises(error):
            await bot.send_message(Reply(files=(File(name="a.csv", content=b"a,b,c\n"),)), ROUTE, token="t")
        assert driver.fake.posts == []


async def test_a_press_is_told_and_shown_to_who_pressed(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox) as (bot, _):
        receipt = await bot.send_message(Reply(text="Restart?", buttons=(YES, NO)), GROUP)
        (task,) = receipt.native_ids
        await driver.fake.press(task, "1:n", user="bob", chat=CHAT)
        (found,) = await inbox.holds(1)
        assert isinstance(found, Action)
        assert (found.value, found.sender.id, found.target) == ("n", "bob", task)
        await eventually(lambda: "userids" in driver.fake.card(task), "the card's update")
    card = driver.fake.card(task)
    assert card["userids"] == ["bob"]
    assert [(b["text"], b["key"]) for b in card["button_list"]] == [("✓ No", "1:n")]


GROUP = Route(account="a", conversation=CHAT, kind=ConversationKind.GROUP)


async def test_an_update_that_comes_too_late_is_no_error(driver: WecomBotDriver, inbox: Inbox) -> None:
    driver.fake.event_within = 0
    async with listening(driver, inbox) as (bot, _):
        receipt = await bot.send_message(Reply(text="Restart?", buttons=(YES, NO)), GROUP)
        await driver.fake.press(receipt.native_ids[0], "0:y", chat=CHAT)
        await eventually(
            lambda: "aibot_respond_update_msg" in [f["cmd"] for f in driver.fake.frames], "an update"
        )
        await driver.fake.say("still here")
        await inbox.holds(2)


async def test_a_press_on_a_card_of_an_earlier_process_counts(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox):
        await driver.fake.press("parley-long-ago", "0:yes")
        (found,) = await inbox.holds(1)
    assert isinstance(found, Action)
    assert found.value == "yes"


@pytest.mark.parametrize("welcome", ["", "你好！"])
async def test_a_person_who_comes_in_is_welcomed_if_so_wished(
    driver: WecomBotDriver, inbox: Inbox, welcome: str
) -> None:
    inbox.down = 1  # a welcome waits for nothing
    async with listening(driver, inbox, welcome=welcome):
        await driver.fake.happen({"eventtype": "enter_chat"})
        await driver.fake.say("hi")
        await inbox.holds(1)
        if welcome:
            await eventually(lambda: driver.fake.welcomes, "the welcome")
    assert driver.fake.welcomes == ([welcome] if welcome else [])
    assert all(isinstance(event, Message) for event in inbox.events)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"url": "http://127.0.0.1:1/x"}, "not safe"),
        ({"url": "https://127.0.0.1:1/x"}, "fetched"),
        ({"url": "https://"}, "fetched"),
        ({"aeskey": base64.b64encode(bytes(32)).decode()}, "damaged"),
        ({"aeskey": "?"}, "key"),
    ],
)
async def test_a_file_that_is_not_to_be_had_is_named_and_the_message_comes(
    driver: WecomBotDriver, inbox: Inbox, change: dict[str, str], why: str
) -> None:
    about = {**driver.fake.host(File(name="a.txt", content=b"hello")), "filename": "a.txt", **change}
    async with listening(driver, inbox):
        await driver.fake.say(body={"msgtype": "file", "file": about})
        found = await inbox.message()
    assert found.files == ()
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("a.txt: ")
    assert why in found.left_out[0]


@pytest.mark.parametrize("said", ["", "7", str(30 * 2**20), "9" * 5000])
async def test_a_file_that_is_too_large_is_not_read_to_its_end(said: str) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 2**20
            yield bytes(2**20)

    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"content-length": said} if said else {}
        return httpx.Response(200, headers=headers, content=endless())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        with pytest.raises(NotToBeHad, match="too large"):
            await fetch(http, Media("file", "https://example.org/x", "A" * 43))
    assert read <= 27 * 2**20
    assert read == 0 or said != str(30 * 2**20)


async def test_an_address_that_leads_elsewhere_is_not_followed() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    http = client(None)
    http._transport = httpx.MockTransport(answer)
    async with http:
        with pytest.raises(NotToBeHad, match="302"):
            await fetch(http, Media("file", "https://example.org/x", ""))
    assert asked == ["https://example.org/x"]


async def test_a_connection_that_answers_no_ping_is_dead(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox, heartbeat=0.05):
        driver.fake.deaf = True
        await eventually(lambda: driver.fake.subscriptions >= 2, "a new connection")
        driver.fake.deaf = False
        await driver.fake.say("hi")
        assert (await inbox.message()).text == "hi"


async def test_a_connection_that_answers_stays(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox, heartbeat=0.2):
        await eventually(lambda: [f["cmd"] for f in driver.fake.frames].count("ping") >= 4, "pings")
    assert driver.fake.subscriptions == 1


async def test_a_gateway_that_is_busy_is_asked_again(driver: WecomBotDriver, inbox: Inbox) -> None:
    driver.fake.refuse_handshakes = 1
    driver.fake.refuse_subscriptions.append(99)
    async with listening(driver, inbox):
        await driver.fake.say("hi")
        await inbox.message()


async def test_a_secret_that_changes_ends_listening(driver: WecomBotDriver, inbox: Inbox) -> None:
    async with listening(driver, inbox) as (_, ended):
        driver.fake.secret = "another"
        await driver.fake.cut()
        with pytest.raises(AuthError) as caught:
            await asyncio.wait_for(asyncio.shield(ended), 10)
    assert SECRET not in str(caught.value)


async def test_a_certificate_that_nobody_vouches_for_is_refused(driver: WecomBotDriver) -> None:
    async with WecomBot("a", bot_id="b", secret=SECRET, url=driver.fake.url) as bot:
        with pytest.raises(Unreachable, match="SSLCertVerificationError"):
            await bot.check()
    assert driver.fake.frames == []


@pytest.mark.parametrize(
    "raw", ["not json", "[]", "{}", '{"headers": 7}', '{"cmd": "aibot_msg_callback"}', "[" * 100_000]
)
async def test_frames_of_another_kind_disturb_nothing(driver: WecomBotDriver, inbox: Inbox, raw: str) -> None:
    async with listening(driver, inbox):
        assert driver.fake.connection is not None
        await driver.fake.connection.send(raw)
        await driver.fake.connection.send(raw.encode())
        await driver.fake.say("hi")
        await inbox.message()
    assert driver.fake.subscriptions == 1


async def test_what_people_write_is_not_logged(
    driver: WecomBotDriver, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening(driver, inbox) as (bot, _):
        await driver.fake.say("a private word")
        await bot.send_message(Reply(text="a private answer"), (await inbox.message()).route)
    assert "private" not in caplog.text
    assert SECRET not in caplog.text


def test_importing_it_brings_no_library() -> None:
    script = "import sys, connectors.wecom_bot; print([m for m in ('websockets.asyncio', 'httpx') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


async def test_a_sender_learns_of_another_process_before_it_connects_again(driver: WecomBotDriver) -> None:
    """The last word of a connection that has closed is read before a new one is opened: it may be this one."""
    async with driver.connector("a") as older, driver.connector("a") as newer:
        for _ in range(20):
            before = driver.fake.subscriptions
            await older.check()
            await newer.check()
            for _ in range(3):
                with pytest.raises(Unreachable, match="another process"):
                    await older.send_message(Reply(text="x"), ROUTE)
            assert driver.fake.subscriptions == before + 2
            await older.aclose()
            await newer.aclose()
            older, newer = driver.connector("a"), driver.connector("a")  # noqa: PLW2901
