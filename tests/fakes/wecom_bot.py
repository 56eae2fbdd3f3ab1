"""WeCom's gateway for intelligent robots on this machine: one bot, its people, their files.

Strict where the service is: credentials, one connection a bot, which ids answer what and for how long, message types
by command, sizes, task ids, frequency. `tests/fakes/test_wecom_bot_fake.py` proves it by driving it with both of the
vendor's SDKs.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import os
import ssl
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from connectors.wecom_bot import WecomBot
from parley.messages import Accept, Accepted, Button, Event, File
from tests.certificates import self_signed
from tests.fakes._driver import Failure, Sent, eventually

Json = dict[str, Any]

BOT_ID, BOT_NAME = "aibFAKE0123456789", "小助手 Parley"
SECRET = "fake-secret-of-the-long-connection-0123"
CHAT = "wrkFAKEGROUP"

# WeCom's figures.
MAX_CONTENT, MAX_BUTTONS, CHUNK, MAX_CHUNKS = 20_480, 6, 512 * 1024, 100
MIN_FILE, MAX_FILE = 6, 20 * 1024 * 1024
EVENT_WITHIN = 5.0
A_MINUTE = 30
"""Messages that a conversation takes from a bot in a minute."""

_RESPONDED = {"stream", "template_card", "file", "image", "voice", "video"}
_PUSHED = {"markdown", "template_card", "file", "image", "voice", "video"}


# The library writes every frame to its log, the secrets of both sides too.
_quiet = logging.getLogger(__name__)
_quiet.setLevel(logging.WARNING)


class Refused(Exception):
    """The answer carries this errcode."""

    def __init__(self, code: int, message: str = "refused") -> None:
        super().__init__(message)
        self.code = code


class Silent(Exception):
    """There is no answer: the connection is dropped with the request unread or read."""


@dataclass
class Post:
    """A message of the bot as it stands in a conversation."""

    chat: str
    body: Json
    cmd: str
    stream: str = ""


@dataclass
class Upload:
    about: Json
    pieces: dict[int, bytes] = field(default_factory=dict)


class WecomBotFake:
    """The gateway. Messages that people write while nobody is connected wait for a connection."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.frames: list[Json] = []
        self.welcomes: list[str] = []
        self.said: dict[str, Json] = {}
        self.superseded: list[ServerConnection] = []
        self.secret = SECRET
        self.deaf = False
        """Pings get no answer."""
        self.a_minute = A_MINUTE
        self.event_within = EVENT_WITHIN
        self.refuse_handshakes = 0
        self.refuse_subscriptions: deque[int] = deque()
        self.faults: deque[int | type[Silent]] = deque()
        """What the next messages end with: an errcode, or no answer."""
        self.upload_faults: deque[int] = deque()
        """Errcodes that the next steps of uploads end with."""
        self.subscriptions = 0
        self.connection: ServerConnection | None = None
        self.media: dict[str, tuple[bytes, str]] = {}
        self.uploaded: dict[str, tuple[str, File]] = {}
        self._uploads: dict[str, Upload] = {}
        self._waiting: deque[Json] = deque()
        self._open: dict[ServerConnection, dict[str, tuple[str, str, float]]] = {}
        self._tasks: dict[str, Json] = {}
        self._times: dict[str, deque[float]] = {}
        self._numbers = itertools.count(1)
        self._server: Server | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="wecom-bot-fake-")
        self.ca_file = str(Path(self._folder.name) / "ca.pem")

    async def __aenter__(self) -> Self:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(_certificate(Path(self._folder.name)))
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            ssl=context,
            process_request=self._http,
            max_size=2**20,
            logger=_quiet,
            close_timeout=0.5,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self._folder.cleanup()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.port}"

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts this server and no other."""
        return ssl.create_default_context(cafile=self.ca_file)

    # -- people

    async def say(
        self,
        text: str = "",
        *,
        user: str = "alice",
        chat: str = "",
        body: Json | None = None,
        quoted: File | None = None,
    ) -> str:
        """Somebody writes, in a group with a mention; `body` is any other kind of message. Returns its id."""
        number = next(self._numbers)
        msgid = f"MSG{number:08d}"
        said: Json = {
            "msgid": msgid,
            "aibotid": BOT_ID,
            "chattype": "group" if chat else "single",
            "from": {"userid": user},
            "create_time": int(time.time()),
            "response_url": "https://qyapi.weixin.qq.com/cgi-bin/aibot/response?response_code=FAKE",
            **(body or {"msgtype": "text", "text": {"content": f"@{BOT_NAME} {text}" if chat else text}}),
        }
        if chat:
            said["chatid"] = chat
        if quoted is not None:
            said["quote"] = {"msgtype": "file", "file": self.host(quoted)}
        frame = {"cmd": "aibot_msg_callback", "headers": {"req_id": f"REQ{number:08d}"}, "body": said}
        self.said[msgid] = frame
        await self.deliver(frame)
        return msgid

    async def happen(self, event: Json, *, user: str = "alice", chat: str = "") -> str:
        """An event is reported. Returns its id."""
        number = next(self._numbers)
        body: Json = {
            "msgid": f"EVT{number:08d}",
            "aibotid": BOT_ID,
            "chattype": "group" if chat else "single",
            "from": {"userid": user},
            "create_time": int(time.time()),
            "msgtype": "event",
            "event": event,
        }
        if chat:
            body["chatid"] = chat
        frame = {"cmd": "aibot_event_callback", "headers": {"req_id": f"REQ{number:08d}"}, "body": body}
        await self.deliver(frame)
        return str(body["msgid"])

    async def press(self, task: str, key: str, *, user: str = "alice", chat: str = "") -> str:
        """A button of a card is pressed."""
        card = {"card_type": "button_interaction", "event_key": key, "task_id": task}
        return await self.happen(
            {"eventtype": "template_card_event", "template_card_event": card}, user=user, chat=chat
        )

    def host(self, file: File, *, key: bytes | None = None) -> Json:
        """Put a file where a message points to, encrypted. Returns its part of the message."""
        key = key or os.urandom(32)
        padding = 32 - len(file.content) % 32
        maker = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
        path = f"/media/{next(self._numbers)}"
        sealed = maker.update(file.content + bytes([padding]) * padding) + maker.finalize()
        self.media[path] = (sealed, file.name)
        url = f"https://127.0.0.1:{self.port}{path}"
        return {"url": url, "aeskey": base64.b64encode(key).decode().rstrip("=")}

    async def deliver(self, frame: Json) -> None:
        """Send a frame to whoever is connected, now or next."""
        connection = self.connection
        if connection is None:
            self._waiting.append(frame)
            return
        body = frame["body"]
        ids = self._open[connection]
        place = body.get("chatid") or body["from"]["userid"]
        ids[frame["headers"]["req_id"]] = (
            body.get("event", {}).get("eventtype", "message"),
            place,
            time.monotonic(),
        )
        try:
            await connection.send(json.dumps(frame))
        except ConnectionClosed:
            self._waiting.append(frame)

    async def cut(self) -> None:
        """Drop the connection without a word."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.transport.abort()
            await connection.wait_closed()

    # -- the server

    async def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/media/"):
            found = self.media.get(request.path)
            if found is None:
                return connection.respond(404, "not found")
            headers = Headers()
            headers["Content-Length"] = str(len(found[0]))
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(found[1])}"
            headers["Connection"] = "close"
            return Response(200, "OK", headers, found[0])
        if self.refuse_handshakes:
            self.refuse_handshakes -= 1
            return connection.respond(503, "busy")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self._open[connection] = {}
        try:
            async for raw in connection:
                frame = json.loads(raw)
                self.frames.append(frame)
                await self._answer(connection, frame)
        except (ConnectionClosed, Silent):
            pass
        finally:
            del self._open[connection]
            if self.connection is connection:
                self.connection = None
            connection.transport.abort()

    async def _answer(self, connection: ServerConnection, frame: Json) -> None:
        cmd, req_id = frame["cmd"], frame["headers"]["req_id"]
        if cmd == "ping" and self.deaf:
            return
        answer: Json = {"headers": {"req_id": req_id}, "errcode": 0, "errmsg": "ok"}
        try:
            body = await self._do(connection, cmd, req_id, frame.get("body") or {})
        except Refused as error:
            answer |= {"errcode": error.code, "errmsg": f"{error}, hint: [1], from ip: 127.0.0.1"}
        else:
            if body:
                answer["body"] = body
        await connection.send(json.dumps(answer))
        if cmd == "aibot_subscribe" and answer["errcode"] == 0:
            await self._take_over(connection)

    async def _do(self, connection: ServerConnection, cmd: str, req_id: str, body: Json) -> Json:
        if cmd == "ping":
            return {}
        if cmd == "aibot_subscribe":
            return self._subscribe(body)
        if connection is not self.connection:
            raise Refused(846609, "aibot websocket not subscribed")
        if cmd.startswith("aibot_upload_media_"):
            return self._upload(cmd.removeprefix("aibot_upload_media_"), body)
        kind, chat, came = self._open[connection].get(req_id, ("", "", 0.0))
        if cmd == "aibot_respond_msg":
            if kind != "message":
                raise Refused(846605, "invalid req_id")
            return self._say(cmd, chat, body, _RESPONDED)
        if cmd == "aibot_send_msg":
            return self._say(cmd, str(body.get("chatid", "")), body, _PUSHED)
        wanted = {
            "aibot_respond_welcome_msg": "enter_chat",
            "aibot_respond_update_msg": "template_card_event",
        }
        if cmd not in wanted:
            raise Refused(40058, "invalid Request Parameter")
        if kind != wanted[cmd] or time.monotonic() - came > self.event_within:
            raise Refused(846605, "invalid req_id")
        return self._welcome(body) if kind == "enter_chat" else self._update(body)

    def _subscribe(self, body: Json) -> Json:
        if self.refuse_subscriptions:
            raise Refused(self.refuse_subscriptions.popleft())
        if (body.get("bot_id"), body.get("secret")) != (BOT_ID, self.secret):
            raise Refused(853000, "invalid bot_id or secret")
        return {}

    async def _take_over(self, connection: ServerConnection) -> None:
        self.subscriptions += 1
        older, self.connection = self.connection, connection
        if older is not None and older is not connection:
            self.superseded.append(older)
            gone = {"msgtype": "event", "msgid": f"EVT{next(self._numbers):08d}", "aibotid": BOT_ID}
            event = {**gone, "create_time": int(time.time()), "event": {"eventtype": "disconnected_event"}}
            frame = {"cmd": "aibot_event_callback", "headers": {"req_id": "REQ0"}, "body": event}
            try:
                await older.send(json.dumps(frame))
                await older.close()
            except ConnectionClosed:
                pass
        while self._waiting:
            await self.deliver(self._waiting.popleft())

    def _say(self, cmd: str, chat: str, body: Json, kinds: set[str]) -> Json:
        if self.faults:
            fault = self.faults.popleft()
            if isinstance(fault, int):
                raise Refused(fault)
            raise Silent
        kind = str(body.get("msgtype"))
        if kind not in kinds:
            raise Refused(40008, "invalid message type")
        if not chat:
            raise Refused(40058, "invalid Request Parameter")
        self._count(chat)
        post = Post(chat, {key: value for key, value in body.items() if key != "chatid"}, cmd)
        if kind == "stream":
            return self._stream(post, body["stream"])
        if kind == "markdown":
            _check(0 < len(body["markdown"]["content"].encode()) <= MAX_CONTENT, 40058)
        elif kind == "template_card":
            self._check_card(body["template_card"])
        elif body[kind].get("media_id") not in self.uploaded:
            raise Refused(40007, "invalid media_id")
        self.posts.append(post)
        return {}

    def _stream(self, post: Post, stream: Json) -> Json:
        _check(len(stream.get("content", "").encode()) <= MAX_CONTENT and bool(stream.get("id")), 40058)
        known = next((p for p in self.posts if p.stream == stream["id"]), None)
        if known is None:
            post.stream = stream["id"]
            self.posts.append(post)
        else:
            known.body = post.body  # each frame holds the whole text
        return {}

    def _check_card(self, card: Json) -> None:
        buttons, task = card.get("button_list", []), str(card.get("task_id", ""))
        keys = Counter(button["key"] for button in buttons)
        _check(card["card_type"] == "button_interaction" and 1 <= len(buttons) <= MAX_BUTTONS, 42014)
        _check(bool(card.get("main_title", {}).get("title") or card.get("sub_title_text")), 42014)
        _check(max(keys.values()) == 1 and all(len(key.encode()) <= 1024 for key in keys), 42014)
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-@")
        _check(0 < len(task) <= 128 and set(task) <= allowed and task not in self._tasks, 42014)
        self._tasks[task] = card

    def _welcome(self, body: Json) -> Json:
        _check(body.get("msgtype") in {"text", "template_card"}, 40008)
        self.welcomes.append(body["text"]["content"])
        return {}

    def _update(self, body: Json) -> Json:
        _check(body.get("response_type") == "update_template_card", 40058)
        card = body["template_card"]
        _check(card.get("task_id") in self._tasks and bool(card.get("button_list")), 42014)
        self._tasks[card["task_id"]] = {**card, "userids": body.get("userids", [])}
        return {}

    def card(self, task: str) -> Json:
        """A card as it stands."""
        return self._tasks[task]

    def _count(self, chat: str) -> None:
        times, moment = self._times.setdefault(chat, deque()), time.monotonic()
        while times and moment - times[0] > 60:
            times.popleft()
        if len(times) >= self.a_minute:
            raise Refused(45009, "api freq out of limit")
        times.append(moment)

    def _upload(self, step: str, body: Json) -> Json:
        if self.upload_faults:
            raise Refused(self.upload_faults.popleft())
        if step == "init":
            size, chunks = body["total_size"], body["total_chunks"]
            _check(body["type"] in {"file", "image", "voice", "video"} and bool(body["filename"]), 40004)
            _check(MIN_FILE <= size <= MAX_FILE and 0 < chunks <= MAX_CHUNKS, 40006)
            upload_id = f"UP{next(self._numbers):08d}"
            self._uploads[upload_id] = Upload(body)
            return {"upload_id": upload_id}
        upload = self._uploads.get(body["upload_id"])
        if upload is None:
            raise Refused(40007, "invalid upload_id")
        if step == "chunk":
            piece = base64.b64decode(body["base64_data"], validate=True)
            _check(len(piece) <= CHUNK and 0 <= body["chunk_index"] < upload.about["total_chunks"], 40006)
            upload.pieces[body["chunk_index"]] = piece
            return {}
        content = b"".join(upload.pieces[index] for index in sorted(upload.pieces))
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        about = upload.about
        _check(len(upload.pieces) == about["total_chunks"] and len(content) == about["total_size"], 40006)
        _check(about.get("md5") in {None, digest}, 40006)
        media_id = f"MEDIA{next(self._numbers):08d}"
        self.uploaded[media_id] = (about["type"], File(name=about["filename"], content=content))
        return {"type": about["type"], "media_id": media_id, "created_at": str(int(time.time()))}


