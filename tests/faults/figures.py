"""What the tests of this folder measured: a JSON line each at the end of a run, all of them in build/faults.json."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.faults.sizes import LONG
from tests.stack import ROOT

FILE: Final = ROOT / "build" / "faults.json"


def keep(name: str, **figures: Any) -> None:
    """Write what was measured; an older figure of this name goes."""
    row = {"name": name, "long": LONG, "at": datetime.now(UTC).isoformat(timespec="seconds"), **figures}
    print(json.dumps(row))
    FILE.parent.mkdir(exist_ok=True)
    with FILE.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = [one for one in kept() if one["name"] != name]
        fresh = FILE.with_suffix(".new")
        fresh.write_text("[\n" + ",\n".join(json.dumps(one) for one in [*rows, row]) + "\n]\n")
        fresh.replace(FILE)


def kept() -> list[dict[str, Any]]:
    """The rows so far."""
    try:
        rows: list[dict[str, Any]] = json.loads(FILE.read_text())
    except (OSError, ValueError):
        return []
    return rows


def lines(path: Path = FILE) -> list[str]:
    """A line each."""
    return [line.rstrip(",") for line in path.read_text().splitlines()[1:-1]] if path.exists() else []
