"""Failpoints: every one that is declared stands in the code once, kills when its turn comes, and else does nothing."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from parley.failpoints import FAILPOINTS, VARIABLE

PARLEY = Path(__file__).parents[1] / "parley"


def called() -> Counter[str]:
    """The names of all calls of `failpoint` in the engine, as they are written."""
    names: Counter[str] = Counter()
    for path in PARLEY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                assert isinstance(node.args[0], ast.Constant), f"{path}: a name that cannot be read"
                names[str(node.args[0].value)] += 1
    return names


def run(script: str, failpoints: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if failpoints is not None:
        environment[VARIABLE] = failpoints
    return subprocess.run(
        [sys.executable, "-c", f"from parley.failpoints import failpoint\n{script}"],
        env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


THREE = "for turn in range(3):\n    failpoint('inbox.stored')\n    print(turn, flush=True)"


def test_each_is_declared_and_stands_in_one_place() -> None:
    assert called() == Counter(dict.fromkeys(FAILPOINTS, 1))


@pytest.mark.parametrize("given", [None, "", "inbox.received:kill:1", "inbox.stored:kill:4"])
def test_nothing_happens(given: str | None) -> None:
    done = run(THREE, given)
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")
    assert done.stderr.startswith(f"{VARIABLE} is set: " if given else "")
    assert done.stderr.count("\n") == bool(given)


@pytest.mark.parametrize(("given", "before"), [
    ("inbox.stored:kill:1", ""),
    ("inbox.stored:kill:3", "0\n1\n"),
    ("inbox.stored:kill:3, inbox.stored:kill:2,inbox.received:kill:1", "0\n"),
])  # fmt: skip
def test_it_kills_in_its_turn(given: str, before: str) -> None:
    done = run(THREE, given)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == before
    assert done.stderr.splitlines()[1:] == ["failpoint inbox.stored: killed"]


def test_turns_are_shared_with_forks() -> None:
    """Of five forks, each of which comes there once, the second and the fourth die."""
    script = """
import os
for _ in range(5):
    if not (pid := os.fork()):
        failpoint("run.started")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(script, "run.started:kill:2,run.started:kill:4").stdout.split() == ["0", "-9", "0", "-9", "0"]


def test_nothing_arms_one_later() -> None:
    script = f"import os\nos.environ[{VARIABLE!r}] = 'inbox.stored:kill:1'\n{THREE}"
    assert run(script).returncode == 0


@pytest.mark.parametrize(
    "given",
    [
        "inbox.stored",
        "inbox.stored:kill",
        "inbox.stored:kill:0",
        "nothing.such:kill:1",
        "inbox.stored:stop:1",
    ],
)
def test_what_is_not_understood_ends_the_process(given: str) -> None:
    done = run(THREE, given)
    assert done.returncode == 1
    assert "is no failpoint" in done.stderr
    assert not done.stdout
