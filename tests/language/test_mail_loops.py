"""Which mails are one too many."""

from __future__ import annotations

from parley.language.mail_loops import ANSWERED, MISUNDERSTOOD, SAME, SAME_WITHIN, MailLoops


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_same_words_are_answered_twice_until_they_have_not_come_for_a_while() -> None:
    clock = Clock()
    loops = MailLoops(clock=clock)
    said = ["I am away.", "I  am away.\n", "i am AWAY.", "I am away."]
    assert [loops.is_one("post:bob", text) for text in said] == [False] * SAME + [True] * 2
    assert not loops.is_one("post:ann", "I am away."), "it is about one address"
    assert not loops.is_one("post:bob", "I am back.")
    clock.now = SAME_WITHIN - 1
    assert loops.is_one("post:bob", "I am away."), "each one that comes begins the time anew"
    clock.now += SAME_WITHIN - 1
    assert loops.is_one("post:bob", "I am away.")
    clock.now += SAME_WITHIN
    assert not loops.is_one("post:bob", "I am away.")


def test_what_answers_a_question_may_be_the_same_each_time() -> None:
    loops = MailLoops(clock=Clock())
    assert [loops.is_one("post:bob", "yes", awaited=True) for _ in range(5)] == [False] * 5


def test_an_hour_has_room_for_so_many_and_for_fewer_that_nobody_understands() -> None:
    clock = Clock()
    loops = MailLoops(clock=clock)
    assert (
        sum(loops.is_one("post:bob", f"Ticket {number} was opened.") for number in range(100))
        == 100 - ANSWERED
    )
    assert sum(loops.not_understood("post:bob") for _ in range(100)) == 100 - MISUNDERSTOOD
    clock.now = 3600.0
    assert (
        sum(loops.is_one("post:bob", f"Ticket {number} was closed.") for number in range(100))
        == 100 - ANSWERED
    )
    assert sum(loops.not_understood("post:bob") for _ in range(100)) == 100 - MISUNDERSTOOD


def test_what_is_remembered_is_bounded() -> None:
    loops = MailLoops(clock=Clock(), most_keys=10)
    for number in range(1000):
        loops.is_one(f"post:{number}", "hello")
    assert len(loops._said) == 10
