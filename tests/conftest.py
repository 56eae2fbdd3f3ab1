"""Fixtures that every folder may use: one Prefect server for the whole session, and Prefect as it came."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from tests.prefect_fixture import prefect_server

__all__ = ["prefect_server"]


def pytest_configure() -> None:
    """Take Ctrl-C again where it is ignored: a job in the background inherits that, and so would all it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def prefect_as_it_came() -> Iterator[None]:
    """What a worker's process does to Prefect once and for all must not outlive one test of this process."""
    yield
    lean = sys.modules.get("parley.runs.lean")
    if lean is not None:
        lean.uninstall()
