"""Discord's gateway as we use it: what counts as taken, what comes again, what is read up, when we give up."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import discord
import pytest
import pytest_asyncio
from discord.gateway import DiscordWebSocket, KeepAliveHandler
from discord.http import HTTPClient

from connectors import _discord_messages
from connectors._discord_gateway import Session
from connectors._discord_read import snowflake_at
from connectors.discord import Discord
from parley.errors import AuthError, StoreUnavailable
from parley.messages import MAX_FILE, Accepted, Action, ConversationKind, Edit, Event, File, Message, Reply
from tests.fakes._driver import eventually
from tests.fakes.discord import BOT, FORUM, GENERAL, OTHER, OWN_ROLE, VOICE, DiscordDriver, DiscordFake


class Inbox:
    """An inbox that refuses some texts, or everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.attempts: list[str] = []
        self.refuses: set[str] = set()
        self.down = False
        self.error: type[Exception] = StoreUnavailable

    async def accept(self, event: Event) -> Accepted:
        text = event.value if isinstance(event, Action) else getattr(event, "text", "")
        self.attempts.append(text)
        if self.down or text in self.refuses:
            raise self.error("down")
        new = event.native_id not in {known.native_id for known in self.events}
        if new:
            self.events.append(event)
        return Accepted(id=event.native_id, new=new)

    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Message | Edit)]

    async def holds(self, *texts: str) -> None:
        await eventually(lambda: self.texts() == list(texts), f"{texts}; there are {self.texts()}")


@pytest_asyncio.fixture
async def driver() -> AsyncIterator[DiscordDriver]:
    async with DiscordDriver() as running:
        yield running


@pytest.fixture
def fake(driver: DiscordDriver) -> DiscordFake:
    return driver.fake


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@asynccontextmanager
async def listening(
    driver: DiscordDriver, inbox: Inbox, connector: Discord | None = None, **options: Any
) -> AsyncIterator[Discord]:
    made = connector or driver.connector("a", **options)
    task = asyncio.create_task(made.listen(inbox.accept))
    gateway = driver.fake.gateway
    try:
        await eventually(
            lambda: task.done() or (made._gateway.session.id and any(s.socket for s in gateway.sessions)),
            "a session",
        )
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})
        if connector is None:
            await made.aclose()
    assert task.cancelled(), f"listening ended by itself: {task.exception()!r}"


async def refused(driver: DiscordDriver, **options: Any) -> str:
    async with driver.connector("a", **options) as connector:
        with pytest.raises(AuthError) as caught:
            await asyncio.wait_for(connector.listen(Inbox().accept), 10)
    return str(caught.value)


# --- what counts as taken --------------------------------------------------------------------------------------------


def test_the_place_in_the_sequence_is_that_of_the_first_gap() -> None:
    session = Session()
    assert [session.begin(n) for n in (1, 2, 3, 4)] == [True] * 4
    session.done(2)
    session.done(3)
    places = [session.stored]
    for number in (1, 4):
        session.done(number)
        places.append(session.stored)
    assert (places, session.open) == ([None, 3, 4], 0)


def test_what_a_resumed_session_repeats_is_known() -> None:
    session = Session()
    for number in (1, 2, 3):
        session.begin(number)
    session.done(1)
    assert [session.begin(n) for n in (1, 2, 3, 4)] == [False, False, False, True]


def test_what_nobody_stores_any_more_is_open_to_come_again() -> None:
    session = Session()
    for number in (1, 2, 3):
        session.begin(number)
    session.done(1)
    session.done(3)
    session.forget()
    session.done(2)
    assert session.stored == 1
    assert [session.begin(n) for n in (2, 3)] == [True, True]


