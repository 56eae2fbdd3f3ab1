"""`parley up` ends in good order, begins again where it was, and is not started twice."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.history import History, Sent, violations
from tests.faults.load import People, crowding, open_flow_runs
from tests.stack import COMMAND, Stack
from tests.system.conftest import TOML, made
from tests.system.effects import FILE, effects, gate

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(900)]

RUNNING, WAITING = 20, 10
TOO_LONG = 600.0
OPENED_AFTER = 3.0
"""So many seconds after SIGTERM the runs that wait at the gate can end: within what they get."""

QUIET_SECONDS = 75.0
"""A run that the worker had no time left to tell of ends when its lease does, 60 s after the hub's next start."""

GRACE = 45.0
"""The longest grace of each stage, one after another: runs get 20 s to finish, and hub and Prefect end after them."""


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A stack with room for all the running runs at once."""
    places = f"[worker]\nchildren = {RUNNING + 1}\n"
    with (
        tempfile.TemporaryDirectory(prefix="parley-") as folder,
        made(Path(folder), TOML + places) as running,
    ):
        yield running


def test_stopped_in_the_middle_of_running_runs(stack: Stack) -> None:
    """SIGTERM: runs that end in time are answered, one that does not is told as lost, those not begun run later."""
    history = History()
    file = Path(stack.environment[FILE])
    with People(stack, history) as people:
        # Under load others may begin before it: then it would wait, begin at the second start, and last on there.
        _linger(people, 0, TOO_LONG)
        stack.until(lambda: bool(effects(file)), 60, "the one that lasts is running")
        for number in range(1, RUNNING + WAITING):
            key = f"graceful-{number:02}"
            people.send(key, f"/hold {key}", key)
        stack.until(lambda: len(effects(file)) >= RUNNING, 60, f"{RUNNING} runs are running")
        began = time.monotonic()
        opening = threading.Timer(OPENED_AFTER, gate(file).touch)
        opening.start()
        assert stack.stop() == 0, stack.logs()
        opening.join()
        assert time.monotonic() - began < GRACE
    assert len(effects(file)) == RUNNING
    _second_start(stack, history, file)
    _twice(stack)


def _linger(people: People, number: int, seconds: float) -> Sent:
    key = f"graceful-{number:02}"
    return people.send(key, f"/linger {key} {seconds:g}", key)


def _second_start(stack: Stack, history: History, file: Path) -> None:
    stack.start()
    with People(stack, history) as people:
        people.outcomes(QUIET_SECONDS * crowding())
        _linger(people, 99, 0)
        people.outcomes(30)
    history.effects, history.open_runs = effects(file), open_flow_runs(stack, 30)
    assert violations(history) == [], stack.logs()
    failed = [one.key for one in history.sent if history.ended[one.message_id].state == "failed"]
    assert failed == ["graceful-00"]


def _twice(stack: Stack) -> None:
    """A second `parley up` in the same home is refused, with the pid of the first; the first does not notice."""
    assert stack.process is not None
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(_up, stack).result()
    assert second.returncode == 2
    assert f"is running for {stack.home} already (pid {stack.process.pid})" in second.stderr
    assert "parley down" in second.stderr
    assert second.stderr.count("\n") <= 2
    assert stack.ready()


def _up(stack: Stack) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND,
        env=stack.environment,
        cwd=stack.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
