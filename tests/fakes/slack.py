"""Slack on this machine: the Web API, Socket Mode, file hosting and signed hooks of one workspace with one app.

Strict where Slack is: tokens, arguments, limits, which methods read JSON, one acknowledgement an envelope, a new
envelope id at each redelivery. `tests/fakes/test_slack_fake.py` proves it by driving it with Slack's own SDK.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import hmac
import itertools
import json
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from connectors.slack import Slack
from parley.messages import Button, File, HookRequest
from tests.fakes._driver import Failure, Sent, eventually

Json = dict[str, Any]

HOST = "slack.localhost"
BOT_TOKEN = "xoxb-fake-0123456789-bot"
APP_TOKEN = "xapp-fake-0123456789-app"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
BOT_USER, BOT_ID, TEAM, APP_ID = "U0PARLEY", "B0PARLEY", "T0FAKE", "A0FAKE"
CHANNEL, GROUP_DM = "C0GENERAL", "C0MPDM"

# Slack's figures.
MAX_TEXT, MAX_SECTION, MAX_BLOCKS, MAX_ELEMENTS = 40_000, 3000, 50, 25
MAX_LABEL, MAX_VALUE = 75, 2000


class Refused(Exception):
    """The API's answer is `{"ok": false, "error": ...}`."""


@dataclass
class Envelope:
    """One event on its way to us, however often it is sent."""

    kind: str
    payload: Json
    attempts: int = 0
    ids: list[str] = field(default_factory=list)
    acked: bool = False


@dataclass
class Fault:
    """What happens to the next call of one of `methods`."""

    how: Literal["rate_limited", "server_error", "html", "hang", "reset", "accepted_reset", "error", "status"]
    methods: tuple[str, ...]
    retry_after: str | None = "1"
    error: str = ""


@dataclass
class Stored:
    """A file on Slack."""

    id: str
    name: str
    length: int
    content: bytes | None = None
    media_type: str = "application/octet-stream"
    title: str = ""
    shares: dict[str, list[Json]] = field(default_factory=dict)


