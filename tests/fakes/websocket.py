"""A company's own WebSocket service on this machine: a desk where people write and answers appear.

Two ways of speaking: JSON, where each message is repeated at the next login until it is acknowledged and each answer is
answered in turn, or plain text. Two ways to log in: a line, or a header. `tests/fakes/test_websocket_fake.py` drives it
with another library's client.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from connectors.websocket import Protocol, WebSocket
from parley.messages import File
from tests.fakes._driver import Failure, Sent, eventually

Json = dict[str, Any]

SECRET = "fake-secret-of-the-service-0123"
ROOM = "ops-room"

PROTOCOL: dict[str, Any] = {
    "login": '{"type": "login", "as": "parley", "token": "{secret}"}',
    "login_ok": "type=welcome",
    "login_refused": "type=refused",
    "message_when": "type=message",
    "id": "id",
    "sender": "data.from.id",
    "name": "data.from.name",
    "room": "data.room",
    "thread": "data.thread",
    "text": "data.text",
    "own_id": "parley",
    "mention": "@parley",
    "reply": (
        '{"type": "say", "room": "{room}", "thread": "{thread}", "to": "{sender}",'
        ' "text": "{text}", "ref": "{token}"}'
    ),
    "ack": '{"type": "taken", "ids": ["{id}"]}',
    "answer": "ref",
    "answer_id": "id",
    "answer_error": "error",
    "answer_wait": "wait",
}
"""How this service speaks JSON, in the connector's words."""

# Libraries write every frame to their log, the secrets of both sides too.
_quiet = logging.getLogger(__name__)
_quiet.setLevel(logging.WARNING)


