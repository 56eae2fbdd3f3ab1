"""What people on several platforms saw while processes died, and whether every promise was kept.

As `tests.faults.history`, nothing here knows how the system works: it reads what was said, what the platforms showed,
the effects' file, what a program heard that had subscribed, and what the people on duty were told. Where a platform
cannot promise something, `Promise` says so with the reason, and how much of it is excused is counted exactly.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.faults.history import Kill

TAKEN_WITHIN = 2.0
"""Seconds, on a machine that is its own, within which what was handed to a listener is stored while there is a hub."""

UNDER_WAY = 2
"""Answers of one conversation that may be under way at once: its threads do not wait for one another."""

MOSTLY = 0.6
"""The share of messages that is answered on every platform, whatever dies."""

_REPORT = re.compile(r"`?/(look|mark|linger)`? (was interrupted|failed)")
_WAITS = re.compile(r"waiting: [^`]*`/(look|mark|linger)` is kept")
"""What who asked is told once, while what the run needs is away."""
_UNSURE = re.compile(r"An answer to you on \S+ may not have arrived")
"""What who asked is told, where it may still be told, of an answer that nobody knows the fate of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What one kind of conversation cannot promise, each with the reason; "" where it can."""

    lost_said: str = ""
    """Why what a person says may never reach us: said to nobody, or to listeners that died before it was stored."""
    lost_answer: str = ""
    """Why an answer under way as a process died may be missing; the people on duty are told so."""
    given_up: str = ""
    """Why the platform itself may give up telling us what a person said, not acknowledged as it is."""
    swapped: str = ""
    """Why what was not acknowledged may come behind what was said later."""


@dataclass(slots=True, kw_only=True)
class Said:
    """One message of a person, and where people must see its answer."""

    key: str
    command: str
    platform: str
    conversation: str
    place: str
    promise: Promise
    at: float
    native: str = ""
    reached: bool = True
    """Whether somebody was there to hear it, or the platform keeps it until there is."""
    acknowledged: float | None = None
    """When the platform was told that we have it; None where it was not, or knows no such thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Something that we said, where people see it."""

    platform: str
    place: str
    text: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room that notices are told in; its places are itself and the threads in it."""

    platform: str
    place: str
    promise: Promise

    def has(self, seen: Seen) -> bool:
        """Whether this was shown here."""
        return seen.platform == self.platform and seen.place.startswith(self.place)


@dataclass(slots=True)
class PlatformHistory:
    """Everything that was seen from outside."""

    said: list[Said] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    """Keys of what a service reported and was told 2xx."""
    rooms: list[Room] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    """The keys of messages in the order in which a program heard of them."""
    duty: list[str] = field(default_factory=list)
    effects: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    children_killed: int = 0
    breaks: Counter[str] = field(default_factory=Counter)
    """How often the connection to a platform was broken, by its name."""
    open_runs: list[str] = field(default_factory=list)
    crowding: float = 1.0


def violations(history: PlatformHistory) -> list[str]:
    """Each broken promise in a line; nothing when all were kept."""
    return [
        *_answered_once_in_its_place(history),
        *_accounted_for(history),
        *_effects(history),
        *_heard_once_in_order(history),
        *_notices(history),
        *_told_too_often(history, _WAITS, "to wait"),
        *_told_too_often(history, _UNSURE, "that an answer is uncertain"),
        *_unexplained(history),
        *_hardly_answered(history),
        *(
            f"{kill.role} was not back within {kill.allowed:g} s: {kill.back}"
            for kill in _late(history.kills)
        ),
        *(f"left open in Prefect: {run}" for run in history.open_runs),
    ]


def unfinished(history: PlatformHistory) -> list[str]:
    """Keys whose end people have not seen yet: neither an answer nor a report in the place."""
    left: list[str] = []
    for several in _by_place(history.said).values():
        open_ones = [one.key for one in several if not _answers(history, one.key)]
        left += open_ones[_reports(history, several[0]) :]
    for room in history.rooms:
        left += [key for key in history.notices if not _told(history, room, key)]
    return left


