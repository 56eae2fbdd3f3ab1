"""How much memory the processes of the stack really cost: proportional set size, shared pages counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parley.processes import record

PROC = Path("/proc")


def pss_mb(pid: int) -> float | None:
    """Memory of a process in MB (10^6 bytes); its resident size where the system knows no PSS; None when it is gone."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        return _rss_mb(pid)
    return None


def descendants(pid: int) -> list[int]:
    """All processes below one, nearest first; empty when it is gone."""
    below = _children()
    found, ahead = [], list(below.get(pid, ()))
    while ahead:
        one = ahead.pop(0)
        found.append(one)
        ahead.extend(below.get(one, ()))
    return found


def processes(home: Path) -> list[dict[str, Any]]:
    """The processes of this home's stack: `role`, `pid`, `pss_mb`, `state` (running or gone).

    What runs below the worker has the role `child`.
    """
    rows = []
    for entry in record.read(home):
        alive = record.lives(entry)
        rows.append(_row(entry.role, entry.pid, alive=alive))
        if entry.role == "worker" and alive:
            rows.extend(_row("child", pid, alive=True) for pid in descendants(entry.pid))
    return rows


def _row(role: str, pid: int, *, alive: bool) -> dict[str, Any]:
    return {
        "role": role,
        "pid": pid,
        "pss_mb": pss_mb(pid) if alive else None,
        "state": "running" if alive else "gone",
    }


def _children() -> dict[int, list[int]]:
    """The pids below each pid, of the whole system."""
    if not (PROC / "self" / "stat").exists():
        return _children_elsewhere()
    below: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # it ended while we looked
        if state not in "ZX":
            below.setdefault(int(parent), []).append(int(folder.name))
    return below


def _children_elsewhere() -> dict[int, list[int]]:
    import psutil

    below: dict[int, list[int]] = {}
    for process in psutil.process_iter(["pid", "ppid"]):
        below.setdefault(process.info["ppid"], []).append(process.info["pid"])
    return below


def _rss_mb(pid: int) -> float | None:
    try:
        import psutil

        return round(psutil.Process(pid).memory_info().rss / 1e6, 1)
    except (ImportError, psutil.Error):
        return None
