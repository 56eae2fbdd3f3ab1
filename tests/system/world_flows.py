"""What the worlds run: automations, and two flows of a user that know nothing of us.

Each effect is a line in the file that `WORLD_FILE` names, so that a test sees what happened however often, wherever.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum
from pathlib import Path
from typing import Final

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from parley import automation, step

FILE: Final = "WORLD_FILE"


def leave(line: str) -> None:
    """Append one line, in one write."""
    descriptor = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def lines(file: Path) -> list[str]:
    """What was left so far, oldest first."""
    return file.read_text().splitlines() if file.exists() else []


@step(retries=0)
async def act(line: str) -> None:
    """The first task: what a refused run must not come to."""
    leave(line)


@automation(command="mark", summary="Leave a mark.", effect="write")
@flow(name="world-mark")
async def mark(key: str) -> str:
    await act(f"mark {key}")
    return f"marked {key}"


@automation(command="lasting", summary="Take a while.", effect="write")
@flow(name="world-lasting")
async def lasting(key: str, seconds: float = 600) -> str:
    await act(f"begun {key} {os.getpid()}")
    await asyncio.sleep(seconds)
    leave(f"ended {key}")
    return f"lasted {key}"


@automation(command="tick", summary="Say where the hand is.", effect="read")
@flow(name="world-tick")
async def tick(key: str, to: str = "") -> str:
    del to  # the hub reads it: where the answer goes
    await act(f"tick {key}")
    return f"tick {key}"


class Depth(Enum):
    """How much is read."""

    SHALLOW = "shallow"
    DEEP = "deep"


@flow(name="search")
def search(index: str, depth: Depth = Depth.SHALLOW, shards: int = 1, *, broken: bool = False) -> int:
    """Build the search index anew.

    Args:
        index: Which index.
        depth: How much is read.
        shards: Into how many parts.
        broken: Fail.
    """
    leave(f"search {index} {depth.value} {shards}")
    if broken:
        raise ValueError(f"the index {index} is locked")
    create_markdown_artifact(f"# Index {index}\n\n{shards} shards, {depth.value}", key="search-report")
    return shards
