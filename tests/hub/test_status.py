"""`/status` and `parley status` of a living hub: how long each station took, from the store's own times."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley.language.status_text import status_text
from parley.messages.model import Reply, now
from parley.processes.stations import MOST, recent, summary
from tests.hub.house import PATIENCE, House, text_of

pytestmark = pytest.mark.prefect


async def until_delivered(house: House, runs: int) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            told: dict[str, Any] = (await house.hub.vitals.status(anew=True))["stations"]
            if told["legs"].get("whole", {}).get("n", 0) >= runs:
                return told
            await asyncio.sleep(0.05)


async def test_the_busiest_commands_come_first_with_their_stations(house: House) -> None:
    async def fail(*_: Any) -> dict[str, Any]:
        return {"outcome": "failed", "reason": "out of paper", "kind": "error"}

    for _ in range(3):
        await house.say("/look 1")
    house.worker.answer = fail
    await house.say("/again")
    told = await until_delivered(house, 4)
    assert (told["ended"], told["failed"]) == (4, 1)
    assert [(one["command"], one["ended"], one["failed"]) for one in told["commands"]] == [
        ("look", 3, 0),
        ("again", 1, 1),
    ]
    legs = told["commands"][0]["legs"]
    assert list(legs) == ["understood", "allowed", "started", "done", "delivered", "whole"]
    assert all(0 <= leg["p50_ms"] <= leg["p95_ms"] < PATIENCE * 1e3 for leg in legs.values())
    assert legs["whole"]["p95_ms"] >= max(legs[leg]["p50_ms"] for leg in ("understood", "started", "done"))


async def test_only_the_last_minutes_count(house: House) -> None:
    await house.say("/look 1")
    await until_delivered(house, 1)
    read = house.hub.store.read
    assert len(await read(lambda conn: recent(conn, now() - timedelta(minutes=1)))) == 1
    assert await read(lambda conn: recent(conn, now())) == []
    assert await read(lambda conn: recent(conn, datetime(2020, 1, 1, tzinfo=UTC), most=0)) == []


def test_half_and_95_percent_are_exact() -> None:
    ended = [("look", "done", {"done": number / 1000}) for number in range(1, 101)]
    told = summary(ended, 10)
    assert told["legs"] == {"done": {"n": 100, "p50_ms": 50.0, "p95_ms": 95.0}}
    assert summary([], 10) == {
        "minutes": 10,
        "ended": 0,
        "more": False,
        "failed": 0,
        "legs": {},
        "commands": [],
    }


def test_of_very_many_only_the_newest_are_looked_at_and_that_is_said() -> None:
    told = summary([("look", "done", {"done": 0.1})] * MOST, 10)
    assert told["more"]
    status = {
        "processes": [],
        "accounts": [],
        "queue": {"waiting": 0, "running": 0, "undelivered": 0},
        "stations": told,
        "children": {},
        "prefect": {"reachable": False},
        "disk": {"free_bytes": 0},
    }
    assert "the newest of the last 10 minutes: 500 runs" in status_text(status, "en", details=True)
    assert "最新的" in status_text(status, "zh", details=True)
    assert "Prefect does not answer" in status_text(status, "en", details=True)


async def test_in_a_chat_those_who_look_after_it_are_told_more(house: House) -> None:
    await house.say("/look 1")
    await until_delivered(house, 1)
    owner = text_of(await house.say("/status"))
    assert "the last 10 minutes: 1 runs, 0 failed" in owner
    assert "half answered within" in owner
    assert "`/look` ×1" in owner
    assert "GB free" in owner
    bob = text_of(await house.say("/status", await house.person("bob", "user")))
    assert "waiting 0, running 0" in bob
    assert "answered within" not in bob
    assert "disk" not in bob


async def test_in_chinese(house: House) -> None:
    lin = await house.person("lin", "operator", language="zh")
    quiet = text_of(await house.say("/status", lin))
    assert "最近 10 分钟没有运行过任何操作" in quiet
    await house.say("/look 1")
    await until_delivered(house, 1)
    told = text_of(await house.say("/status", lin))
    assert "半数在" in told
    assert "排队 0" in told
    assert "磁盘剩余" in told


async def test_progress_is_not_taken_for_the_answer(house: House) -> None:
    async def talk(order: Any, started: Any) -> dict[str, Any]:
        from parley.link.calls import SayCall

        call = SayCall(
            token=started.token,
            flow_run_id=order.flow_run_id,
            run_id=started.run_id,
            epoch=started.epoch,
            ordinal=1,
            reply=Reply(text="half way"),
        )
        await house.worker.client.call("say", call, timeout=PATIENCE)
        await asyncio.sleep(0.3)
        return {"outcome": "done", "reply": Reply(text="ok")}

    house.worker.answer = talk
    await house.say("/look 1")
    told = await until_delivered(house, 1)
    assert told["legs"]["whole"]["p50_ms"] >= 300
