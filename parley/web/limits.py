"""Limits: how much one request may hold, how long it may take to arrive, how many a second one principal may send."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from parley.messages.buckets import MOST_KEYS, Buckets
from parley.web.problems import Problem

TEXT_BODY = 1024 * 1024
"""Most bytes of a request that carries no files."""

HOOK_BODY = 5 * 1024 * 1024
"""Most bytes of a call on the hooks' port: a push of thousands of commits is larger than a text."""

FILES_BODY = 36 * 1024 * 1024
"""Most bytes of a request with files: one of the largest, as base64, and room for the rest."""

BODY_SECONDS = 30.0
"""A body has to arrive within this time, and a second more for each `BODY_PACE` of it that has come: files over a slow
line may take longer, who dribbles may not."""

BODY_PACE = 512 * 1024
"""Bytes a second that keep a large body going."""

MOST_DISCARDED = 16 * 1024 * 1024
DISCARD_SECONDS = 5.0
"""How much, and how long, of a body that is too long is let in to be thrown away."""

LARGE_AT_ONCE = 4
"""Most bodies above `TEXT_BODY` that are in memory at the same time."""


async def body_of(request: Request, limit: int, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body. Raises `Problem`: 413 when it is too long, 408 when it does not arrive in time."""
    until = asyncio.get_running_loop().time() + seconds
    try:
        async with asyncio.timeout_at(until) as patience:
            return await _read(request, limit, lambda size: patience.reschedule(until + size / BODY_PACE))
    except TimeoutError:
        headers = {"connection": "close"}
        raise Problem(408, f"The request did not arrive within {seconds:g} s.", headers=headers) from None
    except ClientDisconnect:
        raise Problem(400, "The connection closed before the request was complete.") from None


async def _read(request: Request, limit: int, came: Callable[[int], None]) -> bytes:
    if (declared_length(request) or 0) > limit:
        raise await _refused(request, limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise await _refused(request, limit)
        came(len(body))
    return bytes(body)


async def _refused(request: Request, limit: int) -> Problem:
    # An answer given while the other side still sends is lost with the connection: let it come to its end, up to a
    # point, and keep none of it.
    left = MOST_DISCARDED
    with suppress(TimeoutError, RuntimeError, ClientDisconnect):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    headers = {"connection": "close"}
    return Problem(413, f"A request here may hold {limit:,} bytes at most.", headers=headers)


def declared_length(request: Request) -> int | None:
    """What the request says of its length."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None


class LargeBodies:
    """Room for a few large requests at once; others wait for theirs."""

    def __init__(self, most: int = LARGE_AT_ONCE) -> None:
        self._room = asyncio.Semaphore(most)

    @asynccontextmanager
    async def room(self, request: Request) -> AsyncIterator[None]:
        """Wait for room if this request says that it is large, or does not say how large it is."""
        declared = declared_length(request)
        if declared is not None and declared <= TEXT_BODY:
            yield
            return
        async with self._room:
            yield


class Rate:
    """Requests of each key: `per_second` in the long run, `burst` at once."""

    def __init__(
        self,
        per_second: float = 300,
        burst: float = 600,
        *,
        clock: Callable[[], float] = time.monotonic,
        most_keys: int = MOST_KEYS,
    ) -> None:
        self._per_second = per_second
        self._buckets = Buckets(per_second, burst, clock=clock, most_keys=most_keys)

    def take(self, key: str) -> None:
        """Count one request. Raises `Problem` 429 with Retry-After when there were too many."""
        if wait := self._buckets.take(key):
            raise Problem(
                429,
                f"More than {self._per_second:g} requests a second: wait a moment.",
                kind="rate-limited",
                headers={"retry-after": str(max(1, math.ceil(wait)))},
            )
