"""Somebody sets the clock while runs hold their leases: an hour on, an hour back, ten years on; nothing happens twice.

At each setting a run goes on well beyond a lease's length: it must not be given up. One more stands still meanwhile: it
is given up, and the hub dies exactly then (`reconcile.lost`), which must not have it given up, or told, a second time.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.faults import figures, history
from tests.faults.arming import Arming
from tests.faults.clock import LIBRARIES, Clock
from tests.faults.crowd import QUIET_SECONDS, write_while
from tests.faults.load import People, crowding, open_flow_runs
from tests.faults.sizes import size
from tests.stack import Stack
from tests.system.effects import FILE, doer, effects

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(600, 7200)),
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not here: `make test-servers` brings it"),
]

TOML: Final = """
[automations]
modules = ["tests.system.effects"]

[worker]
children = 6
"""

YEARS: Final = timedelta(days=3652)
SETTINGS: Final = (
    timedelta(hours=1),
    timedelta(hours=-1),
    YEARS,
    YEARS + timedelta(hours=1),
) * size(1, 25)
LASTS: Final = 22.0
"""Seconds at each setting: a run that is silent is given up 15 s after the clock has moved."""

TOO_LATE: Final = frozenset({"failed", "refused", "expired"})
"""What had not begun when ten years had passed is told to be too late."""

GIVEN_UP_WITHIN: Final = 60.0

POINT: Final = "reconcile.lost"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="parley-") as made:
        yield Path(made)


def test_the_clock_is_set(folder: Path) -> None:
    clock, arming = Clock(folder), Arming(folder / "armed")
    extra = {FILE: str(folder / "effects")} | clock.environment | arming.environment
    stack = Stack(folder=folder, toml=TOML, extra=extra)
    stack.command = (sys.executable, "-m", "tests.faults.eager")
    forward = sum(1 for before, now in zip((timedelta(0), *SETTINGS), SETTINGS, strict=False) if now > before)
    for _ in range(forward):
        arming.charge("hub", f"{POINT}:kill:1")
    kept, silent = history.History(), list[str]()
    with stack, People(stack, kept) as people:
        writing = threading.Event()
        steady = threading.Thread(target=write_while, args=(people, "clock", 2, lambda: not writing.is_set()))
        steady.start()
        before = timedelta(0)
        try:
            for number, off in enumerate(SETTINGS):
                began = time.monotonic()
                _held(stack, people, f"long-{number}", LASTS + 5)
                if off > before:
                    silent.append(f"silent-{number}")
                    pid = _held(stack, people, silent[-1], 1)
                    os.kill(pid, signal.SIGSTOP)
                clock.set(off)
                time.sleep(max(0.0, began + LASTS - time.monotonic()))
                if off > before:
                    patience = GIVEN_UP_WITHIN * crowding()
                    stack.until(lambda: _deaths(stack) == len(silent), patience, f"{silent[-1]} is given up")
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
                before = off
        finally:
            writing.set()
            steady.join()
        stack.until(stack.ready, 30, "the stack is well")
        people.outcomes(QUIET_SECONDS * crowding())
        kept.effects, kept.open_runs = effects(Path(stack.environment[FILE])), open_flow_runs(stack, 30)
    figures.keep(
        "clock",
        set_to_h=[off / timedelta(hours=1) for off in SETTINGS],
        given_up=len(silent),
        **history.figures(kept),
    )
    assert history.violations(kept, TOO_LATE) == [], stack.logs("hub", 80)
    failed = {one.key for one in kept.sent if kept.ended[one.message_id].state == "failed"}
    assert failed == set(silent)
    assert _deaths(stack) == forward


def _held(stack: Stack, people: People, key: str, seconds: float) -> int:
    """Begin a run of so many seconds; the process that has had its effect."""
    people.send(key, f"/linger {key} {seconds:g}", key)
    file = Path(stack.environment[FILE])
    stack.until(lambda: doer(file, key) is not None, 30, f"the effect of {key}")
    pid = doer(file, key)
    assert pid is not None
    return pid


def _deaths(stack: Stack) -> int:
    return (stack.home / "logs" / "hub.log").read_text(errors="replace").count(f"failpoint {POINT}: killed")
