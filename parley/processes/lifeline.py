"""A process that ends when its parent does, however the parent ends.

A program of its own, `python lifeline.py PARENT COMMAND...`, that asks the kernel for SIGTERM at the parent's death and
then becomes the command: between fork and exec Python code would run in a copy of a process that has threads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def tied(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` tied to this process; `argv` itself where the system has no such thing.

    The kernel ties it to the thread that starts it: start it from one that lives as long as the process.
    """
    if sys.platform != "linux":
        return list(argv)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def main() -> None:
    """Become the command."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
