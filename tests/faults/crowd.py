"""Many people who write over the REST API at the same time, in order, and each a little ahead of the answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final

from tests.faults.history import Ended
from tests.faults.load import People

CONVERSATIONS, AHEAD = 8, 2
"""So many people write at the same time, each up to two messages ahead of the answers."""

QUIET_SECONDS: Final = 75.0
"""A run whose process is gone with nobody to tell it ends when its lease does, 60 s after a hub's start."""


def write_all(people: People, chance: random.Random, prefix: str, messages: int) -> None:
    """Everybody writes their messages in order; a fifth is sent twice, side by side or one after the other."""
    twice = set(chance.sample(range(messages), messages // 5))
    side_by_side = set(chance.sample(sorted(twice), len(twice) // 2))

    def write(conversation: int) -> None:
        open_ones: list[Future[Ended]] = []
        with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(AHEAD) as waiting:
            for number in range(conversation, messages, CONVERSATIONS):
                key = f"{prefix}-{number:05}"
                message = (key, f"/mark {key}", f"{prefix}-{conversation}")
                side = other.submit(people.send, *message) if number in side_by_side else None
                sent = people.send(*message)
                if side is not None:
                    side.result()
                elif number in twice:
                    people.send(*message)
                end = time.monotonic() + QUIET_SECONDS
                open_ones.append(waiting.submit(people.outcome, sent.message_id, end))
                while sum(not one.done() for one in open_ones) >= AHEAD:
                    wait(open_ones, return_when=FIRST_COMPLETED)
                    open_ones = [one for one in open_ones if not one.done()]

    with ThreadPoolExecutor(CONVERSATIONS) as threads:
        for done in [threads.submit(write, conversation) for conversation in range(CONVERSATIONS)]:
            done.result()


def write_steadily(
    people: People, prefix: str, a_second: float, goes_on: Callable[[], bool]
) -> Iterator[str]:
    """So many messages a second, of eight people in turn, whether answers come or not; yields each key."""
    began = time.monotonic()
    with ThreadPoolExecutor(CONVERSATIONS) as threads:
        sending: list[Future[object]] = []
        for number in _numbers(goes_on):
            time.sleep(max(0.0, began + number / a_second - time.monotonic()))
            key = f"{prefix}-{number:05}"
            conversation = f"{prefix}-{number % CONVERSATIONS}"
            sending.append(threads.submit(people.send, key, f"/mark {key}", conversation))
            yield key
        for one in sending:
            one.result()


def _numbers(goes_on: Callable[[], bool]) -> Iterable[int]:
    number = 0
    while goes_on():
        yield number
        number += 1
