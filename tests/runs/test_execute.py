from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.prefect_fixture import PrefectServer, plain_environment

pytestmark = pytest.mark.prefect


def _warm(server: PrefectServer, name: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-m", "tests.runs.warm_programs", name],
        env=plain_environment() | server.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_run_is_whole_in_the_ui(prefect_server: PrefectServer) -> None:
    """States, task runs and their edge, logs, events and heartbeats are those of a plain run, for both kinds."""
    seen = _warm(prefect_server, "whole")

    assert {kind: run["value"] for kind, run in seen.items()} == {"async": 4200, "sync": 8400}
    for run in seen.values():
        assert run["states"] == ["Pending", "Running", "Completed"]
        assert set(run["tasks"].values()) == {"Completed"}
        assert "chain of 2100" in run["logs"]
        assert {"prefect.flow-run.Running", "prefect.flow-run.Completed"} <= set(run["events"])
        assert "prefect.flow-run.heartbeat" in run["events"]
    assert set(seen["async"]["tasks"]) == {"fetch", "double"}
    assert seen["async"]["edges"] == 1
    assert "fetched 2100" in seen["async"]["logs"]
    assert set(seen["sync"]["tasks"]) == {"double_here"}


@pytest.mark.serial
def test_warm_run_makes_no_tls_context_and_no_thread_but_its_heartbeat(prefect_server: PrefectServer) -> None:
    spent = _warm(prefect_server, "costs")

    assert spent["contexts"] == 0
    assert set(spent["threads"]) <= {"heartbeat"}, spent["threads"]
    assert spent["slowest_s"] < 0.9, "a sync flow does not wait for its heartbeat's sleep"


def test_run_that_does_not_complete_says_how_it_ended(prefect_server: PrefectServer) -> None:
    ends = _warm(prefect_server, "ends")

    assert "no 3 here" in ends["failed"]
    assert ends["failed"].startswith("Failed")
    assert ends["refused"] == "relinquished: Cancelled"
    assert ends["suspended"] == "relinquished: Suspended"
    assert ends["bad parameter"].startswith("Failed: Validation of flow parameters failed")
    assert ends["cancelled"].startswith("Crashed in ")
    assert ends["cancelled"] in {f"Crashed in {seconds} s" for seconds in range(6)}
    assert ends["unknown run"] == "False"
    assert ends["after"].startswith("Completed"), "the executor is as good as new"


def test_children_forked_from_a_preloaded_parent_run_and_log(prefect_server: PrefectServer) -> None:
    """The parent has imported everything and has one thread; each child's logs arrive before it exits."""
    family = _warm(prefect_server, "forked")

    assert family["threads"] == ["MainThread"]
    assert family["values"] == [0, 2, 4]
    for number, logs in enumerate(family["logs"]):
        assert f"chain of {number}" in logs
        assert f"fetched {number}" in logs
