"""Plain flows that the child's tests run."""

from __future__ import annotations

import os
import sys
from typing import Final

from prefect import flow

ENTRYPOINT: Final = "tests.runs.child_flows"


@flow
def kind_sync(colour: str) -> str:
    assert os.environ.get("COLOUR", "") == colour
    return "sync"


@flow
async def kind_async(colour: str) -> str:
    assert os.environ.get("COLOUR", "") == colour
    return "async"


@flow
def raises() -> None:
    raise RuntimeError("as it may")


@flow
def leaves() -> None:
    sys.exit(3)


@flow
async def leaves_async() -> None:
    sys.exit(3)
