"""One stack for the tests of this folder that only talk to it; others make their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack
from tests.system import effects

TOML = """
[automations]
modules = ["flows", "tests.system.effects"]
"""


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """A whole stack with the automations of `tests.system.effects`; it must be well after each test."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder, made(Path(folder)) as running:
        yield running


@pytest.fixture(scope="package")
def effects_file(stack: Stack) -> Path:
    """Where the shared stack's automations leave their effects."""
    return Path(stack.environment[effects.FILE])


def made(folder: Path, toml: str = TOML) -> Stack:
    """A stack in this folder, not started yet."""
    return Stack(folder=folder, toml=toml, extra={effects.FILE: str(folder / "effects")})
