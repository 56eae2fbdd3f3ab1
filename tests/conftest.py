"""Fixtures that every folder may use, what every run of the tests begins with, and how processes share them out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests import prepared
from tests.prefect_fixture import own_server, prefect_server

if TYPE_CHECKING:
    from tests.distribution import Units

__all__ = ["own_server", "prefect_server"]


def pytest_configure(config: pytest.Config) -> None:
    """Take Ctrl-C again where it is ignored: a job in the background inherits that, and so would all it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if prepared.FOLDER not in os.environ:  # the processes of `-n` are started by one that has made it
        kept = ExitStack()
        kept.enter_context(prepared.folder())
        config.add_cleanup(kept.close)
    # How long an example takes says how busy this machine is: what must be fast is measured where it is the matter.
    hypothesis.settings.register_profile(
        "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("tests")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Units:
    """With `-n`, units of tests as tests/distribution.py has them."""
    from tests.distribution import Units

    return Units(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, the longest come first."""
    if hasattr(config, "workerinput"):
        from tests import distribution

        distribution.sort(items)


@pytest.fixture(autouse=True)
def prefect_as_it_came() -> Iterator[None]:
    """What a worker's process does to Prefect once and for all must not outlive one test of this process."""
    yield
    lean = sys.modules.get("parley.runs.lean")
    if lean is not None:
        lean.uninstall()
