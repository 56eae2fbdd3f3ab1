from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow_engine, results

from parley.runs import lean


@pytest.mark.parametrize("patch", lean.PATCHES, ids=lambda patch: patch.name)
def test_patch_was_written_against_the_installed_prefect(patch: lean.Patch) -> None:
    """Fails when Prefect changed underneath: read its new source, mend the patch, add the digest."""
    assert patch.fits(), f"{patch.target} is now {lean.source_digest(patch.present)}"


def test_block_leaves_prefect_as_it_was() -> None:
    before = [patch.present for patch in lean.PATCHES]

    with lean.lean() as missing:
        during = [patch.present for patch in lean.PATCHES]
        assert lean.install() == [], "a second time changes nothing"
        assert [patch.present for patch in lean.PATCHES] == during

    assert missing == []
    assert not set(before) & set(during)
    assert [patch.present for patch in lean.PATCHES] == before


def test_changed_prefect_keeps_its_plain_path_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def next_years_heartbeats(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(flow_engine, "_send_heartbeats", next_years_heartbeats)
    logger = logging.getLogger("prefect.parley")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)

    with caplog.at_level(logging.WARNING), lean.lean() as missing:
        assert flow_engine._send_heartbeats is next_years_heartbeats

    assert missing == ["prefect.flow_engine._send_heartbeats"]
    assert "prefect.flow_engine._send_heartbeats" in caplog.text


def test_function_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(results, "_read_server_default_result_storage_block_id")

    with lean.lean() as missing:
        assert missing == ["prefect.results._read_server_default_result_storage_block_id"]


def test_default_storage_is_read_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[UUID | None] = [None, uuid4()]
    read = lean._remembered_storage(lambda: answers.pop(0))
    changed = answers[1]

    assert [read() for _ in range(5)] == [None] * 5
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + lean.STORAGE_SECONDS + 1)
    assert read() == changed


async def test_default_storage_is_remembered_between_asynchronous_reads() -> None:
    answers: list[UUID | None] = [None]

    async def original() -> UUID | None:
        return answers.pop(0)

    read = lean._remembered_storage_async(original)

    assert [await read() for _ in range(5)] == [None] * 5


def test_heartbeats_end_with_the_run() -> None:
    """Prefect's own thread sleeps on for up to a second; ours is gone at once."""
    engine = _Engine()
    with lean.lean():
        start = time.monotonic()
        with flow_engine._send_heartbeats(engine):  # type: ignore[arg-type]
            while not engine.beats and time.monotonic() - start < 5:
                time.sleep(0.01)
        assert time.monotonic() - start < 1

    assert engine.beats == 1


class _Engine:
    """What the heartbeats ask of an engine."""

    heartbeat_seconds = 30
    flow_run = None
    logger = logging.getLogger("engine")

    def __init__(self) -> None:
        self.beats = 0

    def _build_heartbeat_event_template(self) -> tuple[dict[str, str], list[Any]]:
        return {}, []

    def _emit_flow_run_heartbeat(self, *_: Any) -> None:
        self.beats += 1
