"""One stack with people on five platforms for the tests of this folder; it must be well after each of them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults import figures
from tests.faults.town import Town, inhabited


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def town() -> AsyncIterator[Town]:
    """The whole town. Its people live in the event loop of this package's tests."""
    # Short, because a Unix socket's path may have about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with inhabited(Path(folder)) as made:
            yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures, a line each."""
    terminalreporter.section(f"figures ({figures.FILE})")
    for line in figures.lines():
        terminalreporter.line(line)
