"""The disk is full: nothing is acknowledged that is not stored, and everything goes on once there is space."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults import figures
from tests.faults.history import History, Sent, violations
from tests.faults.history import figures as of_history
from tests.faults.load import People, crowding, open_flow_runs
from tests.stack import Stack
from tests.system.conftest import made
from tests.system.effects import FILE, effects

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(900)]

SIZE_MB = 96
FULL_SECONDS = 6.0
RECOVERY_SECONDS = 30.0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder on a file system of its own, with little space."""
    folder = Path(tempfile.mkdtemp(prefix="parley-"))
    argv = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        if not mounted:
            pytest.skip("a small file system has to be mounted, which this user may not do")
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack(small_disk: Path, tmp_path: Path) -> Iterator[Stack]:
    """A stack whose home is on the small disk; the effects are not."""
    running = made(small_disk)
    running.environment[FILE] = str(tmp_path / "effects")
    with running:
        yield running


def test_a_full_disk(stack: Stack, small_disk: Path) -> None:
    """503 while it is full, never a promise; what was promised is kept, within 30 s of the first free byte."""
    history, file = History(), Path(stack.environment[FILE])
    with People(stack, history) as people:
        before = [_mark(people, f"before-{number}") for number in range(10)]
        ballast = _fill(small_disk)
        refused = _write_while_full(stack, history)
        assert refused, "the disk was full and every message was taken"
        ballast.unlink()
        freed = time.monotonic()
        after = _mark(people, "after")
        assert people.outcome(after.message_id, freed + RECOVERY_SECONDS * crowding()).state == "done"
        well = time.monotonic() - freed
        stack.until(stack.ready, RECOVERY_SECONDS * crowding(), "everything is well again")
        people.outcomes(90)
    assert before
    history.effects, history.open_runs = effects(file), open_flow_runs(stack, 30)
    figures.keep(
        "disk_full", refused=len(refused), answered_after_space_s=round(well, 1), **of_history(history)
    )
    assert violations(history) == [], stack.logs()
    assert not refused & set(history.effects)
    assert stack.stop() == 0
    for database in (stack.home / "parley.db", *(stack.home / "prefect").glob("*.db")):
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), database


def _mark(people: People, key: str) -> Sent:
    return people.send(key, f"/mark {key}", "disk")


def _fill(folder: Path) -> Path:
    """Take every free byte; returns the file that holds them."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65_536)
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0")
    return ballast


def _write_while_full(stack: Stack, history: History) -> set[str]:
    """Write for some seconds, each message once; those that were acknowledged are noted, the others returned."""
    refused: set[str] = set()
    end, number = time.monotonic() + FULL_SECONDS, 0
    with httpx.Client(base_url=stack.url, headers=stack.headers, timeout=30, trust_env=False) as client:
        while time.monotonic() < end or (not refused and number < 3_000):
            number += 1
            key = f"full-{number}"
            began = time.monotonic()
            body = {"text": f"/mark {key}", "thread": "full"}
            answer = client.post("/api/v1/messages", json=body, headers={"idempotency-key": key})
            history.texts.append(answer.text)
            if answer.is_success:
                sent = Sent(
                    key=key,
                    conversation="full",
                    began=began,
                    acknowledged=time.monotonic(),
                    message_id=answer.json()["id"],
                )
                history.sent.append(sent)
                continue
            assert answer.status_code == 503, answer.text
            assert "full" in answer.json()["detail"], answer.text
            refused.add(key)
    return refused
