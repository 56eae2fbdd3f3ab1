"""Automations whose requests may share a flow run, async and sync, and one that holds the only place meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from prefect import flow

from parley import AutomationError, automation, current_message, say, step
from tests.system.effects import FILE, leave


def is_open(gate: str) -> bool:
    """Whether the test has opened this gate."""
    return Path(f"{os.environ[FILE]}.{gate}").exists()


@automation(summary="Take the only place until the gate is opened.", effect="write")
@flow
async def occupy() -> str:
    leave("occupied")
    while not is_open("occupied"):  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.02)
    return "free"


def block_until_death() -> None:
    """Keep the event loop until the test lets this process end."""
    leave("dying")
    while not is_open("died"):
        time.sleep(0.02)
    os._exit(1)


@step
async def measured(number: int) -> int:
    """A step of one request's own."""
    return number * number


@automation(summary="The square of a number.", effect="read", idempotent=True, batch=5)
@flow
async def square(number: int) -> str:
    """13 fails, 17 ends the process when it comes for the first time, above 100 it waits for its gate."""
    leave(f"square-{number}-{os.getpid()}")
    if number == 13:
        raise AutomationError("thirteen is not squared here.")
    if number == 17 and not is_open("died"):
        block_until_death()
    while number > 100 and not is_open(str(number)):  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.02)
    message = current_message()
    return f"{await measured(number)} for {message.text if message else '-'}"


@automation(summary="The cube of a number.", effect="read", batch=5, time_limit=20)
@flow
def cube(number: int) -> str:
    """As `square`, in a thread; it speaks in between."""
    say(f"computing {number}")
    leave(f"cube-{number}")
    while number > 100 and not is_open(str(number)):
        time.sleep(0.02)
    return str(number**3)
