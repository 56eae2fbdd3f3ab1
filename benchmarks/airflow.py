"""Airflow as it comes, `airflow standalone`, in an environment of its own under build/: a peer of an answer.

It is brought from PyPI when it is first wanted, at a fixed version with the dependencies of its day: those that were
newest when it came out, because the constraints that its authors publish are on GitHub. Where there is no network it is
not installed, and `NotInstalled` says why.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.stack import ROOT, free_ports, plain_environment

VERSION: Final = "3.3.2"
OF: Final = "2026-09-18"
"""The day after it came out: nothing newer is installed with it."""

FOLDER: Final = ROOT / "build" / f"airflow-{VERSION}"
DAG: Final = "order_status"
PATIENCE: Final = 180.0
INSTALL_SECONDS: Final = 600.0
_NETWORK_SECONDS: Final = "20"


class NotInstalled(Exception):
    """Airflow is not here and could not be brought; the text is one line for people."""


def install(folder: Path = FOLDER) -> Path:
    """The environment's folder of programs, made when it is not there. Raises `NotInstalled`."""
    programs, complete = folder / "bin", folder / "complete"
    if complete.exists():
        return programs
    shutil.rmtree(folder, ignore_errors=True)
    _uv("venv", "--python", sys.executable, str(folder))
    wanted = ("--exclude-newer", OF, f"apache-airflow=={VERSION}")
    _uv("pip", "install", "--python", str(programs / "python"), *wanted)
    complete.touch()
    return programs


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    program = str(uv) if uv.exists() else shutil.which("uv")
    if program is None:
        raise NotInstalled("uv is not installed")
    # Nothing of a surrounding VIRTUAL_ENV: the environment is named.
    environment = {"UV_HTTP_TIMEOUT": _NETWORK_SECONDS} | plain_environment()
    try:
        done = subprocess.run(
            [program, "--no-progress", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"uv took longer than {INSTALL_SECONDS:g} s") from None
    if done.returncode:
        lines = [line.strip(" ×╰▶─>│├\t") for line in done.stderr.splitlines()]
        raise NotInstalled(
            "; ".join(line for line in lines if line)[:300] or f"uv ended with {done.returncode}"
        )


@dataclass(frozen=True, slots=True)
class Airflow:
    """A running one."""

    programs: Path
    environment: dict[str, str]
    client: httpx.Client

    def run_order(self, number: int = 1024) -> float:
        """Have one order looked up, triggered over the API; the seconds from queued to success, by its own times.

        The least that anybody could wait: what comes before the trigger and after the success is not in it.
        """
        body = {"logical_date": None, "conf": {"order_id": number}}
        run = self._ask("POST", f"dags/{DAG}/dagRuns", body)
        ended = self._ended(run["dag_run_id"])
        return (_time(ended["end_date"]) - _time(ended["queued_at"])).total_seconds()

    def command_order(self, number: int = 1024) -> float:
        """The same by the command line, `airflow dags trigger`: the seconds from its start until the success."""
        name = f"bench-{secrets.token_hex(6)}"
        command = ("dags", "trigger", DAG, "--run-id", name, "--conf", json.dumps({"order_id": number}))
        began = datetime.now(UTC)
        subprocess.run(
            [str(self.programs / "airflow"), *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        return (_time(self._ended(name)["end_date"]) - began).total_seconds()

    def has_dag(self) -> bool:
        """Whether the DAG has been read, and may run."""
        answer = self.client.get(f"/api/v2/dags/{DAG}")
        return answer.is_success and not answer.json()["is_paused"]

    def _ended(self, name: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            run = self._ask("GET", f"dags/{DAG}/dagRuns/{name}")
            if run["state"] in ("success", "failed"):
                assert run["state"] == "success", run
                return run
            time.sleep(0.25)
        raise AssertionError(f"Airflow's run did not end within {PATIENCE:g} s")

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = (
            self.client.request(method, f"/api/v2/{path}", json=body).raise_for_status().json()
        )
        return answer


@contextmanager
def standalone(programs: Path, orders: Path, folder: Path) -> Iterator[Airflow]:
    """`airflow standalone` with its own settings but for addresses, once it has read the DAG; ended by pid.

    `orders` is the sample's SQLite file; `folder` is its home, and kept by whoever gave it.
    """
    api, worker_log, trigger_log = free_ports(3)
    (folder / "dags").mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("airflow_dag.py"), folder / "dags" / "airflow_dag.py")
    url = f"http://127.0.0.1:{api}"
    environment = plain_environment() | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log),
        "BENCH_ORDERS": str(orders),
        "PATH": os.pathsep.join([str(programs), os.environ.get("PATH", "")]),
    }
    with (
        (folder / "standalone.log").open("ab") as log,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        process = subprocess.Popen(
            [str(programs / "airflow"), "standalone"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _until(lambda: _logged_in(client, folder), process, "Airflow lets us in")
            airflow = Airflow(programs, environment, client)
            _until(airflow.has_dag, process, "Airflow has read the DAG")
            yield airflow
        finally:
            _end(process.pid)
            process.wait()


def _logged_in(client: httpx.Client, folder: Path) -> bool:
    try:
        kept = (folder / "simple_auth_manager_passwords.json.generated").read_text()
        (user, password), *_ = json.loads(kept).items()
        answer = client.post("/auth/token", json={"username": user, "password": password})
    except (OSError, ValueError, httpx.HTTPError):
        return False
    if answer.is_success:
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return answer.is_success


def _end(pid: int) -> None:
    """It leaves its parts behind when it is ended itself: each of them gets the signal."""
    first = psutil.Process(pid)
    family = [*first.children(recursive=True), first]
    for process in family:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(family, timeout=15)
    for process in alive:
        _quietly(process.kill)


def _quietly(end: Callable[[], None]) -> None:
    try:
        end()
    except psutil.NoSuchProcess:
        return


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE:g} s: {what} (exit code {process.poll()})")
        time.sleep(0.5)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
