"""An hour at five messages a second with a fault every other minute: all is kept, and no process grows.

In the long run only. Once all is warm, the memory and the open files of each role must not rise with time.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import defaultdict
from contextlib import suppress
from typing import Final

import psutil
import pytest

from tests.faults import figures, history, platform_history
from tests.faults.load import Nemesis, stopped
from tests.faults.mixed import mixed
from tests.faults.proxy import Fault
from tests.faults.sizes import LONG
from tests.faults.town import Town

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not LONG, reason="takes an hour: `make faults-long`"),
]

LASTS: Final = 3600.0
WARM: Final = 600.0
EVERY: Final = 15.0
A_FAULT_EVERY: Final = 120.0
GROWS_MB: Final = 8.0
GROWS_FILES: Final = 8.0
"""What a role may have more after an hour, by the slope of all that was measured of processes that lived on."""

ROLES: Final = ("hub", "listeners", "worker", "prefect")
OURS: Final = ROLES[:3]
"""Prefect's server is measured and not judged; children are replaced as they grow."""

Samples = dict[str, list[tuple[float, float, float]]]


async def test_an_hour(town: Town) -> None:
    samples: Samples = defaultdict(list)
    everywhere = [one.name for one in town.platforms]
    nemesis = Nemesis(town.stack, history.History())
    async with mixed(town, "soak", a_second=5, platforms=everywhere) as load:
        end = time.monotonic() + LASTS
        breaking = asyncio.create_task(break_things(town, nemesis, end))
        while time.monotonic() < end:
            await asyncio.to_thread(measure, town, samples)
            await asyncio.sleep(EVERY)
        await breaking
    await asyncio.to_thread(nemesis.close)
    load.platforms.children_killed = nemesis.processes_killed["child"]
    slopes = {role: slope(of) for role, of in samples.items()}
    figures.keep(
        "soak", seconds=LASTS, slopes_an_hour=slopes, rest=history.figures(load.rest),
        platforms=platform_history.figures(load.platforms),
    )  # fmt: skip
    assert history.violations(load.rest) == []
    assert platform_history.violations(load.platforms) == []
    for role in OURS:
        grown = slopes[role]
        assert grown["mb"] < GROWS_MB, f"{role} grows by {grown['mb']} MB an hour"
        assert grown["files"] < GROWS_FILES, f"{role} keeps {grown['files']} more files open an hour"


async def break_things(town: Town, nemesis: Nemesis, end: float) -> None:
    """A fault that ends no process which is measured: they have to be seen for the whole hour."""
    chance = random.Random(1)  # noqa: S311 - to be repeated, not to be secret
    while time.monotonic() + A_FAULT_EVERY < end:
        await asyncio.sleep(A_FAULT_EVERY)
        wire = chance.choice(list(town.wires.values()))
        what = chance.choice(["child", "nursery", "stop", *Fault])
        if what in ("child", "nursery"):
            await asyncio.to_thread(nemesis.kill, what)
        elif what == "stop":
            await asyncio.to_thread(stopped, town.stack.pid(chance.choice(ROLES)), chance.uniform(5, 15))
        else:
            wire.now = Fault(what)
            await asyncio.sleep(10)
            wire.now = Fault.NONE


def measure(town: Town, samples: Samples) -> None:
    """Memory (PSS, in MB) and open files of each role now."""
    at = time.monotonic()
    for row in town.stack.processes():
        if row["role"] in ROLES and row["state"] == "running":
            with suppress(psutil.Error):
                samples[row["role"]].append((at, row["pss_mb"], psutil.Process(row["pid"]).num_fds()))


def slope(of: list[tuple[float, float, float]]) -> dict[str, float]:
    """How much more an hour, once all is warm."""
    warm = [one for one in of if one[0] >= of[0][0] + WARM]
    times = [at for at, _, _ in warm]
    return {
        name: round(statistics.linear_regression(times, [one[place] for one in warm]).slope * 3600, 2)
        for place, name in ((1, "mb"), (2, "files"))
    }