def figures(history: PlatformHistory) -> dict[str, object]:
    """How the run went, in numbers."""
    backs: dict[str, list[float | None]] = defaultdict(list)
    for kill in history.kills:
        backs[kill.role].append(None if kill.back is None else round(kill.back, 1))
    seconds: dict[str, list[float]] = defaultdict(list)
    for one in history.said:
        seconds[one.platform] += [seen.at - one.at for seen in _answers(history, one.key)]
    return {
        "messages": dict(Counter(one.platform for one in history.said)),
        "unanswered": dict(Counter(one.platform for one in history.said if not _answers(history, one.key))),
        "reports": sum(1 for seen in history.seen if _REPORT.match(seen.text)),
        "never_acknowledged": [one.key for one in history.said if _never_taken(one)],
        "uncertain": sorted(
            name for name in {one.platform for one in history.said} if _duty_knows(history, name)
        ),
        "notices": len(history.notices),
        "effects": len(history.effects),
        "seconds_to_answer": {name: _spread(values) for name, values in seconds.items()},
        "seconds_to_be_back": dict(backs),
    }


def _answered_once_in_its_place(history: PlatformHistory) -> Iterator[str]:
    for one in history.said:
        found = _answers(history, one.key)
        if len(found) > 1:
            yield f"{one.key} was answered {len(found)} times"
        for seen in found:
            if (seen.platform, seen.place) != (one.platform, one.place):
                yield f"{one.key} of {one.platform} {one.place} was answered in {seen.platform} {seen.place}"


def _accounted_for(history: PlatformHistory) -> Iterator[str]:
    """Each message is answered or reported; of those that are neither, as many as are excused, and no more."""
    lost: dict[tuple[str, str], list[Said]] = defaultdict(list)
    for several in _by_place(history.said).values():
        open_ones = [one for one in several if not _answers(history, one.key)]
        reports = _reports(history, several[0])
        if reports > len(open_ones):
            yield f"{several[0].platform} {several[0].place}: {reports} reports for {len(open_ones)} messages"
        # Which of them a report is about it does not say: those that are owed most are taken to be it.
        open_ones.sort(key=lambda one: _may_be_lost(history, one))
        lost[several[0].platform, several[0].conversation] += open_ones[reports:]
    for (platform, conversation), several in lost.items():
        owed = [one for one in several if not _may_be_lost(history, one)]
        excused = _uncertain(history, platform, owed[0].promise) if owed else 0
        if len(owed) > excused:
            keys = ", ".join(one.key for one in owed)
            yield f"lost in {platform} {conversation}: {len(owed)} like {keys} ({excused} are excused)"
    reports = sum(1 for seen in history.seen if _REPORT.match(seen.text))
    if reports > history.children_killed:
        yield f"{reports} runs were reported as broken, {history.children_killed} processes of runs were killed"


def _may_be_lost(history: PlatformHistory, one: Said) -> bool:
    """Whether nobody ever said to have it, or it was in the hands of a listener that was killed."""
    if _never_taken(one):
        return True
    if not one.promise.lost_said:
        return False
    return not one.reached or any(
        _before(history, kill) < one.at < kill.at + 0.5 for kill in history.kills if kill.role == "listeners"
    )


def _before(history: PlatformHistory, kill: Kill) -> float:
    """From when on listeners that were killed may have had something in their hands: it waits while the hub is away."""
    within = TAKEN_WITHIN * history.crowding
    start = kill.at - within
    for other in sorted(history.kills, key=lambda one: one.at, reverse=True):
        if other.role == "hub" and start - (other.back or within) < other.at < kill.at:
            start = other.at - within
    return start


def _never_taken(one: Said) -> bool:
    return bool(one.promise.given_up) and one.acknowledged is None


def _uncertain(history: PlatformHistory, platform: str, promise: Promise) -> int:
    """How many answers of one conversation may be missing: those under way at each death or break, if people know."""
    if not promise.lost_answer or not _duty_knows(history, platform):
        return 0
    deaths = sum(1 for kill in history.kills if kill.role in ("hub", "listeners"))
    return UNDER_WAY * (deaths + history.breaks[platform])


def _duty_knows(history: PlatformHistory, platform: str) -> bool:
    return any(f" on {platform} may not have arrived" in line for line in history.duty)


