"""The time of day as some processes of a stack see it, set from outside with Debian's libfaketime.

How long something takes (the monotonic clock) stays true, as it does where somebody sets a machine's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

LIBRARIES: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

SEEN_AFTER: Final = 1.0
"""Seconds within which each process has looked at the file again; it looks at most so often (whole seconds)."""

_SHARED: Final = Path("/dev/shm")
"""Where the library leaves what a process shares with its children; nobody takes it away from one that was killed."""


class Clock:
    """A file that every process with this environment looks at; `close` takes away what the library left behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "clock"
        self._folder.mkdir()
        self._file = self._folder / "set-to"
        self.set(timedelta(0))

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes are given; `armed/sitecustomize.py` begins anew with it."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAULTS_CLOCK": str(self._folder),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": f"{SEEN_AFTER:.0f}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its mending of waits by the monotonic clock makes each wait for the interpreter's lock end at once, and so
            # a process of several threads some ten times slower. Where that clock is true there is nothing to mend.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def set(self, off: timedelta) -> None:
        """Let it be so much later than it is."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{off.total_seconds():+.0f}\n")
        fresh.replace(self._file)

    def close(self) -> None:
        """All processes have ended."""
        for pid in (file.name.removeprefix("pid-") for file in self._folder.glob("pid-*")):
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                (_SHARED / name).unlink(missing_ok=True)
