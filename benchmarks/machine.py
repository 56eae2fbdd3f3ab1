"""What the machine was doing meanwhile: a figure from a busy machine has to say so."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import psutil

from tests.stack import Stack


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """Yield conditions that are complete once the block has been left.

    `others_cores`: how many cores were kept busy, on average, by what does not belong to this benchmark. What starts
    inside the block has to end in it.
    """
    conditions: dict[str, Any] = {}
    began, busy, own, load = time.monotonic(), _busy(), _own(), _load()
    yield conditions
    seconds = time.monotonic() - began
    others = (_busy() - busy) - (_own() - own)
    conditions["machine"] = {
        "cores": os.cpu_count(),
        "load_1m": [load, _load()],
        "others_cores": round(max(0.0, others) / seconds, 2),
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "prefect": version("prefect"),
    }


class ProcessorTime:
    """Seconds of processor that the stack's processes take, by role: a figure that a busy machine hardly changes."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._began = _by_role(stack)

    def each(self, count: int) -> dict[str, float]:
        """Milliseconds for each of `count` things that were done since the beginning."""
        now = _by_role(self._stack)
        taken = {role: (now[role] - self._began.get(role, 0.0)) * 1e3 / count for role in now}
        return {role: round(each, 1) for role, each in taken.items() if each >= 0.05}


def processor_seconds(pids: Sequence[int]) -> float:
    """Seconds of processor of these processes and of those below them that have ended."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _by_role(stack: Stack) -> dict[str, float]:
    roles: dict[str, list[int]] = {}
    for row in stack.processes():
        roles.setdefault(row["role"], []).append(row["pid"])
    return {role: processor_seconds(pids) for role, pids in roles.items()}


def _own() -> float:
    me = psutil.Process()
    return processor_seconds([me.pid, *(child.pid for child in me.children(recursive=True))])


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _load() -> float:
    return round(psutil.getloadavg()[0], 2)
