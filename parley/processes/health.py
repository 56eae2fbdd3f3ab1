"""Whether a process that serves HTTP still answers: one that hangs is alive for the system and dead for people."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from parley.processes.table import Probe


class Watchdog(threading.Thread):
    """Asks every few seconds and counts silences; `hung` is called once when there were too many in a row.

    Any answer counts, an error too: what answers does not hang, and a restart would not mend it.
    """

    def __init__(self, probe: Probe, hung: Callable[[], None]) -> None:
        super().__init__(name=f"watchdog-{probe.port}", daemon=True)
        self._probe = probe
        self._hung = hung
        self._stopped = threading.Event()
        self._silences = 0
        self._answered = False

    def restarted(self) -> None:
        """Begin anew: there is a new process."""
        self._silences, self._answered = 0, False

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()

    def run(self) -> None:
        """Ask until stopped."""
        while not self._stopped.wait(self._probe.every):
            if status(self._probe) is not None:
                self._silences, self._answered = 0, True
                continue
            self._silences += 1
            patience = self._probe.failures if self._answered else self._probe.first_failures
            if self._silences >= patience and not self._stopped.is_set():
                self.restarted()
                self._hung()


def status(probe: Probe, path: str = "") -> int | None:
    """The HTTP status of one GET, None when there was no answer. No HTTP library: the supervisor stays small."""
    request = (
        f"GET {path or probe.path} HTTP/1.1\r\nHost: {probe.host}:{probe.port}\r\nConnection: close\r\n\r\n"
    )
    try:
        with _connect(probe) as connection:
            connection.sendall(request.encode("ascii"))
            line = connection.recv(64)
        return int(line.split(b" ", 2)[1]) if line.startswith(b"HTTP/") else None
    except (OSError, ValueError, IndexError):
        return None


def _connect(probe: Probe) -> socket.socket:
    connection = socket.create_connection((probe.host, probe.port), timeout=probe.timeout)
    if not probe.tls:
        return connection
    # Whose certificate it is does not matter here: no secret is sent, only a sign of life is wanted, and a certificate
    # that has run out must not have a healthy process killed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection, server_hostname=probe.host)
