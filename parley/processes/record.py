"""What is running, on disk: one supervisor a home, its pid, and the pids of what it started."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from parley.errors import ConfigurationError
from parley.settings import KEPT


class Entry(NamedTuple):
    """One process: `born` tells it from a later one with the same pid."""

    role: str
    pid: int
    started_at: str
    restarts: int
    born: float | None = None


def make_home(home: Path) -> None:
    """Make the home and its run folder, closed to others. Raises ConfigurationError."""
    try:
        for folder in (home, home / "run", home / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or home} cannot be used ({error.strerror}): "
            "make it writable for this user, or choose another folder with PARLEY_HOME."
        ) from None


def lock(home: Path) -> int:
    """Hold this home until the process ends; returns the descriptor. Raises ConfigurationError when another has it."""
    descriptor = os.open(home / "run" / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        pid = supervisor_pid(home)
        raise ConfigurationError(
            f"parley is running for {home} already{f' (pid {pid})' if pid else ''}: "
            "`parley status` shows it, `parley down` ends it. For a second one choose another PARLEY_HOME and ports."
        ) from None
    return descriptor


def supervisor_pid(home: Path) -> int | None:
    """The pid of the supervisor that last ran here."""
    try:
        return int((home / "run" / "supervisor.pid").read_text())
    except (OSError, ValueError):
        return None


def write(home: Path, entries: list[Entry]) -> None:
    """Replace `processes.json` whole; a reader sees the old or the new one."""
    _replace(home / "run" / "processes.json", json.dumps([entry._asdict() for entry in entries], indent=1))


def write_pid(home: Path) -> None:
    """Say who the supervisor is."""
    _replace(home / "run" / "supervisor.pid", f"{os.getpid()}\n")


def read(home: Path) -> list[Entry]:
    """What was last written; empty when nothing was."""
    try:
        rows: list[dict[str, Any]] = json.loads((home / "run" / "processes.json").read_text())
        return [Entry(**row) for row in rows]
    except (OSError, ValueError, TypeError):
        return []


def remove(home: Path) -> None:
    """After a stop in good order nothing is running."""
    for name in ("processes.json", "supervisor.pid", KEPT):
        (home / "run" / name).unlink(missing_ok=True)


def born(pid: int) -> float | None:
    """When a process was started, in a unit of the system's own; None when there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            # The command's name, in brackets, may hold anything: count behind it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else float(fields[19])
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def lives(entry: Entry) -> bool:
    """Whether this very process is still there."""
    now = born(entry.pid)
    return now is not None and now == entry.born


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
