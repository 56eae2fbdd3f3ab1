"""A load of both kinds for a while: people who write over REST at a steady rate, and people on the platforms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tests.faults.crowd import QUIET_SECONDS, write_while
from tests.faults.history import History
from tests.faults.load import PATIENCE, People, crowding
from tests.faults.town import Town
from tests.system.effects import effects

EVER: Final = 1_000_000


class Mixed:
    """What both kinds of people saw; `platforms` is the town's own history."""

    def __init__(self, town: Town, people: People, history: History) -> None:
        self.town, self.people, self.rest = town, people, history
        self.platforms = town.history
        self.writing = True


@asynccontextmanager
async def mixed(
    town: Town,
    prefix: str,
    *,
    a_second: float,
    platforms: Sequence[str] = (),
    seed: int = 1,
    commands: Sequence[str] = ("look", "mark"),
    patience: float = PATIENCE,
) -> AsyncIterator[Mixed]:
    """Load for the length of the block, `a_second` at the most; afterwards all has ended, or had its time to."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    await town.begin()
    earlier = len(effects(town.effects_file))
    history = History()
    with People(town.stack, history, patience=patience, wait=2.0) as people:
        load = Mixed(town, people, history)

        def steadily() -> None:
            write_while(people, prefix, a_second, lambda: load.writing)

        async with asyncio.TaskGroup() as watching:
            watch = watching.create_task(town.watch())
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(steadily))
                everybody = [
                    (one, who)
                    for one in town.platforms
                    if one.name in platforms
                    for who in one.conversations()
                ]
                for number, (one, who) in enumerate(everybody):
                    draws = random.Random(chance.random())  # noqa: S311
                    name = f"{prefix}c{number:02}"
                    group.create_task(
                        town.write(
                            one, who, name, draws, each=EVER, goes_on=lambda: load.writing, commands=commands
                        )
                    )
                try:
                    yield load
                finally:
                    load.writing = False
            await asyncio.to_thread(people.outcomes, QUIET_SECONDS * crowding())
            await town.nothing_left(QUIET_SECONDS * crowding())
            watch.cancel()
    await town.end()
    history.open_runs = town.history.open_runs
    mine = {one.key for one in history.sent}
    history.effects = [key for key in effects(town.effects_file)[earlier:] if key in mine]
