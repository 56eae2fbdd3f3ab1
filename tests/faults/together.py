"""An automation that answers several requests in one flow run, and people who ask for it all at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from prefect import flow

from parley import automation
from tests.faults.crowd import QUIET_SECONDS
from tests.faults.history import History, violations
from tests.faults.load import People, crowding
from tests.stack import Stack

AT_ONCE, LOOKS = 16, 3.0
"""So many people ask at the same moment for what takes so many seconds: twice as many as there are children, so that
some wait, also on a machine on which they arrive one after the other."""

ANSWERED: Final = 30.0
"""Seconds that they give it before they ask again: what was handed over before a hub's end goes on one by one."""


@automation(command="peek", summary="Look together with others.", effect="read", batch=5)
@flow
async def peek(key: str) -> str:
    await asyncio.sleep(LOOKS)
    return key


@asynccontextmanager
async def asking(
    stack: Stack, prefix: str, goes_on: Callable[[], bool], *, patience: float
) -> AsyncIterator[None]:
    """People ask within the block for as long as it goes on; afterwards each has one answer, the right one.

    Raises AssertionError.
    """
    history = History()
    with (
        People(stack, history, patience=patience, wait=2.0) as people,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        going = asyncio.create_task(_ask(people, threads, prefix, goes_on))
        try:
            yield
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        threads.shutdown()
        await asyncio.to_thread(people.outcomes, QUIET_SECONDS * crowding())
    history.effects = [one.key for one in history.sent]  # it has none: answers alone are counted
    assert violations(history, unanswered=frozenset()) == []


async def _ask(people: People, threads: ThreadPoolExecutor, prefix: str, goes_on: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    for number in itertools.count():
        if not goes_on():
            return
        keys = [f"{prefix}-{number}-{place}" for place in range(AT_ONCE)]
        sent = await asyncio.gather(
            *(loop.run_in_executor(threads, people.send, key, f"/peek {key}", key) for key in keys)
        )
        until = time.monotonic() + ANSWERED
        await asyncio.gather(
            *(loop.run_in_executor(threads, people.outcome, one.message_id, until) for one in sent)
        )
