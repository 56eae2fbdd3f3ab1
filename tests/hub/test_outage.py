"""A hub whose Prefect does not answer: what people ask for waits, and they are told once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import ConversationKind, now
from parley.people.principals import Role
from parley.runs.catalogue import Lane
from parley.runs.lanes import MOST_WAITING
from parley.runs.requests import NewRequest, insert_request, insert_run
from parley.store import schema
from tests.fakes._driver import eventually
from tests.hub.rooms import World, world_in

WAITS = "waiting: Prefect's server does not answer"


async def looks_until(world: World, texts: int, conversation: str) -> None:
    """The hub looks as it does every two seconds, until so many words were said there."""
    async with asyncio.timeout(20):
        while len(world.platforms.texts("slack", conversation)) < texts:
            await world.hub.outage.look()
            await world.settled()
            await asyncio.sleep(0.5)


async def test_who_asked_is_told_once_that_it_waits(home: Path) -> None:
    async with world_in(home) as world:
        await world.person("ann", Role.OPERATOR)
        await world.platforms.say("slack:D1", "/look 1", kind=ConversationKind.DIRECT, addressed=True)
        await world.platforms.say("slack:D2", "/help", kind=ConversationKind.DIRECT, addressed=True)
        await looks_until(world, 1, "D1")
        assert world.platforms.texts("slack", "D1")[0].startswith(WAITS)
        for _ in range(5):
            await world.hub.outage.look()
        await world.settled()
        assert len(world.platforms.texts("slack", "D1")) == 1
        assert not any(WAITS in text for text in world.platforms.texts("slack", "D2"))
        assert [one.state for one in await world.rows(schema.request)] == ["queued"]
        view = (await world.rows(schema.message))[0]
        front = await world.hub.front.message(await world.principal(world.hub.owner_id), view.id)
        assert front is not None
        assert (front.state, front.replies) == ("queued", ())  # it is no part of the answer
    async with world_in(home) as world:  # a new hub: the same message waits on, and nobody is told again
        await eventually(lambda: world.hub.dispatcher.gate.is_shut, "tried again")
        await world.platforms.say("slack:D3", "/look 2", kind=ConversationKind.DIRECT, addressed=True)
        await looks_until(world, 1, "D3")
        assert world.platforms.texts("slack", "D1") == []


async def test_it_is_told_in_the_language_of_who_asked(home: Path) -> None:
    async with world_in(home) as world:
        ann = await world.person("ann", Role.OPERATOR)
        await world.hub.store.write(
            lambda conn: conn.execute(
                schema.principal.update().where(schema.principal.c.id == ann.id).values(language="zh")
            )
        )
        await world.platforms.say("slack:D1", "/look 1", kind=ConversationKind.DIRECT, addressed=True)
        await looks_until(world, 1, "D1")
        assert "等待中" in world.platforms.texts("slack", "D1")[0]


async def test_the_people_on_duty_are_told_once_over_restarts(home: Path) -> None:
    duty: dict[str, Any] = {"duty": {"conversations": ("slack:duty",)}}
    async with world_in(home, **duty) as world:
        await world.hub.outage._say_on_duty("away")
        await world.hub.outage._say_on_duty("away")
        await world.settled()
        assert [text[:40] for text in world.platforms.texts("slack", "duty")] == [
            "Prefect's server at http://127.0.0.1:9/ap"[:40]
        ]
    async with world_in(home, **duty) as world:
        await world.hub.outage._say_on_duty("away")
        await world.hub.outage._say_on_duty("back")
        await world.hub.outage._say_on_duty("back")
        await world.settled()
        said = world.platforms.texts("slack", "duty")
        assert len(said) == 1
        assert "answers again" in said[0]
        await world.hub.outage._say_on_duty("away")
        await world.settled()
        assert "does not answer" in world.platforms.texts("slack", "duty")[1]


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_within_a_minute_the_people_on_duty_know(home: Path) -> None:
    """The whole of it, by the clock: a hub beside a server that is not there."""
    async with world_in(home, duty={"conversations": ("slack:duty",)}) as world:
        async with asyncio.timeout(60):
            while not world.platforms.texts("slack", "duty"):  # noqa: ASYNC110 - said by nobody we could wait for
                await asyncio.sleep(0.5)
        assert "does not answer" in world.platforms.texts("slack", "duty")[0]


async def test_more_wait_than_is_kept_in_memory(home: Path) -> None:
    async with world_in(home) as world:
        spec = world.hub.catalogue.find("look")
        assert spec is not None

        async def ask(conn: AsyncConnection) -> None:
            for number in range(MOST_WAITING + 100):
                request = NewRequest(
                    spec=spec,
                    values={"n": number + 1},
                    origin="schedule",
                    actor_id=world.hub.owner_id,
                    state="queued",
                    lane=Lane.SCHEDULES,
                    expires_at=now() + timedelta(hours=1),
                )
                await insert_run(conn, await insert_request(conn, world.hub.keyring, request))

        await world.hub.store.write(ask)
    async with world_in(home) as world:
        dispatcher = world.hub.dispatcher
        await eventually(lambda: len(list(dispatcher.waiting())) >= MOST_WAITING, "they are taken up")
        assert len(list(dispatcher.waiting())) <= MOST_WAITING + 1
        assert MOST_WAITING + 98 <= dispatcher.queue_sizes()["schedules"] <= MOST_WAITING + 101
        first = next(iter(sorted(one.run_id for one in dispatcher.waiting())))
        assert next(iter(dispatcher.waiting())).run_id == first
