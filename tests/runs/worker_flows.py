"""Automations that the worker's tests run: each leaves a line in the file that it is given."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from prefect import flow

from parley.runs.automation import automation


def note(path: str, what: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{what} {os.getpid()} {time.time()}\n")


@automation()
@flow
async def quick(path: str) -> int:
    note(path, "entered")
    return os.getpid()


@automation()
@flow
def quick_sync(path: str) -> int:
    note(path, "entered")
    return os.getpid()


@automation()
@flow
async def lasting(path: str, seconds: float) -> None:
    note(path, "entered")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(path, "cancelled")
        raise
    note(path, "finished")


@automation()
@flow
async def blocking(path: str, seconds: float) -> None:
    """Async in name only."""
    note(path, "entered")
    time.sleep(seconds)  # noqa: ASYNC251 - the mistake is the point
    note(path, "finished")


@automation()
@flow
def lasting_sync(path: str, seconds: float) -> None:
    note(path, "entered")
    try:
        time.sleep(seconds)
    except BaseException as error:
        note(path, type(error).__name__)
        raise
    note(path, "finished")


@automation()
@flow
def stubborn(path: str) -> None:
    note(path, "entered")
    while True:
        try:
            time.sleep(60)
        except BaseException as error:  # noqa: BLE001 - it does not let itself be ended
            note(path, type(error).__name__)


@automation()
@flow
def suicide(path: str) -> None:
    note(path, "entered")
    os.kill(os.getpid(), signal.SIGKILL)


@automation(effect="dangerous")
@flow
def forbidden(path: str) -> None:
    note(path, "entered")


@automation()
@flow
async def lingering(path: str) -> None:
    """Leaves a task behind that does not let itself be cancelled, and so keeps its process from leaving."""
    note(path, "entered")

    async def endless() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                note(path, "clung")

    _left.add(asyncio.create_task(endless()))
    await asyncio.sleep(0.1)


_left: set[asyncio.Task[None]] = set()
