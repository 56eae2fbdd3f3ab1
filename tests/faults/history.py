"""What people saw of a run of the system, and whether it kept its promises.

Nothing here knows how the system works: a history is what a client sent and was told, what the effects' file says, and
what Prefect's pages show. `violations` names every broken promise.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that was acknowledged: when its first sending began and when the acknowledgement came."""

    key: str
    conversation: str
    began: float
    acknowledged: float
    message_id: str
    sendings: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What the system said of a message in the end, and after how many seconds it came to that.

    `run_id` grows with the order in which messages were handled.
    """

    message_id: str
    state: str
    run_id: str | None
    reason: str | None
    replies: tuple[str, ...]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A process that was killed, and after how many seconds its successor was at work; None if that did not come."""

    role: str
    at: float
    back: float | None
    allowed: float


@dataclass(slots=True)
class History:
    """Everything that was seen."""

    sent: list[Sent] = field(default_factory=list)
    ended: dict[str, Ended] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    open_runs: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


UNANSWERED: Final = frozenset({"failed"})
"""How a message may end that is not answered: people are told why."""


def violations(history: History, unanswered: frozenset[str] = UNANSWERED) -> list[str]:
    """Each broken promise in a line; nothing when all were kept."""
    return [
        *_same_message_for_same_key(history.sent),
        *_all_end(history, unanswered),
        *_effects(history),
        *_order(history),
        *(
            f"{kill.role} was not back within {kill.allowed:g} s: {kill.back}"
            for kill in _late(history.kills)
        ),
        *(f"left open in Prefect: {run}" for run in history.open_runs),
        *(f"a traceback in an answer: {text[:200]}" for text in history.texts if "Traceback" in text),
    ]


def figures(history: History) -> dict[str, object]:
    """How the run went, in numbers."""
    backs: dict[str, list[float | None]] = defaultdict(list)
    for kill in history.kills:
        backs[kill.role].append(None if kill.back is None else round(kill.back, 1))
    return {
        "messages": len({one.message_id for one in history.sent}),
        "sendings": sum(one.sendings for one in history.sent),
        "states": dict(Counter(one.state for one in history.ended.values())),
        "effects": len(history.effects),
        "seconds_to_end": _spread([one.seconds for one in history.ended.values()]),
        "seconds_to_be_back": dict(backs),
    }


def _spread(values: list[float]) -> dict[str, float]:
    several = sorted(values) or [0.0]
    return {
        name: round(several[min(len(several) - 1, int(len(several) * part))], 1)
        for name, part in {"p50": 0.5, "p95": 0.95, "max": 1.0}.items()
    }


def _same_message_for_same_key(sent: Iterable[Sent]) -> Iterator[str]:
    ids: dict[str, set[str]] = defaultdict(set)
    for one in sent:
        ids[one.key].add(one.message_id)
    for key, several in ids.items():
        if len(several) > 1:
            yield f"{key} became {len(several)} messages"
    for message, count in Counter(next(iter(several)) for several in ids.values()).items():
        if count > 1:
            yield f"message {message} stands for {count} keys"


def _all_end(history: History, unanswered: frozenset[str]) -> Iterator[str]:
    for key, message_id in {one.key: one.message_id for one in history.sent}.items():
        end = history.ended.get(message_id)
        if end is None:
            yield f"{key} was acknowledged and is lost"
        elif end.state == "done":
            if end.replies != (key,):
                yield f"{key} is done, and its answers are {end.replies}"
        elif end.state not in unanswered:
            yield f"{key} has not ended: {end.state} ({end.reason})"
        elif not end.reason or len(end.replies) != 1 or not end.replies[0].strip():
            yield f"{key} {end.state}, and people were told {end.replies} for the reason {end.reason!r}"


def _effects(history: History) -> Iterator[str]:
    counts = Counter(history.effects)
    keys = {one.key: one.message_id for one in history.sent}
    for key, count in counts.items():
        if count > 1:
            yield f"{key} happened {count} times"
        if key not in keys:
            yield f"{key} happened, and nobody sent it"
    for key, message_id in keys.items():
        end = history.ended.get(message_id)
        if end is not None and end.state == "done" and not counts[key]:
            yield f"{key} is done, and did not happen"


def _order(history: History) -> Iterator[str]:
    conversations: dict[str, dict[str, Sent]] = defaultdict(dict)
    for one in sorted(history.sent, key=lambda one: one.began):
        conversations[one.conversation].setdefault(one.key, one)
    for conversation, several in conversations.items():
        for first, second in combinations(several.values(), 2):
            if first.acknowledged > second.began:
                continue  # sent side by side: there is no order to keep
            before, after = history.ended.get(first.message_id), history.ended.get(second.message_id)
            if before and after and before.run_id and after.run_id and before.run_id >= after.run_id:
                yield f"in {conversation} {second.key} was handled before {first.key}"


def _late(kills: Iterable[Kill]) -> list[Kill]:
    return [kill for kill in kills if kill.back is None or kill.back > kill.allowed]
