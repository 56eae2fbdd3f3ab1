from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from parley.store.ids import new_id


def test_an_id_is_a_uuid7_of_this_moment() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_id())
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
