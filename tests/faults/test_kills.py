"""Every process dies in the middle of the work: what was acknowledged is answered once, or people are told.

1,000 messages, a fifth of them delivered twice, over the REST API and on five platforms, with six kill -9 over all
parts; 10,000 and twenty in the long run, with five seeds. What a platform cannot promise stands in
`tests.faults.platform_people` as data, with the reason; the checker excuses that much and no more.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import pytest

from tests.faults import figures, history, platform_history
from tests.faults.crowd import QUIET_SECONDS, write_all
from tests.faults.history import History, violations
from tests.faults.load import Nemesis, People, crowding
from tests.faults.platform_people import until
from tests.faults.sizes import SEEDS, size
from tests.faults.town import Town
from tests.system.effects import effects

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.servers,
    pytest.mark.timeout(size(900, 7200)),
]

TOTAL: Final = size(1_000, 10_000)
EACH, NOTICES = size(9, 60), size(8, 40)
"""Messages of each of the eleven conversations on platforms, and alerts of a service; the rest comes by REST."""

ROLES: Final = size(
    ("hub", "child", "worker", "prefect", "listeners", "nursery"),
    ("hub", "child", "worker", "prefect", "listeners", "nursery") * 3 + ("hub", "listeners"),
)


@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_in_the_middle(town: Town, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    on_platforms, by_rest = await town.begin(), History()
    earlier = len(effects(town.effects_file))
    everybody = [(one, who) for one in town.platforms for who in one.conversations()]
    rest = TOTAL - len(everybody) * EACH
    nemesis = Nemesis(town.stack, by_rest)
    began = time.monotonic()
    with People(town.stack, by_rest) as people:
        async with asyncio.TaskGroup() as watching:
            watch = watching.create_task(town.watch())
            async with asyncio.TaskGroup() as group:
                group.create_task(kill_all(town, nemesis, by_rest, chance))
                group.create_task(asyncio.to_thread(write_all, people, chance, f"kill{seed}", rest))
                for number, (one, who) in enumerate(everybody):
                    draws = random.Random(chance.random())  # noqa: S311
                    group.create_task(town.write(one, who, f"s{seed}c{number:02}", draws, each=EACH))
                group.create_task(report_all(town, f"s{seed}n", chance))
            await asyncio.to_thread(people.outcomes, QUIET_SECONDS * crowding())
            await town.nothing_left(QUIET_SECONDS * crowding())
            watch.cancel()
    seconds = time.monotonic() - began
    on_platforms.kills = by_rest.kills
    on_platforms.children_killed = nemesis.processes_killed["child"]
    await town.end()
    by_rest.effects = [key for key in effects(town.effects_file)[earlier:] if key.startswith("kill")]
    keep(seed, seconds, by_rest, on_platforms)
    assert {kill.role for kill in by_rest.kills} == set(ROLES)
    assert violations(by_rest) == [], town.stack.logs("supervisor", 60)
    assert platform_history.violations(on_platforms) == [], town.stack.logs(lines=40)
    lost = [end.reason for end in by_rest.ended.values() if end.state == "failed"]
    assert len(lost) <= nemesis.processes_killed["child"], lost


async def kill_all(town: Town, nemesis: Nemesis, by_rest: History, chance: random.Random) -> None:
    """Kill a process of each role, in a drawn order, spread over what is said; watch their return."""
    roles = [*ROLES]
    chance.shuffle(roles)
    for number, role in enumerate(roles):
        due = TOTAL * (number + chance.uniform(0.1, 0.9)) / len(roles)
        until_said = until(lambda due=due: len(by_rest.sent) + len(town.history.said) >= due, 600)  # type: ignore[misc]
        if number == 0 or roles[number - 1] != "prefect":  # the one after Prefect dies while Prefect is away
            await until_said
        else:
            until_said.close()
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        if role == "worker":  # children at work may die with it
            nemesis.processes_killed["child"] += len(await asyncio.to_thread(nemesis.pids, "child"))
        await asyncio.to_thread(nemesis.kill, role)
    await asyncio.to_thread(nemesis.close)


async def report_all(town: Town, prefix: str, chance: random.Random) -> None:
    """Alerts come while people write."""
    async with asyncio.TaskGroup() as group:
        for number in range(NOTICES):
            group.create_task(town.report(f"{prefix}{number:02}", random.Random(number)))  # noqa: S311
            await asyncio.sleep(chance.uniform(1.0, 4.0))


def keep(seed: int, seconds: float, by_rest: History, on_platforms: platform_history.PlatformHistory) -> None:
    backs = [kill.back for kill in by_rest.kills if kill.back is not None]
    figures.keep(
        f"kills.seed{seed}",
        messages=len({one.message_id for one in by_rest.sent}) + len(on_platforms.said),
        sendings=sum(one.sendings for one in by_rest.sent) + len(on_platforms.said),
        kills=len(by_rest.kills),
        longest_recovery_s=round(max(backs), 1) if len(backs) == len(by_rest.kills) else None,
        seconds=round(seconds, 1),
        rest=history.figures(by_rest),
        platforms=platform_history.figures(on_platforms),
    )
