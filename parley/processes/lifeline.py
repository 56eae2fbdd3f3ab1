"""A process that ends when its parent does, however the parent ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def lifeline() -> Callable[[], None] | None:
    """What a child calls before exec so that it gets SIGTERM when this process dies; None where there is no such thing.

    The kernel ties it to the thread that forks: fork from one that lives as long as the process.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    # Loaded here: between fork and exec nothing may be imported and no lock taken.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def hold() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return hold
