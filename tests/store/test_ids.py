from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from parley.store.ids import made_at, new_id


def test_an_id_is_a_uuid7_of_this_moment() -> None:
    # In a process of its own: in this one another test may have had ids go on from the future.
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(_in_a_new_process("none")[0])
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= (made.int >> 80) <= time.time_ns() // 1_000_000 + 1


def test_each_id_sorts_after_the_one_before() -> None:
    ids = [new_id() for _ in range(50_000)]
    assert ids == sorted(set(ids))


def test_threads_never_get_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [
            made for part in pool.map(lambda _: [new_id() for _ in range(2_000)], range(8)) for made in part
        ]
    assert len(set(ids)) == len(ids)


def test_ids_keep_growing_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    an_hour_ago = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: an_hour_ago)
    assert new_id() > first


def _in_a_new_process(after: str) -> list[str]:
    program = "import json, sys; from parley.store import ids; ids.go_on_after(sys.argv[1]); "
    program += "print(json.dumps([ids.new_id() for _ in range(10_000)]))"
    done = subprocess.run([sys.executable, "-c", program, after], capture_output=True, check=True, timeout=60)
    made: list[str] = json.loads(done.stdout)
    return made


def _made_in(ahead: timedelta) -> str:
    milliseconds = int((datetime.now(UTC) + ahead).timestamp() * 1000)
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0xFFE << 64 | 0b10 << 62))


def test_ids_go_on_in_the_next_process_although_the_clock_was_set_back() -> None:
    newest = _made_in(timedelta(hours=1))
    ids = _in_a_new_process(newest)
    assert ids == sorted(set(ids))
    assert ids[0] > newest


@pytest.mark.parametrize(
    "before",
    [_made_in(timedelta(hours=-1)), _made_in(timedelta(days=3650)), "none", ""],
    ids=["older", "far-ahead", "no-id", "nothing"],
)
def test_what_is_older_or_cannot_be_true_changes_nothing(before: str) -> None:
    made = made_at(_in_a_new_process(before)[0])
    assert made is not None
    assert abs(made - datetime.now(UTC)) < timedelta(minutes=1)
