"""An automation that fails as long as a test says; each attempt is a line, on the disk for good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prefect import flow

from parley import automation, step
from tests.system.effects import leave

FOLDER: Final = "FAULTS_STATE"
"""The environment variable that names the folder with the two files below."""

ALERT_AFTER: Final = 5


def fails(folder: Path) -> Path:
    """While this file is there, the usual way fails."""
    return folder / "fails"


def all_fails(folder: Path) -> Path:
    """While this file is there, the alternative fails, too."""
    return folder / "all-fails"


def _alternative(key: str) -> str:
    leave(f"alternative:{key}")
    if all_fails(Path(os.environ[FOLDER])).exists():
        raise OSError("nobody there either")
    return f"{key} by the other way"


@step(back_off=(0.1, 0.1, 0.1), fallback=_alternative)
def _try(key: str) -> str:
    leave(f"attempt:{key}")
    if fails(Path(os.environ[FOLDER])).exists():
        raise ConnectionError("nobody there")
    return key


@automation(command="attempt", summary="Try what may fail.", effect="write", alert_after=ALERT_AFTER)
@flow
def attempt(key: str) -> str:
    return _try(key)
