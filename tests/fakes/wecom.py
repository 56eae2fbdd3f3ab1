"""WeCom on this machine: the API of one company with one self-built application, and its calls to our hook.

Strict where WeCom is: tokens, error codes, sizes, what groups do not take, one use of each task id. What it encrypts
and what it reads of our answers goes through wechatpy, which knows nothing of us. `tests/fakes/test_wecom_fake.py`
proves the API by driving it with wechatpy's client.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlencode

import aiohttp
import xmltodict  # type: ignore[import-untyped]
from aiohttp import web
from wechatpy.enterprise.crypto import WeChatCrypto  # type: ignore[import-untyped]

from connectors.wecom import Wecom
from parley.errors import BadSignature, StoreUnavailable
from parley.messages import Accept, Button, File, HookRequest, HookResponse
from tests.fakes._driver import Failure, Sent, eventually

Json = dict[str, Any]

CORP_ID, AGENT_ID = "wx5823bf96d3bd56c7", 1000002
SECRET = "fake-app-secret-9Jk2"
TOKEN = "QDG6eK"
AES_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
CHAT = "opsroom1"
ROBOT_KEY = "693a91f6-7xxx-4bc4-97a0-0ec2sifa5aaa"
PEOPLE = {"alice", "bob", "carol"}

# WeCom's figures.
ANSWER_WITHIN = 5.0
ATTEMPTS = 4  # the first, and three more
MAX_TEXT, MAX_BUTTONS, MAX_KEY = 2048, 6, 1024
SIZES = {"image": 10, "voice": 2, "video": 10, "file": 20}
GROUP_KINDS = {"text", "image", "voice", "video", "file", "textcard", "news", "mpnews", "markdown"}
ROBOT_KINDS = {"text", "markdown", "image", "news", "file", "voice"}
PERSON_KINDS = GROUP_KINDS | {"template_card", "miniprogram_notice"}


class Refused(Exception):
    """The API's answer is this error code."""

    def __init__(self, code: int, **more: Any) -> None:
        super().__init__(str(code))
        self.code, self.more = code, more


@dataclass
class Call:
    """One message or event on its way to the callback address, however often it is sent."""

    native_id: str
    fields: Json
    attempts: int = 0
    answers: list[HookResponse | str] = field(default_factory=list)

    @property
    def acked(self) -> bool:
        """Whether the callback address said 200."""
        return any(isinstance(answer, HookResponse) and answer.status == 200 for answer in self.answers)


@dataclass
class Fault:
    """What happens to the next call of a method that begins so, or to a later one: `after` so many."""

    method: str
    after: int = 0
    code: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drop: bool = False
    hang: bool = False


