"""Automations of the system tests; each effect is a line in the file that `EFFECTS_FILE` names, on the disk for good.

A stack finds them by `[automations] modules = ["tests.system.effects"]` in its parley.toml.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from typing import Any, Final

from prefect import flow

from parley import automation

FILE: Final = "EFFECTS_FILE"


def leave(key: str) -> None:
    """Append one line, in one write, and have it on the disk before this returns."""
    descriptor = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{key} {os.getpid()}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def effects(file: Path) -> list[str]:
    """The keys of all effects so far, in the order in which they happened."""
    return [line.split()[0] for line in _lines(file)]


def doer(file: Path, key: str) -> int | None:
    """The pid of the process that had the effect of this key."""
    return next((int(line.split()[1]) for line in _lines(file) if line.split()[0] == key), None)


def gate(file: Path) -> Path:
    """The file beside the effects that lets every `hold` go on."""
    return file.with_name("gate")


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@automation(command="mark", summary="Leave a mark that cannot be taken back.", effect="write")
@flow
async def mark(key: str) -> str:
    await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - spreads the moments of a crash
    leave(key)
    await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311
    return key


@automation(command="linger", summary="Leave a mark, then take one's time.", effect="write")
@flow
async def linger(key: str, seconds: float) -> str:
    leave(key)
    await asyncio.sleep(seconds)
    return key


@automation(command="hold", summary="Leave a mark, then wait at the gate.", effect="write")
@flow
async def hold(key: str) -> str:
    leave(key)
    while not gate(Path(os.environ[FILE])).exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(0.1)
    return key


@automation(command="keep", summary="Keep an object as JSON.")
@flow
async def keep(what: dict[str, Any]) -> str:
    leave(f"keep:{len(what)}")
    return json.dumps(what)


@automation(command="look", summary="Look, and change nothing.", effect="read")
@flow
async def look(key: str) -> str:
    await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 - spreads the moments of a crash
    return key
