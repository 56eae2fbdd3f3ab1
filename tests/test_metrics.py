"""What is counted on a message's way, and what counting costs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from parley.metrics import MOST_VALUES, Metrics
from parley.metrics.way import MOST_UNDER_WAY, STATIONS, received_at
from parley.store.ids import made_at, new_id


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ai_assistant_{name}", labels)


def test_legs_of_one_message_add_up_to_what_the_person_waited() -> None:
    metrics, began = Metrics(), datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    for station in STATIONS[:-1]:
        metrics.way.reached(station, 0.05, "order")
    metrics.way.written("request:1", "order", began)
    metrics.way.delivered("request:1", 0.05, began + timedelta(seconds=0.35))
    legs = [value(metrics, "station_seconds_sum", station=one, command="order") for one in STATIONS]
    assert sum(one or 0.0 for one in legs) == pytest.approx(0.35)
    assert value(metrics, "delivered_seconds_sum", command="order") == pytest.approx(0.35)


def test_an_answer_in_parts_is_delivered_once() -> None:
    metrics, began = Metrics(), datetime.now(UTC)
    metrics.way.written("request:1", "order", began)
    for _ in range(3):
        metrics.way.delivered("request:1", 0.1, began + timedelta(seconds=1))
    assert value(metrics, "delivered_seconds_count", command="order") == 1
    assert value(metrics, "station_seconds_count", station="delivered", command="order") == 1


def test_what_answers_nobody_is_on_nobodys_way() -> None:
    metrics = Metrics()
    for source in (
        "alert:order:1",
        "event:7",
        "undelivered:post:dead:1",
        "request:of-an-earlier-hub",
        "message:odd",
    ):
        metrics.way.delivered(source, 0.1, datetime.now(UTC))
    assert b"ai_assistant_station_seconds_count{" not in metrics.text()


def test_an_answer_without_a_run_is_counted_from_the_receipt_of_its_message() -> None:
    metrics, message = Metrics(), new_id()
    metrics.way.delivered(f"message:{message}", 0.02, datetime.now(UTC) + timedelta(seconds=2))
    assert value(metrics, "delivered_seconds_sum", command="-") == pytest.approx(2, abs=0.5)


def test_commands_are_bounded() -> None:
    metrics = Metrics()
    for number in range(3 * MOST_VALUES):
        metrics.way.reached("done", 1, f"command-{number}")
        metrics.answered(f"command-{number}", 1)
    assert value(metrics, "station_seconds_count", station="done", command="other") == 2 * MOST_VALUES
    assert metrics.text().count(b"ai_assistant_station_seconds_count{") == MOST_VALUES + 1


def test_answers_that_are_never_delivered_are_forgotten() -> None:
    metrics, began = Metrics(), datetime.now(UTC)
    for number in range(MOST_UNDER_WAY + 5):
        metrics.way.written(f"request:{number}", "order", began)
    for number in range(10):
        metrics.way.delivered(f"request:{number}", 0.1, began)
    assert value(metrics, "delivered_seconds_count", command="order") == 5


def test_an_id_says_when_it_was_made() -> None:
    made = made_at(new_id())
    assert made is not None
    assert abs(made - datetime.now(UTC)) < timedelta(seconds=1)
    for text in (
        "",
        "odd",
        "x" * 36,
        "9c3f9e2e-7b0f-4c8e-8e57-0a2f6f8a2b11",
        "zzzzzzzz-zzzz-7zzz-8zzz-zzzzzzzzzzzz",
    ):
        assert made_at(text) is None
    otherwise = datetime(2030, 1, 1, tzinfo=UTC)
    assert received_at(None, otherwise) == received_at("odd", otherwise) == otherwise


def test_calls_of_prefect() -> None:
    metrics = Metrics()
    metrics.machinery.prefect_called("flow_runs/set_state", 0.02, "")
    metrics.machinery.prefect_called("flow_runs/set_state", None, "unavailable")
    assert value(metrics, "prefect_api_seconds_count", call="flow_runs/set_state") == 1
    assert value(metrics, "prefect_api_errors_total", call="flow_runs/set_state", kind="unavailable") == 1


def test_a_role_that_left_the_link_is_no_longer_shown() -> None:
    metrics = Metrics()
    metrics.machinery.link({"worker": 0.01, "listeners": 0.02})
    metrics.machinery.link({"worker": 0.03})
    assert value(metrics, "link_seconds", role="worker") == 0.03
    assert value(metrics, "link_seconds", role="listeners") is None


def test_an_account_that_is_gone_is_no_longer_shown() -> None:
    metrics = Metrics()
    metrics.account("post", up=False)
    metrics.account_gone("post")
    metrics.account_gone("never-there")
    assert value(metrics, "accounts_up", account="post") is None


def test_a_message_costs_little() -> None:
    # All that is counted for one message, seven stations and its end; the best of many, as others use this machine too.
    metrics, at = Metrics(), datetime.now(UTC)
    best = float("inf")
    for _ in range(200):
        start = time.perf_counter()
        for station in STATIONS[:-1]:
            metrics.way.reached(station, 0.05, "order")
        metrics.way.written("request:1", "order", at)
        metrics.way.delivered("request:1", 0.05, at)
        best = min(best, time.perf_counter() - start)
    assert best < 200e-6
