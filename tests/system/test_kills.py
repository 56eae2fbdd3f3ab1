"""Processes die in the middle of the work: everything that was acknowledged ends, and nothing happens twice."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.stack import Stack
from tests.system.effects import doer, effects
from tests.system.history import Ended, History, figures, violations
from tests.system.load import Nemesis, People, crowding, open_flow_runs, stopped

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(900)]

SEEDS = [int(seed) for seed in os.environ.get("PARLEY_TEST_SEEDS", "1").split(",")]
MESSAGES, TWICE = 300, 60
CONVERSATIONS, AHEAD = 8, 2
"""So many people write at the same time, each up to two messages ahead of the answers."""

ROLES = ("hub", "child", "worker", "prefect", "listeners", "nursery", "child", "hub", "worker", "child")
QUIET_SECONDS = 75.0
"""A run whose process is gone with nobody to tell it ends when its lease does, 60 s after a hub's start."""


def write_all(people: People, chance: random.Random, prefix: str) -> None:
    """Everybody writes their messages in order; some are sent twice, side by side or one after the other."""
    twice = set(chance.sample(range(MESSAGES), TWICE))
    side_by_side = set(chance.sample(sorted(twice), TWICE // 2))

    def write(conversation: int) -> None:
        open_ones: list[Future[Ended]] = []
        with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(AHEAD) as waiting:
            for number in range(conversation, MESSAGES, CONVERSATIONS):
                key = f"{prefix}-{number:03}"
                message = (key, f"/mark {key}", f"{prefix}-{conversation}")
                side = other.submit(people.send, *message) if number in side_by_side else None
                sent = people.send(*message)
                if side is not None:
                    side.result()
                elif number in twice:
                    people.send(*message)
                open_ones.append(
                    waiting.submit(people.outcome, sent.message_id, time.monotonic() + QUIET_SECONDS)
                )
                while sum(not one.done() for one in open_ones) >= AHEAD:
                    wait(open_ones, return_when=FIRST_COMPLETED)
                    open_ones = [one for one in open_ones if not one.done()]

    with ThreadPoolExecutor(CONVERSATIONS) as threads:
        for done in [threads.submit(write, conversation) for conversation in range(CONVERSATIONS)]:
            done.result()


@pytest.fixture
def history(stack: Stack, effects_file: Path) -> Iterator[History]:
    """A history of one test: only its own effects are in it."""
    earlier = len(effects(effects_file))
    kept = History()
    yield kept
    kept.effects = effects(effects_file)[earlier:]
    kept.open_runs = open_flow_runs(stack, 30)
    print(json.dumps(figures(kept)))
    assert violations(kept) == [], stack.logs("supervisor", 60)
    stack.until(stack.ready, 30, "the stack is well after this test")


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_in_the_middle(stack: Stack, history: History, seed: int) -> None:
    """300 messages, 60 of them sent twice, while every process of the stack is killed, some more than once."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    nemesis = Nemesis(stack, history)
    roles = [*ROLES]
    chance.shuffle(roles)
    with People(stack, history) as people, ThreadPoolExecutor(1) as side:
        killing = side.submit(nemesis.run, roles, MESSAGES, chance)
        write_all(people, chance, f"kill{seed}")
        killing.result()
        nemesis.close()
        people.outcomes(QUIET_SECONDS * crowding())
    assert {kill.role for kill in history.kills} == set(ROLES)
    lost = [end for end in history.ended.values() if end.state == "failed"]
    assert len(lost) <= nemesis.processes_killed["child"], [end.reason for end in lost]


def test_a_process_that_stands_still(stack: Stack, history: History, effects_file: Path) -> None:
    """The hub for 15 s: nothing is lost, and it is not killed for it. A child beyond its lease: its run is given up.

    When that child goes on nobody listens to it any more, and it does not stay in the way.
    """
    hub = stack.pid("hub")
    with People(stack, history) as people, ThreadPoolExecutor(8) as threads:
        short, long = (people.send(key, f"/linger {key} 1", key) for key in ("still-short", "still-long"))
        held = [_doer(stack, effects_file, sent.key) for sent in (short, long)]
        children = [
            threads.submit(stopped, pid, seconds) for pid, seconds in zip(held, (10, 45), strict=True)
        ]
        still = threads.submit(stopped, hub, 15)
        writes = [
            threads.submit(people.send, f"still-{n}", f"/mark still-{n}", f"still-{n % 4}") for n in range(20)
        ]
        for write in writes:
            write.result()
        still.result()
        assert stack.pid("hub") == hub
        given_up = people.outcome(long.message_id, time.monotonic() + 45)
        assert given_up.state == "failed"
        for child in children:
            child.result()
        people.outcomes(QUIET_SECONDS)
    assert {one.key for one in history.sent if history.ended[one.message_id].state == "failed"} == {
        "still-long"
    }


def _doer(stack: Stack, file: Path, key: str) -> int:
    stack.until(lambda: doer(file, key) is not None, 30, f"the effect of {key}")
    pid = doer(file, key)
    assert pid is not None
    return pid
