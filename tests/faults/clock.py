"""The time of day as the processes of one stack see it, set from outside with Debian's libfaketime.

How long something takes (the monotonic clock) stays true, as it does where somebody sets a machine's clock.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

LIBRARIES: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Clock:
    """A file that every process of the stack looks at."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(timedelta(0))

    @property
    def environment(self) -> dict[str, str]:
        """What the stack is started with."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, off: timedelta) -> None:
        """Let it be so much later than it is."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{off.total_seconds():+.0f}\n")
        fresh.replace(self._file)