class SlackFake:
    """One workspace. `envelopes` holds what was sent to us, `posts` what we sent."""

    def __init__(
        self, host: str = HOST, ack_within: float | None = None, listen: tuple[str, ...] = ("127.0.0.1",)
    ) -> None:
        """`ack_within` turns on Slack's own redelivery: after so many seconds without an acknowledgement, thrice.

        `listen`: this machine's addresses, one more than loopback where a container has to reach it.
        """
        self.host, self.ack_within, self._listen = host, ack_within, listen
        self.envelopes: list[Envelope] = []
        self.acks: Counter[str] = Counter()
        self._sent_as: dict[str, Envelope] = {}
        self.calls: list[tuple[str, Json]] = []
        self.posts: list[Json] = []
        self.unseen: list[Json] = []
        self.messages: dict[str, list[Json]] = {CHANNEL: [], GROUP_DM: []}
        self.members: set[str] = {CHANNEL, GROUP_DM}
        self.files: dict[str, Stored] = {}
        self.faults: deque[Fault] = deque()
        self.sockets: set[web.WebSocketResponse] = set()
        self.connections = 0
        self.deaf = False
        self.silent = False
        self.echo_own = True
        self.scopes_missing: set[str] = set()
        self.revoked: set[str] = set()
        self.released = asyncio.Event()
        self._numbers = itertools.count(1)
        self._clock = int(time.time())
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    # -- life

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_get("/link", self._link)
        app.router.add_post("/upload/{id}", self._take_upload)
        app.router.add_get("/files/{id}/{name}", self._give_file)
        app.router.add_get("/login", self._login)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        for address in self._listen:
            await web.TCPSite(self._runner, address, self._port).start()
            self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        for task in list(self._waiting):
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def root(self) -> str:
        return f"http://{self.host}:{self._port}"

    @property
    def base_url(self) -> str:
        return f"{self.root}/api/"

    async def cut(self) -> None:
        """Drop the sockets as a network does: no closing frame."""
        for ws in list(self.sockets):
            self.sockets.discard(ws)
            _abort(ws)

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Announce the end of the present connections, as Slack does some seconds before it closes them."""
        for ws in list(self.sockets):
            await ws.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "fake"}})

    def fail_next(self, how: Any, *methods: str, retry_after: str | None = "1", error: str = "") -> None:
        self.faults.append(Fault(how, methods, retry_after, error))

    # -- people

    async def say(
        self,
        text: str,
        *,
        user: str = "UALICE",
        channel: str | None = None,
        thread: str | None = None,
        files: tuple[File, ...] = (),
        mention_first: bool = False,
    ) -> str:
        """A person writes; Slack tells us once, or twice when we are mentioned. Returns the message's ts."""
        place = channel or direct(user)
        event: Json = {"type": "message", "user": user, "text": text, "ts": self._ts(), "channel": place}
        event |= {
            "event_ts": event["ts"],
            "channel_type": _type(place),
            "team": TEAM,
            "client_msg_id": f"c-{event['ts']}",
        }
        if thread:
            event["thread_ts"] = thread
            event["parent_user_id"] = next(
                (m.get("user") for m in self.messages.get(place, []) if m["ts"] == thread), ""
            )
        if files:
            event |= {"subtype": "file_share", "files": [self._host(file) for file in files]}
        self.messages.setdefault(place, []).append(event)
        told = [event]
        if f"<@{BOT_USER}>" in text and _type(place) != "im":
            mention = {key: value for key, value in event.items() if key not in {"channel_type", "subtype"}}
            told.insert(0 if mention_first else 1, mention | {"type": "app_mention"})
        for one in told:
            await self.tell(one)
        return str(event["ts"])

    async def edit(self, channel: str, ts: str, text: str, *, unfurl: bool = False) -> Envelope:
        """The author changes a message; `unfurl` only unfolds a link in it."""
        stored = next(message for message in self.messages[channel] if message["ts"] == ts)
        before = dict(stored)
        if not unfurl:
            stored |= {"text": text, "edited": {"user": stored["user"], "ts": self._ts()}}
        event = {
            "type": "message",
            "subtype": "message_changed",
            "hidden": True,
            "channel": channel,
            "ts": self._ts(),
        }
        event |= {"channel_type": _type(channel), "message": dict(stored), "previous_message": before}
        return await self.tell(event)

    async def press(self, post: Json, number: int = 0, *, user: str = "UALICE") -> Envelope:
        """A person presses a button of a message that we posted."""
        elements = [e for block in post.get("blocks", []) for e in block.get("elements", [])]
        container = {"type": "message", "message_ts": post["ts"], "channel_id": post["channel"]}
        container["is_ephemeral"] = "user_only" in post
        if "thread_ts" in post:
            container["thread_ts"] = post["thread_ts"]
        payload = {
            "type": "block_actions", "user": {"id": user, "username": user.lower(), "name": user.lower()},
            "api_app_id": APP_ID, "token": "legacy", "container": container, "trigger_id": self._trigger(),
            "team": {"id": TEAM, "domain": "fake"}, "channel": {"id": post["channel"], "name": _name(post["channel"])},
            "message": {key: value for key, value in post.items() if key != "channel"},
            "response_url": f"{self.root}/actions/x",
            "actions": [{**elements[number], "block_id": "b1", "action_ts": self._ts()}],
        }  # fmt: skip
        return await self._dispatch(Envelope("interactive", payload))

    async def slash(
        self, command: str, text: str, *, user: str = "UALICE", channel: str = CHANNEL
    ) -> Envelope:
        """A person types a slash command of the app."""
        payload = {
            "token": "legacy", "team_id": TEAM, "team_domain": "fake", "channel_id": channel,
            "channel_name": _name(channel), "user_id": user, "user_name": user.lower(), "command": command,
            "text": text, "api_app_id": APP_ID, "is_enterprise_install": "false",
            "response_url": f"{self.root}/commands/x", "trigger_id": self._trigger(),
        }  # fmt: skip
        return await self._dispatch(Envelope("slash_commands", payload))

    async def tell(self, event: Json) -> Envelope:
        """Deliver one event of the Events API."""
        payload = {
            "token": "legacy", "team_id": TEAM, "api_app_id": APP_ID, "event": copy.deepcopy(event),
            "type": "event_callback",
            "event_id": f"Ev{next(self._numbers):08d}", "event_time": self._clock,
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True, "is_enterprise_install": False}],
        }  # fmt: skip
        return await self._dispatch(Envelope("events_api", payload))

    async def redeliver(self, envelope: Envelope) -> None:
        """The same payload in a new envelope, as after three seconds without an acknowledgement."""
        await self._send(envelope)

    # -- the socket

    async def _dispatch(self, envelope: Envelope) -> Envelope:
        self.envelopes.append(envelope)
        await self._send(envelope)
        if self.ack_within is not None:
            task = asyncio.create_task(self._insist(envelope, self.ack_within))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        return envelope

    async def _insist(self, envelope: Envelope, within: float) -> None:
        for _ in range(3):
            await asyncio.sleep(within)
            if envelope.acked:
                return
            await self._send(envelope)

    async def _send(self, envelope: Envelope) -> None:
        for ws in list(self.sockets)[:1]:
            id_ = f"env-{next(self._numbers)}"
            frame: Json = {"envelope_id": id_, "type": envelope.kind, "payload": envelope.payload}
            frame["accepts_response_payload"] = envelope.kind != "events_api"
            if envelope.kind == "events_api":
                frame |= {
                    "retry_attempt": envelope.attempts,
                    "retry_reason": "timeout" if envelope.attempts else "",
                }
            envelope.ids.append(id_)
            self._sent_as[id_] = envelope
            envelope.attempts += 1
            with suppress(ConnectionResetError):  # its end died just now: the next one is told
                await ws.send_json(frame)

    async def _link(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("ticket") != "one":
            return web.Response(status=404)
        ws = web.WebSocketResponse(autoping=not self.deaf, timeout=0.2)
        await ws.prepare(request)
        self.connections += 1
        if not self.silent:
            await ws.send_json(
                {
                    "type": "hello",
                    "num_connections": len(self.sockets) + 1,
                    "connection_info": {"app_id": APP_ID},
                }
            )
        self.sockets.add(ws)
        for envelope in [waiting for waiting in self.envelopes if not waiting.acked]:
            await self._send(envelope)
        try:
            async for frame in ws:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    self._acknowledge(json.loads(frame.data))
        finally:
            self.sockets.discard(ws)
        return ws

    def _acknowledge(self, frame: Json) -> None:
        self.acks[frame["envelope_id"]] += 1
        if envelope := self._sent_as.get(frame["envelope_id"]):
            envelope.acked = True

    # -- the Web API

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        arguments = await _arguments(request, reads_json=method not in _FORM_ONLY)
        self.calls.append((method, {key: value for key, value in arguments.items() if key != "token"}))
        fault = self._fault(method)
        if fault is not None and fault.how != "accepted_reset":
            return await self._fail(request, fault)
        try:
            self._admit(method, _bearer(request, arguments))
            answer = {"ok": True, **await self._do(method, arguments)}
        except Refused as refusal:
            answer = {"ok": False, "error": str(refusal)}
        if fault is not None:
            _abort(request)
        return web.json_response(answer)

    def _fault(self, method: str) -> Fault | None:
        found = next((fault for fault in self.faults if not fault.methods or method in fault.methods), None)
        if found is not None:
            self.faults.remove(found)
        return found

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.how == "rate_limited":
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
        if fault.how == "server_error":
            return web.Response(status=503, text="upstream connect error")
        if fault.how == "html":
            return web.Response(status=200, text="<html>maintenance</html>", content_type="text/html")
        if fault.how == "status":
            return web.Response(status=int(fault.error), text="<html>no</html>", content_type="text/html")
        if fault.how == "error":
            return web.json_response({"ok": False, "error": fault.error})
        if fault.how == "hang":
            await self.released.wait()
        _abort(request)
        return web.Response()

    def _admit(self, method: str, token: str) -> None:
        wanted = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
        if not token:
            raise Refused("not_authed")
        if token in {APP_TOKEN, BOT_TOKEN} and token != wanted:
            raise Refused("not_allowed_token_type")
        if token in self.revoked:
            raise Refused("token_revoked")
        if token != wanted:
            raise Refused("invalid_auth")
        if method in self.scopes_missing:
            raise Refused("missing_scope")

    async def _do(self, method: str, arguments: Json) -> Json:
        handler: Callable[[Json], Awaitable[Json]] | None = getattr(
            self, "_" + method.replace(".", "_"), None
        )
        if handler is None:
            raise Refused("unknown_method")
        return await handler(arguments)

    async def _auth_test(self, _: Json) -> Json:
        return {
            "url": f"{self.root}/",
            "team": "Fake",
            "user": "parley",
            "team_id": TEAM,
            "user_id": BOT_USER,
            "bot_id": BOT_ID,
        }

    async def _apps_connections_open(self, _: Json) -> Json:
        return {"url": f"ws://{self.host}:{self._port}/link?ticket=one&app_id={APP_ID}"}

    async def _chat_postMessage(self, arguments: Json) -> Json:  # noqa: N802 - named after Slack's method
        message = self._checked(arguments)
        place = self._place(arguments)
        post = {**message, "ts": self._ts(), "channel": place}
        await self._appear(place, post)
        return {"channel": place, "ts": post["ts"], "message": post}

    async def _chat_postEphemeral(self, arguments: Json) -> Json:  # noqa: N802 - named after Slack's method
        message = self._checked(arguments)
        place, user = self._place(arguments), arguments.get("user")
        if not isinstance(user, str) or not user.startswith("U"):
            raise Refused("user_not_in_channel")
        message.pop("metadata", None)
        post = {**message, "ts": self._ts(), "channel": place, "user_only": user}
        thread = post.get("thread_ts")
        active = any(m["ts"] != thread and m.get("thread_ts") == thread for m in self.messages[place])
        # Shown once, kept nowhere, told to nobody; and never shown in a thread that nobody has begun.
        (self.posts if active or not thread else self.unseen).append(post)
        return {"message_ts": post["ts"]}

    async def _chat_update(self, arguments: Json) -> Json:
        place = self._place(arguments)
        stored = next((m for m in self.messages[place] if m["ts"] == arguments.get("ts")), None)
        if stored is None:
            raise Refused("message_not_found")
        if stored.get("user") != BOT_USER:
            raise Refused("cant_update_message")
        before = dict(stored)
        stored |= self._checked(arguments) | {"edited": {"user": BOT_USER, "ts": self._ts()}}
        event = {
            "type": "message",
            "subtype": "message_changed",
            "channel": place,
            "channel_type": _type(place),
        }
        await self.tell({**event, "ts": self._ts(), "message": dict(stored), "previous_message": before})
        return {"channel": place, "ts": stored["ts"], "text": stored["text"]}

    async def _conversations_info(self, arguments: Json) -> Json:
        place = self._place(arguments, member=False)
        kind = _type(place)
        return {
            "channel": {
                "id": place,
                "is_im": kind == "im",
                "is_mpim": kind == "mpim",
                "is_channel": kind == "channel",
            }
        }

    async def _conversations_open(self, arguments: Json) -> Json:
        user = str(arguments.get("users", ""))
        if not user.startswith("U"):
            raise Refused("user_not_found")
        self.messages.setdefault(direct(user), [])
        return {"channel": {"id": direct(user)}}

    async def _conversations_history(self, arguments: Json) -> Json:
        place = self._place(arguments)
        top = [m for m in self.messages[place] if m.get("thread_ts", m["ts"]) == m["ts"]]
        return _page(list(reversed(top)), arguments)

    async def _conversations_replies(self, arguments: Json) -> Json:
        place, ts = self._place(arguments), arguments.get("ts")
        thread = [m for m in self.messages[place] if ts in {m["ts"], m.get("thread_ts")}]
        if not thread:
            raise Refused("thread_not_found")
        return _page(thread, arguments)

    async def _users_info(self, arguments: Json) -> Json:
        user = str(arguments.get("user", ""))
        if not user.startswith("U"):
            raise Refused("user_not_found")
        profile = {"real_name": user.title(), "display_name": user.lower()}
        return {
            "user": {
                "id": user,
                "name": user.lower(),
                "is_bot": user == BOT_USER,
                "profile": profile,
                "locale": "en-US",
            }
        }

    async def _files_getUploadURLExternal(self, arguments: Json) -> Json:  # noqa: N802 - named after Slack's method
        name, length = arguments.get("filename"), str(arguments.get("length", ""))
        if not name or not length.isdigit() or int(length) == 0:
            raise Refused("invalid_arguments")
        file = Stored(f"F{next(self._numbers):08d}", str(name), int(length))
        self.files[file.id] = file
        return {"upload_url": f"{self.root}/upload/{file.id}", "file_id": file.id}

    async def _files_completeUploadExternal(self, arguments: Json) -> Json:  # noqa: N802 - named after Slack's method
        named = _loaded(arguments.get("files"), "invalid_arguments")
        files = [self.files.get(entry.get("id")) for entry in named]
        if not files or any(file is None or file.content is None for file in files):
            raise Refused("file_not_found")
        done = [file for file in files if file is not None]
        for file, entry in zip(done, named, strict=True):
            file.title = entry.get("title") or file.name
        if arguments.get("channel_id"):
            place = self._place({**arguments, "channel": arguments["channel_id"]})
            await self._show(done, place, arguments)
        return {"files": [{"id": file.id, "title": file.title} for file in done]}

    async def _files_info(self, arguments: Json) -> Json:
        file = self.files.get(str(arguments.get("file")))
        if file is None:
            raise Refused("file_not_found")
        return {
            "file": {"id": file.id, "name": file.name, "title": file.title, "shares": {"public": file.shares}}
        }

    async def _show(self, files: list[Stored], place: str, arguments: Json) -> None:
        post: Json = {
            "type": "message",
            "subtype": "file_share",
            "user": BOT_USER,
            "bot_id": BOT_ID,
            "ts": self._ts(),
        }
        post |= {
            "channel": place,
            "text": arguments.get("initial_comment", ""),
            "files": [{"id": f.id} for f in files],
        }
        if arguments.get("thread_ts"):
            post["thread_ts"] = arguments["thread_ts"]
        for file in files:
            file.shares.setdefault(place, []).append({"ts": post["ts"]})
        await self._appear(place, post)

    async def _appear(self, place: str, post: Json) -> None:
        self.posts.append(post)
        self.messages.setdefault(place, []).append(post)
        if self.echo_own:  # an app that hears a conversation hears itself in it
            await self.tell({**post, "channel_type": _type(place), "event_ts": post["ts"]})

    def _checked(self, arguments: Json) -> Json:
        text, blocks = arguments.get("text") or "", _loaded(arguments.get("blocks"), "invalid_blocks_format")
        if not text and not blocks:
            raise Refused("no_text")
        if len(text) > MAX_TEXT:
            raise Refused("msg_too_long")
        _check_blocks(blocks)
        message: Json = {
            "type": "message",
            "user": BOT_USER,
            "bot_id": BOT_ID,
            "text": text,
            "blocks": blocks,
        }
        if arguments.get("metadata"):
            message["metadata"] = _checked_metadata(_loaded(arguments["metadata"], "invalid_metadata_format"))
        if arguments.get("thread_ts"):
            message["thread_ts"] = arguments["thread_ts"]
        return message

    def _place(self, arguments: Json, *, member: bool = True) -> str:
        place = arguments.get("channel")
        if not place:
            raise Refused("invalid_arguments")
        if place not in self.messages:
            raise Refused("channel_not_found")
        if member and not str(place).startswith("D") and place not in self.members:
            raise Refused("not_in_channel")
        return str(place)

    # -- files

    async def _take_upload(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        content = await request.read()
        if file is None or len(content) != file.length:
            return web.Response(status=400, text="length")
        file.content = content
        return web.Response(text=f"OK - {len(content)}")

    async def _give_file(self, request: web.Request) -> web.Response:
        fault = self._fault("download")
        if fault is not None:
            return web.Response(status=503)
        file = self.files.get(request.match_info["id"])
        if request.headers.get("Authorization") != f"Bearer {BOT_TOKEN}" or "files" in self.scopes_missing:
            return web.Response(status=302, headers={"Location": f"{self.root}/login"})
        if file is None or file.content is None:
            return web.Response(status=404)
        return web.Response(body=file.content, content_type=file.media_type)

    async def _login(self, _: web.Request) -> web.Response:
        self.calls.append(("login", {}))
        return web.Response(text="<html>Sign in to Slack</html>", content_type="text/html")

    def _host(self, file: File) -> Json:
        stored = Stored(
            f"F{next(self._numbers):08d}", file.name, len(file.content), file.content, file.media_type
        )
        self.files[stored.id] = stored
        url = f"{self.root}/files/{stored.id}/{stored.id}.bin"
        about = {"id": stored.id, "name": file.name, "title": file.name, "mimetype": file.media_type}
        return {
            **about,
            "size": stored.length,
            "mode": "hosted",
            "url_private": url,
            "url_private_download": url,
        }

    # -- hooks

    def hook(
        self,
        payload: Json,
        *,
        form: Literal["event", "interactive", "command"] = "event",
        at: float | None = None,
        secret: str = SIGNING_SECRET,
        retry: int = 0,
    ) -> HookRequest:
        """The HTTP request that Slack would make of this payload."""
        body, kind = json.dumps(payload).encode(), "application/json"
        if form != "event":
            fields = {"payload": json.dumps(payload)} if form == "interactive" else payload
            body, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
        stamp = str(int(at if at is not None else time.time()))
        signature = hmac.new(
            secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256
        ).hexdigest()
        headers = {
            "content-type": kind,
            "x-slack-request-timestamp": stamp,
            "x-slack-signature": f"v0={signature}",
        }
        if retry:
            headers |= {"x-slack-retry-num": str(retry), "x-slack-retry-reason": "http_timeout"}
        return HookRequest(method="POST", path="/hooks/slack", headers=headers, body=body)

    # -- numbers

    def _ts(self) -> str:
        return f"{self._clock}.{next(self._numbers):06d}"

    def _trigger(self) -> str:
        number = next(self._numbers)
        return (
            f"{number}.{self._clock}.{hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()}"
        )


# Methods that read do not read JSON bodies: arguments in one are not seen.
_FORM_ONLY = {
    "conversations.history", "conversations.replies", "conversations.info", "users.info", "files.info",
    "files.getUploadURLExternal",
}  # fmt: skip


async def _arguments(request: web.Request, *, reads_json: bool) -> Json:
    found: Json = dict(request.query)
    if request.content_type == "application/json":
        body = await request.json()
        return {**found, **(body if reads_json else {})}
    return {
        **found,
        **{key: value for key, value in (await request.post()).items() if isinstance(value, str)},
    }


def _bearer(request: web.Request, arguments: Json) -> str:
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ") if header.startswith("Bearer ") else str(arguments.get("token", ""))


def _abort(peer: web.Request | web.WebSocketResponse) -> None:
    """Reset the connection: the peer gets no word of it but the reset."""
    request = peer if isinstance(peer, web.Request) else peer._req
    transport = request.transport if request is not None else None
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        transport.abort()


def _loaded(value: Any, error: str) -> Any:
    """Blocks, files and metadata are JSON, or a string that holds it."""
    try:
        return json.loads(value) if isinstance(value, str) else (value or [])
    except ValueError:
        raise Refused(error) from None


def _check_blocks(blocks: Any) -> None:
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS:
        raise Refused("invalid_blocks")
    for block in blocks:
        if block.get("type") == "section":
            _check(
                0 < len(block["text"]["text"]) <= MAX_SECTION
                and block["text"]["type"] in {"mrkdwn", "plain_text"}
            )
        elif block.get("type") == "actions":
            _check_elements(block["elements"])
        else:
            raise Refused("invalid_blocks")


def _check_elements(elements: list[Json]) -> None:
    ids = [element.get("action_id") for element in elements]
    _check(0 < len(elements) <= MAX_ELEMENTS and len(set(ids)) == len(ids))
    for element in elements:
        _check(element["type"] == "button" and element["text"]["type"] == "plain_text")
        _check(0 < len(element["text"]["text"]) <= MAX_LABEL and len(element.get("value", "")) <= MAX_VALUE)
        _check(element.get("style", "primary") in {"primary", "danger"})


def _check(fits: bool) -> None:
    if not fits:
        raise Refused("invalid_blocks")


def _checked_metadata(metadata: Any) -> Json:
    if (
        not isinstance(metadata, dict)
        or not isinstance(metadata.get("event_payload"), dict)
        or not metadata.get("event_type")
    ):
        raise Refused("invalid_metadata_format")
    return metadata


def _page(messages: list[Json], arguments: Json) -> Json:
    oldest, at = float(arguments.get("oldest", 0)), int(arguments.get("cursor") or 0)
    limit = min(int(arguments.get("limit", 100)), 999)
    found = [message for message in messages if float(message["ts"]) > oldest]
    if str(arguments.get("include_all_metadata", "")).lower() not in {"true", "1"}:
        found = [{key: value for key, value in message.items() if key != "metadata"} for message in found]
    more = at + limit < len(found)
    cursor = {"response_metadata": {"next_cursor": str(at + limit)}} if more else {}
    return {"messages": found[at : at + limit], "has_more": more, **cursor}


def direct(user: str) -> str:
    """The direct conversation with a person."""
    return "D" + user[1:]


def _type(channel: str) -> str:
    return "im" if channel.startswith("D") else "mpim" if channel == GROUP_DM else "channel"


def _name(channel: str) -> str:
    return {"im": "directmessage", "mpim": "mpdm-alice--bob-1", "channel": "general"}[_type(channel)]


# --- for the contract suite ------------------------------------------------------------------------------------------


class Line(AbstractResolver):
    """The way to the fake, which can be down: the name then does not resolve, and nothing leaves this machine."""

    def __init__(self) -> None:
        self.down = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.down:
            self.down -= 1
            raise OSError("no way there")
        where = ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [where]

    async def close(self) -> None:
        """Nothing is held."""

    def session(self, **timeouts: float) -> aiohttp.ClientSession:
        """A client that asks for the way at each request."""
        connector = aiohttp.TCPConnector(resolver=self, use_dns_cache=False, force_close=True)
        return aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(**{"total": 10, **timeouts})
        )


_SENDING = ("chat.postMessage", "chat.postEphemeral", "chat.update", "files.completeUploadExternal")


class SlackDriver:
    """Slack for the contract suite."""

    name: ClassVar[str] = "slack"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self) -> None:
        self.fake = SlackFake()
        self.line = Line()

    async def __aenter__(self) -> Self:
        await self.fake.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fake.__aexit__()

    def connector(self, account: str, **options: Any) -> Slack:
        given = {"bot_token": BOT_TOKEN, "app_token": APP_TOKEN, "signing_secret": SIGNING_SECRET, **options}
        return Slack(account, base_url=self.fake.base_url, session=self.line.session, **given)

    def broken_connector(self, account: str) -> Slack:
        return self.connector(account, bot_token="xoxb-wrong-bot", app_token="xapp-wrong-app")

    def secrets(self) -> tuple[str, ...]:
        return (BOT_TOKEN, APP_TOKEN, SIGNING_SECRET, "xoxb-wrong-bot", "xapp-wrong-app")

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        user = f"U{person.upper()}"
        place = _direct(user) if direct else CHANNEL
        typed = _escaped(text) if direct else f"<@{BOT_USER}> {_escaped(text)}"
        ts = await self.fake.say(typed, user=user, channel=place, thread=thread, files=files)
        return f"{place}:{ts}"

    async def redeliver(self, native_id: str) -> None:
        for envelope in self._of(native_id):
            await self.fake.redeliver(envelope)

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self.fake.posts) >= n, f"{n} messages from us")
        return [self.as_seen(post) for post in self.fake.posts]

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        if how == "unreachable":
            self.line.down += 1
        elif how == "rate_limited":
            self.fake.fail_next("rate_limited", *_SENDING, retry_after=str(retry_after))
        elif how == "unknown":
            self.fake.fail_next("reset", *_SENDING)
        else:
            error = "token_revoked" if how == "auth" else "is_archived"
            self.fake.fail_next("error", *_SENDING, error=error)

    async def cut(self) -> None:
        await self.fake.cut()

    def acknowledged(self, native_id: str) -> bool:
        return any(envelope.acked for envelope in self._of(native_id))

    def _of(self, native_id: str) -> list[Envelope]:
        channel, _, ts = native_id.partition(":")
        return [
            envelope
            for envelope in self.fake.envelopes
            if (envelope.payload.get("event", {}).get("channel"), envelope.payload["event"].get("ts"))
            == (channel, ts)
        ]

    def as_seen(self, post: Json) -> Sent:
        stored = [self.fake.files[entry["id"]] for entry in post.get("files", [])]
        elements = [e for block in post.get("blocks", []) for e in block.get("elements", [])]
        return Sent(
            text=_unescaped(post["text"]),
            thread=post.get("thread_ts"),
            files=tuple(
                File(name=f.title, media_type=f.media_type, content=f.content or b"") for f in stored
            ),
            buttons=tuple(
                Button(label=e["text"]["text"], value=e["value"], style=e.get("style", "default"))
                for e in elements
            ),
            conversation=post["channel"],
            private_to=post.get("user_only"),
        )


_direct = direct


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


DRIVER = SlackDriver
