"""The gate to Prefect: so many at once while it answers, one at a time and ever later while it does not."""

from __future__ import annotations

from parley.runs.gate import FIRST_WAIT, LONGEST_WAIT, MOST_AT_ONCE, Gate


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def shut(clock: Clock) -> Gate:
    """A gate at which one attempt has failed."""
    gate = Gate(clock=clock)
    gate.enter("first")
    assert gate.leave("first", answered=False) is not None
    return gate


def test_a_bounded_number_is_asked_for_at_once() -> None:
    gate = Gate()
    for number in range(MOST_AT_ONCE):
        assert gate.lets_in()
        gate.enter(str(number))
    assert not gate.lets_in()
    assert gate.lets_in(2)  # what is urgent has places of its own
    gate.leave("0", answered=True)
    assert gate.lets_in()


def test_while_it_is_shut_one_tries_at_a_time() -> None:
    clock = Clock()
    gate = shut(clock)
    assert gate.is_shut
    assert not gate.lets_in()
    clock.at += FIRST_WAIT
    assert gate.lets_in()
    gate.enter("second")
    assert not gate.lets_in()
    gate.leave("second", answered=True)
    assert (gate.is_shut, gate.lets_in(), gate.answered_within(1)) == (False, True, True)


def test_each_attempt_waits_longer_up_to_a_bound() -> None:
    clock = Clock()
    gate = shut(clock)
    waits = []
    for number in range(12):
        clock.at += LONGEST_WAIT
        gate.enter(str(number))
        waits.append(gate.leave(str(number), answered=False) or 0.0)
    assert waits[0] < waits[3] < waits[-1] <= LONGEST_WAIT
    assert gate.shut_for() == 12 * LONGEST_WAIT


def test_several_that_fail_together_are_one_failure() -> None:
    clock = Clock()
    gate = Gate(clock=clock)
    for number in range(MOST_AT_ONCE):
        gate.enter(str(number))
    for number in range(MOST_AT_ONCE):
        gate.leave(str(number), answered=False)
    clock.at += FIRST_WAIT
    assert gate.lets_in()


def test_one_that_was_not_asked_for_opens_nothing() -> None:
    gate = shut(Clock())
    assert gate.leave("never", answered=True) is None
    assert gate.is_shut
