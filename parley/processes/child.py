"""One process that the supervisor keeps running: started, watched, started again when it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from parley.processes import record
from parley.processes.lifeline import tied
from parley.processes.log_file import LogFile
from parley.processes.table import Program

FIRST_WAIT: Final = 0.1
HEALTHY_SECONDS: Final = 30.0
"""A process that lived this long starts anew without delay: what ended it is not what ended it the time before."""


class Child:
    """A program and its present process, if any. Times are those of `time.monotonic`."""

    def __init__(self, program: Program, log: LogFile) -> None:
        self.program = program
        self.log = log
        self.restarts: int = 0
        self.quick_ends: int = 0
        self.done: bool = False
        self.due: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._entry: record.Entry | None = None
        self._started = 0.0
        self._wait = FIRST_WAIT
        self._read = _stamp(program.reads)

    @property
    def pid(self) -> int | None:
        """The present process."""
        return self._process.pid if self._process else None

    @property
    def entry(self) -> record.Entry | None:
        """How it is recorded; None while it is not running."""
        return self._entry if self._process else None

    def start(self) -> None:
        """Start it, with its log as both outputs. Raises OSError when the system cannot."""
        descriptor = self.log.open()
        self._read = _stamp(self.program.reads)
        try:
            self._process = subprocess.Popen(
                tied(self.program.argv),
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                # A session of its own: Ctrl-C reaches the supervisor alone, which stops the others in order.
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        with suppress(
            OSError
        ):  # gone already, or a system that does not allow it: then it has its full share
            # At once, while it has one thread and no child: these take it over.
            os.setpriority(
                os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + self.program.nice
            )
        self.due, self._started = None, time.monotonic()
        self._entry = record.Entry(
            role=self.program.role,
            pid=self._process.pid,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            restarts=self.restarts,
            born=record.born(self._process.pid),
        )

    def ended(self) -> int | None:
        """The exit code of a process that has ended since the last call (negative: the signal), else None."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        return code

    def schedule(self) -> float:
        """Have it started again, later each time that it ended soon; returns the wait in seconds."""
        if time.monotonic() - self._started >= HEALTHY_SECONDS:
            self._wait, self.quick_ends = FIRST_WAIT, 0
        wait, self._wait = self._wait, min(self._wait * 2, self.program.longest_wait)
        self.quick_ends += 1
        self.restarts += 1
        self.due = time.monotonic() + wait
        return wait

    def look_again(self) -> None:
        """Have it started at once when it is not running and the file that it read has changed since."""
        if self._process is None and _stamp(self.program.reads) != self._read:
            self.done, self.due = False, time.monotonic()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its process, by pid; to none that has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if status else None


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
