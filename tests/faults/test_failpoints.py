"""Each process dies exactly at each commit boundary of a message's way, again and again: 0 lost, 0 twice.

One stack runs through it all, with people on platforms that can be asked what has arrived (Slack, XMPP) and on one that
cannot (a robot of WeCom). Its hub, its listeners and its worker find at each start the next failpoint that is to end
them; of the children, those die whose turn has come. That a process died where it should stands in its log.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from parley.failpoints import FAILPOINTS
from tests.faults import figures, history, platform_history
from tests.faults.history import Kill
from tests.faults.load import crowding
from tests.faults.mixed import mixed
from tests.faults.platform_people import Bot, Slack, Xmpp
from tests.faults.sizes import size
from tests.faults.town import Town, inhabited, listening

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(900, 14_400)),
]

TIMES: Final = size(3, 50)
ROLE: Final = {"hub": "hub", "listeners": "listeners", "worker": "worker", "run": "child"}
"""By the word with which FAILPOINTS says who dies there: what that process is called."""

PROCESS: Final = {"child": "worker"}
"""Whose start arms it, and whose log has its last words, where that is another."""

BY_LEASE: Final = "reconcile.lost"
"""Comes to pass when a run has been silent for a whole lease, a minute after a start of the hub: not killed here."""

LATER: Final = {"reconcile.step": 5, "order.taken": 2}
"""Failpoints at which a process dies in its so many-th turn, because the first is before it does anything."""

PLATFORMS: Final = ("slack", "xmpp", "wecom_bot")
OF_LISTENERS: Final = ("slack", "xmpp")
"""WeCom's robot is told each message once and waits for no acknowledgement: listeners that die at each lose most."""


RUNS_APART: Final = 7
"""Children die at every so many-th run, so that the others are answered."""

A_KILL_SECONDS: Final = 20.0
MOST_AGAIN: Final = 5
EVER: Final = 3600.0


DEATHS: Final[Counter[str]] = Counter()
"""Where processes died in this run."""


def of(role: str) -> list[str]:
    """The failpoints of a role."""
    return [
        name
        for name, where in FAILPOINTS.items()
        if ROLE[where.partition(":")[0]] == role and name != BY_LEASE
    ]


def killed(town: Town, role: str) -> Counter[str]:
    """Where processes of this role died so far, by their own last words."""
    log = town.stack.home / "logs" / f"{PROCESS.get(role, role)}.log"
    return Counter(re.findall(r"failpoint (\S+): killed", log.read_text(errors="replace")))


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def eager_town() -> AsyncIterator[Town]:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        command = (sys.executable, "-m", "tests.faults.eager")
        async with inhabited(Path(folder), (Slack, Xmpp, Bot), command) as made:
            yield made


@pytest.mark.parametrize("role", ["hub", "listeners", "worker", "child"])
async def test_killed_at_each(eager_town: Town, role: str) -> None:
    town, names = eager_town, of(role)
    there = OF_LISTENERS if role == "listeners" else PLATFORMS
    before, kills, began = killed(town, role), list[Kill](), time.monotonic()

    def missing() -> Counter[str]:
        return Counter(dict.fromkeys(names, TIMES)) - (killed(town, role) - before)

    async with mixed(town, f"fail-{role}", a_second=4, platforms=there, patience=EVER) as load:
        watching = asyncio.create_task(watch(town, role, before, kills))
        again = -1
        try:
            while left := missing():
                again += 1  # one that somebody else ended, or whose moment did not come, is armed once more
                assert again <= MOST_AGAIN, f"{role} did not die at {left}"
                await arm(town, role, left)
                kills.append(Kill(role=role, at=time.monotonic(), back=0.0, allowed=A_KILL_SECONDS))
                await no_more(missing)
            await asyncio.sleep(3)
        finally:
            watching.cancel()
            town.arming.disarm(PROCESS.get(role, role))
        await listening(town.stack, set(PLATFORMS))
        load.platforms.kills = kills
    deaths = killed(town, role) - before
    DEATHS.update(deaths)
    failed = [end for end in load.rest.ended.values() if end.state == "failed"]
    load.platforms.children_killed = deaths.total() if role == "child" else 0
    figures.keep(
        f"failpoints.{role}",
        times=TIMES,
        killed=dict(deaths),
        armed_again=again,
        seconds=round(time.monotonic() - began, 1),
        rest=history.figures(load.rest),
        platforms=platform_history.figures(load.platforms),
    )
    assert history.violations(load.rest) == [], town.stack.logs(PROCESS.get(role, role), 60)
    assert platform_history.violations(load.platforms) == [], town.stack.logs(lines=40)
    assert len(failed) <= load.platforms.children_killed, [end.reason for end in failed]


async def test_every_one_was_reached() -> None:
    if not DEATHS:
        pytest.skip("nobody was killed in this run")
    assert {name: DEATHS[name] for name in FAILPOINTS if DEATHS[name] < TIMES} == {BY_LEASE: 0}


async def arm(town: Town, role: str, names: Counter[str]) -> None:
    """Have the next processes of this role die so; what lives now makes room for them."""
    process = PROCESS.get(role, role)
    town.arming.disarm(process)
    if role == "child":
        charge_children(town, names)
    else:
        for name, times in names.items():
            for _ in range(times):
                town.arming.charge(role, f"{name}:kill:{LATER.get(name, 1)}")
    await asyncio.to_thread(town.stack.until, lambda: _there(town, process), 30, f"there is a {process}")
    await asyncio.to_thread(town.stack.kill, process)


def _there(town: Town, role: str) -> bool:
    return any(row["role"] == role and row["state"] == "running" for row in town.stack.processes())


def charge_children(town: Town, names: Counter[str]) -> None:
    """Turns are counted over all children of a nursery, of which each run is one."""
    spread = [
        f"{name}:kill:{RUNS_APART * turn + place}"
        for place, (name, times) in enumerate(names.items())
        for turn in range(1, times + 1)
    ]
    town.arming.charge("worker", ",".join(spread))


async def watch(town: Town, role: str, before: Counter[str], kills: list[Kill]) -> None:
    """Note when each died, for what a platform cannot promise at such a moment."""
    seen = 0
    while True:
        now = (killed(town, role) - before).total()
        kills += [Kill(role=role, at=time.monotonic(), back=0.0, allowed=A_KILL_SECONDS)] * (now - seen)
        seen = now
        await asyncio.sleep(0.1)


async def no_more(missing: Callable[[], Counter[str]]) -> None:
    """Return once nobody is missing, or nobody has died for a while."""
    last, since = missing(), time.monotonic()
    while last and time.monotonic() - since < A_KILL_SECONDS * crowding():
        await asyncio.sleep(0.1)
        if (now := missing()) != last:
            last, since = now, time.monotonic()
