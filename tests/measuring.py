"""What of the processes that tests start is measured with `COVERAGE=1`: not Prefect's own programs, nor benchmarks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_MEASURED: Final = "COVERAGE_PROCESS_CONFIG"
"""Coverage.py puts it into the environment of a process that is measured, for those which that one starts."""

_FOLDER: Final = str(Path(__file__).with_name("unmeasured"))


def without_prefect(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment, for processes of which those of Prefect's are not measured."""
    if _MEASURED not in environment:
        return dict(environment)
    path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), _FOLDER]))
    return {**environment, "PYTHONPATH": path}


def not_at_all(environment: Mapping[str, str]) -> dict[str, str]:
    """This environment, for processes none of which is measured."""
    return {name: value for name, value in environment.items() if name != _MEASURED}


def unmeasured(*command: str) -> tuple[str, ...]:
    """This command, as a process that is not measured: one that says something by itself and runs nothing of ours."""
    return ("/usr/bin/env", "-u", _MEASURED, *command)