def _effects(history: PlatformHistory) -> Iterator[str]:
    marks = {one.key for one in history.said if one.command != "look"}
    counts = Counter(history.effects)
    for key, count in counts.items():
        if count > 1:
            yield f"{key} happened {count} times"
        if key not in marks:
            yield f"{key} happened, and nobody asked for it"
    for key in sorted(marks):
        if _answers(history, key) and not counts[key]:
            yield f"{key} is done, and did not happen"


def _heard_once_in_order(history: PlatformHistory) -> Iterator[str]:
    turns: dict[str, int] = {}
    for turn, key in enumerate(history.heard):
        if key in turns:
            yield f"{key} was handled twice"
        turns[key] = turn
    for one in history.said:
        if one.key not in turns and (_answers(history, one.key) or not _may_be_lost(history, one)):
            yield f"{one.key} was never heard of"
    for several in _by_place(one for one in history.said if one.key in turns).values():
        for first, second in pairwise(sorted(several, key=lambda one: one.at)):
            taken = first.acknowledged is not None and first.acknowledged < second.at
            if (taken or not first.promise.swapped) and turns[first.key] > turns[second.key]:
                yield f"{second.key} was handled before {first.key}"


def _notices(history: PlatformHistory) -> Iterator[str]:
    for room in history.rooms:
        missing = []
        for key in history.notices:
            count = _told(history, room, key)
            if count > 1:
                yield f"{key} was told {count} times in {room.platform} {room.place}"
            if not count:
                missing.append(key)
        if len(missing) > _uncertain(history, room.platform, room.promise):
            yield f"{', '.join(missing)}: not told in {room.platform} {room.place}"


def _told_too_often(history: PlatformHistory, words: re.Pattern[str], what: str) -> Iterator[str]:
    """Whose message it is about it does not say: no more often than messages were said there."""
    for (platform, place), several in _by_place(history.said).items():
        told = sum(
            1
            for seen in history.seen
            if (seen.platform, seen.place) == (platform, place) and words.match(seen.text)
        )
        if told > len(several):
            yield f"{platform} {place}: told {told} times {what}, for {len(several)} messages"


def _unexplained(history: PlatformHistory) -> Iterator[str]:
    keys = {one.key for one in history.said}
    for seen in history.seen:
        known = seen.text in keys or any(told.match(seen.text) for told in (_REPORT, _WAITS, _UNSURE))
        if not known and not any(key in seen.text for key in history.notices):
            yield f"nobody asked for this in {seen.platform} {seen.place}: {seen.text[:200]}"


def _hardly_answered(history: PlatformHistory) -> Iterator[str]:
    """What is excused is the exception: else a system that answers nobody would keep all promises."""
    for platform, count in Counter(one.platform for one in history.said).items():
        answered = sum(1 for one in history.said if one.platform == platform and _answers(history, one.key))
        if answered < count * MOSTLY:
            yield f"{platform}: only {answered} of {count} were answered"


def _answers(history: PlatformHistory, key: str) -> list[Seen]:
    return [seen for seen in history.seen if seen.text == key]


def _reports(history: PlatformHistory, of: Said) -> int:
    return sum(
        1
        for seen in history.seen
        if (seen.platform, seen.place) == (of.platform, of.place) and _REPORT.match(seen.text)
    )


def _told(history: PlatformHistory, room: Room, key: str) -> int:
    return sum(1 for seen in history.seen if room.has(seen) and key in seen.text)


def _by_place(said: Iterable[Said]) -> dict[tuple[str, str], list[Said]]:
    places: dict[tuple[str, str], list[Said]] = defaultdict(list)
    for one in said:
        places[one.platform, one.place].append(one)
    return places


def _late(kills: Iterable[Kill]) -> list[Kill]:
    return [kill for kill in kills if kill.back is None or kill.back > kill.allowed]


def _spread(values: list[float]) -> dict[str, float]:
    several = sorted(values) or [0.0]
    return {
        name: round(several[min(len(several) - 1, int(len(several) * part))], 1)
        for name, part in {"p50": 0.5, "p95": 0.95, "max": 1.0}.items()
    }
