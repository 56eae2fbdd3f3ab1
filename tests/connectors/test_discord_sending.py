"""Answers on Discord: threads, slash commands, one person alone, lost answers, limits, the menu of commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from connectors import _discord_interactions
from connectors.discord import Discord
from parley.errors import (
    AuthError,
    ConnectorError,
    RateLimited,
    Rejected,
    StoreUnavailable,
    Unknown,
    Unreachable,
)
from parley.messages import (
    Accepted,
    Action,
    Button,
    CommandEntry,
    CommandParameter,
    ConversationKind,
    Event,
    File,
    Message,
    Reply,
    Route,
)
from tests.connectors.test_discord_gateway import Inbox, listening
from tests.fakes._driver import eventually
from tests.fakes.discord import (
    APPLICATION,
    BOT,
    FORUM,
    GENERAL,
    LOADING,
    NEWS,
    VOICE,
    DiscordDriver,
    DiscordFake,
)

ORDER = CommandEntry(
    name="order",
    summary="Show where an order is.",
    parameters=(
        CommandParameter(name="order_id", type="integer", minimum=1),
        CommandParameter(name="city", required=False, choices=tuple(f"city-{n}" for n in range(60))),
    ),
)
NOISE = Reply(text="something else")


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[DiscordDriver]:
    async with DiscordDriver() as running:
        yield running


@pytest.fixture
def fake(driver: DiscordDriver) -> DiscordFake:
    return driver.fake


@pytest_asyncio.fixture
async def bot(driver: DiscordDriver) -> AsyncIterator[Discord]:
    made = driver.connector("a")
    yield made
    await made.aclose()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def route(
    conversation: str = GENERAL, kind: ConversationKind = ConversationKind.CHANNEL, **fields: Any
) -> Route:
    return Route(account="a", conversation=conversation, kind=kind, **fields)


async def says(bot: Discord, text: str, route: Route, token: str = "", **fields: Any) -> str:
    (id_,) = (await bot.send_message(Reply(text=text, **fields), route, token=token)).native_ids
    return id_


async def event_of(driver: DiscordDriver, bot: Discord, inbox: Inbox, act: Any) -> Event:
    """The event that comes of what somebody does, when Discord knows that it is taken."""
    async with listening(driver, inbox, bot):
        made = act()
        await eventually(lambda: inbox.events, "the event")
        await eventually(lambda: made.answered, "the acknowledgement")
        await eventually(lambda: not bot._gateway.session.open, "that all is done")
    return inbox.events[-1]


# --- threads ---------------------------------------------------------------------------------------------------------


async def test_a_message_of_ours_becomes_the_head_of_a_thread(fake: DiscordFake, bot: Discord) -> None:
    """As for notices: a head in the channel, what follows under it, the head edited in place."""
    head = await says(bot, "**Build 7** failed", route())
    first = await says(bot, "log", route(thread=head))
    second = await says(bot, "fixed", route(thread=head))
    await bot.edit_message(head, Reply(text="Build 7 passed"), route(thread=head))
    await bot.edit_message(first, Reply(text="the log"), route(thread=head))
    await bot.edit_message(head, Reply(text="Build 7 has passed"), route())
    thread = fake.channels[head]
    assert (thread["parent_id"], thread["name"], thread["owner_id"]) == (GENERAL, "Build 7 failed", BOT)
    assert [(post["id"], post["channel_id"], post["content"]) for post in fake.posts] == [
        (head, GENERAL, "Build 7 has passed"),
        (first, head, "the log"),
        (second, head, "fixed"),
    ]
    assert fake.count("begin_thread") == 1


async def test_a_thread_that_is_there_is_found_after_a_restart(fake: DiscordFake, bot: Discord) -> None:
    head = fake.say("head", channel=NEWS)
    fake.add_thread(head, 10, NEWS, "there", BOT)
    await says(bot, "more", route(NEWS, thread=head))
    assert fake.posts[0]["channel_id"] == head
    assert fake.count("begin_thread") == 0


async def test_two_answers_at_once_begin_one_thread(fake: DiscordFake, bot: Discord) -> None:
    head = fake.say("head", channel=GENERAL)
    await asyncio.gather(*(says(bot, f"{n}", route(thread=head)) for n in range(5)))
    assert {post["channel_id"] for post in fake.posts} == {head}


async def test_an_archived_thread_is_written_in_and_edited_all_the_same(
    fake: DiscordFake, bot: Discord
) -> None:
    head = await says(bot, "head", route())
    first = await says(bot, "one", route(thread=head))
    state = fake.channels[head]["thread_metadata"]
    state["archived"] = True
    await bot.edit_message(first, Reply(text="two"), route(thread=head))
    state |= {"archived": True, "locked": True}
    await says(bot, "three", route(thread=head))
    assert [post["content"] for post in fake.posts] == ["head", "two", "three"]
    assert not state["archived"]


@pytest.mark.parametrize("where", ["forbidden", "voice", "gone", "direct"])
async def test_where_there_can_be_no_thread_the_answer_is_a_reply(
    fake: DiscordFake, bot: Discord, where: str
) -> None:
    alone = fake.direct(fake.person("alice"))
    channel = {"voice": VOICE, "direct": alone}.get(where, GENERAL)
    head = fake.say("head", channel=channel)
    if where == "forbidden":
        fake.no_threads.add(GENERAL)
    if where == "gone":
        fake.messages[GENERAL].clear()
    kind = ConversationKind.DIRECT if where == "direct" else ConversationKind.CHANNEL
    await says(bot, "answer", route(channel, kind, thread=head))
    (post,) = fake.posts
    assert post["channel_id"] == channel
    assert (post.get("referenced_message") or {}).get("id") == (None if where == "gone" else head)


async def test_a_reply_is_one_of_discords(fake: DiscordFake, bot: Discord) -> None:
    head = fake.say("head", channel=VOICE)
    await says(bot, "answer", route(VOICE, reply_to=head))
    assert fake.posts[0]["referenced_message"]["id"] == head


async def test_what_became_of_a_threads_beginning_does_not_make_the_answer_unknown(
    fake: DiscordFake, bot: Discord
) -> None:
    head = fake.say("head", channel=GENERAL)
    fake.fail_next("done_reset", "begin_thread")
    with pytest.raises(Unreachable):
        await says(bot, "answer", route(thread=head))
    await says(bot, "answer", route(thread=head))
    assert [post["channel_id"] for post in fake.posts] == [head]


async def test_a_forum_takes_no_messages_of_its_own(bot: Discord) -> None:
    with pytest.raises(Rejected, match="50008"):
        await says(bot, "x", route(FORUM))


@pytest.mark.parametrize(
    "fields", [{"conversation": "../../users/@me"}, {"thread": "x/y"}, {"private_to": "../1"}]
)
async def test_ids_that_are_none_reach_no_address(fake: DiscordFake, bot: Discord, fields: Any) -> None:
    with pytest.raises(Rejected):
        await says(bot, "x", route().model_copy(update=fields))
    with pytest.raises(Rejected):
        await bot.edit_message("1/2", Reply(text="x"), route())
    assert not fake.api.calls


# --- files -----------------------------------------------------------------------------------------------------------


async def test_files_that_are_too_many_bytes_for_one_request_are_several_messages(
    fake: DiscordFake, bot: Discord
) -> None:
    files = tuple(File(name=f"{n}.bin", content=bytes(9 * 1024 * 1024)) for n in range(4))
    reply = Reply(text="see", files=files, buttons=(Button(label="OK", value="ok"),))
    fake.fail_next("headers", "send")  # the first is taken
    fake.fail_next("refused", "send", status=403, code=50013)  # the second is not
    with pytest.raises(Rejected):
        await bot.send_message(reply, route(), token="t")
    receipt = await bot.send_message(reply, route(), token="t")
    assert [(post["content"], len(post["attachments"]), len(post["components"])) for post in fake.posts] == [
        ("see", 2, 0),
        ("", 2, 1),
    ]
    assert receipt.native_ids == tuple(post["id"] for post in fake.posts)


async def test_an_edit_replaces_files(fake: DiscordFake, bot: Discord) -> None:
    id_ = await says(bot, "x", route(), files=(File(name="old", content=b"1"),))
    await bot.edit_message(id_, Reply(text="y", files=(File(name='n"e\\w', content=b"2"),)), route())
    assert [about["filename"] for about in fake.posts[0]["attachments"]] == ["n_e_w"]


# --- slash commands --------------------------------------------------------------------------------------------------


async def test_a_slash_command_is_acknowledged_after_it_is_stored_and_then_answered(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order", {"order_id": 7}))
    assert isinstance(event, Message)
    assert event.text == "/order order_id=7"
    (interaction,) = fake.interactions.values()
    assert interaction.answered == {"type": 5, "data": {"flags": 0}}
    assert interaction.original is not None
    assert interaction.original["flags"] & LOADING
    first = await says(bot, "on its way", event.route)
    second = await says(bot, "and arrived", event.route)
    assert [(post["id"], post["content"], post["flags"] & LOADING) for post in fake.posts] == [
        (first, "on its way", 0),
        (second, "and arrived", 0),
    ]
    assert first == interaction.original["id"]
    assert fake.count("send") == 0


async def test_two_answers_at_once_are_two_messages(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    await asyncio.gather(*(says(bot, f"{n}", event.route) for n in range(4)))
    assert sorted(post["content"] for post in fake.posts) == ["0", "1", "2", "3"]


async def test_asked_privately_only_the_person_sees_it(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order", {"private": True}))
    await says(bot, "only you", event.route)
    second = await says(bot, "that, too", event.route)
    await bot.edit_message(second, Reply(text="changed"), event.route)
    assert [(post["content"], post["seen_by"]) for post in fake.posts] == [
        ("only you", fake.person("alice")),
        ("changed", fake.person("alice")),
    ]
    assert not fake.messages.get(GENERAL)


async def test_a_private_answer_to_an_open_question_is_not_shown_to_all(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    private = event.route.model_copy(update={"private_to": event.sender.id})
    await says(bot, "only you", private, private=True)
    assert fake.posts[0]["seen_by"] == event.sender.id
    assert not fake.messages.get(GENERAL)  # nor does everybody see that an answer is being made


async def test_what_comes_before_a_private_answer_may_be_tried_again(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    """Taking back what all see is not the answer: that surely did not leave yet."""
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    private = event.route.model_copy(update={"private_to": event.sender.id})
    fake.fail_next("status", "take_back", status=502)
    with pytest.raises(Unreachable):
        await bot.send_message(Reply(text="only you", private=True), private, token="t")
    await bot.send_message(Reply(text="only you", private=True), private, token="t")
    assert [(post["content"], post["seen_by"]) for post in fake.posts] == [("only you", event.sender.id)]


async def test_a_private_answer_for_somebody_else_goes_to_them(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    bob = fake.person("bob")
    await says(bot, "only bob", event.route.model_copy(update={"private_to": bob}))
    assert (fake.posts[0]["channel_id"], fake.posts[0]["content"]) == (fake.direct(bob), "only bob")


@pytest.mark.parametrize("private", [False, True])
async def test_when_the_token_is_too_old_it_is_a_message(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox, private: bool
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order", {"private": private}))
    for interaction in fake.interactions.values():
        interaction.expired = True
    await says(bot, "late", event.route)
    await says(bot, "later", event.route)
    place = fake.direct(event.sender.id) if private else GENERAL
    assert [(post["channel_id"], post["content"]) for post in fake.posts] == [
        (place, "late"),
        (place, "later"),
    ]
    assert fake.count("fill_in") + fake.count("follow_up") == 1  # it is not asked again


async def test_after_fourteen_minutes_the_token_is_not_even_tried(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    old = {**event.route.context, "until": str(int(time.time()) - 1)}
    await says(bot, "late", event.route.model_copy(update={"context": old}))
    assert (fake.count("fill_in"), fake.count("send")) == (0, 1)


async def test_an_answer_into_another_thread_does_not_go_through_the_interaction(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    head = await says(bot, "head", event.route)
    await says(bot, "below", event.route.model_copy(update={"thread": head}))
    assert [post["channel_id"] for post in fake.posts] == [GENERAL, head]


async def test_a_waiting_message_that_somebody_deleted_is_followed(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    for interaction in fake.interactions.values():
        interaction.original = None
    await says(bot, "here", event.route)
    assert (fake.posts[0]["content"], fake.count("follow_up")) == ("here", 1)


async def test_what_is_not_stored_in_time_is_refused_at_once(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    inbox.down = True
    async with listening(driver, inbox, bot):
        began = time.monotonic()
        made = fake.slash("order", locale="zh-CN")
        await eventually(lambda: made.answered, "the refusal")
        assert time.monotonic() - began < 3
        assert made.answered is not None
        assert (made.answered["type"], made.answered["data"]["flags"]) == (4, 64)
        assert made.answered["data"]["content"] == _discord_interactions._TEXTS["zh"][0]
        inbox.down = False
        fake.say("after")
        await inbox.holds("after")
    assert inbox.texts() == ["after"]  # nothing is carried out later behind the person's back


async def test_a_store_that_says_nothing_does_not_carry_it_out_later(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    """As while the hub restarts: the call waits for it, for longer than Discord and the person do."""
    back = asyncio.Event()

    class Slow(Inbox):
        async def accept(self, event: Event) -> Accepted:
            await back.wait()
            return await super().accept(event)

    slow = Slow()
    async with listening(driver, slow, bot):
        made = fake.slash("order")
        await eventually(lambda: made.answered, "the refusal", within=4)
        assert made.answered is not None
        assert made.answered["type"] == 4
        back.set()
        fake.say("after")
        await slow.holds("after")


async def test_an_answer_comes_though_the_acknowledgement_was_too_late(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    fake.answer_within = -1.0
    async with listening(driver, inbox, bot):
        fake.slash("order")
        await eventually(lambda: fake.count("callback") and not bot._gateway.session.open, "the attempt")
    await says(bot, "all the same", inbox.events[0].route)
    assert (fake.posts[0]["channel_id"], fake.posts[0]["content"]) == (GENERAL, "all the same")


async def test_no_channel_holds_up_a_slash_command(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    inbox.refuses = {"stuck"}
    async with listening(driver, inbox, bot):
        alone = fake.direct(fake.person("alice"))
        fake.say("stuck")
        made = fake.slash("order", channel=alone)
        await eventually(lambda: made.answered, "the acknowledgement")


async def test_what_somebody_types_is_completed_here(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    await bot.catalogue_changed((ORDER,))
    async with listening(driver, inbox, bot):
        inbox.down = True  # it needs no store
        made = fake.slash("order", {"order_id": 7, "city": "city-5"}, typing="city")
        await eventually(lambda: made.answered, "the choices")
    assert made.answered is not None
    assert [choice["value"] for choice in made.answered["data"]["choices"]][:3] == [
        "city-5",
        "city-50",
        "city-51",
    ]
    assert not inbox.attempts


# --- buttons ---------------------------------------------------------------------------------------------------------


async def test_a_press_is_an_action_and_its_answer_stands_below(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    long = "/approve " + "x" * 200
    buttons = (Button(label="Yes", value="yes"), Button(label="No", value=long))
    question = await says(bot, "Restart?", route(), buttons=buttons)
    event = await event_of(driver, bot, inbox, lambda: fake.press(fake.posts[0], 1))
    assert isinstance(event, Action)
    assert (event.value, event.target, event.route.thread) == (long, question, None)
    (interaction,) = fake.interactions.values()
    assert interaction.answered == {"type": 6}  # the buttons stay: others may have to press them, too
    await says(bot, "Restarted.", event.route)
    assert fake.posts[1]["content"] == "Restarted."
    private = event.route.model_copy(update={"private_to": event.sender.id})
    await says(bot, "Between us", private)
    assert fake.posts[2]["seen_by"] == event.sender.id


async def test_a_long_value_that_is_not_known_any_more_is_said_to_be_so(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    await says(bot, "Restart?", route(), buttons=(Button(label="No", value="x" * 200),))
    async with driver.connector("a") as after_restart, listening(driver, inbox, after_restart):
        made = fake.press(fake.posts[0])
        await eventually(lambda: made.answered, "the refusal")
    assert made.answered is not None
    assert made.answered["data"]["content"] == _discord_interactions._TEXTS["en"][1]
    assert not inbox.events


async def test_an_edit_takes_the_buttons_away(fake: DiscordFake, bot: Discord) -> None:
    id_ = await says(bot, "Restart?", route(), buttons=(Button(label="Yes", value="yes"),))
    await bot.edit_message(id_, Reply(text="Restarted by alice"), route())
    assert (fake.posts[0]["content"], fake.posts[0]["components"]) == ("Restarted by alice", [])


# --- one person alone ------------------------------------------------------------------------------------------------


async def test_who_takes_no_direct_messages_gets_no_other(fake: DiscordFake, bot: Discord) -> None:
    alice = fake.person("alice")
    fake.closed_to_us.add(alice)
    with pytest.raises(Rejected, match="50007"):
        await says(bot, "psst", route(private_to=alice))
    assert not fake.posts


async def test_a_conversation_is_opened_once(fake: DiscordFake, bot: Discord) -> None:
    for text in ("one", "two"):
        await says(bot, text, route(private_to=fake.person("alice")))
    assert (fake.count("direct"), len(fake.posts)) == (1, 2)


# --- lost answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "arrived"), [("done_reset", True), ("reset", False)])
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_lost_answer_is_looked_for(
    fake: DiscordFake, bot: Discord, how: str, arrived: bool, threaded: bool
) -> None:
    place = route(thread=fake.say("head", channel=GENERAL) if threaded else None)
    await says(bot, "same words", place, token="t-0")
    await bot.send_message(NOISE, place, token="t-1")
    fake.fail_next(how, "send")
    with pytest.raises(Unknown):
        await says(bot, "same words", place, token="t")
    found = await bot.find_sent("t", place)
    assert (found is not None) is arrived
    if found is not None:
        assert found.native_ids == (fake.posts[-1]["id"],)


async def test_what_the_gateway_tells_of_a_message_is_enough(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    async with listening(driver, inbox, bot):
        fake.fail_next("done_reset", "send")
        with pytest.raises(Unknown):
            await says(bot, "hello", route(), token="t")
        await eventually(lambda: fake.posts and fake.posts[0]["id"] in bot._known.own, "the gateway's report")
        before = fake.count("history")
        found = await bot.find_sent("t", route())
    assert found is not None
    assert (found.native_ids, fake.count("history")) == ((fake.posts[0]["id"],), before)


async def test_the_same_token_again_is_not_a_second_message(fake: DiscordFake, bot: Discord) -> None:
    """Discord's own finding of doubles, for the first minutes."""
    fake.fail_next("done_reset", "send")
    with pytest.raises(Unknown):
        await says(bot, "once", route(), token="t")
    await says(bot, "once", route(), token="t")
    assert [post["content"] for post in fake.posts] == ["once"]


