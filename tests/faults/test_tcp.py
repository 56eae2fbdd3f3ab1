"""Connections break in every way that TCP has, between listeners and platforms, hub and Prefect, worker and Prefect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import pytest

from connectors._discord_gateway import KEPT_ALIVE_WITHIN
from tests.faults import figures, history, platform_history
from tests.faults.load import People, crowding
from tests.faults.mixed import mixed
from tests.faults.proxy import Fault
from tests.faults.sizes import size
from tests.faults.town import Town, listening

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(600, 3600)),
]

LASTS: Final = {
    Fault.CUT: size(8.0, 30.0),
    Fault.SLOW: size(6.0, 60.0),
    Fault.BLACK_HOLE: size(8.0, 30.0),
    Fault.HALF_OPEN: size(3.0, 30.0),
    Fault.TORN: size(3.0, 10.0),
}
QUIET_CUT: Final = size(10.0, 120.0)
PLATFORMS: Final = ("discord", "xmpp")
BACK_WITHIN: Final = 60.0
A_MOMENT: Final = 3.0
AT_ONCE: Final = 0.1
AFTER_SILENCE: Final = 20.0
"""A connection that was cut in silence is left after 8 s (`parley.runs.dead_connections`); the rest is the answer's."""


async def test_reconnecting_is_no_storm(town: Town) -> None:
    """With nothing to deliver all that comes are attempts to connect: at most one a second, and not at once in step."""
    began = time.monotonic()
    set_all(town, PLATFORMS, Fault.CUT)
    await asyncio.sleep(QUIET_CUT)
    ended = time.monotonic()
    set_all(town, PLATFORMS, Fault.NONE)
    attempts = {
        name: [at - began for at in town.wires[name].attempts if began <= at < ended] for name in PLATFORMS
    }
    await listening(town.stack, set(PLATFORMS), BACK_WITHIN)
    figures.keep(
        "tcp.reconnecting",
        seconds=QUIET_CUT,
        attempts_at_s={name: [round(at, 2) for at in several] for name, several in attempts.items()},
        listening_again_after_s=round(time.monotonic() - ended, 1),
    )
    for name, several in attempts.items():
        # aiohttp asks once more at once where a connection ends before its answer: that is one attempt of ours.
        moments = [at for before, at in pairwise([-1.0, *several]) if at - before > AT_ONCE]
        assert 0 < len(moments) <= QUIET_CUT, f"{name} tried at {moments} in {QUIET_CUT} s"
        assert len(several) <= 2 * len(moments), f"{name} tried several times at once: {several}"


async def test_every_fault_on_every_wire(town: Town) -> None:
    answered: dict[Fault, float] = {}
    async with mixed(town, "tcp", a_second=3, platforms=PLATFORMS) as load:
        for fault, seconds in LASTS.items():
            set_all(town, town.wires, fault)
            load.platforms.breaks.update(PLATFORMS)
            await asyncio.sleep(seconds)
            set_all(town, town.wires, Fault.NONE)
            ended = time.monotonic()
            await asyncio.to_thread(probe, load.people, f"tcp-after-{fault}".replace(" ", "-"))
            answered_after = time.monotonic() - ended
            if fault is Fault.HALF_OPEN:
                await noticed(ended)
            await listening(town.stack, set(PLATFORMS), BACK_WITHIN)
            answered[fault] = round(answered_after, 1)
    figures.keep(
        "tcp.faults",
        lasted_s=LASTS,
        answered_again_after_s=answered,
        rest=history.figures(load.rest),
        platforms=platform_history.figures(load.platforms),
    )
    assert history.violations(load.rest) == [], town.stack.logs("hub", 60)
    assert platform_history.violations(load.platforms) == [], town.stack.logs("listeners", 60)
    for fault, seconds in answered.items():
        borne = AFTER_SILENCE if fault is Fault.HALF_OPEN else BACK_WITHIN
        assert seconds <= borne * crowding(), f"{seconds} s after it was {fault}"


async def noticed(since: float) -> None:
    """Return once Discord's connection must have been given up: nothing but its silence tells that it is dead."""
    await asyncio.sleep(max(0.0, since + KEPT_ALIVE_WITHIN + A_MOMENT - time.monotonic()))


def set_all(town: Town, names: Iterable[str], fault: Fault) -> None:
    for name in names:
        town.wires[name].now = fault


def probe(people: People, key: str) -> None:
    """Return once something that was asked now is done."""
    sent = people.send(key, f"/mark {key}", key)
    people.outcome(sent.message_id, time.monotonic() + 2 * BACK_WITHIN * crowding())
