"""The three levels of failure, counted from outside: three retries, one alternative, one alert at the fifth in a row.

The hub is killed between the fourth failure and the fifth: it neither forgets what it counted nor says it twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.faults import figures
from tests.faults.duty import Line
from tests.faults.levels import ALERT_AFTER, all_fails, fails
from tests.faults.load import crowding
from tests.faults.town import Town
from tests.system.effects import effects

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(300),
]

ATTEMPTS: Final = 4
"""The first, and three retries."""

ALERT, RECOVERY = f"failed {ALERT_AFTER} times in a row", "works again"
TOLD_WITHIN: Final = 10.0


@pytest.fixture
def folder(town: Town) -> Iterator[Any]:
    yield town.stack.folder
    fails(town.stack.folder).unlink(missing_ok=True)
    all_fails(town.stack.folder).unlink(missing_ok=True)


async def test_retry_alternative_alert(town: Town, folder: Any) -> None:
    earlier, began = len(effects(town.effects_file)), time.monotonic()

    async def say(key: str) -> dict[str, Any]:
        return await asyncio.to_thread(town.stack.say, f"/attempt {key}", wait=60, key=f"levels-{key}")

    async def notices(words: str) -> int:
        await asyncio.sleep(1)  # one too many would come by now
        return len(told_of(town, began, words))

    fails(folder).touch()
    by_other_way = await say("a0")
    assert by_other_way["state"] == "done"
    assert "a0 by the other way" in by_other_way["replies"][0]["text"]

    all_fails(folder).touch()
    for number in range(1, ALERT_AFTER):
        assert (await say(f"b{number}"))["state"] == "failed"
    assert await notices(ALERT) == 0
    hub = town.stack.kill("hub")
    await asyncio.to_thread(town.stack.back, "hub", hub, 30 * crowding())
    assert (await say(f"b{ALERT_AFTER}"))["state"] == "failed"
    fifth = time.monotonic()
    told = await first(town, began)
    assert (await say(f"b{ALERT_AFTER + 1}"))["state"] == "failed"
    assert await notices(ALERT) == 1

    fails(folder).unlink()
    assert (await say("c0"))["state"] == "done"
    assert await notices(RECOVERY) == 1
    assert (await say("c1"))["state"] == "done"
    assert (await notices(RECOVERY), await notices(ALERT)) == (1, 1)

    done = Counter(effects(town.effects_file)[earlier:])
    failed = ["a0", *(f"b{number}" for number in range(1, ALERT_AFTER + 2))]
    expected = {f"attempt:{key}": ATTEMPTS for key in failed} | {f"alternative:{key}": 1 for key in failed}
    assert done == expected | {"attempt:c0": 1, "attempt:c1": 1}
    figures.keep(
        "levels",
        attempts=ATTEMPTS,
        alternatives=1,
        alerts=1,
        alert_after_failures=ALERT_AFTER,
        told_after_s=max(0.0, round(told - fifth, 2)),
    )
    assert told - fifth <= TOLD_WITHIN


def told_of(town: Town, began: float, words: str) -> list[Line]:
    """What the people on duty were told of this automation; answers are something else."""
    return [one for one in town.duty.since(began, words) if one.text.startswith("`/attempt`")]


async def first(town: Town, began: float) -> float:
    """When the people on duty were told, at last."""
    end = time.monotonic() + 60
    while not (lines := told_of(town, began, ALERT)):
        assert time.monotonic() < end, "nobody was told"
        await asyncio.sleep(0.05)
    return lines[0].at
