"""What can do harm, over a whole stack: refused to a guest, asked for by an operator, approved by another, run once."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.stack import COMMAND, Stack

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

TOML = """
[scripts.restart-service]
argv = ["{program}", "{{host}}"]
summary = "Restart a service."
parameters = {{ host = {{ enum = ["web1", "web2"] }} }}
"""
PROGRAM = """#!/bin/sh
echo "restart $1" >>"{effects}"
echo "$1 is running."
"""
ASK = "/repair restart-service host=web1"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack with a script that leaves a line, an operator ann, and a guest."""
    with made(tmp_path) as running:
        yield running


@contextmanager
def made(folder: Path, **extra: str) -> Iterator[Stack]:
    program = folder / "restart"
    program.write_text(PROGRAM.format(effects=folder / "effects"))
    program.chmod(0o755)
    with Stack(toml=TOML.format(program=program), extra=extra) as running:
        running.admin("person_add", name="ann", role="operator")
        running.admin("person_add", name="guest", role="user")
        yield running


def parley(stack: Stack, *words: str, good: bool = True) -> str:
    """What the command line prints, as the person at the machine types it."""
    done = subprocess.run(
        [COMMAND[0], *words],
        env=os.environ | stack.environment,
        cwd=stack.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode == 0) is good, done.stdout + done.stderr
    return done.stdout + done.stderr


def say_as_ann(stack: Stack, text: str) -> dict[str, object]:
    """Ann speaks with a token of her own."""
    token = stack.admin("token", as_name="ann")["token"]
    answer = stack.client.post(
        "/api/v1/messages",
        params={"wait": 60},
        json={"text": text},
        headers={"Authorization": f"Bearer {token}"},
    )
    said: dict[str, object] = answer.raise_for_status().json()
    return said


def test_it_waits_for_a_second_person_runs_once_and_the_audit_proves_it(stack: Stack, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    refused = parley(stack, "say", ASK, "--as", "guest", good=False)
    assert "can do harm" in refused
    assert not effects.exists()

    asked = say_as_ann(stack, ASK)
    assert asked["state"] == "awaiting-approval"
    told = str(asked["replies"])
    found = re.search(r"Code `([A-Z2-9]{4})`", told)
    assert found, told
    code = found[1]
    assert "your own request" in str(say_as_ann(stack, f"/approve {code}")["replies"])
    (waiting,) = stack.client.get("/api/v1/approvals").raise_for_status().json()
    assert (waiting["code"], waiting["actor"], waiting["may"]) == (code, "ann", True)
    assert not effects.exists()

    # Whoever dies meanwhile: what waits, and what was approved, is in the store.
    stack.kill("hub")
    stack.until(stack.ready, 60, "the hub is back")
    assert "Approved: `/repair` of ann runs now" in parley(stack, "say", f"/approve {code}")
    stack.until(effects.exists, 60, "it runs")
    stack.until(lambda: _done(stack), 60, "its end")
    assert "approved by" in parley(stack, "say", f"/approve {code}")
    assert effects.read_text() == "restart web1\n"

    rows = json.loads(parley(stack, "audit", "show", "--request", _request(stack), "--json"))
    happened = [(row["what"], row["who"]) for row in rows if row.get("sequence")]
    story = [
        ("run:repair intent", "ann"),
        ("approval:repair intent", "ann"),
        ("approve intent", "owner"),
        ("approve outcome", "owner"),
        ("approval:repair outcome", "owner"),
        ("run:repair outcome", "ann"),
    ]
    assert [one for one in happened if one in story] == story, rows
    assert "0 problems" in parley(stack, "audit", "verify")
    stack.stop()
    _edit_one_byte(stack)
    assert re.search(r"Row \d+ was changed", parley(stack, "audit", "verify", "--offline", good=False))


@pytest.mark.parametrize("moment", ["request.decided", "request.stored"])
def test_the_hub_dies_as_the_vote_comes_and_it_runs_once(tmp_path: Path, moment: str) -> None:
    """Before the commit the vote is counted after the restart; after it, what it let go is taken up."""
    effects = tmp_path / "effects"
    # The first message asks, the second one is the vote.
    with made(tmp_path, PARLEY_FAILPOINT=f"{moment}:kill:2") as stack:
        asked = say_as_ann(stack, ASK)
        found = re.search(r"Code `([A-Z2-9]{4})`", str(asked["replies"]))
        assert found, asked
        hub = stack.pid("hub")
        with suppress(httpx.HTTPError):
            stack.client.post("/api/v1/messages", json={"text": f"/approve {found[1]}"})
        stack.until(lambda: stack.ready() and stack.pid("hub") != hub, 90, "the hub died and is back")
        stack.until(lambda: _done(stack), 90, "it ran")
        assert effects.read_text() == "restart web1\n"
        rows = json.loads(parley(stack, "audit", "show", "--action", "appro*", "--json"))
        assert [(row["action"], row["phase"]) for row in rows] == [
            ("approval:repair", "intent"),
            ("approve", "intent"),
            ("approve", "outcome"),
            ("approval:repair", "outcome"),
        ]
        assert "0 problems" in parley(stack, "audit", "verify")


def _done(stack: Stack) -> bool:
    return any(run["state"] == "done" for run in _repairs(stack))


def _request(stack: Stack) -> str:
    (run,) = [run for run in _repairs(stack) if run["state"] == "done"]
    return str(run["id"])


def _repairs(stack: Stack) -> list[dict[str, object]]:
    runs = stack.client.get("/api/v1/runs").raise_for_status().json()["items"]
    return [run for run in runs if run["automation"] == "repair"]


def _edit_one_byte(stack: Stack) -> None:
    with closing(sqlite3.connect(stack.home / "parley.db")) as store:
        triggers = store.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'"
        )
        for (name,) in triggers.fetchall():
            store.execute(f"DROP TRIGGER {name}")
        changed = store.execute(
            "UPDATE audit SET actor = 'Ann' WHERE sequence ="
            " (SELECT max(sequence) FROM audit WHERE actor = 'ann' AND action = 'run:repair')"
        )
        assert changed.rowcount == 1
        store.commit()
