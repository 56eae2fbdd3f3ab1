"""Each process dies exactly at each commit boundary of a message's way, again and again: 0 lost, 0 twice.

One stack runs through it all, with people on platforms that can be asked what has arrived (Slack, XMPP) and on one that
cannot (a robot of WeCom). Its hub, its listeners and its worker find at each start the next failpoint that is to end
them; of the children, those die whose turn has come. That a process died where it should stands in its log.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from parley.failpoints import FAILPOINTS
from tests.faults import figures, history, platform_history
from tests.faults.history import Kill
from tests.faults.load import People, crowding, open_flow_runs
from tests.faults.mixed import mixed
from tests.faults.platform_people import Bot, Slack, Xmpp
from tests.faults.sizes import size
from tests.faults.together import asking
from tests.faults.town import Town, inhabited, listening
from tests.system.effects import doer

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
"""Comes to pass when a run has been silent for a whole lease (30 s): killed at by a test of its own."""

TIMES_BY_LEASE: Final = size(1, 10)
GIVEN_UP_WITHIN, CLOSED_WITHIN = 60.0, 45.0

BATCHED: Final = ("dispatch.batched", "dispatch.batch-ordered")

LATER: Final = {"reconcile.step": 5, "order.taken": 2}
"""Failpoints at which a process dies in its so many-th turn, because the first is before it does anything."""

PLATFORMS: Final = ("slack", "xmpp", "wecom_bot")
OF_LISTENERS: Final = ("slack", "xmpp")
"""WeCom's robot is told each message once and waits for no acknowledgement: listeners that die at each lose most."""


RUNS_APART: Final = 7
"""Children die at every so many-th run, so that the others are answered."""

A_KILL_SECONDS: Final = 20.0
COMES_WITHIN: Final = 45.0
"""What was handed over at a hub's end goes on one by one at the next, before others share a flow run again."""

MOST_IN_VAIN: Final = 3
"""So many times in a row nobody may die although all that is missing is armed anew."""

EVER: Final = 3600.0


DEATHS: Final[Counter[str]] = Counter()
"""Where processes died in this run."""

WANTED: Final = dict[str, int]()
"""Where they were to die in it: what failed may be run once more without the rest."""


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
    WANTED.update(dict.fromkeys(names, TIMES))
    there = OF_LISTENERS if role == "listeners" else PLATFORMS
    before, kills, began = killed(town, role), list[Kill](), time.monotonic()

    def missing() -> Counter[str]:
        return Counter(dict.fromkeys(names, TIMES)) - (killed(town, role) - before)

    async with (
        together(town, role, before),
        mixed(town, f"fail-{role}", a_second=4, platforms=there, patience=EVER) as load,
    ):
        watching = asyncio.create_task(watch(town, role, before, kills))
        again, in_vain = -1, 0
        try:
            while left := missing():
                again += 1  # one that somebody else ended, or whose moment did not come, is armed once more
                await arm(town, role, left)
                kills.append(Kill(role=role, at=time.monotonic(), back=0.0, allowed=A_KILL_SECONDS))
                await no_more(missing)
                in_vain = 0 if missing() != left else in_vain + 1
                assert in_vain < MOST_IN_VAIN, f"{role} did not die at {left}"
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


async def test_killed_when_a_silent_run_is_given_up(eager_town: Town) -> None:
    """It is given up once and people are asked once, although who was about to tell Prefect is gone."""
    town, before, began = eager_town, killed(eager_town, "hub"), time.monotonic()
    WANTED[BY_LEASE] = TIMES_BY_LEASE
    keys = [f"fail-silent-{number}" for number in range(TIMES_BY_LEASE)]
    async with mixed(town, "fail-silent", a_second=1, patience=EVER) as load:
        for number, key in enumerate(keys, 1):
            await arm(town, "hub", Counter({BY_LEASE: 1}))
            pid = await held(town, load.people, key)
            os.kill(pid, signal.SIGSTOP)
            try:
                await told(town, partial(_died, town, before[BY_LEASE] + number))
                await asyncio.to_thread(
                    town.stack.until, town.stack.ready, 30 * crowding(), "the hub is back"
                )
                await closed_in_prefect(town)
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    DEATHS.update(killed(town, "hub") - before)
    failed = {one.key for one in load.rest.sent if load.rest.ended[one.message_id].state == "failed"}
    figures.keep(
        "failpoints.silent",
        times=TIMES_BY_LEASE,
        seconds=round(time.monotonic() - began, 1),
        rest=history.figures(load.rest),
    )
    assert history.violations(load.rest) == [], town.stack.logs("hub", 60)
    assert failed == set(keys)
    asked = [one.text for one in town.duty.since(began, "`/linger`") if "was interrupted" in one.text]
    assert len(asked) == len(keys), asked


async def test_every_one_was_reached() -> None:
    if not WANTED:
        pytest.skip("nobody was to be killed in this run")
    assert {name: DEATHS[name] for name, times in WANTED.items() if DEATHS[name] < times} == {}


async def test_every_one_is_somebodys() -> None:
    roles = ("hub", "listeners", "worker", "child")
    assert {BY_LEASE, *(name for role in roles for name in of(role))} == set(FAILPOINTS)


def together(town: Town, role: str, before: Counter[str]) -> AbstractAsyncContextManager[None]:
    """Where the hub is to die with a flow run for several requests, several wait at the same time."""
    if role != "hub":
        return nullcontext()

    def goes_on() -> bool:
        deaths = killed(town, role) - before
        return any(deaths[name] < TIMES for name in BATCHED)

    return asking(town.stack, "together", goes_on, patience=EVER)


async def held(town: Town, people: People, key: str) -> int:
    """The process of a run that has had its effect, and goes on for a second."""
    await asyncio.to_thread(people.send, key, f"/linger {key} 1", key)
    await told(town, lambda: doer(town.effects_file, key) is not None)
    pid = doer(town.effects_file, key)
    assert pid is not None
    return pid


def _died(town: Town, times: int) -> bool:
    return killed(town, "hub")[BY_LEASE] == times


async def told(town: Town, holds: Callable[[], bool]) -> None:
    """Wait for what comes by itself."""
    await asyncio.to_thread(town.stack.until, holds, GIVEN_UP_WITHIN * crowding(), "the run is given up")


async def closed_in_prefect(town: Town) -> None:
    """The silent process tells Prefect nothing: what it has left open is closed by the hub."""
    end = time.monotonic() + CLOSED_WITHIN * crowding()
    while left := [run for run in await asyncio.to_thread(open_flow_runs, town.stack, 0) if "linger" in run]:
        assert time.monotonic() < end, left
        await asyncio.sleep(0.5)


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
    with suppress(ProcessLookupError):  # it may just have died of the last of what was armed before
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
    while last and time.monotonic() - since < COMES_WITHIN * crowding():
        await asyncio.sleep(0.1)
        if (now := missing()) != last:
            last, since = now, time.monotonic()
