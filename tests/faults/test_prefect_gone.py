"""Prefect's server is gone for a while: all is taken, kept, and answered once it is back; the people on duty know."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import pytest

from tests.faults import figures, history
from tests.faults.crowd import write_steadily
from tests.faults.duty import Line
from tests.faults.load import People, crowding, open_flow_runs
from tests.faults.sizes import size
from tests.faults.town import Town
from tests.system.effects import effects

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(900, 5400)),
]

AWAY_SECONDS: Final = size(60.0, 600.0)
A_SECOND: Final = 10.0
TOLD_WITHIN: Final = 60.0
DRAINED: Final = AWAY_SECONDS * A_SECOND / 3
"""Seconds for what waited: three a second, as a machine that others use too manages."""


async def test_gone_for_a_while(town: Town) -> None:
    stack, kept = town.stack, history.History()
    earlier = len(effects(town.effects_file))
    with People(stack, kept) as people:
        killed = await asyncio.to_thread(gone, town)

        def write() -> None:
            for _ in write_steadily(
                people, "gone", A_SECOND, lambda: time.monotonic() < killed + AWAY_SECONDS
            ):
                pass

        await asyncio.to_thread(write)
        town.arming.hold_back("prefect", back=False)
        back = time.monotonic()
        slowest = max(one.acknowledged - one.began for one in kept.sent)
        await asyncio.to_thread(people.outcomes, (60 + DRAINED) * crowding())
        drained = time.monotonic() - back
    kept.effects = [key for key in effects(town.effects_file)[earlier:] if key.startswith("gone-")]
    kept.open_runs = await asyncio.to_thread(open_flow_runs, stack, 30)
    gone_told = told(town, killed, "does not answer")
    back_told = told(town, killed, "answers again")
    figures.keep(
        "prefect_gone",
        away_s=AWAY_SECONDS,
        slowest_acknowledgement_s=round(slowest, 2),
        drained_after_s=round(drained, 1),
        refused=people.refused,
        told_after_s=[round(one.at - killed, 1) for one in gone_told],
        told_back_after_s=[round(one.at - back, 1) for one in back_told],
        rest=history.figures(kept),
    )
    assert history.violations(kept) == [], stack.logs("hub", 60)
    assert {end.state for end in kept.ended.values()} == {"done"}
    assert not people.refused
    assert len(gone_told) == 1, gone_told
    assert gone_told[0].at - killed <= TOLD_WITHIN
    assert len(back_told) == 1, back_told


def gone(town: Town) -> float:
    """Kill the server and keep its successor from coming; returns when."""
    town.arming.hold_back("prefect", back=True)
    town.stack.kill("prefect")
    return time.monotonic()


def told(town: Town, since: float, words: str) -> list[Line]:
    """What the people on duty were told of the server."""
    return [one for one in town.duty.since(since, words) if one.text.startswith("Prefect's server")]
