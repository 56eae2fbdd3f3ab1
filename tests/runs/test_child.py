"""One child, spoken to as the worker does: what it answers, what it survives, when it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parley.link.calls import RunOrder
from parley.runs.channel import Channel, pair
from parley.runs.child import Work
from tests.prefect_fixture import PrefectServer, free_port, plain_environment
from tests.prefect_fixture import own_server as prefect_server
from tests.runs.child_flows import ENTRYPOINT

__all__ = ["prefect_server"]

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


class Child:
    """A child process and the worker's end of its channel."""

    def __init__(self, server: PrefectServer, home: Path, environment: dict[str, str]) -> None:
        ours, theirs = pair()
        (home / "parley.toml").write_text("[automations]\nmodules = []\nentry_points = false\n")
        self.server = server
        self.process = subprocess.Popen(
            [sys.executable, "-m", "parley.runs.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=plain_environment() | environment | {"PARLEY_CONFIG": str(home / "parley.toml")},
        )
        theirs.close()
        self.channel = Channel(ours)

    def hear(self) -> dict[str, Any]:
        received = self.channel.receive()
        assert received is not None
        return received[0]

    def run(self, name: str, *, env: dict[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
        """Give it one order; returns how that ended."""
        flow_run = self._create(name, parameters)
        order = RunOrder(
            run_id="r",
            flow_run_id=flow_run["id"],
            automation="by entrypoint",
            entrypoint=f"{ENTRYPOINT}.{name}",
            flow_run=flow_run,
            token="t",
        )
        self.channel.send({"work": Work(order=order, env=env or {}).model_dump(mode="json")})
        message = self.hear()
        if "begun" in message:
            message = self.hear()
        ended: dict[str, Any] = message["ended"]
        return ended

    def _create(self, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
        with self.server.client() as client:
            flow = client.post("/flows/", json={"name": f"child-{name}"}).raise_for_status().json()
            body = {
                "flow_id": flow["id"],
                "parameters": parameters,
                "state": {"type": "PENDING", "name": "Pending"},
            }
            created: dict[str, Any] = client.post("/flow_runs/", json=body).raise_for_status().json()
            return created

    def close(self) -> None:
        self.channel.close()
        self.process.wait(30)


@pytest.fixture
def child(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Child]:
    child = Child(prefect_server, tmp_path, prefect_server.environment)
    assert child.hear() == {"ready": child.process.pid}
    yield child
    child.close()


def test_one_process_runs_both_kinds_again_and_again(child: Child) -> None:
    """Sync and async runs follow one another; each has the environment of its deployment, and leaves none of it."""
    for name in ("kind_sync", "kind_async", "kind_sync"):
        assert child.run(name, env={"COLOUR": "red"}, colour="red") == {
            "how": "ended",
            "state": "Completed",
            "reason": "",
        }
    assert child.run("kind_sync", colour="")["state"] == "Completed"


@pytest.mark.parametrize("name", ["raises", "leaves", "leaves_async"])
def test_a_child_outlives_what_a_flow_does(child: Child, name: str) -> None:
    """An error is a failed run, a sys.exit in a flow ends that run at most."""
    child.run(name)
    assert child.run("kind_sync", colour="")["state"] == "Completed"


def test_a_flow_that_is_not_there_is_said_to_have_failed(child: Child) -> None:
    """The run never started, and the next one does."""
    ended = child.run("nowhere")
    assert ended["how"] == "failed"
    assert "nowhere" in ended["reason"]
    assert child.run("kind_sync", colour="")["state"] == "Completed"


def test_it_leaves_when_the_worker_has_gone(child: Child) -> None:
    """An idle child ends as soon as its channel closes."""
    child.channel.close()
    assert child.process.wait(30) == 0


def test_without_prefect_it_waits_and_leaves_with_the_worker(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    """It is not ready before Prefect answers, and does not outlive its worker meanwhile."""
    nowhere = {**prefect_server.environment, "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    child = Child(prefect_server, tmp_path, nowhere)
    assert child.process.poll() is None
    os.set_blocking(child.channel.fileno(), True)
    child.close()
    assert child.process.returncode == 0
