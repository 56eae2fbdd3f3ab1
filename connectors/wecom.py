"""WeCom (企业微信): a self-built application. WeCom calls our hook, we answer over its API.

People write to the application, each for themselves: an application hears nothing in groups. Answers go to the person;
notices may also go to a group that the application made (`chat:<chatid>`), a department (`party:<id>`), a tag
(`tag:<id>`), or any group with a robot of ours (`robot:<name>`). `_wecom_read` says what is understood, `_wecom_write`
how answers look.

A message's native id is its MsgId, an event's is derived from person, time, kind and key: the same when WeCom sends it
again, as it does, thrice at most, when it had no answer within five seconds. Nothing is fetched for longer than that
leaves: a file that takes too long is left out and named.

A press of a button locks the card for whoever pressed: the answer to WeCom's call says how the button then reads.

Sending twice is not undone by WeCom by any token of ours (its check of duplicates compares contents, and would swallow
a second, meant "done"), and there is no way to look what was sent: a lost answer stays unknown.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import ClassVar
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from connectors._memory import Memory
from connectors._waiting import pause
from connectors._wecom_api import Api, FileTooLarge, Json
from connectors._wecom_crypto import MAX_CIPHER, Envelope
from connectors._wecom_pace import OF_A_ROBOT, TO_A_GROUP, TO_A_PERSON, Pace
from connectors._wecom_read import fields, media_of, parse, pressed
from connectors._wecom_text import MAX_TEXT
from connectors._wecom_write import MAX_BUTTONS, MAX_FILE, Request, render
from parley.errors import AuthError, BadSignature, ConnectorError, Rejected
from parley.messages import MAX_FILE as MAX_TAKEN
from parley.messages import (
    Accept,
    Action,
    Capabilities,
    Connector,
    HookRequest,
    HookResponse,
    Message,
    Receipt,
    Reply,
    Route,
)

__all__ = ["API", "CONNECTOR", "Wecom", "parse", "render"]

API = "https://qyapi.weixin.qq.com/cgi-bin/"

FETCH_WITHIN = 3.0
"""Seconds for a file that comes with a message: of the five that WeCom waits, storing needs its share."""

_MAX_BODY = MAX_CIPHER + 4096
_LIMITS = {"chatid": TO_A_GROUP, "robot": OF_A_ROBOT}
_REMEMBERED = 2000
LONGEST_PAUSE = 60.0

log = logging.getLogger(__name__)


class Wecom(Connector):
    """One self-built application of one company."""

    name: ClassVar[str] = "wecom"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_text=MAX_TEXT,
        text_unit="bytes",
        markup="own",
        max_buttons=MAX_BUTTONS,
        max_file=MAX_FILE,
        hooks=True,
    )

    def __init__(
        self,
        account: str,
        *,
        corp_id: str,
        agent_id: int,
        secret: str,
        token: str,
        encoding_aes_key: str,
        robots: Mapping[str, str] | None = None,
        base_url: str = API,
        fetch_within: float = FETCH_WITHIN,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet. Raises `ConfigurationError`.

        `robots`: the keys of robots in groups, by the names that routes call them. `fetch_within`: seconds for a file
        that comes with a message. `wall` tells seconds since 1970, `clock` those that pass.
        """
        super().__init__(account)
        self._agent_id, self._corp_id, self._wall = agent_id, corp_id, wall
        self._fetch_within = fetch_within
        self._robots = dict(robots or {})
        self._envelope = Envelope(token, encoding_aes_key, corp_id)
        self._api = Api(corp_id, secret, base_url, clock)
        self._pace = Pace(clock)
        self._begun: Memory[str, _Progress] = Memory(_REMEMBERED)

    def __repr__(self) -> str:
        return f"Wecom(account={self.account!r})"

    # -- receiving

    async def listen(self, accept: Accept) -> None:
        """Keep the access token fresh, which proves the credentials; what people say comes by `handle_hook`."""
        failures, proven = 0, False
        while True:
            try:
                if not proven:
                    await self.check()
                wait = await self._api.keep_token()
                proven, failures = True, 0
            except AuthError:
                raise
            except ConnectorError as error:
                log.warning("wecom %s: %s", self.account, error)
                failures += 1
                wait = max(getattr(error, "retry_after", 0.0), pause(failures, longest=LONGEST_PAUSE))
            await asyncio.sleep(wait)

    async def handle_hook(self, request: HookRequest, accept: Accept) -> HookResponse:
        """One call of WeCom: the challenge that proves the address, a message, or an event."""
        query = _query(request.query)
        if request.method == "GET":
            echo = self._opened(query, query.get("echostr", ""))
            return HookResponse(headers={"content-type": "text/plain"}, body=echo)
        if request.method != "POST" or len(request.body) > _MAX_BODY:
            raise BadSignature("WeCom sends no such request.")
        said = fields(self._opened(query, fields(request.body).get("Encrypt", "")))
        if said.get("AgentID", "").strip() not in {"", str(self._agent_id)}:
            log.warning("wecom %s: a message for another application was left alone", self.account)
            return HookResponse()
        event = parse(said, self.account)
        if event is None:
            return HookResponse()
        if isinstance(event, Message):
            event = await self._with_file(event, said)
        await accept(event)
        return self._locked(said, event) if isinstance(event, Action) else HookResponse()

    def _opened(self, query: dict[str, str], cipher: str) -> bytes:
        return self._envelope.open(
            cipher,
            signature=query.get("msg_signature", ""),
            timestamp=query.get("timestamp", ""),
            nonce=query.get("nonce", ""),
            now=self._wall(),
        )

    async def _with_file(self, message: Message, said: dict[str, str]) -> Message:
        media = media_of(said)
        if media is None:
            return message
        try:
            async with asyncio.timeout(self._fetch_within):
                file = await self._api.download(media, MAX_TAKEN)
        except (ConnectorError, TimeoutError) as error:
            # WeCom would not surely send it again if we asked for that: better the message without its file.
            log.warning("wecom %s: a file was left out (%s)", self.account, type(error).__name__)
            why = "too large" if isinstance(error, FileTooLarge) else "could not be fetched"
            return message.model_copy(update={"left_out": (*message.left_out, f"{media.name}: {why}")})
        return message.model_copy(update={"files": (file,)})

    def _locked(self, said: dict[str, str], action: Action) -> HookResponse:
        """Have the card show what was pressed, with a button that can be pressed no more."""
        pressed_label = pressed(said.get("EventKey", "").strip())[1]
        label = "".join(char for char in f"✓ {pressed_label}"[:75] if char.isprintable())
        now, nonce = str(int(self._wall())), secrets.token_hex(8)
        message = (
            f"<xml><ToUserName>{escape(action.sender.id)}</ToUserName>"
            f"<FromUserName>{escape(self._corp_id)}</FromUserName><CreateTime>{now}</CreateTime>"
            "<MsgType>update_button</MsgType>"
            f"<Button><ReplaceName>{escape(label)}</ReplaceName></Button></xml>"
        )
        cipher, signature = self._envelope.close(message.encode(), timestamp=now, nonce=nonce)
        body = (
            f"<xml><Encrypt>{cipher}</Encrypt><MsgSignature>{signature}</MsgSignature>"
            f"<TimeStamp>{now}</TimeStamp><Nonce>{nonce}</Nonce></xml>"
        )
        return HookResponse(headers={"content-type": "application/xml"}, body=body.encode())

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send a reply as the messages that it takes; at another attempt with the same token, those that are left."""
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        requests = render(reply, route, self._agent_id, token)
        key = self._key(requests[0])
        progress = self._progress(token) if token else _Progress()
        for number, request in enumerate(requests):
            if request.file is not None and number not in progress.media:
                progress.media[number] = await self._api.upload(
                    request.file, request.body["msgtype"], key=key
                )
        ((kind, id_),) = requests[0].place.items()
        # For all that is left: a reply of which WeCom drops the end is worse than one that comes later.
        self._pace.take(f"{kind}:{id_}", _LIMITS.get(kind, TO_A_PERSON), len(requests) - len(progress.sent))
        for number, request in enumerate(requests[len(progress.sent) :], start=len(progress.sent)):
            progress.sent.append(await self._send(request, progress.media.get(number, ""), key))
        self._begun.pop(token, None)
        return Receipt(native_ids=tuple(progress.sent))

    async def _send(self, request: Request, media_id: str, key: str) -> str:
        body = request.body
        if media_id:
            body = {**body, body["msgtype"]: {"media_id": media_id}}
        ((kind, id_),) = request.place.items()
        answer = await self._api.post(request.method, body, key=key)
        self._look_for_missing(answer, to_one=kind == "touser")
        card: Json = body.get("template_card", {})
        # In groups WeCom gives messages no ids: there the place is all there is to say.
        return str(card.get("task_id") or answer.get("msgid") or f"{kind}:{id_}")

    def _key(self, request: Request) -> str:
        name = request.place.get("robot")
        if name is None:
            return ""
        if name not in self._robots:
            raise Rejected(f"This account has no robot {name!r}: add its webhook address to the Block.")
        return self._robots[name]

    def _look_for_missing(self, answer: Json, *, to_one: bool) -> None:
        """WeCom says that all is well also where it reached nobody. Raises `Rejected` then."""
        if any(answer.get(key) for key in ("invaliduser", "invalidparty", "invalidtag")):
            raise Rejected("Nobody there is in the application's visible range.")
        if answer.get("unlicenseduser"):
            if to_one:
                raise Rejected(
                    "WeCom wants a licence for this person before an application may write to them."
                )
            log.warning("wecom %s: some did not get a message, WeCom wants licences for them", self.account)

    def _progress(self, token: str) -> _Progress:
        progress = self._begun[token] = self._begun.get(token) or _Progress()
        return progress

    async def check(self) -> None:
        """Have WeCom give a new token for our secret, and say which application that is."""
        self._api.forget_token()
        await self._api.get("agent/get", {"agentid": str(self._agent_id)})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()


class _Progress:
    """What of a reply was uploaded, by the number of the request, and what was sent."""

    def __init__(self) -> None:
        self.media: dict[int, str] = {}
        self.sent: list[str] = []


def _query(raw: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise BadSignature("WeCom sends no such request.") from None
    query = dict(pairs)
    if len(query) != len(pairs):  # which of two would count is anybody's guess
        raise BadSignature("WeCom sends no such request.")
    return query


CONNECTOR = Wecom
