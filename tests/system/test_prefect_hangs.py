"""Prefect's server hangs: what people ask for is taken and waits, they and the people on duty are told once."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.duty import Duty
from tests.stack import Stack
from tests.system.conftest import TOML, made
from tests.system.effects import FILE, effects

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

ASKED = 12
ON_DUTY = '[duty]\nconversations = ["console:owner"]\n'


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A stack whose owner is on duty, and reads it in the console."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder, made(Path(folder), TOML + ON_DUTY) as up:
        yield up


def test_all_is_taken_waits_and_runs_when_it_is_back(stack: Stack) -> None:
    assert stack.say("/mark before")["state"] == "done"
    with Duty(stack) as duty:
        client = stack.client
        hung = stack.kill("prefect", signal.SIGSTOP)
        began = time.monotonic()
        ids = {}
        for number in range(ASKED):
            key = f"hung-{number:02}"
            taken = client.post("/api/v1/messages", json={"text": f"/mark {key}"})
            assert taken.status_code == 202
            ids[key] = taken.json()["id"]
        assert time.monotonic() - began < 10
        stack.until(lambda: len(duty.since(began, "waiting: Prefect's server")) >= ASKED, 60, "askers know")
        stack.until(lambda: bool(_told(duty, began, "does not answer")), 60, "the people on duty know")
        assert _told(duty, began, "does not answer")[0] - began <= 60
        states = {client.get(f"/api/v1/messages/{one}").json()["state"] for one in ids.values()}
        assert states == {"queued"}

        with suppress(ProcessLookupError):  # the supervisor may have ended it by now, and started another
            os.kill(hung, signal.SIGCONT)
        for message_id in ids.values():
            ended = client.get(f"/api/v1/messages/{message_id}", params={"wait": 120}).json()
            assert (ended["state"], len(ended["replies"])) == ("done", 1)
        stack.until(
            lambda: bool(_told(duty, began, "answers again")), 90, "the people on duty know it is over"
        )
        assert len(_told(duty, began, "does not answer")) == len(_told(duty, began, "answers again")) == 1
        assert len(duty.since(began, "waiting: ")) == ASKED
    done = effects(Path(stack.environment[FILE]))
    assert sorted(done) == sorted(["before", *ids])


def _told(duty: Duty, began: float, words: str) -> list[float]:
    """When the people on duty were told of the server."""
    lines = duty.since(began, words)
    return [line.at for line in lines if line.text.startswith("Prefect's server at")]
