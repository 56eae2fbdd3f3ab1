"""A flood: who writes it is told once when to try again, nothing is done meanwhile, and nobody else waits for it."""

from __future__ import annotations

from pathlib import Path

from parley.messages.model import ConversationKind
from parley.people.principals import Role
from parley.settings import Limits, Pace
from parley.store import schema
from tests.hub.rooms import World, world_in


async def ask(world: World, text: str) -> str:
    return await world.platforms.say("slack:D1", text, kind=ConversationKind.DIRECT, addressed=True)


async def test_a_flood_is_answered_once_and_shuts_nobody_out_of_the_controls(home: Path) -> None:
    async with world_in(home, limits=Limits(per_person=Pace(times=3, seconds=3600))) as world:
        await world.person("ann", Role.OPERATOR)
        for number in range(1, 11):
            await ask(world, f"/look {number}")
        await world.settled()
        assert len(await world.rows(schema.request)) == 3
        texts = world.platforms.texts("slack", "D1")
        assert len([text for text in texts if "more than I take at once" in text]) == 1
        assert "20 min" in "".join(texts)
        reasons = [row.reason for row in await world.rows(schema.message)]
        assert reasons.count("too fast, and told so") == 6, "each is kept, with what became of it"
        await ask(world, "/runs")
        await world.settled()
        assert len(world.platforms.texts("slack", "D1")) == len(texts) + 1


async def test_an_automation_has_its_own_pace(home: Path) -> None:
    limits = Limits(per_automation={"change": Pace(times=1, seconds=3600)})
    async with world_in(home, limits=limits) as world:
        await world.person("ann", Role.OPERATOR)
        await ask(world, "/change web1")
        await ask(world, "/change web2")
        await ask(world, "/look 1")
        await world.settled()
        assert [row.automation for row in await world.rows(schema.request)] == ["change", "look"]
        assert "try again in 60 min" in "".join(world.platforms.texts("slack", "D1"))
