"""What the console of `parley up` shows: where things are, once they are there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from parley.processes.health import status
from parley.processes.table import hub_probe
from parley.settings import Settings

Say = Callable[[str], None]

EVERY: Final = 0.2
LATE_SECONDS: Final = 60.0
"""After this it is said that something is missing."""


class Announcement(threading.Thread):
    """Says the addresses when the hub answers, and "ready" when the whole stack is.

    `say` writes to the console and the log; `show` to the console alone, for what must not be kept.
    """

    def __init__(self, settings: Settings, say: Say, show: Say, began: float) -> None:
        super().__init__(name="announcement", daemon=True)
        self._settings = settings
        self._probe = hub_probe(settings)
        self._say = say
        self._show = show
        self._began = began
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Say nothing more."""
        self._stopped.set()

    def run(self) -> None:
        """Wait for the hub, then for the rest."""
        if self._wait_for("/healthz", "the hub does not answer yet"):
            self._show(addresses(self._settings, _login_link()))
        if self._wait_for("/readyz", "not everything is ready yet"):
            self._say(f"ready in {time.monotonic() - self._began:.1f} s")

    def _wait_for(self, path: str, late: str) -> bool:
        told = False
        while not self._stopped.is_set():
            if 200 <= (status(self._probe, path) or 0) < 300:
                return True
            if not told and time.monotonic() - self._began > LATE_SECONDS:
                told = True
                self._say(f"{late}: see the logs in {self._settings.home / 'logs'}")
            self._stopped.wait(EVERY)
        return False


def addresses(settings: Settings, login_link: str) -> str:
    """The banner."""
    rows = [
        ("console", login_link or f"{settings.console}/"),
        ("", "(logs you in, once; `parley token` and `parley up` make others)") if login_link else ("", ""),
        ("Prefect", settings.api_url.removesuffix("/api")),
        ("", f"(its password: {settings.home / 'prefect' / 'auth'})") if settings.own_prefect else ("", ""),
        (
            "metrics",
            f"{settings.scheme('metrics')}://{settings.host('metrics')}:{settings.metrics_port}/metrics",
        ),
        (
            "hooks",
            f"{settings.scheme('hooks')}://{settings.host('hooks')}:{settings.hooks_port}/hooks/<account>",
        ),
        ("logs", str(settings.home / "logs")),
    ]
    return "\n".join(f"  {name:<9}{text}" for name, text in rows if text)


def _login_link() -> str:
    command = [sys.executable, "-P", "-m", "parley.processes.login_link"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