@pytest.mark.parametrize(("how", "arrived"), [("done_reset", True), ("reset", False)])
async def test_a_lost_answer_to_a_slash_command_is_looked_for(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox, how: str, arrived: bool
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    fake.fail_next(how, "fill_in")
    with pytest.raises(Unknown):
        await says(bot, "filled in", event.route, token="t")
    found = await bot.find_sent("t", event.route)
    assert (found is not None) is arrived
    fake.fail_next(how, "fill_in" if not arrived else "follow_up")
    with pytest.raises(Unknown):
        await says(bot, "next", event.route, token="u")
    assert ((await bot.find_sent("u", event.route)) is not None) is arrived


async def test_a_lost_answer_that_one_person_sees_cannot_be_found(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order", {"private": True}))
    await says(bot, "first", event.route)
    fake.fail_next("done_reset", "follow_up")
    with pytest.raises(Unknown):
        await says(bot, "second", event.route, token="t")
    with pytest.raises(Unknown):
        await bot.find_sent("t", event.route)


async def test_after_a_restart_it_can_be_told_only_where_we_wrote_nothing(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord
) -> None:
    head = fake.say("head", channel=GENERAL)
    async with driver.connector("a") as after_restart:
        assert await after_restart.find_sent("t", route(thread=head)) is None
        await says(bot, "hello", route(thread=head), token="t")
        with pytest.raises(Unknown):
            await after_restart.find_sent("t", route(thread=head))
        with pytest.raises(Unknown):
            await after_restart.find_sent("t", route(private_to="1"))
        fake.unreadable.add(GENERAL)
        with pytest.raises(Unknown):
            await after_restart.find_sent("t", route())


async def test_a_part_that_was_lost_is_found_and_the_rest_is_sent(fake: DiscordFake, bot: Discord) -> None:
    files = tuple(File(name=f"{n}.bin", content=bytes(9 * 1024 * 1024)) for n in range(4))
    reply = Reply(text="see", files=files)
    fake.fail_next("done_reset", "send")
    with pytest.raises(Unknown):
        await bot.send_message(reply, route(), token="t")
    assert await bot.find_sent("t", route()) is None  # not all of it
    receipt = await bot.send_message(reply, route(), token="t")
    assert receipt.native_ids == tuple(post["id"] for post in fake.posts)
    assert [len(post["attachments"]) for post in fake.posts] == [2, 2]


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "fields", "error"),
    [
        ("status", {"status": 500}, Unknown),
        ("status", {"status": 502}, Unknown),
        ("status", {"status": 524}, Unknown),
        ("status", {"status": 521}, Unreachable),
        ("status", {"status": 522}, Unreachable),
        ("status", {"status": 403}, Unreachable),
        ("status", {"status": 407}, Unreachable),
        ("status", {"status": 429}, RateLimited),
        ("status", {"status": 413}, Rejected),
        ("status", {"status": 302}, Unknown),
        ("refused", {"status": 401, "code": 0}, AuthError),
        ("refused", {"status": 403, "code": 50013}, Rejected),
        ("refused", {"status": 404, "code": 10003}, Rejected),
        ("refused", {"status": 400, "code": 50035}, Rejected),
    ],
)
async def test_each_failure_means_one_thing(
    fake: DiscordFake, bot: Discord, how: str, fields: dict[str, Any], error: type[ConnectorError]
) -> None:
    fake.fail_next(how, "send", **fields)
    with pytest.raises(ConnectorError) as caught:
        await says(bot, "x", route())
    assert type(caught.value) is error
    assert fake.count("send") == 1  # nothing is repeated by itself


