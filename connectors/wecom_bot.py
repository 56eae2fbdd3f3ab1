"""WeCom's intelligent robot (智能机器人) over its long connection: a WebSocket that we open, no public address needed.

A bot has one connection. When another process opens one for the same bot, WeCom tells us (`disconnected_event`) and
closes ours: that is `Superseded`, and nothing here opens a connection again until somebody decides to listen anew.
Two processes that fight for one bot throw each other out for ever, and each loses messages.

WeCom knows no acknowledgement: every message is said once, to the connection there is. So what the store cannot take
is kept here and offered again until it can; what people write while nobody is connected may be lost.

An answer goes out as a response to the message where that still works: the id of the request belongs to the
connection that it came over. Where WeCom has forgotten it, and always after a button, the answer is pushed into the
conversation instead. Which of the two it was people do not see. WeCom names no message ids: a receipt holds ours.

In a group only messages that mention the bot reach us; files come from direct conversations, or quoted by a message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from connectors import _wecom_bot_media as media
from connectors._json import Json
from connectors._memory import Memory
from connectors._websocket_line import Line, dial
from connectors._websocket_shared import SharedLine
from connectors._wecom_bot_read import card_event, event_type, media_of, parse, req_id_of, user_of
from connectors._wecom_bot_wire import HEARTBEAT, ask, beat, sort, subscribe
from connectors._wecom_bot_write import (
    MAX_BUTTONS,
    MAX_FILE,
    STALE,
    as_response,
    media_type,
    pressed,
    raise_for,
    render,
)
from parley.errors import ConnectorError, Rejected, Superseded, Unknown, Unreachable
from parley.messages import Accept, Action, Capabilities, Connector, Message, Receipt, Reply, Route

if TYPE_CHECKING:
    import ssl

    import httpx

__all__ = ["CONNECTOR", "URL", "WecomBot", "parse", "render"]

URL = "wss://openws.work.weixin.qq.com"

EVENT_WITHIN = 5.0  # a welcome or a card's update is refused later than this after its event
MAX_FRAME = 4 * 1024 * 1024
REMEMBERED = 1000  # cards, deliveries

_STALE: Json = {"errcode": min(STALE)}

log = logging.getLogger(__name__)


class WecomBot(Connector):
    """One intelligent robot of one company."""

    name: ClassVar[str] = "wecom_bot"
    capabilities: ClassVar[Capabilities] = Capabilities(
        # WeCom takes 20,480 bytes; what takes the sting out of a mention needs some of them.
        max_text=20_000,
        text_unit="bytes",
        markup="markdown",
        max_buttons=MAX_BUTTONS,
        max_file=MAX_FILE,
    )

    def __init__(
        self,
        account: str,
        *,
        bot_id: str,
        secret: str,
        bot_name: str = "",
        welcome: str = "",
        url: str = URL,
        ssl_context: ssl.SSLContext | None = None,
        heartbeat: float = HEARTBEAT,
    ) -> None:
        """Open nothing yet. `ssl_context` is for servers with a certificate of their own; None trusts the system's."""
        super().__init__(account)
        self._bot_id, self._secret, self._url = bot_id, secret, url
        self._bot_name, self._welcome = bot_name, welcome
        self._ssl, self._heartbeat = ssl_context, heartbeat
        self._line = SharedLine(self._open)
        self._http: httpx.AsyncClient | None = None
        self._turns: OrderedDict[str, asyncio.Lock] = OrderedDict()
        self._cards: Memory[str, dict[str, Any]] = Memory(REMEMBERED)
        self._sent: Memory[str, list[str]] = Memory(REMEMBERED)
        self._unanswered: Memory[str, bool] = Memory(REMEMBERED)

    def __repr__(self) -> str:
        return f"WecomBot(account={self.account!r})"

    # -- the connection

    async def _open(self) -> Line:
        """Connect and subscribe. Raises `AuthError`, `RateLimited`, `Unreachable`."""
        socket = await dial(self._url, max_frame=MAX_FRAME, ssl=self._ssl, pings=None)
        line = Line(socket, sort)
        try:
            await subscribe(line, self._bot_id, self._secret)
        except BaseException:
            await line.close()
            raise
        line.attach(beat(line, self._heartbeat))
        return line

    # -- receiving

    async def listen(self, accept: Accept) -> None:
        """Receive until cancelled. Raises `AuthError`, and `Superseded` when another process holds this bot."""
        await self._line.listen(
            f"wecom_bot {self.account}", lambda line, frame: self._take(line, frame, accept)
        )

    async def _take(self, line: Line, frame: Json, accept: Accept) -> None:
        came = time.monotonic()
        if event_type(frame) == "enter_chat" and self._welcome:
            body = {"msgtype": "text", "text": {"content": self._welcome}}
            await self._respond_in_time(line, "aibot_respond_welcome_msg", frame, body, came)
        event = parse(frame, self.account, bot_name=self._bot_name)
        if isinstance(event, Message) and media_of(frame):
            files, left_out = await self._files(frame)
            event = parse(frame, self.account, bot_name=self._bot_name, files=files, left_out=left_out)
        if event is None:
            return
        await self._line.store(accept, event)
        if isinstance(event, Action):
            await self._show_pressed(line, frame, came)

    async def _files(self, frame: Json) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        files, left_out = [], []
        if self._http is None:
            self._http = media.client(self._ssl)
        for found in media_of(frame):
            try:
                async with asyncio.timeout(media.WITHIN):
                    files.append(await media.fetch(self._http, found))
            except TimeoutError:
                left_out.append(f"{found.name or found.kind}: it took too long")
            except media.NotToBeHad as error:
                left_out.append(f"{found.name or found.kind}: {error}")
        return tuple(files), tuple(left_out)

    async def _show_pressed(self, line: Line, frame: Json, came: float) -> None:
        """Show who pressed a button that it was pressed; the others in a group keep theirs."""
        task, key = card_event(frame)
        card = self._cards.get(task)
        shown = pressed(card, key) if card else None
        if shown is not None:
            body = {
                "response_type": "update_template_card",
                "userids": [user_of(frame)],
                "template_card": shown,
            }
            await self._respond_in_time(line, "aibot_respond_update_msg", frame, body, came)

    async def _respond_in_time(
        self, line: Line, cmd: str, frame: Json, body: dict[str, Any], came: float
    ) -> None:
        """Answer an event; it is a courtesy, and refused when it is late."""
        left = EVENT_WITHIN - (time.monotonic() - came)
        if left <= 0:
            return
        try:
            answer = await ask(line, cmd, body, req_id=req_id_of(frame), within=left)
        except ConnectorError as error:
            log.info("wecom_bot %s: %s was not taken: %s", self.account, cmd, error)
        else:
            if answer.get("errcode") != 0:
                log.info("wecom_bot %s: %s was refused: %s", self.account, cmd, answer.get("errcode"))

    # -- sending

    async def send_message(self, reply: Reply, route: Route, *, token: str = "") -> Receipt:
        """Send a text, then its card, then its files. What of them went out stays sent when the rest is tried again."""
        if route.account != self.account:
            raise Rejected("This answer belongs to another account.")
        bodies = render(reply, route)
        sent = self._progress(token)
        for body in bodies[len(sent) :]:
            sent.append(await self._send(body, route))
        for file in reply.files[max(0, len(sent) - len(bodies)) :]:
            kind = media_type(file)
            media_id = await media.upload(file, kind, self._upload_step)
            sent.append(await self._send({"msgtype": kind, kind: {"media_id": media_id}}, route))
        self._sent.pop(token, None)
        return Receipt(native_ids=tuple(sent))

    def _progress(self, token: str) -> list[str]:
        sent = self._sent.get(token, []) if token else []
        if token:
            self._sent[token] = sent
        return sent

    async def _send(self, body: dict[str, Any], route: Route) -> str:
        line = await self._connected()
        req_id = route.context.get("req_id", "")
        stream_id = f"parley-{uuid4().hex}"
        answer = _STALE
        if req_id:
            # Answers carry the request's id and nothing else: one at a time for each.
            async with self._turn(req_id):
                answer = await self._respond(line, req_id, as_response(body, stream_id))
        if answer.get("errcode") in STALE:
            answer = await ask(line, "aibot_send_msg", {"chatid": route.conversation, **body})
        if answer.get("errcode") != 0:
            self._refused(line, answer, "a message")
        card = body.get("template_card")
        if card is None:
            return stream_id
        task = str(card["task_id"])
        self._cards[task] = card
        return task

    async def _respond(self, line: Line, req_id: str, body: dict[str, Any]) -> Json:
        if req_id in self._unanswered:
            return _STALE
        try:
            return await ask(line, "aibot_respond_msg", body, req_id=req_id)
        except Unknown:
            # Its answer may still come, and would be taken for the next one's.
            self._unanswered[req_id] = True
            raise

    async def _upload_step(self, cmd: str, body: dict[str, Any]) -> Any:
        line = await self._connected()
        try:
            answer = await ask(line, cmd, body)
            if answer.get("errcode") != 0:
                self._refused(line, answer, "a file")
        except Unknown as error:  # nobody has seen anything yet
            raise Unreachable(str(error)) from None
        return answer.get("body")

    def _refused(self, line: Line, answer: Json, what: str) -> None:
        try:
            raise_for(answer.get("errcode"), what)
        except Unreachable as error:
            line.end(error)
            raise

    async def _connected(self) -> Line:
        try:
            return await self._line.get()
        except Superseded as error:
            raise Unreachable(str(error)) from None

    def _turn(self, req_id: str) -> asyncio.Lock:
        turn = self._turns.setdefault(req_id, asyncio.Lock())
        self._turns.move_to_end(req_id)
        if len(self._turns) > REMEMBERED:
            idle = next((key for key, lock in self._turns.items() if not lock.locked()), None)
            self._turns.pop(idle or "", None)
        return turn

    # -- credentials and closing

    async def check(self) -> None:
        """Prove the credentials by subscribing, the connection by a ping. The connection stays, for `listen`."""
        line = await self._line.get()
        try:
            await ask(line, "ping", None)
        except Unknown as error:
            line.end(Unreachable("WeCom answers no ping."))
            raise Unreachable(str(error)) from None

    async def aclose(self) -> None:
        """Close the connection; may be called twice."""
        await self._line.close()
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


CONNECTOR = WecomBot
