"""The process between us and a registered script; run as a file of its own with `python -I -S`, stdlib only.

It starts the script in a session of its own with limits on it, and ends everything that the script started when the
script is done, takes too long, makes too many processes, or when the process that started this one closes our standard
input, which its death does as well. How it went is written as one JSON object to the file descriptor that was named.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

_SUBREAPER, _DEATH_SIGNAL = 36, 1
_LOOK_EVERY = 0.01
_OPEN_FILES = 256
_FILE_BYTES = 256 * 2**20


def main(report: int, limits: dict[str, Any], argv: list[str]) -> None:
    """Run `argv` within `limits`; tell `report` how it ended."""
    started = time.monotonic()
    # Whatever the script leaves behind becomes our child instead of init's, so that none of it gets away.
    _prctl(_SUBREAPER, 1)
    leader = os.fork()
    if leader == 0:
        _become(argv, limits)
    how, status = _watch(leader, limits, started + limits["timeout"])
    _end_all(leader)
    outcome = {"how": how, "seconds": time.monotonic() - started}
    if how == "ended":
        outcome |= {"code": os.waitstatus_to_exitcode(status)}
    os.write(report, json.dumps(outcome).encode())


def _become(argv: list[str], limits: dict[str, Any]) -> NoReturn:
    """In the child: limits, own session, then the script."""
    try:
        os.setsid()
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(1, 2)
        os.closerange(3, _OPEN_FILES)
        cpu, memory = limits["cpu_seconds"], limits["memory_mb"] * 2**20
        _limit(resource.RLIMIT_CPU, cpu, cpu + 1)
        _limit(resource.RLIMIT_AS, memory)
        _limit(resource.RLIMIT_FSIZE, _FILE_BYTES)
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
        if os.getuid() != 0:
            # The kernel counts all of this user's processes; for root it does not look at the limit at all.
            _limit(resource.RLIMIT_NPROC, _threads_of_user(os.getuid()) + limits["processes"])
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - an argv list from parley.toml, no shell
    except OSError as error:
        os.write(1, f"{argv[0]} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch(leader: int, limits: dict[str, Any], deadline: float) -> tuple[str, int]:
    while True:
        pid, status = os.waitpid(leader, os.WNOHANG)
        if pid:
            return "ended", status
        if time.monotonic() > deadline:
            return "timeout", 0
        if len(_descendants()) > limits["processes"]:
            return "processes", 0
        readable, _, _ = select.select([0], [], [], _LOOK_EVERY)
        if readable and not os.read(0, 1024):
            return "cancelled", 0


def _end_all(leader: int) -> None:
    """Kill until nothing is left: a process that is being killed may fork once more."""
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        left = _descendants()
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_LOOK_EVERY / 10)


def _descendants() -> list[int]:
    """All processes below this one; only the direct children where /proc does not tell more."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    # A process may end while it is looked at.
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _threads_of_user(user: int) -> int:
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            if folder.stat().st_uid == user:
                lines = (folder / "status").read_text().splitlines()
                total += int(next(line for line in lines if line.startswith("Threads:")).split()[1])
    return total


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    ceiling = resource.getrlimit(what)[1]
    top = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, top = min(soft, ceiling), min(top, ceiling)
    resource.setrlimit(what, (soft, top))


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:])