def _check(fits: bool, code: int) -> None:
    if not fits:
        raise Refused(code)


def _certificate(folder: Path) -> str:
    """A certificate for this machine, in a file with its key; the certificate alone is in `ca.pem`."""
    public, private = self_signed("localhost", subject=f"wecom bot fake {os.urandom(8).hex()}")
    (folder / "ca.pem").write_bytes(public)
    (folder / "server.pem").write_bytes(public + private)
    return str(folder / "server.pem")


# --- for the contract suite ------------------------------------------------------------------------------------------


class Noting(WecomBot):
    """Notes what was stored: WeCom is told nothing, so that is all there is of an acknowledgement."""

    taken: set[str]

    async def listen(self, accept: Accept) -> None:
        async def noted(event: Event) -> Accepted:
            accepted = await accept(event)
            self.taken.add(event.native_id)
            return accepted

        await super().listen(noted)


class WecomBotDriver:
    """WeCom for the contract suite."""

    name: ClassVar[str] = "wecom_bot"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {
        "rate_limited": "WeCom refuses what is too frequent without a word of how long to wait: tested on its own"
    }

    def __init__(self) -> None:
        self.fake = WecomBotFake()
        self.taken: set[str] = set()

    async def __aenter__(self) -> Self:
        await self.fake.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fake.__aexit__()

    def connector(self, account: str, **options: Any) -> WecomBot:
        given = {"bot_id": BOT_ID, "secret": SECRET, "bot_name": BOT_NAME, **options}
        made = Noting(account, url=self.fake.url, ssl_context=self.fake.trust(), **given)
        made.taken = self.taken
        return made

    def broken_connector(self, account: str) -> WecomBot:
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
        quoted = files[0] if files else None
        return await self.fake.say(text, user=person, chat="" if direct else CHAT, quoted=quoted)

    async def redeliver(self, native_id: str) -> None:
        await self.fake.deliver(self.fake.said[native_id])

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self._seen()) >= n, f"{n} messages from us")
        return self._seen()

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        if how == "unreachable":
            self._away()
            self.fake.refuse_handshakes += 1
        elif how == "auth":
            self._away()
            self.fake.refuse_subscriptions.append(853000)
        else:
            self.fake.faults.append(Silent if how == "unknown" else 40058)

    def _away(self) -> None:
        """The connection is lost, so that what follows needs a new one."""
        connection, self.fake.connection = self.fake.connection, None
        if connection is not None:
            connection.transport.abort()

    async def cut(self) -> None:
        await self.fake.cut()

    def acknowledged(self, native_id: str) -> bool:
        return native_id in self.taken

    def _seen(self) -> list[Sent]:
        seen: list[Sent] = []
        for post in self.fake.posts:
            shown = self.as_seen(post)
            last = seen[-1] if seen else None
            if last and shown.files and last.conversation == shown.conversation:
                seen[-1] = Sent(
                    text=last.text, files=last.files + shown.files, conversation=last.conversation
                )
            elif last and shown.buttons and not last.buttons and last.text.startswith(shown.text):
                seen[-1] = Sent(text=last.text, buttons=shown.buttons, conversation=last.conversation)
            else:
                seen.append(shown)
        return seen

    def as_seen(self, post: Post) -> Sent:
        kind = post.body["msgtype"]
        content = post.body[kind]
        if kind in {"stream", "markdown"}:
            return Sent(text=content["content"], conversation=post.chat)
        if kind == "template_card":
            text = content.get("main_title", {}).get("title") or content["sub_title_text"]
            buttons = tuple(
                Button(label=b["text"], value=b["key"].partition(":")[2]) for b in content["button_list"]
            )
            return Sent(text=text, buttons=buttons, conversation=post.chat)
        return Sent(text="", files=(self.fake.uploaded[content["media_id"]][1],), conversation=post.chat)


DRIVER = WecomBotDriver