class WebSocketFake:
    """The service, with one desk."""

    def __init__(
        self,
        *,
        frames: Literal["json", "text"] = "json",
        login: Literal["line", "header"] = "line",
        refuse_with: Literal["frame", "close"] = "frame",
    ) -> None:
        self.frames, self.login, self.refuse_with = frames, login, refuse_with
        self.secret = SECRET
        self.said: dict[str, Json] = {}
        self.taken: list[str] = []
        self.heard: list[Json] = []
        self.raw: list[str | bytes] = []
        self.connections: list[ServerConnection] = []
        self.logins = 0
        self.refuse_handshakes = 0
        self.refuse_logins = 0
        self.faults: deque[Json | None] = deque()
        """What the next answers are answered with; None: the connection is dropped instead."""
        self._waiting: deque[str] = deque()
        self._numbers = itertools.count(1)
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._look, logger=_quiet, close_timeout=0.5
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/desk"

    async def say(
        self, text: str, *, person: str = "alice", room: str | None = None, thread: str | None = None
    ) -> str:
        """Somebody writes. Returns the message's id."""
        native_id = f"m{next(self._numbers)}"
        data: Json = {"from": {"id": person, "name": person.title()}, "room": room or person, "text": text}
        if thread:
            data["thread"] = thread
        self.said[native_id] = {"type": "message", "id": native_id, "data": data}
        await self.repeat(native_id)
        return native_id

    async def repeat(self, native_id: str) -> None:
        """Send a message, again or for the first time."""
        said = self.said[native_id]
        frame = said["data"]["text"] if self.frames == "text" else json.dumps(said)
        await self.send(frame)

    async def send(self, frame: str | bytes) -> None:
        """Send any frame to whoever is logged in, now or next."""
        if not self.connections:
            if isinstance(frame, str):
                self._waiting.append(frame)
            return
        for connection in list(self.connections):
            with suppress(ConnectionClosed):  # who is just leaving hears nothing
                await connection.send(frame)

    async def cut(self) -> None:
        """Drop all connections without a word."""
        gone, self.connections = self.connections, []
        for connection in gone:
            connection.transport.abort()
            await connection.wait_closed()

    async def _look(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse_handshakes:
            self.refuse_handshakes -= 1
            return connection.respond(503, "busy")
        if self.login == "header" and not self._let_in(
            request.headers.get("Authorization") == f"Bearer {self.secret}"
        ):
            return connection.respond(401, "who are you")
        return None

    def _let_in(self, right: bool) -> bool:
        if self.refuse_logins:
            self.refuse_logins -= 1
            return False
        return right

    async def _serve(self, connection: ServerConnection) -> None:
        try:
            if self.login == "line" and not await self._logged_in(connection):
                return
            self.logins += 1
            self.connections.append(connection)
            while self._waiting:
                await connection.send(self._waiting.popleft())
            async for raw in connection:
                self.raw.append(raw)
                await self._take(connection, raw)
        except ConnectionClosed:
            pass
        finally:
            if connection in self.connections:
                self.connections.remove(connection)

    async def _logged_in(self, connection: ServerConnection) -> bool:
        raw = await connection.recv()
        right = raw == f"LOGIN {self.secret}"
        if self.frames == "json":
            said = json.loads(raw)
            right = (said["type"], said["as"], said["token"]) == ("login", "parley", self.secret)
        right = self._let_in(right)
        if self.refuse_with == "close" and not right:
            await connection.close(4401, "who are you")
        elif self.frames == "text":
            await connection.send("OK" if right else "NO")
        else:
            await connection.send(json.dumps({"type": "welcome" if right else "refused"}))
        return right

    async def _take(self, connection: ServerConnection, raw: str | bytes) -> None:
        if self.frames == "text":
            self.heard.append({"text": raw})
            return
        frame = json.loads(raw)
        if frame["type"] == "taken":
            self.taken += frame["ids"]
            return
        assert frame["type"] == "say"
        answer: Json = {"type": "said", "ref": frame["ref"], "id": f"s{next(self._numbers)}"}
        if self.faults:
            fault = self.faults.popleft()
            if fault is None:
                connection.transport.abort()
                return
            answer |= fault
        else:
            self.heard.append(frame)
        await connection.send(json.dumps(answer))
        if "error" not in answer and "wait" not in answer:
            # The desk shows everybody what stands on it, us too.
            data = {"from": {"id": "parley"}, "room": frame["room"], "text": frame["text"]}
            await connection.send(json.dumps({"type": "message", "id": answer["id"], "data": data}))


# --- for the contract suite ------------------------------------------------------------------------------------------


class WebSocketDriver:
    """The service for the contract suite: JSON, a line to log in, acknowledgements both ways."""

    name: ClassVar[str] = "websocket"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self) -> None:
        self.fake = WebSocketFake()

    async def __aenter__(self) -> Self:
        await self.fake.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fake.__aexit__()

    def connector(self, account: str, **options: Any) -> WebSocket:
        given: dict[str, Any] = {
            "secret": SECRET,
            "login_by": "line",
            "protocol": Protocol(**PROTOCOL),
            **options,
        }
        return WebSocket(account, url=self.fake.url, **given)

    def broken_connector(self, account: str) -> WebSocket:
        return self.connector(account, secret="wrong-secret")

    def secrets(self) -> tuple[str, ...]:
        return (SECRET, "wrong-secret")

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        typed = text if direct else f"@parley {text}"
        return await self.fake.say(typed, person=person, room=None if direct else ROOM, thread=thread)

    async def redeliver(self, native_id: str) -> None:
        await self.fake.repeat(native_id)

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self.fake.heard) >= n, f"{n} messages from us")
        return [Sent(text=f["text"], thread=f["thread"], conversation=f["room"]) for f in self.fake.heard]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        if how in {"unreachable", "auth"}:
            gone, self.fake.connections = self.fake.connections, []
            for connection in gone:
                connection.transport.abort()
            self.fake.refuse_handshakes += how == "unreachable"
            self.fake.refuse_logins += how == "auth"
        elif how == "rate_limited":
            self.fake.faults.append({"wait": retry_after})
        else:
            self.fake.faults.append(None if how == "unknown" else {"error": "no such room"})

    async def cut(self) -> None:
        await self.fake.cut()

    def acknowledged(self, native_id: str) -> bool:
        return native_id in self.fake.taken


DRIVER = WebSocketDriver
