"""A process's log: it writes by itself, and the supervisor keeps the file from growing without end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

LARGEST: Final = 10 * 2**20
"""Bytes after which a log is put aside as `<role>.log.1`; the one before it is dropped."""


class LogFile:
    """`<folder>/<role>.log`, appended to by one process after the other."""

    def __init__(self, folder: Path, role: str, largest: int = LARGEST) -> None:
        self.path: Path = folder / f"{role}.log"
        self._largest = largest
        self._begin = 0

    def open(self) -> int:
        """A descriptor for the next process to write to, which the caller closes; `tail` counts from here."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._begin = os.fstat(descriptor).st_size
        return descriptor

    def write(self, text: str) -> None:
        """Append text of our own."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text.encode(errors="replace"))
        finally:
            os.close(descriptor)

    def tail(self, lines: int = 8) -> str:
        """The last lines that the present process wrote."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 16_384, self._begin if self._begin <= size else 0))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])

    def rotate(self) -> None:
        """Put the log aside when it is too large; the process that writes to it notices nothing."""
        try:
            if self.path.stat().st_size <= self._largest:
                return
            # Copied and cut rather than renamed: the writer keeps its descriptor, and appends at the new end.
            shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.truncate(self.path, 0)
            self._begin = 0
        except OSError:
            return  # a full disk: the log is not worth a stopped stack
