"""How long a body may take: who dribbles is cut off, a large one over a slow line is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from fastapi import Request

from parley.web.limits import BODY_PACE, BODY_SECONDS, FILES_BODY, body_of
from parley.web.problems import Problem

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


def request(piece: bytes, count: int, every: float) -> Request:
    """A request whose body comes in so many pieces, one each so many seconds."""
    left = [count]

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(every)
        left[0] -= 1
        return {"type": "http.request", "body": piece, "more_body": left[0] > 0}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def test_no_body_may_take_longer_than_half_a_minute_without_being_large() -> None:
    assert BODY_SECONDS == 30
    assert FILES_BODY / BODY_PACE < 90


async def test_who_dribbles_is_cut_off() -> None:
    began = time.monotonic()
    with pytest.raises(Problem) as raised:
        await body_of(request(b"x", 10_000, 0.01), 100_000, seconds=0.3)
    assert raised.value.status == 408
    assert time.monotonic() - began < 5


async def test_what_keeps_coming_is_taken() -> None:
    piece = b"x" * (BODY_PACE // 4)
    body = await body_of(request(piece, 8, 0.1), FILES_BODY, seconds=0.2)
    assert body == piece * 8
