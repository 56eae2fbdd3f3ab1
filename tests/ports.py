"""Free ports for tests, none of them given twice: not by this process, nor by another that tests at the same time.

A port that was only tried is anybody's again before its server has started. So each one that is handed out stays
claimed until the process that asked for it ends, by a lock on one byte of a file that all of this user's tests share.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import ssl
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

RANGE: Final = (15_000, 32_000)
"""Below those that the system gives to connections: a port whose process was killed is free for its successor."""

PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""What httpx is told to verify with where nothing is encrypted: it reads all authorities for each client otherwise,
which is twenty times the work of asking. Nobody is trusted by it."""


def free_port() -> int:
    """A port of this machine that nothing listens on and nobody else was given."""
    while True:
        port = random.randrange(*RANGE)  # noqa: S311 - any will do
        if _is_free(port) and _claim(port):
            return port


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _claim(port: int) -> bool:
    # A process may lock what it has locked already: its own are remembered.
    if port in _given():
        return False
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _given().add(port)
    return True


@cache
def _given() -> set[int]:
    return set()


@cache
def _claims() -> int:
    """The shared file, opened once: closing any descriptor of it would give all claims back."""
    path = Path(tempfile.gettempdir()) / f"parley-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
