"""Many people who write over the REST API at the same time, in order, and each a little ahead of the answers."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, Self

from tests.faults.history import Ended, Sent
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
        with Ahead(people) as ahead, ThreadPoolExecutor(1) as other:
            for number in range(conversation, messages, CONVERSATIONS):
                key = f"{prefix}-{number:05}"
                message = (key, f"/mark {key}", f"{prefix}-{conversation}")
                side = other.submit(people.send, *message) if number in side_by_side else None
                sent = people.send(*message)
                if side is not None:
                    side.result()
                elif number in twice:
                    people.send(*message)
                ahead.wait_after(sent)

    _all(write)


def write_while(people: People, prefix: str, a_second: float, goes_on: Callable[[], bool]) -> None:
    """So many messages a second of all together at the most, as long as it goes on; nobody far ahead of the answers."""

    def write(conversation: int) -> None:
        with Ahead(people) as ahead:
            for number in itertools.count():
                began = time.monotonic()
                key = f"{prefix}-{conversation}-{number:05}"
                ahead.wait_after(people.send(key, f"/mark {key}", f"{prefix}-{conversation}"))
                while goes_on() and time.monotonic() < began + CONVERSATIONS / a_second:
                    time.sleep(0.05)
                if not goes_on():
                    return

    _all(write)


class Ahead:
    """Keeps one who writes from being more than `AHEAD` messages ahead of the answers."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._open: list[Future[Ended]] = []
        self._waiting = ThreadPoolExecutor(AHEAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.shutdown()

    def wait_after(self, sent: Sent) -> None:
        """Return once there is room for the next."""
        end = time.monotonic() + QUIET_SECONDS
        self._open.append(self._waiting.submit(self._people.outcome, sent.message_id, end))
        while sum(not one.done() for one in self._open) >= AHEAD:
            wait(self._open, return_when=FIRST_COMPLETED)
            self._open = [one for one in self._open if not one.done()]


def _all(write: Callable[[int], None]) -> None:
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
