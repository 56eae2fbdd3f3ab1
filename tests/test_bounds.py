"""The bounds in pyproject.toml are true: the newest versions that they allow today carry a working Prefect server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from parley import prefect_env

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")

FIRST_SAFE_PREFECT = Version("3.6.28")
"""Mends CVE-2026-3514, -5366, -7723 and -7724."""


def floor(requirement: Requirement) -> Version:
    return next(Version(part.version) for part in requirement.specifier if part.operator == ">=")


def prefect_requirement() -> Requirement:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return next(found for line in project["dependencies"] if (found := Requirement(line)).name == "prefect")


def test_no_prefect_with_a_known_hole_is_allowed() -> None:
    assert floor(prefect_requirement()) >= FIRST_SAFE_PREFECT


def test_no_prefect_with_a_known_hole_is_locked() -> None:
    pinned = re.search(r"^prefect==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert pinned is not None
    assert Version(pinned[1]) >= FIRST_SAFE_PREFECT
    assert Version(pinned[1]) in prefect_requirement().specifier


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv that holds our wheel, all extras, and the newest versions that its bounds allow."""
    folder = tmp_path_factory.mktemp("newest")
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never"}

    def uv(*arguments: str | Path) -> None:
        done = subprocess.run(
            [UV, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    # The wheel and not the tree: what the tree's folders happen to hold must not help.
    uv("build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    uv("venv", "--quiet", "--python", sys.executable, folder / "venv")
    wheel = next(folder.glob("*.whl"))
    uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "venv/bin/python",
        f"prefect-parley[all] @ {wheel.as_uri()}",
    )
    return folder / "venv/bin/python"


@contextmanager
def prefect_server(python: Path, home: Path) -> Iterator[httpx.Client]:
    """Our own launcher under that Python; yields a client of its API that carries password and CSRF token."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "PARLEY_", "COV"))
    }
    # The scheduler's first look comes before there is a deployment; its second must not be a minute away.
    environment["PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS"] = "1"
    log = home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [python, "-m", "deployments.prefect_server", "--home", home, "--port", str(port)],
            cwd=home,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=20, trust_env=False) as client:

            def healthy() -> bool:
                assert server.poll() is None, f"the server ended:\n{log.read_text()[-4000:]}"
                try:
                    return client.get("/health", auth=credentials(home)).status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            wait_until(healthy, seconds=90)
            client.auth = httpx.BasicAuth(*credentials(home))
            token = client.get("/csrf-token", params={"client": "bounds"}).raise_for_status().json()["token"]
            client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "bounds"})
            yield client
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def credentials(home: Path) -> tuple[str, str]:
    user, _, password = prefect_env.api_password(home).partition(":")
    return user, password


def wait_until(true: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {true.__name__}"
        time.sleep(0.2)


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prefect_works_with_the_newest_versions_that_the_bounds_allow(newest: Path, tmp_path: Path) -> None:
    with prefect_server(newest, tmp_path) as client:

        def post(path: str, body: dict[str, Any]) -> Any:
            answer = client.post(path, json=body)
            assert answer.is_success, f"POST {path}: {answer.status_code} {answer.text}"
            return answer.json()

        flow = post("/flows/", {"name": "bounds"})
        post("/work_pools/", {"name": "p", "type": "process"})
        deployment = post(
            "/deployments/",
            {
                "name": "hourly",
                "flow_id": flow["id"],
                "work_pool_name": "p",
                "schedules": [{"active": True, "schedule": {"interval": 3600}}],
            },
        )

        # SQLAlchemy 2.1 refuses the bulk insert of scheduled runs, and the scheduler keeps that to itself.
        def scheduled() -> bool:
            count = post("/flow_runs/count", {"deployments": {"id": {"any_": [deployment["id"]]}}})
            return isinstance(count, int) and count > 0

        wait_until(scheduled, seconds=30)

        # Prefect's client sends these nulls on every deploy; FastAPI from 0.151 on answers them with 422.
        assert post("/work_pools/p/workers/filter", {"workers": None, "offset": None, "limit": None}) == []
