"""Each process in turn stands still for a while (SIGSTOP) and goes on: nothing is lost, and nobody is killed for it.

A run that stands still beyond its lease is given up, and people are told; when it goes on nobody listens to it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from typing import Final

import pytest

from tests.faults import figures, history, platform_history
from tests.faults.load import Nemesis, stopped
from tests.faults.mixed import Mixed, mixed
from tests.faults.sizes import LONG, SEEDS, size
from tests.faults.town import Town
from tests.system.effects import doer

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(600, 3600)),
]

ROLES: Final = ("hub", "worker", "listeners", "prefect", "nursery", "supervisor") * size(1, 5)
BEYOND_LEASE: Final = 45.0


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_stands_still(town: Town, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    nemesis = Nemesis(town.stack, history.History())
    roles = [*ROLES]
    chance.shuffle(roles)
    stops: dict[str, list[float]] = {}
    everywhere = [one.name for one in town.platforms]
    async with mixed(town, f"still{seed}", a_second=3, platforms=everywhere, seed=seed) as load:
        short, long = [await held(load, f"still{seed}-{name}") for name in ("short", "long")]
        async with asyncio.TaskGroup() as children:
            children.create_task(let_go(short, 10))
            children.create_task(let_go(long, BEYOND_LEASE))
            for role in roles:
                pid = (await asyncio.to_thread(nemesis.pids, role))[0]
                seconds = chance.uniform(5.0, 30.0) if LONG else chance.uniform(5.0, 7.0)
                await asyncio.to_thread(stopped, pid, seconds)
                stops.setdefault(role, []).append(round(seconds, 1))
                assert pid in await asyncio.to_thread(nemesis.pids, role), (
                    f"{role} was ended for standing still"
                )
                await asyncio.sleep(1)
    await asyncio.to_thread(nemesis.close)
    failed = {one.key for one in load.rest.sent if load.rest.ended[one.message_id].state == "failed"}
    figures.keep(
        f"stops.seed{seed}",
        stopped_s=stops | {"child": [10.0, BEYOND_LEASE]},
        rest=history.figures(load.rest),
        platforms=platform_history.figures(load.platforms),
    )
    assert failed == {f"still{seed}-long"}
    assert history.violations(load.rest) == [], town.stack.logs("supervisor", 60)
    assert platform_history.violations(load.platforms) == [], town.stack.logs(lines=40)


async def held(load: Mixed, key: str) -> int:
    """The process of a run that has had its effect, and stands still before it is done."""
    await asyncio.to_thread(load.people.send, key, f"/linger {key} 3", key)
    end = time.monotonic() + 30
    while (pid := doer(load.town.effects_file, key)) is None:
        assert time.monotonic() < end, f"no effect of {key}"
        await asyncio.sleep(0.02)
    os.kill(pid, signal.SIGSTOP)  # here: a thread to do it in may be long in coming while all of them write
    return pid


async def let_go(pid: int, seconds: float) -> None:
    """Have it go on after so many seconds."""
    try:
        await asyncio.sleep(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
