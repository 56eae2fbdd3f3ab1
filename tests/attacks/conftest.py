"""The installation that attacks are made on."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.webhook import SECRET
from tests.stack import Stack
from tests.system import effects
from tests.system.test_platforms import connect, listening

TOML: Final = """
[automations]
modules = ["flows", "tests.attacks.traps"]
[limits]
per_person = "100000/s"
per_conversation = "100000/s"
"""


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """One for all attacks, with a service that calls in; it has to be well in the end."""
    with tempfile.TemporaryDirectory(prefix="parley-") as name:
        folder = Path(name)
        with Stack(folder=folder, toml=TOML, extra={effects.FILE: str(folder / "effects")}) as running:
            connect(running, "webhook", "shop", {"secret": SECRET}, speaks=True)
            asyncio.run(listening(running, "shop"))
            yield running
            assert running.ready()
