"""What a living hub tells Prometheus of the messages that passed through it."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from parley.metrics.way import STATIONS
from tests.hub.house import PATIENCE, House

pytestmark = pytest.mark.prefect

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def figures(house: House) -> Samples:
    """What stands on the metrics' port now, without the common beginning of the names."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{house.hub.settings.metrics_port}/metrics")
    assert answer.is_success
    return {
        (one.name.removeprefix("ai_assistant_"), frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def at(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


async def until(house: House, name: str, least: float, **labels: str) -> Samples:
    """The figures, once this one is there: deliveries follow an answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await figures(house)
            if at(found, name, **labels) >= least:
                return found
            await asyncio.sleep(0.05)


async def test_a_message_is_counted_once_at_each_station(house: House) -> None:
    await house.say("/look 1")
    found = await until(house, "delivered_seconds_count", 1, command="look")
    for station in STATIONS[1:]:
        assert at(found, "station_seconds_count", station=station, command="look") == 1, station
    assert at(found, "station_seconds_count", station="received", command="-") >= 1
    legs = sum(at(found, "station_seconds_sum", station=one, command="look") for one in STATIONS[1:])
    received = at(found, "station_seconds_sum", station="received", command="-")
    whole = at(found, "delivered_seconds_sum", command="look")
    # What lies between two legs is a commit or a hop on the event loop.
    assert legs <= whole + 0.05
    assert whole - legs - received < 0.25
    assert at(found, "answer_seconds_sum", command="look") <= whole
    assert at(found, "delivery_seconds_count", platform="console") >= 1


async def test_a_builtin_is_answered_without_a_run(house: House) -> None:
    await house.say("/whoami")
    found = await until(house, "delivered_seconds_count", 1, command="-")
    assert at(found, "station_seconds_count", station="understood", command="-") == 1
    assert at(found, "station_seconds_count", station="done", command="-") == 0


async def test_time_that_a_person_takes_is_told_apart(house: House) -> None:
    asked = await house.hub.front.say(await house.owner(), "change web1")
    async with asyncio.timeout(PATIENCE):
        while True:
            view = await house.hub.front.message(await house.owner(), asked.id)
            if view is not None and view.replies:
                break
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    await house.say("yes")
    await house.outcome(asked.id)
    found = await until(house, "delivered_seconds_count", 1, command="change")
    assert at(found, "station_seconds_sum", station="allowed", command="change") >= 0.5
    assert at(found, "station_seconds_sum", station="handed", command="change") < 5


async def test_whoever_is_turned_away_is_counted(house: House) -> None:
    await house.answers_to(await house.from_mail("/look 1", sender="nobody@example.com"))
    vic = await house.person("vic", "none")
    await house.say("/look 1", vic)
    found = await figures(house)
    assert at(found, "refusals_total", reason="unknown-sender") == 1
    assert at(found, "refusals_total", reason="denied") == 1


async def test_the_machinery_is_shown(house: House) -> None:
    await house.say("/look 1")
    found = await until(house, "prefect_up", 1)
    assert at(found, "prefect_api_seconds_count", call="deployments/create_flow_run") == 1
    assert at(found, "store_commit_seconds_count") >= 3
    assert at(found, "store_commit_writes_sum") >= at(found, "store_commit_writes_count") >= 3
    assert at(found, "store_bytes") > 0
    assert 0 < at(found, "disk_free_bytes") <= at(found, "disk_bytes")
    assert at(found, "accounts_up", account="console") == 1
    assert at(found, "accounts_up", account="post") == 0
    assert at(found, "runs_room") > 0
    found = await until(house, "loop_lag_seconds_count", 2)
    assert at(found, "loop_lag_seconds_sum") < 5
    for lane in ("control", "alerts", "people", "schedules"):
        assert ("queue_oldest_seconds", frozenset({("lane", lane)})) in found


async def test_what_waits_is_shown_with_its_age(house: House) -> None:
    house.worker.manual = True
    room = house.hub.dispatcher.room
    for _ in range(room + 2):
        await house.hub.front.say(await house.owner(), "/look 1")
    found = await until(house, "queue_size", 2, lane="people")
    assert at(found, "runs_in_flight") == room
    await asyncio.sleep(0.2)
    assert at(await figures(house), "queue_oldest_seconds", lane="people") >= 0.2
