"""The service on this machine is a WebSocket server like any other: driven by another library's client."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.fakes._driver import eventually
from tests.fakes.websocket import SECRET, WebSocketFake

LOGIN = {"type": "login", "as": "parley", "token": SECRET}


async def test_json_with_a_line() -> None:
    async with WebSocketFake() as fake, aiohttp.ClientSession() as http, http.ws_connect(fake.url) as socket:
        await socket.send_json(LOGIN)
        assert await socket.receive_json(timeout=5) == {"type": "welcome"}
        native_id = await fake.say("hi", person="bob")
        said = await socket.receive_json(timeout=5)
        assert (said["id"], said["data"]["from"]["id"], said["data"]["text"]) == (native_id, "bob", "hi")
        await socket.send_json({"type": "taken", "ids": [native_id]})
        await eventually(lambda: fake.taken == [native_id], "the acknowledgement")
        await socket.send_json({"type": "say", "room": "bob", "text": "hello", "ref": "r1"})
        answer, echo = await socket.receive_json(timeout=5), await socket.receive_json(timeout=5)
        assert (answer["type"], answer["ref"]) == ("said", "r1")
        assert (echo["id"], echo["data"]["from"]["id"]) == (answer["id"], "parley")


@pytest.mark.parametrize("refuse_with", ["frame", "close"])
async def test_a_wrong_line(refuse_with: Any) -> None:
    async with (
        WebSocketFake(refuse_with=refuse_with) as fake,
        aiohttp.ClientSession() as http,
        http.ws_connect(fake.url) as socket,
    ):
        await socket.send_json({**LOGIN, "token": "wrong"})
        if refuse_with == "frame":
            assert await socket.receive_json(timeout=5) == {"type": "refused"}
        await socket.receive(timeout=5)
        assert socket.close_code == (1000 if refuse_with == "frame" else 4401)
        assert fake.logins == 0


async def test_text_with_a_header() -> None:
    async with WebSocketFake(frames="text", login="header") as fake, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(fake.url)
        assert caught.value.status == 401
        async with http.ws_connect(fake.url, headers={"Authorization": f"Bearer {SECRET}"}) as socket:
            await eventually(lambda: fake.connections, "the login")
            await fake.say("hi")
            assert await socket.receive_str(timeout=5) == "hi"
            await socket.send_str("hello")
            await eventually(lambda: fake.heard == [{"text": "hello"}], "the answer")
