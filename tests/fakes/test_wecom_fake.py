"""The fake speaks WeCom: wechatpy's client, which knows nothing of us, is served by it, and refused as by WeCom."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest
import pytest_asyncio
from wechatpy.enterprise import WeChatClient, parse_message  # type: ignore[import-untyped]
from wechatpy.exceptions import WeChatClientException  # type: ignore[import-untyped]

from parley.messages import File
from tests.fakes.wecom import AGENT_ID, CHAT, CORP_ID, SECRET, WecomFake

Call = Callable[[Any], Any]


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[WecomFake]:
    async with WecomFake() as running:
        yield running


async def asked(fake: WecomFake, call: Call, **credentials: str) -> Any:
    """What wechatpy's client answers; it blocks, and so runs beside the loop that the fake lives on."""

    class Client(WeChatClient):  # type: ignore[misc]
        API_BASE_URL = fake.url

        def fetch_access_token(self) -> Any:
            credentials = {"corpid": self.corp_id, "corpsecret": self.secret}
            return self._fetch_access_token(url=f"{fake.url}gettoken", params=credentials)

    given = {"corp_id": CORP_ID, "secret": SECRET, **credentials}
    return await asyncio.to_thread(lambda: call(Client(auto_retry=False, **given)))


async def refused(fake: WecomFake, call: Call, **credentials: str) -> int:
    with pytest.raises(WeChatClientException) as caught:
        await asked(fake, call, **credentials)
    return int(caught.value.errcode)


async def test_it_gives_a_token_and_the_same_again(fake: WecomFake) -> None:
    first = await asked(fake, lambda client: client.access_token)
    assert first == fake.token == await asked(fake, lambda client: client.access_token)


async def test_it_takes_texts_markdown_and_files(fake: WecomFake) -> None:
    def call(client: Any) -> Any:
        client.message.send_text(AGENT_ID, "alice", "hello")
        client.message.send_markdown(AGENT_ID, ["alice", "bob"], "**hello**")
        media = client.media.upload("file", ("a.csv", io.BytesIO(b"a,b,c,d")))
        return client.message.send_file(AGENT_ID, "alice", media["media_id"])

    answer = await asked(fake, call)
    assert answer["msgid"]
    assert [post["msgtype"] for post in fake.posts] == ["text", "markdown", "file"]
    assert [file.content for file in fake.media.values()] == [b"a,b,c,d"]


async def test_it_cuts_a_text_that_is_too_long(fake: WecomFake) -> None:
    await asked(fake, lambda client: client.message.send_text(AGENT_ID, "alice", "中" * 1000))
    assert len(fake.posts[0]["text"]["content"].encode()) == 2046


async def test_it_takes_messages_to_its_group_alone(fake: WecomFake) -> None:
    await asked(fake, lambda client: client.appchat.send_text(CHAT, "hello"))
    assert fake.posts[0]["chatid"] == CHAT
    assert await refused(fake, lambda client: client.appchat.send_text("another", "hello")) == 86001


async def test_it_hands_files_over(fake: WecomFake) -> None:
    media_id = fake.host(File(name="a.png", media_type="image/png", content=b"\x89PNG...."))
    response = await asked(fake, lambda client: client.get("media/get", params={"media_id": media_id}))
    assert response.content == b"\x89PNG...."
    assert "a.png" in response.headers["Content-Disposition"]


async def test_it_says_whom_it_does_not_reach(fake: WecomFake) -> None:
    answer = await asked(fake, lambda client: client.message.send_text(AGENT_ID, "alice|nobody", "x"))
    assert answer["invaliduser"] == "nobody"
    assert await refused(fake, lambda client: client.message.send_text(AGENT_ID, "nobody", "x")) == 81013


@pytest.mark.parametrize(
    ("code", "call"),
    [
        (301002, lambda client: client.message.send_text(1, "alice", "x")),
        (44004, lambda client: client.message.send_text(AGENT_ID, "alice", "")),
        (45002, lambda client: client.message.send_markdown(AGENT_ID, "alice", "中" * 1000)),
        (40007, lambda client: client.message.send_file(AGENT_ID, "alice", "gone")),
        (40006, lambda client: client.media.upload("file", ("a", io.BytesIO(b"12345")))),
        (40004, lambda client: client.media.upload("image", ("a.png", io.BytesIO(b"no picture")))),
        (40005, lambda client: client.media.upload("thing", ("a", io.BytesIO(b"123456")))),
        (40008, lambda client: client.message.send(AGENT_ID, "alice", msg={"msgtype": "nothing"})),
        (43002, lambda client: client.get("message/recall")),
    ],
)
async def test_it_refuses_what_wecom_refuses(fake: WecomFake, code: int, call: Call) -> None:
    assert await refused(fake, call) == code


async def test_it_refuses_strangers(fake: WecomFake) -> None:
    def call(client: Any) -> Any:
        return client.message.send_text(AGENT_ID, "alice", "x")

    assert await refused(fake, call, secret="wrong") == 40001
    assert await refused(fake, call, corp_id="ww0") == 40013
    assert await refused(fake, lambda c: c.get("agent/get", params={"access_token": "another"})) == 40014


async def test_what_it_sends_is_read_by_wechatpy(fake: WecomFake) -> None:
    said = {
        "FromUserName": "alice",
        "MsgType": "text",
        "Content": "]]> <中> 🚀",
        "MsgId": "7",
        "CreateTime": "9",
    }
    request = fake.request(said)
    query = dict(parse_qsl(request.query))
    plain = fake.crypto.decrypt_message(
        request.body.decode(), query["msg_signature"], query["timestamp"], query["nonce"]
    )
    read = parse_message(plain)
    assert (read.id, read.source, read.content) == (7, "alice", "]]> <中> 🚀")