class WecomFake:
    """One company. `posts` holds what we sent, `calls` what was sent to us, `asked` each call of the API."""

    def __init__(self, retry_after: float = 0.3, callback: str = "") -> None:
        """`retry_after`: seconds between two calls to the callback address, where the first one failed.

        `callback`: the address that is called over HTTP; without it a connector of this process is.
        """
        self.retry_after, self.callback = retry_after, callback
        self.people = set(PEOPLE)
        self.posts: list[Json] = []
        self.calls: list[Call] = []
        self.asked: list[str] = []
        self.faults: deque[Fault] = deque()
        self.media: dict[str, File] = {}
        self.cards: dict[str, Json] = {}
        self.locked: dict[tuple[str, str], str] = {}
        self.invisible: set[str] = set()
        self.unlicensed: set[str] = set()
        self.trusted = True
        self.expires_in: Any = 7200
        self.token = ""
        self.secret = SECRET
        self.crypto = WeChatCrypto(TOKEN, AES_KEY, CORP_ID)
        self.url = ""
        self.released = asyncio.Event()
        self._listeners: dict[int, tuple[Wecom, Accept]] = {}
        self._attached = asyncio.Event()
        if callback:
            self._attached.set()
        self._http: aiohttp.ClientSession | None = None
        self._numbers = itertools.count(7_000_000_001)
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    # -- life

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/cgi-bin/{method:.+}", self._api)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/cgi-bin/"
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def cut(self) -> None:
        """Drop the connections as a network does."""
        assert self._runner is not None
        for connection in list(self._runner.server.connections) if self._runner.server else []:
            if connection.transport is not None:
                connection.transport.abort()

    def fail_next(self, method: str, **how: Any) -> None:
        """Let the next call of a method that begins so fail, once."""
        self.faults.append(Fault(method, **how))

    # -- the callback address

    def attach(self, connector: Wecom, accept: Accept) -> None:
        """The callback address answers from now on, as the hooks' port does while somebody holds the account."""
        self._listeners[id(connector)] = (connector, accept)
        self._attached.set()

    def detach(self, connector: Wecom) -> None:
        """Nobody holds the account any more."""
        self._listeners.pop(id(connector), None)
        if not self._listeners:
            self._attached.clear()

    async def say(self, text: str, *, user: str = "alice") -> Call:
        """A person writes to the application."""
        return self.tell({"FromUserName": user, "MsgType": "text", "Content": text, "MsgId": self._next()})

    async def send_file(self, file: File, *, user: str = "alice") -> Call:
        """A person sends the application a picture, a voice, a video or a file."""
        kind = file.media_type.split("/")[0]
        kind = {"image": "image", "audio": "voice", "video": "video"}.get(kind, "file")
        media_id = self.host(file)
        return self.tell({"FromUserName": user, "MsgType": kind, "MediaId": media_id, "MsgId": self._next()})

    async def press(self, task_id: str, number: int = 0, *, user: str = "alice") -> Call:
        """A person presses a button of a card that we sent; fails when the card is locked for them."""
        assert (task_id, user) not in self.locked, "the button cannot be pressed any more"
        button = self.cards[task_id]["button_list"][number]
        return self.tell(
            {
                "FromUserName": user,
                "MsgType": "event",
                "Event": "template_card_event",
                "EventKey": button["key"],
                "TaskId": task_id,
                "CardType": "button_interaction",
                "ResponseCode": secrets.token_hex(16),
            }
        )

    def tell(self, fields: Json) -> Call:
        """Call the callback address, again where that fails, thrice at most."""
        whole = {
            "ToUserName": CORP_ID,
            "CreateTime": str(int(time.time())),
            "AgentID": str(AGENT_ID),
            **fields,
        }
        call = Call(str(whole.get("MsgId", "")), whole)
        self.calls.append(call)
        self._spawn(call)
        return call

    def redeliver(self, call: Call) -> None:
        """Send the same again, as after five seconds without an answer."""
        self._spawn(call, attempts=1)

    def request(self, fields: Json, at: float | None = None) -> HookRequest:
        """The request that carries this, signed and encrypted."""
        timestamp, nonce = str(int(time.time() if at is None else at)), secrets.token_hex(5)
        sealed = xmltodict.parse(self.crypto.encrypt_message(_xml(fields), nonce, timestamp))["xml"]
        query = {"msg_signature": sealed["MsgSignature"], "timestamp": timestamp, "nonce": nonce}
        body = _xml({"ToUserName": CORP_ID, "AgentID": str(AGENT_ID), "Encrypt": sealed["Encrypt"]})
        return HookRequest(
            method="POST",
            path="/hooks/wecom",
            query=urlencode(query),
            headers={"content-type": "text/xml"},
            body=body.encode(),
        )

    def challenge(self, echo: str, at: float | None = None) -> HookRequest:
        """The request by which WeCom proves a callback address that somebody has just entered."""
        timestamp, nonce = str(int(time.time() if at is None else at)), secrets.token_hex(5)
        sealed = xmltodict.parse(self.crypto.encrypt_message(echo, nonce, timestamp))["xml"]
        query = {"msg_signature": sealed["MsgSignature"], "timestamp": timestamp, "nonce": nonce}
        return HookRequest(
            method="GET",
            path="/hooks/wecom",
            query=urlencode({**query, "echostr": sealed["Encrypt"]}),
            headers={},
        )

    def _spawn(self, call: Call, attempts: int = ATTEMPTS) -> None:
        task = asyncio.create_task(self._deliver(call, attempts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, call: Call, attempts: int) -> None:
        for _ in range(attempts):
            try:
                await asyncio.wait_for(self._attached.wait(), self.retry_after)
            except TimeoutError:
                continue  # the connection is refused
            call.attempts += 1
            call.answers.append(await self._call(call))
            if call.acked:
                return
            await asyncio.sleep(self.retry_after)

    async def _call(self, call: Call) -> HookResponse | str:
        if self.callback:
            return await self._call_over_http(call)
        connector, accept = next(iter(self._listeners.values()))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                response = await connector.handle_hook(self.request(call.fields), accept)
        except TimeoutError:
            return "no answer"
        except StoreUnavailable:
            return "503"
        except BadSignature:
            return "401"
        if response.status == 200 and response.body:
            self._passive(call, response)
        return response

    async def _call_over_http(self, call: Call) -> HookResponse | str:
        assert self._http is not None
        request = self.request(call.fields)
        url = f"{self.callback}?{request.query}"
        try:
            async with self._http.post(url, data=request.body, headers=request.headers) as answer:
                response = HookResponse(status=answer.status, body=await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            return "no answer"
        if response.status == 200 and response.body:
            self._passive(call, response)
        return response

    def _passive(self, call: Call, response: HookResponse) -> None:
        sealed = xmltodict.parse(response.body)["xml"]
        plain = self.crypto.decrypt_message(
            response.body.decode(), sealed["MsgSignature"], sealed["TimeStamp"], sealed["Nonce"]
        )
        said = xmltodict.parse(plain)["xml"]
        assert said["MsgType"] == "update_button"
        assert (said["ToUserName"], said["FromUserName"]) == (call.fields["FromUserName"], CORP_ID)
        self.locked[call.fields["TaskId"], call.fields["FromUserName"]] = said["Button"]["ReplaceName"]

    # -- the API

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.asked.append(method)
        fault = next((fault for fault in self.faults if method.startswith(fault.method)), None)
        if fault is not None and fault.after:
            fault.after -= 1
            fault = None
        if fault is not None:
            self.faults.remove(fault)
            if fault.drop or fault.hang:
                await request.read()
                if fault.hang:
                    await self.released.wait()
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            if fault.status or fault.body is not None:
                return web.Response(status=fault.status or 200, headers=fault.headers, body=fault.body)
        try:
            _require(fault is None, fault.code if fault else 0)
            return await self._answer(request, method)
        except Refused as refusal:
            errmsg = (
                f"no, hint: [1655780276603081499828348], from ip: {request.remote}, more info at https://x"
            )
            return web.json_response({"errcode": refusal.code, "errmsg": errmsg, **refusal.more})

    async def _answer(self, request: web.Request, method: str) -> web.StreamResponse:
        if method == "gettoken":
            return web.json_response(self._get_token(request.query))
        if method.startswith("webhook/"):
            _require(request.query.get("key") == ROBOT_KEY, 93000)
        else:
            self._admit(request.query.get("access_token"))
        match method:
            case "webhook/upload_media":
                _require(request.query.get("type") in {"file", "voice"}, 40005)
                return _ok(**await self._upload(request))
            case "webhook/send":
                return _ok(**self._robot_send(await _body(request)))
            case "agent/get":
                _require(request.query.get("agentid") == str(AGENT_ID), 301002)
                return _ok(agentid=AGENT_ID, name="ops")
            case "media/upload":
                return _ok(**await self._upload(request))
            case "media/get":
                return self._download(request.query.get("media_id", ""))
            case "message/send":
                return _ok(**self._send(await _body(request)))
            case "appchat/send":
                return _ok(**self._chat_send(await _body(request)))
            case _:
                raise Refused(43002)

    def _get_token(self, query: Mapping[str, str]) -> Json:
        _require("corpid" in query, 41002)
        _require("corpsecret" in query, 41004)
        _require(query["corpid"] == CORP_ID, 40013)
        _require(query["corpsecret"] == self.secret, 40001)
        self.token = self.token or secrets.token_urlsafe(64)
        return {"errcode": 0, "errmsg": "ok", "access_token": self.token, "expires_in": self.expires_in}

    def _admit(self, token: str | None) -> None:
        _require(bool(token), 41001)
        _require(token == self.token, 40014)
        _require(self.trusted, 60020)

    async def _upload(self, request: web.Request) -> Json:
        kind = request.query.get("type", "")
        _require(kind in SIZES, 40005)
        form = await request.post()
        media = form.get("media")
        _require(isinstance(media, web.FileField), 41005)
        assert isinstance(media, web.FileField)
        content = media.file.read()
        _require(5 < len(content) <= SIZES[kind] * 1024 * 1024, 40006)
        _require(kind != "image" or content.startswith((b"\x89PNG", b"\xff\xd8\xff")), 40004)
        file = File(name=media.filename, media_type=media.content_type, content=content)
        return {"type": kind, "media_id": self.host(file), "created_at": str(int(time.time()))}

    def host(self, file: File) -> str:
        """A media id under which WeCom has this file."""
        media_id = f"MEDIA{next(self._numbers)}"
        self.media[media_id] = file
        return media_id

    def _download(self, media_id: str) -> web.Response:
        file = self.media.get(media_id)
        if file is None:
            raise Refused(40007)
        disposition = f"attachment; filename=\"{quote(file.name)}\"; filename*=UTF-8''{quote(file.name)}"
        headers = {"Content-Disposition": disposition, "Content-Type": file.media_type}
        return web.Response(body=file.content, headers=headers)

    def _send(self, body: Json) -> Json:
        _require(body.get("agentid") == AGENT_ID, 301002)
        _require(body.get("msgtype") in PERSON_KINDS, 40008)
        people = {name.lower() for name in str(body.get("touser", "")).split("|") if name}
        reached = {name for name in people if name in self.people} - self.invisible
        if people and not reached:
            raise Refused(81013, invaliduser="|".join(sorted(people)))
        _require(bool(people or body.get("toparty") or body.get("totag")), 40058)
        self._check(body)
        self.posts.append(body)
        answer: Json = {
            "msgid": f"msg-{next(self._numbers)}",
            "invaliduser": "|".join(sorted(people - reached)),
        }
        answer["unlicenseduser"] = "|".join(sorted(people & self.unlicensed))
        if body["msgtype"] == "template_card":
            self.cards[body["template_card"]["task_id"]] = body["template_card"]
            answer["response_code"] = secrets.token_hex(16)
        return answer

    def _chat_send(self, body: Json) -> Json:
        _require(body.get("chatid") == CHAT, 86001)
        _require(body.get("msgtype") in GROUP_KINDS, 40008)
        self._check(body)
        self.posts.append(body)
        return {}

    def _robot_send(self, body: Json) -> Json:
        _require(body.get("msgtype") in ROBOT_KINDS, 40008)
        self._check(body)
        self.posts.append(body)
        return {}

    def _check(self, body: Json) -> None:
        kind = body["msgtype"]
        content = body.get(kind) or {}
        _require(isinstance(content, dict), 40058)
        if kind in {"text", "markdown"}:
            _require(bool(content.get("content", "").strip()), 44004)
            _require(kind == "text" or len(content["content"].encode()) <= MAX_TEXT, 45002)
            cut = content["content"].encode()[:MAX_TEXT].decode("utf-8", "ignore")
            body[kind] = {"content": cut}
        elif kind in {"image", "voice", "video", "file"}:
            _require(content.get("media_id") in self.media, 40007)
        elif kind == "template_card":
            self._check_card(content)

    def _check_card(self, card: Json) -> None:
        _require(card.get("card_type") == "button_interaction", 42045)
        _require(bool(card.get("main_title", {}).get("title")), 42045)
        buttons = card.get("button_list") or []
        keys = [button.get("key", "") for button in buttons]
        _require(0 < len(buttons) <= MAX_BUTTONS and len(set(keys)) == len(keys), 42045)
        _require(all(0 < len(key.encode()) <= MAX_KEY for key in keys), 42045)
        _require(all(button.get("text") for button in buttons), 42045)
        _require(bool(re.fullmatch(r"[0-9A-Za-z_\-@]{1,128}", card.get("task_id", ""))), 42045)
        _require(card["task_id"] not in self.cards, 42044)

    def _next(self) -> str:
        return str(next(self._numbers))


async def _body(request: web.Request) -> Json:
    raw = (await request.read()).decode()
    _require("\\u" not in raw, 40033)
    try:
        body = json.loads(raw)
    except ValueError:
        raise Refused(47001) from None
    _require(isinstance(body, dict), 47001)
    return dict(body)


def _ok(**more: Any) -> web.Response:
    return web.json_response({"errcode": 0, "errmsg": "ok", **more})


def _require(true: bool, code: int) -> None:
    if not true:
        raise Refused(code)


def _xml(fields: Json) -> str:
    return "<xml>" + "".join(f"<{tag}>{_cdata(str(text))}</{tag}>" for tag, text in fields.items()) + "</xml>"


def _cdata(text: str) -> str:
    return "<![CDATA[" + text.replace("]]>", "]]]]><![CDATA[>") + "]]>"


class Held(Wecom):
    """A connector whose account somebody holds while it listens: then its hook is reached, as in the real house."""

    fake: WecomFake

    async def listen(self, accept: Accept) -> None:
        self.fake.attach(self, accept)
        try:
            await super().listen(accept)
        finally:
            self.fake.detach(self)


class WecomDriver:
    """What the contract suite asks of a platform.

    An application hears people one by one: what the suite says where others read it too is said to it alone here.
    A text with files is several messages on WeCom; `sent` counts files to the text before them.
    """

    name: ClassVar[str] = "wecom"
    cannot_fail: ClassVar[Mapping[Failure, str]] = {}

    def __init__(self) -> None:
        self.fake = WecomFake()

    async def __aenter__(self) -> Self:
        await self.fake.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.fake.__aexit__(*error)

    def connector(self, account: str, **more: Any) -> Wecom:
        given: Json = {"secret": SECRET, "token": TOKEN, "encoding_aes_key": AES_KEY, **more}
        made = Held(account, corp_id=CORP_ID, agent_id=AGENT_ID, base_url=self.fake.url, **given)
        made.fake = self.fake
        return made

    def broken_connector(self, account: str) -> Wecom:
        return self.connector(account, secret="wrong-app-secret-77")

    def secrets(self) -> tuple[str, ...]:
        tokens = (self.fake.token,) if self.fake.token else ()
        return (SECRET, TOKEN, AES_KEY, "wrong-app-secret-77", *tokens)

    async def person_says(
        self,
        text: str,
        *,
        person: str = "alice",
        thread: str | None = None,
        files: tuple[File, ...] = (),
        direct: bool = True,
    ) -> str:
        call = await self.fake.say(text, user=person)
        for file in files:
            await self.fake.send_file(file, user=person)
        return call.native_id

    async def redeliver(self, native_id: str) -> None:
        self.fake.redeliver(self._call(native_id))

    async def sent(self, n: int) -> list[Sent]:
        await eventually(lambda: len(self._seen()) >= n, f"{n} messages, there are {len(self._seen())}")
        return self._seen()

    def refuse_next(self, how: Failure, retry_after: float | str = 1) -> None:
        match how:
            case "rate_limited":  # WeCom's own code says no time; a gateway before it does
                self.fake.fail_next("message/send", status=429, headers={"Retry-After": str(retry_after)})
            case "unreachable":
                self.fake.fail_next("message/send", code=-1)
            case "unknown":
                self.fake.fail_next("message/send", drop=True)
            case "auth":
                self.fake.fail_next("message/send", code=42001)
                self.fake.fail_next("gettoken", code=40001)
            case "rejected":
                self.fake.fail_next("message/send", code=81013)

    async def cut(self) -> None:
        await self.fake.cut()

    def acknowledged(self, native_id: str) -> bool:
        return self._call(native_id).acked

    def _call(self, native_id: str) -> Call:
        return next(call for call in self.fake.calls if call.native_id == native_id)

    def _seen(self) -> list[Sent]:
        seen: list[Sent] = []
        for post in self.fake.posts:
            file = self.fake.media.get(post.get(post["msgtype"], {}).get("media_id", ""))
            if file is not None and seen:
                before = seen.pop()
                seen.append(Sent(**{**vars(before), "files": (*before.files, file)}))
            else:
                seen.append(_seen(post, file))
        return seen


def _seen(post: Json, file: File | None) -> Sent:
    place = post.get("touser") or post.get("chatid") or post.get("toparty") or post.get("totag") or ""
    if post["msgtype"] == "template_card":
        card = post["template_card"]
        text = "\n".join(part for part in (card["main_title"]["title"], card.get("sub_title_text")) if part)
        return Sent(text=text, buttons=tuple(map(_button, card["button_list"])), conversation=place)
    text = post.get(post["msgtype"], {}).get("content", "")
    return Sent(text=text, files=(file,) if file else (), conversation=place)


def _button(button: Json) -> Button:
    # What comes back when it is pressed is tried in tests/connectors; here the key is read as its page says.
    length, _, rest = button["key"].removeprefix("p").partition(":")
    return Button(label=button["text"], value=rest[: int(length)])


DRIVER = WecomDriver
