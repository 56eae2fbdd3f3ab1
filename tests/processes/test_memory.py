"""What `parley status` says of processes and their memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.processes import memory, record

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
child.stdin.close()
child.wait()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process with a child, as pids."""
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        yield parent.pid, int(parent.stdout.readline())
    finally:
        parent.stdin.close()
        parent.wait()
        parent.stdout.close()


def test_memory_of_a_process_is_told() -> None:
    size = memory.pss_mb(os.getpid())
    assert size is not None
    assert 5 < size < 2000


def test_a_process_that_is_gone_has_no_memory() -> None:
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    assert memory.pss_mb(gone.pid) is None
    assert memory.descendants(gone.pid) == []


def test_where_there_is_no_proc_the_resident_size_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: tuple[int, int]
) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path)
    size = memory.pss_mb(os.getpid())
    assert size is not None
    assert size > 5
    assert memory.descendants(family[0]) == [family[1]]


def test_descendants_are_found(family: tuple[int, int]) -> None:
    parent, child = family
    assert memory.descendants(parent) == [child]
    below = memory.descendants(os.getpid())
    assert below.index(parent) < below.index(child)


def test_the_stack_is_listed_with_the_workers_children(tmp_path: Path, family: tuple[int, int]) -> None:
    parent, child = family
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    record.make_home(tmp_path)
    me = os.getpid()
    entries = [
        record.Entry("supervisor", me, "2026-01-01T00:00:00+00:00", 0, record.born(me)),
        record.Entry("worker", parent, "2026-01-01T00:00:00+00:00", 1, record.born(parent)),
        record.Entry("hub", gone.pid, "2026-01-01T00:00:00+00:00", 0, 1.0),
    ]
    record.write(tmp_path, entries)
    rows = memory.processes(tmp_path)
    assert [(row["role"], row["pid"], row["state"]) for row in rows] == [
        ("supervisor", me, "running"),
        ("worker", parent, "running"),
        ("child", child, "running"),
        ("hub", gone.pid, "gone"),
    ]
    assert rows[0]["pss_mb"] > 5
    assert rows[3]["pss_mb"] is None


def test_nothing_is_listed_where_nothing_runs(tmp_path: Path) -> None:
    assert memory.processes(tmp_path) == []
    record.make_home(tmp_path)
    (tmp_path / "run" / "processes.json").write_text("{ half a f")
    assert memory.processes(tmp_path) == []