async def test_discord_is_told_of_nothing_behind_what_is_not_stored(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    inbox.refuses = {"stuck"}
    async with listening(driver, inbox):
        stuck = fake.say("stuck", channel=fake.direct(fake.person("alice")))
        behind = fake.say("behind", person="bob")
        await inbox.holds("behind")
        session = fake.gateway.sessions[0]
        beats = len(session.heartbeats)
        await eventually(lambda: len(session.heartbeats) > beats + 3, "heartbeats")
        assert not driver.acknowledged(stuck)
        assert not driver.acknowledged(behind)
        inbox.refuses = set()
        await eventually(lambda: driver.acknowledged(behind), "the acknowledgement")
    assert driver.acknowledged(stuck)


async def test_a_channel_keeps_its_order_while_others_go_on(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    inbox.refuses = {"one"}
    async with listening(driver, inbox):
        for text in ("one", "two", "three"):
            fake.say(text)
        fake.say("elsewhere", person="bob")
        await inbox.holds("elsewhere")
        inbox.refuses = set()
        await inbox.holds("elsewhere", "one", "two", "three")


async def test_what_was_not_stored_when_listening_ended_comes_again(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    inbox.down = True
    async with driver.connector("a") as connector:
        async with listening(driver, inbox, connector):
            fake.say("keep me")
            await eventually(lambda: inbox.attempts, "the first attempt")
        inbox.down = False
        async with listening(driver, inbox, connector):
            await inbox.holds("keep me")
    session = fake.gateway.sessions[0]
    assert len(fake.gateway.sessions) == 1
    assert session.resumed_from
    assert session.resumed_from[0] < len(session.events) - 1


async def test_nothing_is_read_beyond_what_waits_to_be_stored(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    inbox.down = True
    async with listening(driver, inbox) as connector:
        for number in range(300):
            fake.say(str(number), person=f"p{number}")
        await eventually(lambda: len(inbox.attempts) >= 200, "as many attempts as events may wait")
        session = connector._gateway.session
        assert session.open <= 200
        inbox.down = False
        await eventually(lambda: len(inbox.events) == 300, "all of them")
    assert {event.native_id for event in inbox.events} == {
        data["id"] for event, data in fake.gateway.sessions[0].events if event == "MESSAGE_CREATE"
    }


async def test_an_event_that_cannot_be_stored_at_all_does_not_stop_the_others(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.refuses, inbox.error = {"poison"}, ValueError
    async with listening(driver, inbox):
        poison = fake.say("poison")
        fake.say("after")
        await inbox.holds("after")
        await eventually(lambda: driver.acknowledged(poison), "that it is given up")
    assert inbox.attempts.count("poison") == _discord_messages.FAULTS
    assert "left out (ValueError)" in caplog.text


# --- connections -----------------------------------------------------------------------------------------------------


async def test_a_cut_is_resumed_where_it_was(driver: DiscordDriver, fake: DiscordFake, inbox: Inbox) -> None:
    async with listening(driver, inbox):
        fake.say("before")
        await inbox.holds("before")
        fake.gateway.cut()
        fake.say("meanwhile")
        await inbox.holds("before", "meanwhile")
    assert len(fake.gateway.sessions) == 1
    assert fake.gateway.sessions[0].resumed_from


async def test_an_order_to_reconnect_is_followed(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    async with listening(driver, inbox):
        await fake.gateway.order(7)
        await eventually(lambda: fake.gateway.sessions[0].resumed_from, "the resumption")
        fake.say("after")
        await inbox.holds("after")


async def test_an_invalid_session_is_replaced_and_the_gap_is_read_up(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    """Both in a server and in a direct conversation that we know of: a new session replays nothing."""
    async with listening(driver, inbox):
        fake.say("before")
        await inbox.holds("before")
        fake.gateway.resumable = False
        fake.gateway.cut()
        for session in fake.gateway.sessions:
            session.invalid = True
        fake.say("in the gap")
        fake.say(f"<@{BOT}> in the gap, too", channel=GENERAL)
        await eventually(lambda: len(fake.gateway.sessions) == 2, "a second session")
        fake.say("after")
        await eventually(lambda: len(inbox.events) == 4, f"all four of {inbox.texts()}")
    assert sorted(inbox.texts()) == ["after", "before", "in the gap", "in the gap, too"]
    assert [text for text in inbox.texts() if text != "in the gap, too"] == ["before", "in the gap", "after"]


@pytest.mark.parametrize("code", [1000, 4000, 4007, 4009, 1011])
async def test_any_close_that_may_pass_is_outlived(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox, code: int
) -> None:
    async with listening(driver, inbox):
        await fake.gateway.close(code)
        await eventually(lambda: fake.gateway.connections == 2, "another connection")
        await eventually(lambda: any(one.socket for one in fake.gateway.sessions), "a session")
        fake.say("after")
        await inbox.holds("after")


@pytest.mark.parametrize(
    ("code", "word"), [(4004, "token"), (4014, "Message Content Intent"), (4011, "servers")]
)
async def test_a_close_that_will_not_pass_ends_listening(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox, code: int, word: str
) -> None:
    async with driver.connector("a") as connector:
        task = asyncio.create_task(connector.listen(inbox.accept))
        await eventually(lambda: fake.gateway.sockets, "a connection")
        await fake.gateway.close(code)
        with pytest.raises(AuthError, match=word):
            await asyncio.wait_for(task, 10)


async def test_no_session_is_begun_when_none_is_left(
    driver: DiscordDriver, fake: DiscordFake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.gateway.remaining = 0
    async with driver.connector("a") as connector:
        task = asyncio.create_task(connector.listen(Inbox().accept))
        await eventually(lambda: fake.count("gateway") >= 2, "that it asks again")
        assert fake.gateway.connections == 0
        fake.gateway.remaining = 5
        await eventually(lambda: fake.gateway.sessions, "a session")
        task.cancel()
        await asyncio.wait({task})
    assert "no more sessions" in caplog.text


@pytest.mark.parametrize("url", ["http://evil.example", "ws://evil.example", "", None, "wss"])
async def test_the_token_is_shown_to_no_other_host(
    driver: DiscordDriver, fake: DiscordFake, caplog: pytest.LogCaptureFixture, url: Any
) -> None:
    fake.gateway.url = url
    async with driver.connector("a") as connector:
        task = asyncio.create_task(connector.listen(Inbox().accept))
        await eventually(lambda: "no address" in caplog.text, "the warning")
        task.cancel()
        await asyncio.wait({task})
    assert fake.gateway.connections == 0


async def test_garbage_from_the_gateway_is_outlived(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    async with listening(driver, inbox):
        await fake.gateway.order("x")  # type: ignore[arg-type]
        for socket in list(fake.gateway.sockets):
            await socket.send_str("[]")
        await eventually(lambda: len(fake.gateway.sessions) == 2, "a new session")
        await fake.gateway.sockets.copy().pop().send_str('{"op": 10}')
        await eventually(lambda: len(fake.gateway.sessions) == 3, "a third session")
        fake.say("after")
        await inbox.holds("after")


async def test_cancelling_ends_the_thread_of_heartbeats(driver: DiscordDriver, inbox: Inbox) -> None:
    before = set(threading.enumerate())
    async with listening(driver, inbox):
        await eventually(lambda: set(threading.enumerate()) - before, "the thread of heartbeats")
    assert set(threading.enumerate()) <= before


async def test_two_accounts_in_one_process_do_not_mix(inbox: Inbox) -> None:
    other_inbox = Inbox()
    async with (
        DiscordDriver() as one,
        DiscordDriver() as other,
        listening(one, inbox),
        listening(other, other_inbox),
    ):
        one.fake.say("to one")
        other.fake.say("to the other")
        await inbox.holds("to one")
        await other_inbox.holds("to the other")


async def test_nothing_of_what_is_said_is_logged(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening(driver, inbox):
        fake.say("my secret plan")
        made = fake.slash("order", {"note": "my secret order"})
        await eventually(lambda: len(inbox.events) == 2, "both")
        await eventually(lambda: made.answered, "the answer")
    assert "secret" not in caplog.text
    assert made.token not in caplog.text


# --- what is asked for -----------------------------------------------------------------------------------------------


async def test_without_the_intent_we_hear_what_mentions_us(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    fake.flags = 0
    async with listening(driver, inbox):
        fake.say("among us", channel=GENERAL)
        fake.say(f"<@{BOT}> to you", channel=GENERAL)
        fake.say("alone")
        await eventually(lambda: len(inbox.events) == 2, "two messages")
    assert sorted(inbox.texts()) == ["alone", "to you"]


async def test_hearing_all_needs_the_intent(driver: DiscordDriver, fake: DiscordFake) -> None:
    fake.flags = 0
    assert "Message Content Intent" in await refused(driver, hear="all")


async def test_the_intents_are_those_of_discord_py(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    async with listening(driver, inbox):
        asked = fake.gateway.sessions[0].intents
    wanted = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
    assert asked == wanted.value


# --- whom it concerns ------------------------------------------------------------------------------------------------


async def said_in_a_server(driver: DiscordDriver, inbox: Inbox, hear: str) -> list[tuple[str, bool]]:
    fake = driver.fake
    async with listening(driver, inbox, hear=hear) as connector:
        first = fake.say(f"<@{BOT}> first", channel=GENERAL)
        fake.say("among us", channel=GENERAL)
        fake.say(f"<@&{OWN_ROLE}> to your role", channel=GENERAL)
        await eventually(lambda: "to your role" in inbox.texts(), "the mention")
        (message,) = [one for one in inbox.events if one.native_id == first]
        await connector._sender.send(REPLY, message.route, "t")
        fake.say("in our thread", channel=first)
        fake.say("aside", channel=OTHER, reply_to=fake.say("x", channel=OTHER, person="bob"))
        fake.say("to what you said", channel=first, reply_to=fake.posts[0]["id"])
        fake.say("last")
        await eventually(lambda: {"last", "to what you said"} <= set(inbox.texts()), "the last ones")
    return [(event.text, event.addressed) for event in inbox.events if isinstance(event, Message)]


REPLY = Reply(text="an answer")
TO_US = {"first", "to your role", "in our thread", "to what you said", "last"}


async def test_mentions_are_what_is_said_to_us(driver: DiscordDriver, inbox: Inbox) -> None:
    heard = await said_in_a_server(driver, inbox, "mentions")
    assert (set(heard), len(heard)) == ({(text, True) for text in TO_US}, len(TO_US))


async def test_along_hands_on_the_rest(driver: DiscordDriver, inbox: Inbox) -> None:
    heard = await said_in_a_server(driver, inbox, "along")
    assert {text for text, addressed in heard if addressed} == TO_US
    assert {text for text, addressed in heard if not addressed} == {"among us", "aside", "x"}


async def test_all_counts_as_said_to_us(driver: DiscordDriver, inbox: Inbox) -> None:
    heard = await said_in_a_server(driver, inbox, "all")
    assert {text for text, addressed in heard if addressed} == {*TO_US, "among us", "aside", "x"}


async def test_a_thread_that_we_are_in_is_known_after_a_restart(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    head = fake.say("head", channel=GENERAL)
    fake.add_thread(head, 11, GENERAL, "ours", BOT)
    theirs = fake.say("theirs", channel=GENERAL)
    fake.add_thread(theirs, 11, GENERAL, "theirs", fake.person("bob"))
    async with listening(driver, inbox):
        fake.say("not to you", channel=theirs)
        fake.say("to you", channel=head)
        await inbox.holds("to you")
        # Whoever mentions us in a thread makes us a member of it.
        fake.say(f"<@{BOT}> come in", channel=theirs)
        fake.say("now to you", channel=theirs)
        await inbox.holds("to you", "come in", "now to you")
    route = inbox.events[0].route
    assert (route.conversation, route.thread, route.kind) == (GENERAL, head, ConversationKind.CHANNEL)


async def test_an_archived_thread_that_nobody_told_of_is_asked_about(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    head = fake.say("head", channel=GENERAL)
    fake.add_thread(head, 11, GENERAL, "ours", BOT)["thread_metadata"]["archived"] = True
    async with listening(driver, inbox):
        fake.say("still to you", channel=head)
        await inbox.holds("still to you")
    assert fake.count("channel") == 1


async def test_we_can_be_taken_out_of_a_thread(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    head = fake.say("head", channel=GENERAL)
    fake.add_thread(head, 11, GENERAL, "ours", BOT)
    async with listening(driver, inbox):
        fake.say("one", channel=head)
        await inbox.holds("one")
        fake.tell("THREAD_MEMBERS_UPDATE", {"id": head, "removed_member_ids": [BOT]})
        fake.say("two", channel=head)
        fake.tell("THREAD_MEMBERS_UPDATE", {"id": head, "added_members": [{"user_id": BOT}]})
        fake.say("three", channel=head)
        await inbox.holds("one", "three")


async def test_an_edit_is_heard_and_a_preview_is_not(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    async with listening(driver, inbox):
        id_ = fake.say("helo")
        alone = fake.direct(fake.person("alice"))
        fake.preview(alone, id_)
        fake.rewrite(alone, id_, "hello")
        fake.preview(alone, id_)
        aside = fake.say("aside", channel=GENERAL)
        fake.rewrite(GENERAL, aside, "aside, too")
        fake.say("last")
        await inbox.holds("helo", "hello", "last")
    edit = inbox.events[1]
    assert isinstance(edit, Edit)
    assert edit.target == id_


# --- reading up ------------------------------------------------------------------------------------------------------


async def test_what_was_said_before_we_came_is_read_up(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    long_ago = str(snowflake_at(time.time() - 3600))
    fake.say(f"<@{BOT}> long ago", channel=GENERAL, id_=long_ago)
    for number in range(150):
        fake.say(f"<@{BOT}> {number}", channel=GENERAL)
    fake.say(f"<@{BOT}> elsewhere", channel=VOICE)
    async with listening(driver, inbox):
        await eventually(lambda: len(inbox.events) == 151, "all news")
        assert [text for text in inbox.texts() if text != "elsewhere"] == [str(n) for n in range(150)]
        # Only where there is news: not in the other channels, and not in the forum, whose "last message" is a post.
        assert {path.split("/")[4] for name, path in fake.api.calls if name == "history"} == {GENERAL, VOICE}


async def test_how_far_is_read_up_can_be_said(driver: DiscordDriver, fake: DiscordFake, inbox: Inbox) -> None:
    fake.say(f"<@{BOT}> an hour ago", channel=GENERAL, id_=str(snowflake_at(time.time() - 3600)))
    async with listening(driver, inbox, catch_up=timedelta(hours=2)):
        await inbox.holds("an hour ago")
    fake.say(f"<@{BOT}> now", channel=OTHER)
    again = Inbox()
    async with listening(driver, again, catch_up=timedelta()):
        fake.say("alone")
        await again.holds("alone")


async def test_what_may_not_be_read_is_passed_over(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    fake.say(f"<@{BOT}> hidden", channel=OTHER)
    fake.say(f"<@{BOT}> open", channel=GENERAL)
    fake.unreadable.add(OTHER)
    async with listening(driver, inbox):
        await inbox.holds("open")


@pytest.mark.parametrize("how", ["rate_limited", "status"])
async def test_reading_up_is_tried_again(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox, how: str
) -> None:
    fake.say(f"<@{BOT}> news", channel=GENERAL)
    fake.fail_next(how, "history", retry_after=0.01, status=503)
    async with listening(driver, inbox):
        await inbox.holds("news")
    assert fake.count("history") == 2


async def test_nothing_is_passed_over_because_reading_it_fails_for_a_while(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    fake.say(f"<@{BOT}> news", channel=GENERAL)
    for _ in range(12):
        fake.fail_next("status", "history", status=503)
    async with listening(driver, inbox, longest_pause=0.01):
        await inbox.holds("news")
    assert fake.count("history") == 13


async def test_a_post_of_a_forum_is_read_up(driver: DiscordDriver, fake: DiscordFake, inbox: Inbox) -> None:
    id_ = fake.snowflake()
    fake.channels[FORUM]["last_message_id"] = id_
    fake.add_thread(id_, 11, FORUM, "a post", fake.person("bob"))
    fake.say(f"<@{BOT}> in a post", channel=id_, id_=id_)
    async with listening(driver, inbox):
        await inbox.holds("in a post")
    assert (inbox.events[0].route.conversation, inbox.events[0].route.thread) == (FORUM, id_)


async def test_what_was_not_stored_is_read_up_when_the_session_is_gone(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    """However long ago it was said, and whatever was stored since."""
    inbox.refuses = {"stuck"}
    async with driver.connector("a") as connector:
        async with listening(driver, inbox, connector):
            fake.say(f"<@{BOT}> stuck", channel=GENERAL, id_=str(snowflake_at(time.time() - 3600)))
            fake.say("newer", person="bob")
            await inbox.holds("newer")
            await eventually(lambda: "stuck" in inbox.attempts, "the attempt")
        inbox.refuses = set()
        fake.gateway.resumable = False
        async with listening(driver, inbox, connector):
            await inbox.holds("newer", "stuck")


async def test_reading_up_that_was_broken_off_is_begun_again(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    fake.say(f"<@{BOT}> said before", channel=GENERAL, id_=str(snowflake_at(time.time() - 600)))
    inbox.refuses = {"said before"}
    async with driver.connector("a") as connector:
        async with listening(driver, inbox, connector):
            await eventually(lambda: inbox.attempts, "the attempt")
            fake.say("newer")
            await inbox.holds("newer")
        inbox.refuses = set()
        async with listening(driver, inbox, connector):
            await inbox.holds("newer", "said before")
            await eventually(lambda: not connector._known.behind, "the end of it")
        sessions = len(fake.gateway.sessions)
        async with listening(driver, inbox, connector):
            fake.say("last")
            await inbox.holds("newer", "said before", "last")
        assert len(fake.gateway.sessions) == sessions  # nothing is behind: the session goes on


async def test_a_place_that_cannot_be_asked_about_now_loses_no_message(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    head = fake.say("head", channel=GENERAL)
    fake.add_thread(head, 11, GENERAL, "ours", BOT)["thread_metadata"]["archived"] = True
    async with listening(driver, inbox):
        for _ in range(3):
            fake.fail_next("status", "channel", status=503)
        fake.say("still to you", channel=head)
        await inbox.holds("still to you")
    assert fake.count("channel") == 4


# --- files -----------------------------------------------------------------------------------------------------------


async def files_of(driver: DiscordDriver, inbox: Inbox, change: Callable[[dict[str, Any]], None]) -> Message:
    """A message with one file, whose description is changed on the way."""
    fake = driver.fake
    file = File(name="a.csv", media_type="text/csv", content=b"a,b")
    message = fake.write(fake.direct(fake.person("bob")), fake.person("bob"), {"content": "old"}, (file,))
    about = message["attachments"][0]
    change(about)
    async with listening(driver, inbox):
        fake.say("see", attachments=[about])
        await inbox.holds("see")
    (found,) = inbox.events
    assert isinstance(found, Message)
    return found


async def test_a_file_comes_with_its_title(driver: DiscordDriver, inbox: Inbox) -> None:
    """Discord leaves of the name what is ASCII, and puts the rest into the title."""
    found = await files_of(driver, inbox, lambda about: about.update(filename="donnes.csv", title="données"))
    assert [(file.name, file.content) for file in found.files] == [("données.csv", b"a,b")]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "https://cdn.discordapp.com.evil.example/x"}, "not kept by Discord"),
        ({"url": "http://cdn.discordapp.com/x"}, "not kept by Discord"),
        ({"url": "https://user@169.254.169.254/x"}, "not kept by Discord"),
        ({"url": "http://["}, "not kept by Discord"),
        ({"url": None}, "not kept by Discord"),
        ({"size": MAX_FILE + 1}, "limit"),
    ],
)
async def test_a_file_that_is_not_to_be_had_is_named(
    driver: DiscordDriver, inbox: Inbox, fields: dict[str, Any], why: str
) -> None:
    found = await files_of(driver, inbox, lambda about: about.update(fields))
    assert (found.files, len(found.left_out)) == ((), 1)
    assert found.left_out[0].startswith("a.csv: ")
    assert why in found.left_out[0]


async def test_no_redirection_is_followed(driver: DiscordDriver, fake: DiscordFake, inbox: Inbox) -> None:
    found = await files_of(
        driver, inbox, lambda about: about.update(url=f"{fake.root}/elsewhere?to={about['url']}")
    )
    assert "302" in found.left_out[0]


async def test_a_file_larger_than_it_says_is_not_kept_in_memory(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    def lie(about: dict[str, Any]) -> None:
        about["size"] = 3
        fake.files[about["id"]] = File.model_construct(
            name="a.csv", media_type="text/csv", content=bytes(MAX_FILE + 1)
        )

    found = await files_of(driver, inbox, lie)
    assert found.files == ()
    assert "more than" in found.left_out[0]


async def test_a_file_that_is_gone_does_not_hold_up_its_message(
    driver: DiscordDriver, fake: DiscordFake, inbox: Inbox
) -> None:
    found = await files_of(driver, inbox, lambda about: fake.files.clear())
    assert "404" in found.left_out[0]


# --- discord.py ------------------------------------------------------------------------------------------------------


def test_discord_py_is_still_as_we_use_it() -> None:
    """What `_discord_gateway` takes from inside discord.py; where this fails, that module has to be read again."""
    assert list(inspect.signature(DiscordWebSocket.from_client).parameters) == [
        "client", "initial", "gateway", "shard_id", "session", "sequence", "resume", "encoding", "compress",
    ]  # fmt: skip
    assert list(inspect.signature(DiscordWebSocket.__init__).parameters) == ["self", "socket", "loop"]
    received = inspect.getsource(DiscordWebSocket.received_message)
    assert "self.sequence = seq" in received
    assert received.index("self.sequence = seq") < received.index("self._discord_parsers[event]")
    assert "ws._discord_parsers = client._connection.parsers" in inspect.getsource(
        DiscordWebSocket.from_client
    )
    assert "client.http.ws_connect" in inspect.getsource(DiscordWebSocket.from_client)
    assert list(inspect.signature(HTTPClient.ws_connect).parameters) == ["self", "url", "compress"]
    assert inspect.iscoroutinefunction(DiscordWebSocket.poll_event)
    assert list(inspect.signature(DiscordWebSocket.close).parameters) == ["self", "code"]
    assert "KeepAliveHandler(ws=self" in inspect.getsource(DiscordWebSocket.received_message)
    assert issubclass(KeepAliveHandler, threading.Thread)


def test_discord_py_is_left_as_it_is_for_others() -> None:
    from connectors._discord_gateway import _http_class, _socket_class

    assert _socket_class() is not DiscordWebSocket
    assert _http_class() is not HTTPClient
    assert "sequence" not in vars(DiscordWebSocket)
    assert str(DiscordWebSocket.DEFAULT_GATEWAY) == "wss://gateway.discord.gg/"
    assert discord.http.Route.BASE == "https://discord.com/api/v10"
