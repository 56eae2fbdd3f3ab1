"""A day of messages squeezed into ten minutes: who asks what, where and when, fixed beforehand by a seed.

Two peaks in office hours and a quiet night: the busiest hour has twice the messages of an average one. An hour of that
day lasts 25 seconds here.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

Platform = Literal["wecom", "mail", "xmpp"]

PLATFORMS: Final[dict[Platform, int]] = {"wecom": 50, "mail": 25, "xmpp": 25}
"""Shares of the messages, in percent: a company's chat, and who writes from elsewhere."""

PEOPLE: Final[dict[Platform, int]] = {"wecom": 60, "mail": 60, "xmpp": 12}
"""How many write on each; those of XMPP are twelve because each has a connection. Number 0 is the one who repairs."""

KINDS: Final[dict[str, int]] = {"order": 88, "report": 6, "daily": 5, "repair": 1}
"""Shares of what is asked, in percent. A mail proves nobody: who writes one asks for an order where others repair."""

BY_HOUR: Final = (
    *(0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.4, 0.8, 1.4, 1.9, 2.0, 1.8),
    *(1.2, 1.4, 1.9, 2.0, 1.8, 1.4, 1.0, 0.8, 0.7, 0.6, 0.4, 0.3),
)
"""How busy each hour of the day is, beside the others."""

PEAK_HOUR: Final = 10.5
SEED: Final = 20_26


@dataclass(frozen=True, slots=True)
class Asking:
    """One message: its moment in seconds from the beginning, its person by number, and what an answer to it says."""

    at: float
    platform: Platform
    person: int
    kind: str
    text: str
    answer: str


def whole_day(count: int, seconds: float, seed: int = SEED) -> list[Asking]:
    """So many messages in so many seconds, in their order; the same ones for the same seed."""
    chance = random.Random(seed)
    moments = sorted(_moment(chance.random()) * seconds for _ in range(count))
    turns: dict[Platform, int] = dict.fromkeys(PLATFORMS, 0)
    asked: list[Asking] = []
    for at in moments:
        platform = chance.choices(list(PLATFORMS), weights=list(PLATFORMS.values()))[0]
        # In turn, so that nobody asks again while they still wait.
        turns[platform] += 1
        kind = chance.choices(list(KINDS), weights=list(KINDS.values()))[0]
        person = 1 + turns[platform] % (PEOPLE[platform] - 1)
        asked.append(asking(at, platform, person, kind, chance.randrange(1000, 1060)))
    return asked


def excerpt(asked: Sequence[Asking], seconds: float, whole: float) -> list[Asking]:
    """What falls into so many seconds around the first peak, from its own beginning."""
    if seconds >= whole:
        return list(asked)
    begin = whole * PEAK_HOUR / 24 - seconds / 2
    inside = [one for one in asked if begin <= one.at < begin + seconds]
    return [
        Asking(one.at - begin, one.platform, one.person, one.kind, one.text, one.answer) for one in inside
    ]


def asking(at: float, platform: Platform, person: int, kind: str, order: int) -> Asking:
    """A message of this kind."""
    if kind == "repair" and platform == "mail":
        kind = "order"
    text, answer = {
        "order": (f"/order {order}", f"Order {order}"),
        "report": (f"/report {order}", f"order {order}"),
        "daily": ("/daily", "Orders from"),
        "repair": ("/repair restart-service host=web1", "succeeded"),
    }[kind]
    return Asking(at, platform, 0 if kind == "repair" else person, kind, text, answer)


def busiest_minute(asked: Sequence[Asking]) -> tuple[float, int]:
    """Where the sixty seconds with the most messages begin, and how many those are."""
    moments = [one.at for one in asked]
    counts = [(bisect.bisect_left(moments, at + 60.0) - number, at) for number, at in enumerate(moments)]
    most, begin = max(counts, key=lambda pair: (pair[0], -pair[1]))
    return begin, most


def _moment(share: float) -> float:
    """The moment of the day, from 0 to 1, until which this share of the messages has come."""
    until = list(accumulate(BY_HOUR, initial=0.0))
    wanted = share * until[-1]
    hour = min(bisect.bisect_right(until, wanted) - 1, len(BY_HOUR) - 1)
    return (hour + (wanted - until[hour]) / BY_HOUR[hour]) / len(BY_HOUR)
