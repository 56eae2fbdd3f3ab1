"""Fixtures that every folder may use: one Prefect server for the whole session, and Prefect as it came."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.prefect_fixture import prefect_server

__all__ = ["prefect_server"]


@pytest.fixture(autouse=True)
def prefect_as_it_came() -> Iterator[None]:
    """What a worker's process does to Prefect once and for all must not outlive one test of this process."""
    yield
    lean = sys.modules.get("parley.runs.lean")
    if lean is not None:
        lean.uninstall()
