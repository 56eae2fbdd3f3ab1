"""A program on the other side of a generic webhook: it signs and verifies with the standardwebhooks library.

It calls `/hooks/<account>` as long as somebody holds the account, again where that fails, and takes what is posted to
its own address once for each `webhook-id`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook as Library
from standardwebhooks.webhooks import WebhookVerificationError

from connectors.webhook import Webhook
from parley.errors import BadSignature, StoreUnavailable
from parley.messages import Accept, File, HookRequest
from tests.fakes._caller import posted
from tests.fakes._driver import Failure, Sent, eventually

Json = dict[str, Any]


def _secret(word: bytes) -> str:
    return "whsec_" + base64.b64encode(word.ljust(32, b"x")).decode()


SECRET, OLD_SECRET, WRONG_SECRET = _secret(b"secret"), _secret(b"old"), _secret(b"wrong")
AGAIN_AFTER = 0.2  # seconds between two calls, where the first one failed


def call(
    body: Json | bytes, *, secret: str = SECRET, message_id: str = "", at: float | None = None
) -> HookRequest:
    """A signed call."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    message_id = message_id or f"msg_{uuid.uuid4().hex}"
    moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Library(secret).sign(message_id, moment, raw.decode("latin-1")),
    }
    return posted(raw, headers)


@dataclass
class Fault:
    """What happens to the next post that is no ping."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class Held(Webhook):
    """The connector as the process holds it that listens: calls reach it while it does."""

    def __init__(self, program: Program, account: str, **settings: Any) -> None:
        super().__init__(account, **settings)
        self._program = program

    async def listen(self, accept: Accept) -> None:
        self._program.attach(self, accept)
        try:
            await super().listen(accept)
        finally:
            self._program.detach(self)


class Program:
    """The program, with its own address. `posts` are the bodies that it took, `ids` what it has had."""

    def __init__(self) -> None:
        self.posts: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.pings = 0
        self.ids: set[str] = set()
        self.faults: list[Fault] = []
        self.url = ""
        self.acknowledged: set[str] = set()
        self.calls: dict[str, Json] = {}
        self._held: dict[int, tuple[Held, Accept]] = {}
        self._attached = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/in", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/in"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    def cut(self) -> None:
        """Drop the connections as a network does."""
        assert self._runner is not None
        for connection in list(self._runner.server.connections) if self._runner.server else []:
            if connection.transport is not None:
                connection.transport.abort()

    # -- its calls

    def attach(self, connector: Held, accept: Accept) -> None:
        self._held[id(connector)] = (connector, accept)
        self._attached.set()

    def detach(self, connector: Held) -> None:
        self._held.pop(id(connector), None)
        if not self._held:
            self._attached.clear()
            for task in list(self._tasks):
                task.cancel()  # the connection of a call is closed with the process

    def say(self, body: Json) -> str:
        """Call us with this, now or as soon as somebody holds the account; returns its id."""
        message_id = f"msg_{uuid.uuid4().hex}"
        self.calls[message_id] = body
        self.repeat(message_id)
        return message_id

    def repeat(self, message_id: str) -> None:
        task = asyncio.create_task(self._deliver(message_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, message_id: str) -> None:
        for _ in range(3):
            await self._attached.wait()
            connector, accept = next(iter(self._held.values()))
            request = call(self.calls[message_id], message_id=message_id)
            try:
                answer = await connector.handle_hook(request, accept)
            except (StoreUnavailable, BadSignature):
                await asyncio.sleep(AGAIN_AFTER)
                continue
            if 200 <= answer.status < 300:
                self.acknowledged.add(message_id)
            return

    # -- its address

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            said = Library(SECRET).verify(body, dict(request.headers))
        except WebhookVerificationError:
            return web.Response(status=401)
        if said["type"] == "ping":
            self.pings += 1
            return web.Response(status=204)
        if self.faults:
            fault = self.faults.pop(0)
            if fault.drop:
                assert request.transport is not None
                request.transport.abort()
            return web.Response(status=fault.status or 500, headers=fault.headers)
        if request.headers["webhook-id"] not in self.ids:
            self.ids.add(request.headers["webhook-id"])
            self.posts.append(said)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=202)


class WebhookDriver:
    """A program that speaks, for the contract suite."""

    name: ClassVar[str] = "webhook"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self) -> None:
        self.program = Program()

    async def __aenter__(self) -> Self:
        await self.program.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.program.__aexit__()

    def connector(self, account: str, **settings: Any) -> Held:
        given = {"secret": SECRET, "old_secret": OLD_SECRET, "speaks": True, "url": self.program.url}
        return Held(self.program, account, **{**given, "reach": "private", **settings})

    def broken_connector(self, account: str) -> Held:
        return self.connector(account, secret=WRONG_SECRET, old_secret="")

    def secrets(self) -> tuple[str, ...]:
        whole = (SECRET, OLD_SECRET, WRONG_SECRET)
        return (*whole, *(secret.removeprefix("whsec_") for secret in whole))

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        body: Json = {"text": text, "thread": thread or (None if direct else f"case-{uuid.uuid4().hex[:8]}")}
        if files:
            body["files"] = [
                {
                    "name": file.name,
                    "media_type": file.media_type,
                    "content": base64.b64encode(file.content).decode(),
                }
                for file in files
            ]
        return self.program.say(body)

    async def redeliver(self, native_id: str) -> None:
        self.program.repeat(native_id)

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self.program.posts) >= n, f"{n} posts")
        return [_as_seen(post["data"]) for post in self.program.posts if post["type"] == "message"]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        faults = {
            "rate_limited": Fault(429, {"Retry-After": str(retry_after)}),
            "unreachable": Fault(503),
            "unknown": Fault(drop=True),
            "auth": Fault(401),
            "rejected": Fault(410),
        }
        self.program.faults.append(faults[how])

    async def cut(self) -> None:
        self.program.cut()

    def acknowledged(self, native_id: str) -> bool:
        return native_id in self.program.acknowledged


def _as_seen(said: Json) -> Sent:
    files = tuple(
        File(name=one["name"], media_type=one["media_type"], content=base64.b64decode(one["content"]))
        for one in said["files"]
    )
    return Sent(text=said["text"], thread=said["thread"], files=files, conversation=said["conversation"])


DRIVER = WebhookDriver
