"""WeCom's commands over a connection: subscribe, ping, ask; and what its frames are."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

from connectors._json import Json, loaded, object_of, text_of
from connectors._websocket_line import Line, Raw
from connectors._wecom_bot_read import CALLBACK, EVENT_CALLBACK, event_type, req_id_of
from connectors._wecom_bot_write import raise_for_subscription
from parley.errors import Superseded, Unknown, Unreachable

# As in the vendor's SDKs: a ping each 30 s, two unanswered ones end a connection.
HEARTBEAT = 30.0
MISSED = 2
ANSWER_WITHIN = 10.0  # the SDKs give up after 5 s; measured: 0.5 s


def sort(raw: Raw) -> tuple[str | None, Any]:
    """What has a command is new, all else answers a request of ours. Raises `Superseded`."""
    frame = loaded(raw)
    if event_type(frame) == "disconnected_event":
        raise Superseded(
            "another process holds this bot: its newer connection took the place of ours. "
            "Stop one of the two; a bot has one connection."
        )
    if text_of(frame.get("cmd")) in {CALLBACK, EVENT_CALLBACK} and object_of(frame.get("body")):
        return None, frame
    return req_id_of(frame) or None, frame or None


async def ask(
    line: Line, cmd: str, body: dict[str, Any] | None, *, req_id: str = "", within: float = ANSWER_WITHIN
) -> Json:
    """Send a command and return the frame that answers it. Raises `Unreachable` and `Unknown`."""
    key = req_id or f"{cmd}_{int(time.time() * 1000)}_{uuid4().hex[:8]}"
    frame: dict[str, Any] = {"cmd": cmd, "headers": {"req_id": key}}
    if body is not None:
        frame["body"] = body
    answer: Json = await line.ask(key, json.dumps(frame), within)
    return answer


async def subscribe(line: Line, bot_id: str, secret: str) -> None:
    """Log in. Raises `AuthError`, `RateLimited`, `Unreachable`."""
    try:
        answer = await ask(line, "aibot_subscribe", {"bot_id": bot_id, "secret": secret})
    except Unknown:
        raise Unreachable("WeCom does not answer our subscription.") from None
    if answer.get("errcode") != 0:
        raise_for_subscription(answer.get("errcode"))


async def beat(line: Line, every: float) -> None:
    """Ping each `every` seconds. Raises `Unreachable` when two pings stay without an answer."""
    missed = 0
    while missed < MISSED:
        if not missed:
            await asyncio.sleep(every)
        try:
            await ask(line, "ping", None, within=every)
            missed = 0
        except Unknown:
            missed += 1
    raise Unreachable("WeCom answers no ping: the connection is dead.")
