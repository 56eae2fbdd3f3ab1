"""Somebody sets the clock while messages flow: an hour on, back, an hour back and on again; nothing is lost or twice.

Hub, worker, children and listeners see the clock that is set; Prefect and the platforms do not, as if they were on
other machines. Runs that began before go on through all of it: they must not be given up. One stands still meanwhile:
it is given up once, although its lease was over the moment that the clock moved. The hub dies an hour back, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.faults import figures, history, platform_history
from tests.faults.clock import LIBRARIES, Clock
from tests.faults.history import Kill
from tests.faults.load import People, crowding
from tests.faults.mixed import Mixed, mixed
from tests.faults.platform_people import Slack, Xmpp
from tests.faults.sizes import size
from tests.faults.town import Town, inhabited, listening
from tests.system.effects import doer

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(300, 7200)),
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not here: `make test-servers` brings it"),
]

CLOCKED: Final = ("hub", "worker", "listeners")
PLATFORMS: Final = ("slack", "xmpp")
HOUR: Final = timedelta(hours=1)
SETTINGS: Final = (HOUR, timedelta(0), -HOUR, timedelta(0)) * size(1, 25)
LASTS: Final = 4.0
"""Seconds at each setting."""

GIVEN_UP_WITHIN: Final = 45.0
"""A run that is silent is given up half a lease (15 s) after the clock has moved on, or 3 s later."""


@pytest_asyncio.fixture(loop_scope="package")
async def clock() -> AsyncIterator[Clock]:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        made = Clock(Path(folder))
        yield made
        made.close()


@pytest_asyncio.fixture(loop_scope="package")
async def clocked_town(clock: Clock) -> AsyncIterator[Town]:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        command = (sys.executable, "-m", "tests.faults.eager")
        always = dict.fromkeys(CLOCKED, clock.environment)
        async with inhabited(Path(folder), (Slack, Xmpp), command, always=always) as made:
            yield made


async def test_the_clock_is_set(clocked_town: Town, clock: Clock) -> None:
    town, silent, sent_after = clocked_town, list[str](), dict[str, float]()
    async with mixed(town, "clock", a_second=3, platforms=PLATFORMS) as load:
        for number, off in enumerate(SETTINGS):
            if off == HOUR:
                silent.append(f"silent-{number}")
                await at_an_hour_later(town, load, clock, silent)
            else:
                await begin(town, load.people, f"long-{number}", 2 * LASTS)
                clock.set(off)
                await asyncio.sleep(LASTS)
                if off == -HOUR:
                    load.platforms.kills.append(await at_a_new_hub(town))
            sent_after[f"{number}: {off / HOUR:+.0f} h"] = await answered_after(load.people, f"then-{number}")
        await listening(town.stack, set(PLATFORMS))
    figures.keep(
        "clock",
        answered_s=sent_after,
        given_up=len(silent),
        rest={name: one for name, one in history.figures(load.rest).items() if name != "seconds_to_end"},
        platforms=platform_history.figures(load.platforms),
    )
    assert history.violations(load.rest) == [], town.stack.logs("hub", 80)
    assert platform_history.violations(load.platforms) == [], town.stack.logs(lines=40)
    failed = {one.key for one in load.rest.sent if load.rest.ended[one.message_id].state == "failed"}
    assert failed == set(silent), town.stack.logs("hub", 80)
    assert len(asked_of_duty(town)) == len(silent)
    assert max(sent_after.values()) < 30 * crowding()


async def at_an_hour_later(town: Town, load: Mixed, clock: Clock, silent: list[str]) -> None:
    """A run that goes on outlives this by far, one that is silent is given up."""
    await begin(town, load.people, f"long-{silent[-1]}", GIVEN_UP_WITHIN / 2)
    pid = await begin(town, load.people, silent[-1], 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        clock.set(HOUR)
        await asyncio.to_thread(
            town.stack.until,
            lambda: len(asked_of_duty(town)) == len(silent),
            GIVEN_UP_WITHIN * crowding(),
            f"{silent[-1]} is given up",
        )
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def at_a_new_hub(town: Town) -> Kill:
    """It finds rows from what is the future to it, and goes on from their ids."""
    pid, at = await asyncio.to_thread(town.stack.kill, "hub"), time.monotonic()
    back = await asyncio.to_thread(town.stack.back, "hub", pid, 30 * crowding())
    return Kill(role="hub", at=at, back=back, allowed=30 * crowding())


async def begin(town: Town, people: People, key: str, seconds: float) -> int:
    """Begin a run of so many seconds; the process that has had its effect."""
    await asyncio.to_thread(people.send, key, f"/linger {key} {seconds:g}", key)
    await asyncio.to_thread(
        town.stack.until,
        lambda: doer(town.effects_file, key) is not None,
        60 * crowding(),
        f"the effect of {key}",
    )
    pid = doer(town.effects_file, key)
    assert pid is not None
    return pid


async def answered_after(people: People, key: str) -> float:
    """Seconds until what is asked now is answered."""
    began = time.monotonic()
    sent = await asyncio.to_thread(people.send, key, f"/mark {key}", key)
    await asyncio.to_thread(people.outcome, sent.message_id, began + 60 * crowding())
    return round(time.monotonic() - began, 2)


def asked_of_duty(town: Town) -> list[str]:
    """What the people on duty were asked about runs that are gone."""
    return [one.text for one in town.duty.heard if "was interrupted" in one.text]
