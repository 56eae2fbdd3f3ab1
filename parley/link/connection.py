"""One open connection of the link: JSON frames over a WebSocket, calls in both directions.

A frame is `{"id", "call", "args"}`, `{"id", "result"}` or `{"id", "error": {"type", "message", "retry_after"}}`.
Errors of `parley.errors` arrive as the same class; any other is logged where it happened and arrives as `LinkError`
without its text.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from websockets.asyncio.connection import Connection as WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

import parley.errors
from parley.errors import LinkError, ParleyError, RateLimited, TooLarge

logger = logging.getLogger(__name__)

MAX_FRAME = 160 * 1024 * 1024
"""Largest frame, in bytes: a message with its files as base64."""

UNPROVEN_FRAME = 64 * 1024
"""Largest frame of who has not proven yet whose process it is: room for a hello, and for most calls of a run."""

Handler = Callable[[dict[str, Any]], Awaitable[Any]]
"""Answers one call: arguments as a JSON object in, a model or JSON value out."""


class Disconnected(LinkError):
    """The connection closed before the answer came; the call may or may not have been carried out."""


class Connection:
    """Both ends are the same: `call` the other side, answer its calls with `handlers`."""

    def __init__(self, socket: WebSocket, handlers: Mapping[str, Handler]) -> None:
        self._socket = socket
        self._handlers = handlers
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self.is_proven: bool = False
        """Whether the other side knows whose process this is, and takes frames of any size."""

    async def run(self) -> None:
        """Read frames until the connection closes; then fail what waits and end what is being answered."""
        try:
            async for raw in self._socket:
                frame = _frame_in(raw)
                if frame is None:
                    await self._socket.close(CloseCode.POLICY_VIOLATION, "this is no frame of the link")
                    break
                self._take(frame)
        except ConnectionClosed:
            pass
        finally:
            self._fail_waiting()
            await self._end_answering()

    async def call(
        self, name: str, args: BaseModel | Mapping[str, Any] | None = None, *, timeout: float | None = 30
    ) -> Any:
        """Call the other side. Raises its error, `Disconnected`, or `TimeoutError` after `timeout` seconds."""
        number = next(self._ids)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"id": number, "call": name, "args": args or {}})
            # `wait_for` forgets that it was cancelled when the answer comes in the same moment (Python 3.11).
            async with asyncio.timeout(timeout):
                return await waiting
        finally:
            self._waiting.pop(number, None)

    @property
    def latency(self) -> float:
        """Seconds that the last ping took there and back; 0 before the first."""
        return self._socket.latency

    async def close(self) -> None:
        """Close; `run` returns on both sides."""
        await self._socket.close()

    def _take(self, frame: dict[str, Any]) -> None:
        if "call" in frame:
            task = asyncio.create_task(self._answer(frame))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        waiting = self._waiting.get(frame["id"])
        if waiting is None or waiting.done():
            return
        if "error" in frame:
            waiting.set_exception(_error(frame["error"]))
        else:
            waiting.set_result(frame.get("result"))

    async def _answer(self, frame: dict[str, Any]) -> None:
        number, name = frame["id"], frame["call"]
        try:
            result = await self._handle(name, frame.get("args") or {})
            await self._send({"id": number, "result": result})
        except (ConnectionClosed, Disconnected):
            pass
        except ParleyError as error:
            await self._send_error(number, error)
        except ValidationError as error:
            await self._send_error(
                number, LinkError(f"the call {name!r} has wrong arguments: {error.error_count()} errors")
            )
            logger.warning("call %s had wrong arguments: %s", name, error.errors(include_input=False))
        except Exception:
            logger.exception("call %s failed", name)
            await self._send_error(
                number, LinkError(f"the call {name!r} failed on the other side; its log says why")
            )

    async def _handle(self, name: str, args: dict[str, Any]) -> Any:
        handler = self._handlers.get(name)
        if handler is None:
            raise LinkError(f"there is no call {name!r} here")
        return await handler(args)

    async def _send(self, frame: dict[str, Any]) -> None:
        body = to_json(frame, bytes_mode="base64")
        if len(body) > MAX_FRAME:
            # The other side would close the connection on everybody, and a repeated call would do so again.
            raise TooLarge(
                f"this is too large to be handed on: {len(body) >> 20} MB, at most {MAX_FRAME >> 20} MB with all files."
            )
        try:
            await self._socket.send(body.decode())
        except ConnectionClosed as error:
            raise Disconnected("the connection is closed") from error

    async def _send_error(self, number: int, error: ParleyError) -> None:
        body = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, RateLimited):
            body["retry_after"] = str(error.retry_after)
        with suppress(Disconnected):
            await self._send({"id": number, "error": body})

    def _fail_waiting(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Disconnected("the connection closed before the answer came"))

    async def _end_answering(self) -> None:
        for task in list(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


def _frame_in(raw: str | bytes) -> dict[str, Any] | None:
    """The frame in what came; None where it is none: who sends that is no process of ours, or not of this version."""
    try:
        frame = from_json(raw)
    except ValueError:
        return None
    if not isinstance(frame, dict) or type(frame.get("id")) is not int:
        return None
    if "call" in frame:
        return frame if isinstance(frame["call"], str) and isinstance(frame.get("args") or {}, dict) else None
    return frame if isinstance(frame.get("error", {}), dict) else None


def _error(body: Mapping[str, Any]) -> ParleyError:
    kind = getattr(parley.errors, str(body.get("type", "")), LinkError)
    if not (isinstance(kind, type) and issubclass(kind, ParleyError)):
        kind = LinkError
    message = str(body.get("message", ""))
    if issubclass(kind, RateLimited):
        return kind(message, _seconds(body.get("retry_after", 1)))
    return kind(message)


def _seconds(said: Any) -> float:
    try:
        seconds = float(said)
    except (TypeError, ValueError):
        return 1.0
    return seconds if math.isfinite(seconds) else 1.0
