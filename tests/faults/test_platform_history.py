"""The checker of platforms' histories finds each kind of broken promise, excuses what is excused, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Kill
from tests.faults.platform_history import PlatformHistory, Promise, Room, Said, Seen, unfinished, violations

FIRM = Promise()
LOOSE = Promise(lost_said="no acknowledgement", lost_answer="no token", given_up="gives up", swapped="late")
PLACE = "alice"


def said(key: str, at: float, promise: Promise = FIRM, platform: str = "firm", command: str = "mark") -> Said:
    """One message, acknowledged at once."""
    return Said(
        key=key,
        command=command,
        platform=platform,
        conversation=PLACE,
        place=PLACE,
        promise=promise,
        at=at,
        acknowledged=at + 0.1,
    )


def seen(text: str, at: float, platform: str = "firm", place: str = PLACE) -> Seen:
    return Seen(platform=platform, place=place, text=text, at=at)


def kept() -> PlatformHistory:
    """Four messages on a platform that promises all, five on one that promises little; all is well."""
    firm = [said(f"f{n}", 100 + n) for n in range(4)]
    loose = [said(f"l{n}", 100 + n, LOOSE, "loose") for n in range(5)]
    return PlatformHistory(
        said=[*firm, *loose],
        seen=[
            *(seen(one.key, one.at + 1, one.platform) for one in (*firm[:3], *loose)),
            seen("`/mark` was interrupted: the process that ran it ended.", 104),
            seen("n1: it is down", 110, place="room:1"),
            seen("n1: it is down", 110, "loose", "room"),
        ],
        notices=["n1"],
        rooms=[
            Room(platform="firm", place="room", promise=FIRM),
            Room(platform="loose", place="room", promise=LOOSE),
        ],
        heard=[one.key for one in (*firm, *loose)],
        effects=[one.key for one in (*firm[:3], *loose)],
        kills=[
            Kill(role="listeners", at=50, back=3, allowed=10),
            Kill(role="hub", at=30, back=3, allowed=10),
        ],
        children_killed=1,
    )


def hide(history: PlatformHistory, text: str, platform: str = "") -> None:
    """Nobody has seen this."""
    history.seen = [
        one for one in history.seen if text not in one.text or (platform and one.platform != platform)
    ]


def find(history: PlatformHistory, key: str) -> Said:
    return next(one for one in history.said if one.key == key)


def _move(history: PlatformHistory) -> None:
    history.seen[0] = replace(history.seen[0], place="bob")


def _both(history: PlatformHistory) -> None:
    history.seen.append(seen("f3", 120))


def _without_word(history: PlatformHistory) -> None:
    history.duty.clear()
    hide(history, "l1")


def _silent(history: PlatformHistory) -> None:
    for number in range(3):
        hide(history, f"l{number}")


FAULTS: dict[str, Callable[[PlatformHistory], object]] = {
    "f1 was answered 2 times": lambda history: history.seen.append(seen("f1", 120)),
    "f0 of firm alice was answered in firm bob": _move,
    "1 reports for 0 messages": _both,
    "lost in firm alice: 1 like f3 (0 are excused)": lambda history: hide(history, "f1"),
    "lost in firm alice: 1 like f3": lambda history: hide(history, "interrupted"),
    "lost in loose alice: 1 like l1": _without_word,
    "2 runs were reported as broken, 1": lambda history: history.seen.append(seen("/look failed: why", 9)),
    "f1 happened 2 times": lambda history: history.effects.append("f1"),
    "x happened, and nobody asked for it": lambda history: history.effects.append("x"),
    "f1 is done, and did not happen": lambda history: history.effects.remove("f1"),
    "f1 was handled twice": lambda history: history.heard.append("f1"),
    "f1 was never heard of": lambda history: history.heard.remove("f1"),
    "f1 was handled before f0": lambda history: history.heard.insert(0, history.heard.pop(1)),
    "n1 was told 2 times in firm": lambda history: history.seen.append(seen("n1", 1, place="room:2")),
    "n1: not told in firm room": lambda history: hide(history, "n1", "firm"),
    "n1: not told in loose room": lambda history: hide(history, "n1", "loose"),
    "firm alice: told 5 times to wait, for 4 messages": lambda history: history.seen.extend(
        seen("waiting: nobody is there. `/mark` is kept, and runs later.", 101) for _ in range(5)
    ),
    "firm alice: told 5 times that an answer is uncertain": lambda history: history.seen.extend(
        seen("An answer to you on firm may not have arrived.", 101) for _ in range(5)
    ),
    "nobody asked for this": lambda history: history.seen.append(seen("good morning", 120)),
    "loose: only 2 of 5": _silent,
    "hub was not back": lambda history: history.kills.append(Kill(role="hub", at=0, back=None, allowed=9)),
    "left open in Prefect": lambda history: history.open_runs.append("mark-1 Running"),
}


def _uncertain(history: PlatformHistory) -> None:
    """Two answers were lost, and a notice; the people on duty know."""
    history.duty.append("An answer on loose may not have arrived, and is not sent again by itself")
    for text in ("l1", "l2", "n1"):
        hide(history, text, "loose")


def _never_taken(history: PlatformHistory) -> None:
    find(history, "l1").acknowledged = None
    _unheard(history)


def _unreached(history: PlatformHistory) -> None:
    find(history, "l1").reached = False
    _unheard(history)


def _in_dead_hands(history: PlatformHistory) -> None:
    history.kills.append(Kill(role="listeners", at=find(history, "l1").at + 0.5, back=3, allowed=10))
    _unheard(history)


def _in_hands_that_waited(history: PlatformHistory) -> None:
    at = find(history, "l1").at
    history.kills.append(Kill(role="hub", at=at - 1, back=4, allowed=10))
    history.kills.append(Kill(role="listeners", at=at + 4, back=3, allowed=10))
    _unheard(history)


def _swapped(history: PlatformHistory) -> None:
    find(history, "l0").acknowledged = 200
    history.heard.remove("l0")
    history.heard.append("l0")


def _unheard(history: PlatformHistory) -> None:
    hide(history, "l1")
    history.effects.remove("l1")
    history.heard.remove("l1")


EXCUSED = [_uncertain, _never_taken, _unreached, _in_dead_hands, _in_hands_that_waited, _swapped]


def test_a_history_in_order() -> None:
    assert violations(kept()) == []
    assert unfinished(kept()) == []


def test_what_else_is_told() -> None:
    history = kept()
    history.seen.append(seen("waiting: nobody is there. `/mark` is kept, and runs later.", 101))
    history.seen.append(seen("An answer to you on firm may not have arrived.", 101))
    assert violations(history) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise(fault: str) -> None:
    history = kept()
    FAULTS[fault](history)
    assert any(fault in one for one in violations(history)), violations(history)


@pytest.mark.parametrize("change", EXCUSED)
def test_what_is_excused(change: Callable[[PlatformHistory], None]) -> None:
    history = kept()
    change(history)
    assert violations(history) == []


def test_what_was_said_after_the_successor_listened_is_not_excused() -> None:
    history = kept()
    history.kills.append(Kill(role="listeners", at=find(history, "l1").at - 5, back=3, allowed=10))
    _unheard(history)
    assert any("lost in loose" in one for one in violations(history))
