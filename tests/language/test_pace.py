"""How much one person, one conversation and one automation may ask of us, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from parley.language.pace import Pacer
from parley.settings import Limits, Pace


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    clock: Clock = field(default_factory=Clock)
    limits: Limits = field(
        default_factory=lambda: Limits(
            per_person=Pace(times=3, seconds=60),
            per_conversation=Pace(times=5, seconds=60),
            per_automation={"repair": Pace(times=1, seconds=3600), "*": Pace(times=2, seconds=60)},
        )
    )
    pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        self.pacer = Pacer(lambda: self.limits, clock=self.clock)

    def waits(self, person: str, conversation: str = "room", *, urgent: bool = False) -> float:
        found = self.pacer.said(person, conversation, urgent=urgent)
        return found.wait if found else 0.0


def test_so_many_at_once_and_then_one_by_one() -> None:
    world = World()
    assert [world.waits("ann", str(n)) for n in range(3)] == [0, 0, 0]
    assert world.waits("ann", "x") == pytest.approx(20)
    world.clock.now += 20
    assert world.waits("ann", "x") == 0
    assert world.waits("ann", "x") == pytest.approx(20)


def test_nobody_pays_for_another_person() -> None:
    world = World()
    for _ in range(4):
        world.waits("ann", "a")
    assert world.waits("bob", "b") == 0


def test_a_conversation_of_many_is_bounded_too() -> None:
    world = World()
    assert [world.waits(f"person-{n}") for n in range(5)] == [0] * 5
    assert world.waits("one more") > 0
    assert world.waits("one more", "elsewhere") == 0


def test_a_flood_of_chatter_shuts_nobody_out_of_the_controls() -> None:
    world = World()
    for _ in range(10):
        world.waits("ann")
    assert world.waits("ann", urgent=True) == 0


def test_they_are_told_once_until_they_may_again() -> None:
    world = World()
    for _ in range(3):
        world.waits("ann", "a")
    told = [found.told for _ in range(3) if (found := world.pacer.said("ann", "a", urgent=False))]
    assert told == [False, True, True]
    world.clock.now += 20
    assert world.waits("ann", "a") == 0
    again = world.pacer.said("ann", "a", urgent=False)
    assert again is not None
    assert not again.told


def test_an_automation_is_counted_over_all_people() -> None:
    world = World()
    assert world.pacer.asked("repair", "ann") is None
    found = world.pacer.asked("repair", "bob")
    assert found is not None
    assert found.wait == pytest.approx(3600)
    assert [bool(world.pacer.asked("order", "ann")) for _ in range(3)] == [False, False, True]
    assert world.pacer.asked("stock", "ann") is None


def test_without_a_limit_an_automation_has_none() -> None:
    pacer = Pacer(Limits)
    assert not any(pacer.asked("order", "ann") for _ in range(10_000))


def test_a_changed_limit_is_taken_up() -> None:
    world = World()
    for _ in range(4):
        world.waits("ann")
    world.limits = Limits(per_person=Pace(times=10, seconds=1), per_conversation=Pace(times=10, seconds=1))
    assert world.waits("ann") == 0


@pytest.mark.parametrize(
    ("text", "pace"),
    [("5/s", (5, 1)), ("60/min", (60, 60)), ("10/h", (10, 3600)), (" 1000/day ", (1000, 86_400))],
    ids=["second", "minute", "hour", "day"],
)
def test_a_pace_is_read(text: str, pace: tuple[int, float]) -> None:
    limits = Limits.model_validate({"per_person": text})
    assert (limits.per_person.times, limits.per_person.seconds) == pace


@pytest.mark.parametrize("given", ["", "0/s", "5", "5/week", "-1/s", "1e9/s"], ids=range(6))
def test_what_is_no_pace_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="no pace: write 5/s"):
        Limits.model_validate({"per_automation": {"repair": given}})


def test_what_may_not_be_counted_without_bound_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley.language.pace.MOST_KEYS", 10)
    limits: Mapping[str, Pace] = {"repair": Pace(times=1, seconds=3600)}
    pacer = Pacer(lambda: Limits(per_automation=limits))
    pacer.asked("repair", "first")
    for number in range(100):
        pacer.asked("repair", f"person-{number}")
    assert len(pacer._told) == 10
