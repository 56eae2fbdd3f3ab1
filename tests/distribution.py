"""How the tests are shared out when several processes run them (`pytest -n 3`): what shares a server stays together.

A unit is what one process gets at a time: a file, whose module's fixtures then exist once. A few files are cut into
smaller units. The longest units are begun first, so that no process is still busy with one when the others have
nothing left.
"""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]  # no stubs

ONE_BY_ONE: Final = frozenset({
    "tests/test_benchmarks.py",
    "tests/test_bounds.py",
})  # fmt: skip
"""Files of long tests that share nothing."""

BY_PARAMETER: Final = frozenset({
    "tests/contract/test_connectors.py",
    "tests/system/test_existing_prefect.py",
})  # fmt: skip
"""Files whose tests are about one thing after another: the first word of their parameters."""

TOGETHER: Final = {
    f"tests/faults/test_{name}.py": "tests/faults/town"
    for name in ("kills", "levels", "prefect_gone", "soak", "stops", "tcp")
} | {
    f"tests/attacks/test_{name}.py": "tests/attacks/stack"
    for name in ("api_schema", "live")
}  # fmt: skip
"""Files that share a stack, in their order."""

LONGEST: Final = (
    "tests/faults/town",
    "tests/faults/test_failpoints.py",
    "tests/scenarios/",
    "tests/faults/",
    "tests/system/test_existing_prefect.py",
    "tests/test_benchmarks.py",
    "tests/attacks/stack",
    "tests/system/",
    "tests/test_bounds.py",
    "tests/store/test_resealing.py",
    "tests/tls/test_stack.py",
    "tests/runs/test_worker",
    "tests/runs/",
    "tests/deployments/",
    "tests/tls/test_database.py",
    "tests/processes/",
    "tests/web/",
    "tests/test_cli.py",
    "tests/hub/",
    "tests/docs/",
    "tests/connectors/",
    "tests/attacks/",
    "tests/contract/",
    "tests/fakes/",
    "tests/store/",
    "tests/messages/",
    "tests/tls/",
)
"""Begun in this order; the rest is short."""


class Units(LoadScopeScheduling):  # type: ignore[misc]  # it is Any to mypy
    """Hands out whole units, in the order of `sort`."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # which would put those with the most tests first

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """The unit that a test belongs to."""
    file = nodeid.split("::", 1)[0]
    if file in ONE_BY_ONE:
        return nodeid
    if file in BY_PARAMETER and (word := re.search(r"\[\w+", nodeid)):
        return file + word[0]
    return TOGETHER.get(file, file)


def rank(nodeid: str) -> int:
    """Lower is begun earlier."""
    name = unit(nodeid)
    return next((place for place, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))


def sort(items: list[pytest.Item]) -> None:
    """The longest first; within a unit the order stays."""
    items.sort(key=lambda item: rank(item.nodeid))
