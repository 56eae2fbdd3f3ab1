"""Real Prefect servers of our own launcher: one for the whole session, or one for a module that has a worker."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from parley import prefect_env
from tests import measuring, prepared
from tests.ports import PLAIN, free_port

__all__ = [
    "PrefectServer",
    "free_port",
    "own_server",
    "prefect_server",
    "running_server",
    "start_launcher",
    "stop",
]

START_SECONDS = 90.0
"""A first start applies every migration, on a machine that may be busy with other tests."""

STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectServer:
    """A running server: `url` is its origin, `environment` what a client process is started with."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(repr=False)

    @property
    def api(self) -> str:
        return self.environment["PREFECT_API_URL"]

    @property
    def url(self) -> str:
        return self.api.removesuffix("/api")

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Yield an authenticated HTTP client that has a CSRF token."""
        name, password = prefect_env.api_password(self.home).split(":", 1)
        with httpx.Client(
            base_url=self.api, auth=(name, password), timeout=30, verify=self._trusted()
        ) as client:
            token = client.get("/csrf-token", params={"client": "tests"}).raise_for_status().json()
            client.headers.update({"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": "tests"})
            yield client

    def _trusted(self) -> ssl.SSLContext:
        certificate = self.environment.get("PREFECT_API_SSL_CERT_FILE")
        return ssl.create_default_context(cafile=certificate) if certificate else PLAIN


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One server for all tests of the session, on a free port, in a home of its own."""
    with running_server(tmp_path_factory.mktemp("prefect"), measured=False) as server:
        yield server


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server for one module, whose worker would take what other modules' tests leave in the pool."""
    with running_server(tmp_path_factory.mktemp("prefect"), measured=False) as server:
        yield server


@contextmanager
def running_server(
    home: Path,
    *arguments: str,
    extra: dict[str, str] | None = None,
    port: int = 0,
    certificate: Path | None = None,
    fresh: bool = False,
    measured: bool = True,
) -> Iterator[PrefectServer]:
    """Run our launcher on `home` for the length of the block; it is ended by its pid.

    `fresh` is a first start, which makes the database itself; the others get a prepared one. It is `measured` where the
    launcher is the matter, in a run with coverage.
    """
    port = port or free_port()
    if not fresh:
        prepared.prefect_database(home)
    if not measured:
        extra = measuring.without_prefect(plain_environment() | (extra or {}))
    process = start_launcher(home, port, *arguments, extra=extra)
    try:
        _wait_until_it_listens(process, port)
        environment = prefect_env.client_environment(home, port=port, certificate=certificate)
        yield PrefectServer(home=home, port=port, process=process, environment=environment)
    finally:
        stop(process)


def start_launcher(
    home: Path, port: int, *arguments: str, extra: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the launcher as a person would, without the surrounding environment's Prefect settings."""
    command = [sys.executable, "-m", "deployments.prefect_server", "--home", str(home), "--port", str(port)]
    return subprocess.Popen(
        [*command, *arguments],
        env=plain_environment() | (extra or {}),
        stderr=subprocess.PIPE,
        cwd=Path.cwd(),
    )


def plain_environment() -> dict[str, str]:
    """Return this process's environment without what Prefect or parley would read from it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PARLEY_"))}


def stop(process: subprocess.Popen[bytes]) -> int:
    """End one process that was started here and return its exit code; killed when it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if process.stderr:
        process.stderr.close()
    return code


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    # The launcher listens only once everything is in place: the first connection is the first answer.
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            said = process.stderr.read().decode() if process.stderr else ""
            raise AssertionError(f"the launcher ended with {process.returncode}: {said}")
        try:
            socket.create_connection((prefect_env.LOOPBACK, port), timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the Prefect server did not listen within {START_SECONDS} s")
