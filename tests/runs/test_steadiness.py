"""Away and back, once each, however it flaps in between."""

from __future__ import annotations

from collections.abc import Iterable

from parley.runs.steadiness import AWAY_AFTER, BACK_AFTER, FIRST_AFTER, Steadiness

STEP = 2.0


def said(one: Steadiness, looks: Iterable[bool], begin: float = 0.0) -> list[tuple[float, str]]:
    """What was said, and when, of looks every two seconds."""
    found: list[tuple[float, str]] = []
    for number, answers in enumerate(looks):
        at = begin + number * STEP
        word = one.look(answers, at)
        if word:
            found.append((at, word))
    return found


def seconds(length: float, answers: bool) -> list[bool]:
    return [answers] * round(length / STEP)


def test_away_is_said_once_within_a_minute_and_back_once() -> None:
    looks = seconds(60, True) + seconds(600, False) + seconds(300, True)
    words = said(Steadiness(), looks)
    assert [word for _, word in words] == ["away", "back"]
    assert words[0][0] <= 60 + AWAY_AFTER + STEP < 120
    assert words[1][0] <= 660 + BACK_AFTER + STEP


def test_a_restart_of_some_seconds_is_not_worth_a_word() -> None:
    assert said(Steadiness(), seconds(60, True) + seconds(AWAY_AFTER - 2, False) + seconds(60, True)) == []


def test_a_server_that_flaps_is_away_once_and_not_back() -> None:
    flapping = (seconds(10, False) + seconds(4, True)) * 40
    assert [word for _, word in said(Steadiness(), seconds(10, True) + flapping)] == ["away"]


def test_each_time_within_an_hour_back_is_believed_later() -> None:
    outage = seconds(60, False) + seconds(50, True)
    one = Steadiness()
    one.look(True, 0.0)
    words = said(one, outage * 6, begin=STEP)
    # Fifteen seconds, thirty, and from the third time on fifty seconds of answers are not enough.
    assert [word for _, word in words] == ["away", "back", "away", "back", "away"]


def test_before_its_first_answer_it_gets_more_time() -> None:
    words = said(Steadiness(), seconds(120, False))
    assert len(words) == 1
    assert FIRST_AFTER <= words[0][0] <= 60


def test_a_look_after_a_long_sleep_counts_as_one_look() -> None:
    one = Steadiness()
    one.look(True, 0.0)
    assert one.look(False, 3600.0) is None


def test_what_was_said_before_a_restart_is_not_said_again() -> None:
    words = said(Steadiness(away=True), seconds(60, False) + seconds(60, True))
    assert [word for _, word in words] == ["back"]
