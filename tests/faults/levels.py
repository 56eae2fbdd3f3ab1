"""An automation that fails as often as a test says; each attempt is a line, on the disk for good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prefect import flow

from parley import automation, step
from tests.system.effects import leave

FAILING: Final = "FAULTS_STATE"
"""The environment variable that names the folder; while `failing` is in it, what is tried fails."""


def failing() -> Path:
    """The file that says so."""
    return Path(os.environ[FAILING]) / "failing"


def _alternative(key: str) -> str:
    leave(f"alternative:{key}")
    if (Path(os.environ[FAILING]) / "failing-all").exists():
        raise OSError("the alternative does not work either")
    return f"{key} by the other way"


@step(back_off=(0.1, 0.1, 0.1), fallback=_alternative)
def _try(key: str) -> str:
    leave(f"attempt:{key}")
    if failing().exists():
        raise ConnectionError("nobody there")
    return key


@automation(command="attempt", summary="Try what may fail.", effect="write", alert_after=5)
@flow
def attempt(key: str) -> str:
    return _try(key)