async def test_a_limit_that_is_used_up_is_not_asked_beyond(fake: DiscordFake, bot: Discord) -> None:
    fake.api.remaining, fake.api.reset_after = "0", "30"
    await says(bot, "last", route())
    with pytest.raises(RateLimited) as caught:
        await says(bot, "too much", route())
    assert 29 < caught.value.retry_after <= 30
    assert fake.count("send") == 1
    await says(bot, "elsewhere", route(VOICE))  # each channel has its own


async def test_a_refusal_cannot_smuggle_words_into_an_error(fake: DiscordFake, bot: Discord) -> None:
    fake.fail_next("refused", "send", status=400, code=1, message="<b>@everyone</b>\n\x00" + "x" * 500)
    with pytest.raises(Rejected) as caught:
        await says(bot, "x", route())
    assert len(str(caught.value)) < 250
    assert not {"<", "\n", "\x00", "@"} & set(str(caught.value))


async def test_typing_is_shown_and_never_an_error(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    await bot.show_typing(route())
    await bot.show_typing(route("no id"))
    fake.fail_next("refused", "typing", status=403, code=50013)
    await bot.show_typing(route())
    assert fake.count("typing") == 2
    event = await event_of(driver, bot, inbox, lambda: fake.slash("order"))
    await bot.show_typing(event.route)
    assert fake.count("typing") == 2  # Discord says by itself that an answer is being made


async def test_a_token_of_no_bot_is_found_out(fake: DiscordFake, bot: Discord) -> None:
    fake.fail_next("refused", "application", status=403, code=20001)
    with pytest.raises(AuthError):
        await bot.check()


async def test_checking_says_when_discord_is_away(fake: DiscordFake, bot: Discord) -> None:
    fake.fail_next("status", "me", status=500)
    with pytest.raises(Unreachable):
        await bot.check()


# --- the menu --------------------------------------------------------------------------------------------------------


async def test_the_menu_is_registered_only_when_it_is_another(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord
) -> None:
    await bot.catalogue_changed((ORDER,))
    await bot.catalogue_changed((ORDER,))
    async with driver.connector("a") as after_restart:
        await after_restart.catalogue_changed((ORDER,))
    assert fake.count("set_commands") == 1
    assert [command["name"] for command in fake.commands[""]] == ["order"]
    await bot.catalogue_changed((ORDER, CommandEntry(name="report", summary="")))
    assert fake.count("set_commands") == 2
    await bot.catalogue_changed(())
    assert fake.commands[""] == []


async def test_commands_of_servers_do_not_stand_in_the_menu_twice(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord
) -> None:
    await bot.catalogue_changed((ORDER,))
    async with driver.connector("a", guild_ids=("5", "6")) as guilded:
        await guilded.catalogue_changed((ORDER,))
    assert {scope: len(commands) for scope, commands in fake.commands.items()} == {"": 0, "5": 1, "6": 1}


async def test_a_menu_that_is_refused_is_no_error(
    fake: DiscordFake, bot: Discord, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fail_next("refused", "set_commands", status=403, code=50001, message="Missing Access")
    await bot.catalogue_changed((ORDER,))
    assert "Missing Access" in caplog.text


async def test_a_limit_on_the_menu_is_waited_for(fake: DiscordFake, bot: Discord) -> None:
    fake.fail_next("rate_limited", "set_commands", retry_after=0.01)
    await bot.catalogue_changed((ORDER,))
    assert [command["name"] for command in fake.commands[""]] == ["order"]
    assert all(path.split("/")[4] == APPLICATION for name, path in fake.api.calls if name == "set_commands")


async def test_a_store_that_is_away_for_a_moment_is_no_refusal(
    driver: DiscordDriver, fake: DiscordFake, bot: Discord, inbox: Inbox
) -> None:
    inbox.down, inbox.error = True, StoreUnavailable
    async with listening(driver, inbox, bot):
        made = fake.slash("order")
        await eventually(lambda: inbox.attempts, "the first attempt")
        inbox.down = False
        await eventually(lambda: made.answered, "the acknowledgement")
    assert made.answered == {"type": 5, "data": {"flags": 0}}
