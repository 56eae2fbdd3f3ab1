"""A whole stack for a system test or a benchmark: `parley up` in a home of its own, on free ports.

    with Stack() as stack:  # or `async with`
        answer = stack.say("/order 1024")
        stack.kill("hub")

Everything that it starts is ended by its pid, and the folder is removed, when the block is left.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from parley import prefect_env, settings, tls
from parley.link.calls import AdminCall, Role
from parley.link.client import HubClient, default_address, role_token
from parley.processes import memory, record
from tests import measuring, prepared
from tests.ports import PLAIN, free_ports

__all__ = ["COMMAND", "PORTS", "ROOT", "Stack", "StackError", "free_ports", "plain_environment"]

ROOT: Final = Path(__file__).parents[1]

READY_SECONDS: Final = 120.0
"""A first start brings two databases up to date, on a machine that may be busy with other tests."""

COMMAND: Final = (str(Path(sys.executable).with_name("parley")), "up")

STOP_SECONDS: Final = 45.0
"""The worker alone may take 25: runs that are going on get their time."""

PORTS: Final = ("PARLEY_PORT", "PARLEY_HOOKS_PORT", "PARLEY_METRICS_PORT", "PARLEY_PREFECT_PORT")


class StackError(AssertionError):
    """The stack did not come, or did not come back; the text holds the end of its logs."""


class Stack:
    """One installation, from its start to its end; the threads of a test may share it.

    `toml` is its parley.toml, `extra` more environment: with `PREFECT_API_URL` in it no Prefect is launched. `folder`
    keeps an installation that an earlier stack left there; without it a new one is made, and removed in the end.
    `fresh` is a first start, which makes the databases itself; in a run of the tests the others get prepared ones.
    With an `authority` (PEM) its ports speak TLS, as `toml` or `extra` then say, and it is what they are verified with.
    """

    def __init__(
        self,
        *,
        toml: str = "",
        extra: Mapping[str, str] | None = None,
        folder: Path | None = None,
        fresh: bool = False,
        authority: Path | None = None,
    ) -> None:
        self._own = folder is None
        self._fresh = fresh
        # Short, because a Unix socket's path may have about a hundred bytes.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="parley-"))
        self.home = self.folder / "home"
        self.environment = measuring.without_prefect(self._environment(extra or {}))
        self.url = f"http{'s' if authority else ''}://127.0.0.1:{self.environment['PARLEY_PORT']}"
        self.verify = tls.client(ca_file=authority) if authority else PLAIN
        self.token = ""
        self.command: tuple[str, ...] = COMMAND
        """What starts it."""
        self.process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        if toml or not self._config.exists():
            self.configure(toml)

    # -- begin and end

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def start(self) -> None:
        """Start it and wait until every part says that it is ready. Raises `StackError`."""
        self.launch()
        self.until(self.ready, READY_SECONDS, "the stack is ready")
        self.log_in()

    def launch(self) -> None:
        """Start `parley up`, and wait for nothing."""
        if not self._fresh:
            self._prepare()
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def log_in(self) -> None:
        """Get the owner's token, as `parley token` does."""
        self.token = str(self.admin("token")["token"])

    def stop(self) -> int:
        """SIGTERM, as `parley down` and Ctrl-C do it; returns the exit code. What does not end in time is killed."""
        if self.process is None:
            return 0
        if self._client is not None:
            self._client.close()
            self._client = None
        started = record.read(self.home)
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill_all(started)
            return self.process.wait()
        finally:
            self.process = None

    def close(self) -> None:
        """Stop, and remove the folder if it is ours."""
        self.stop()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- talking to it

    @property
    def headers(self) -> dict[str, str]:
        """What a request of the owner's carries."""
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def client(self) -> httpx.Client:
        """An HTTP client of the owner's, for addresses such as `/api/v1/me`."""
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, timeout=130, trust_env=False, verify=self.verify)
        self._client.headers.update(self.headers if self.token else {})
        return self._client

    def say(
        self, text: str, *, wait: float = 30, thread: str | None = None, key: str | None = None
    ) -> dict[str, Any]:
        """Say something as the owner, and return the message as the API tells it after `wait` seconds at most."""
        body = {"text": text} | ({"thread": thread} if thread else {})
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.post("/api/v1/messages", params={"wait": wait}, json=body, headers=headers)
        said: dict[str, Any] = answer.raise_for_status().json()
        return said

    def admin(self, verb: str, **arguments: Any) -> Any:
        """Do what only the person at the machine may do; from any thread, also inside an event loop."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._ask(verb, arguments)).result()

    @property
    def settings(self) -> settings.Settings:
        """The installation's settings."""
        return settings.load(self.environment | {settings.RUNNING: "1"})

    @property
    def prefect_environment(self) -> dict[str, str]:
        """What a process needs to be a client of the same Prefect server."""
        chosen = self.settings
        if chosen.own_prefect:
            return prefect_env.client_environment(
                self.home, port=chosen.prefect_port, certificate=chosen.prefect_trust
            )
        return {name: value for name, value in self.environment.items() if name.startswith("PREFECT_")}

    @contextmanager
    def prefect(self) -> Iterator[httpx.Client]:
        """An HTTP client of the same Prefect server, for addresses such as `flow_runs/filter`."""
        environment = self.prefect_environment
        name, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
        url = environment["PREFECT_API_URL"]
        with httpx.Client(
            base_url=url, auth=(name, password), timeout=30, trust_env=False, verify=self.verify
        ) as client:
            token = client.get("csrf-token", params={"client": "tests"}).raise_for_status().json()["token"]
            client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"})
            yield client

    def configure(self, toml: str) -> None:
        """Write parley.toml; a running stack takes it up by itself."""
        fresh = self._config.with_suffix(".new")
        fresh.write_text(toml, encoding="utf-8")
        fresh.replace(self._config)

    # -- looking at it

    def ready(self) -> bool:
        """Whether every part is there now."""
        if self.process is not None and (code := self.process.poll()) is not None:
            raise StackError(f"`parley up` ended with {code}:\n{self.logs()}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False, verify=self.verify).is_success
        except httpx.HTTPError:
            return False

    def processes(self) -> list[dict[str, Any]]:
        """The processes of the stack as `parley status` shows them: role, pid, pss_mb, state."""
        return memory.processes(self.home)

    def pid(self, role: str) -> int:
        """The pid of the (first) living process of this role. Raises `StackError`."""
        for row in self.processes():
            if row["role"] == role and row["state"] == "running":
                return int(row["pid"])
        raise StackError(f"there is no {role}:\n{self.logs()}")

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to the (first) process of this role; returns its pid."""
        pid = self.pid(role)
        os.kill(pid, number)
        return pid

    def back(self, role: str, killed: int, within: float = 30) -> float:
        """Wait until a killed process has a successor and the stack is ready; returns the seconds it took."""
        began = time.monotonic()
        self.until(lambda: self._has_other(role, killed) and self.ready(), within, f"{role} is back")
        return time.monotonic() - began

    def logs(self, role: str = "", lines: int = 40) -> str:
        """The last lines of one process's log, of all without `role`."""
        files = sorted((self.home / "logs").glob(f"{role or '*'}.log"))
        return "\n".join(f"== {file.name}\n{_tail(file, lines)}" for file in [self.folder / "up.log", *files])

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until something holds. Raises `StackError` with the logs when it does not come to that."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise StackError(f"not within {seconds:g} s: {what}\n{self.logs()}")
            time.sleep(0.05)

    # -- within

    def _prepare(self) -> None:
        if "PREFECT_API_URL" not in self.environment:
            prepared.prefect_database(self.home)
        if "PARLEY_DATABASE_URL" not in self.environment:
            prepared.store(self.home / "parley.db")

    @property
    def _config(self) -> Path:
        return self.folder / "parley.toml"

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        # The clone is importable, so that automations of tests and benchmarks are found.
        return (
            plain_environment()
            | {name: str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
            | {
                "PARLEY_HOME": str(self.home),
                "PARLEY_CONFIG": str(self.folder / "parley.toml"),
                "PARLEY_KEY_FILE": str(self.folder / "key" / "key"),
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            }
            | dict(extra)
        )

    async def _ask(self, verb: str, arguments: dict[str, Any]) -> Any:
        chosen = self.settings
        token = role_token(chosen, Role.COMMAND_LINE)
        async with HubClient(default_address(chosen), Role.COMMAND_LINE, token, name="tests") as hub:
            return await hub.call("admin", AdminCall(verb=verb, arguments=arguments), timeout=30)

    def _has_other(self, role: str, killed: int) -> bool:
        rows = self.processes()
        return any(row["role"] == role and row["pid"] != killed and row["state"] == "running" for row in rows)

    def _kill_all(self, started: list[record.Entry]) -> None:
        for entry in started:
            for pid in (*memory.descendants(entry.pid), entry.pid) if record.lives(entry) else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def plain_environment() -> dict[str, str]:
    """This process's environment without what Prefect or parley would read from it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PARLEY_"))}


def _tail(path: Path, lines: int) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
