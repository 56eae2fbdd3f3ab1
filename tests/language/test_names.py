"""Names that nearly fit."""

from __future__ import annotations

import time

import pytest

from parley.errors import UnknownCommand
from parley.language.names import did_you_mean, unknown_command

KNOWN = ("order", "repair", "report", "daily-report", "restart-service")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ordr", "order"),
        ("Ordre", "order"),
        ("ｒｅｐａｉｒ", "repair"),
        ("restart_service", "restart-service"),
        ("rest", "restart-service"),
    ],
)
def test_offers_the_nearest_first(name: str, first: str) -> None:
    assert did_you_mean(name, KNOWN)[0] == first
    assert len(did_you_mean(name, KNOWN)) <= 3


@pytest.mark.parametrize("name", ["", "weather", "订单", "x" * 1_000_000])
def test_offers_nothing_when_nothing_is_near(name: str) -> None:
    assert did_you_mean(name, KNOWN) == ()


def test_the_error_offers_and_points_to_help() -> None:
    error = unknown_command("ordr", KNOWN)
    assert isinstance(error, UnknownCommand)
    assert str(error) == "There is no command `/ordr`. Did you mean `/order`? `/help` lists what you may run."
    assert str(unknown_command("ordr", KNOWN, "zh")).startswith(
        "没有 `/ordr` 这个命令。您是不是想输入 `/order`？"
    )


def test_a_long_or_hostile_name_is_shown_short_and_plain() -> None:
    told = str(unknown_command("`x\u202e" + "y" * 1_000_000, KNOWN))
    assert len(told) < 200
    assert "ˋx<U+202E>" in told


def test_a_thousand_names_take_milliseconds() -> None:
    names = [f"{word}-{number}" for number in range(200) for word in KNOWN]
    started = time.process_time()
    assert did_you_mean("restart-servce-77", names)
    assert time.process_time() - started < 0.5
