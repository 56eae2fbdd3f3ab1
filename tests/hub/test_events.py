"""Programs publish and read events over REST, with the Python client, from a living hub."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from parley.errors import BadArguments, Denied
from parley.people import tokens
from parley.people.principals import Principal, Role
from parley.people.tokens import TokenKind
from parley.store import schema
from parley.web.client import AsyncClient, EventsLost
from parley.web.wire import EventOut
from tests.hub.rooms import World, world_in


async def client_of(world: World, who: Principal) -> AsyncClient:
    """The REST API as this person."""
    secret = await world.hub.store.write(
        lambda conn: tokens.issue(conn, who.id, TokenKind.BEARER, "test", timedelta(days=1))
    )
    return AsyncClient(f"http://127.0.0.1:{world.hub.settings.port}", secret, patience=5)


async def first(count: int, client: AsyncClient, *topics: str, after: int | None = None) -> list[EventOut]:
    """The first events of a subscription."""
    found = []
    async with asyncio.timeout(20):
        async for event in client.subscribe(*topics, after=after):
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_what_a_program_publishes_goes_where_routes_lead_and_once(home: Path) -> None:
    async with world_in(home, routes=[{"from": "shop.#", "to": "slack:C1"}]) as world:
        async with await client_of(world, await world.person("ann", Role.OPERATOR)) as ann:
            for _ in range(3):
                await ann.publish("shop.order.late", {"order": 7}, title="late", idempotency_key="k1")
            await ann.publish("shop.order.late", {"order": 8}, title="later")
        await world.settled()
        assert world.platforms.texts() == ["**late**", "**later**"]


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR, Role.NONE])
async def test_only_the_owner_and_operators_do(home: Path, role: Role) -> None:
    async with world_in(home) as world:
        async with await client_of(world, await world.person("ann", role)) as ann:
            with pytest.raises(Denied):
                await ann.publish("shop.late")
            with pytest.raises(Denied):
                await first(1, ann, "#")
        assert await world.rows(schema.event) == []


@pytest.mark.parametrize("topic", ["forge.push", "run.done.x", "message.slack", "alert.x", "Not a topic"])
async def test_nobody_publishes_in_the_name_of_another(home: Path, topic: str) -> None:
    async with world_in(home) as world, await client_of(world, await world.person("ann", Role.OWNER)) as ann:
        with pytest.raises(BadArguments):
            await ann.publish(topic)
        with pytest.raises(BadArguments):
            await first(1, ann, "Not a pattern")


async def test_a_subscription_hears_at_once_and_misses_nothing_over_a_restart(home: Path) -> None:
    async with world_in(home) as world:
        async with await client_of(world, await world.person("ann", Role.OPERATOR)) as ann:
            await world.platforms.notice("push", "before")
            await world.hub.intake_is_empty()
            place = await world.hub.events.newest()
            listening = asyncio.create_task(first(2, ann, "forge.push", "forge.tag.*", after=place))
            await world.platforms.notice("push", "one", data={"n": 1})
            await world.platforms.notice("issue.opened", "not asked for")
            await world.platforms.notice("tag.created", "two")
            heard = await listening
            assert [event.title for event in heard] == ["one", "two"]
            assert heard[0].data == {"n": 1}
            assert heard[0].account == "forge"
            place = heard[-1].sequence
        await world.platforms.notice("push", "three")
        await world.hub.intake_is_empty()
    async with world_in(home) as world:
        await world.platforms.notice("push", "four")
        ann_ = (await world.rows(schema.principal, name="ann"))[0]
        async with await client_of(world, await world.principal(ann_.id)) as ann:
            assert [event.title for event in await first(2, ann, "forge.#", after=place)] == ["three", "four"]


async def test_what_people_say_is_kept_once_the_owner_asks_and_read_by_the_owner_alone(home: Path) -> None:
    async with world_in(home) as world:
        owner = await world.person("ann", Role.OWNER)
        await world.platforms.say("slack:C1", "nobody asked yet")
        assert await world.rows(schema.message) == []
        async with (
            await client_of(world, owner) as ann,
            await client_of(world, await world.person("bob", Role.OPERATOR)) as bob,
        ):
            await world.hub.events.asked_for(["message.*", "forge.#"])
            await world.platforms.say("slack:C1", "asked for")
            await world.platforms.notice("push", "a push")
            await world.hub.intake_is_empty()
            said, pushed = await first(2, ann, "#", after=0)
            assert (said.topic, said.text, said.data["sender"]) == ("message.slack", "asked for", "ann")
            assert pushed.title == "a push"
            assert [event.title for event in await first(1, bob, "#", after=0)] == ["a push"]


@pytest.mark.parametrize("pattern", ["#", "*.slack", "message.#"])
async def test_who_may_not_read_what_people_say_has_nothing_of_it_stored(home: Path, pattern: str) -> None:
    async with world_in(home) as world:
        async with await client_of(world, await world.person("bob", Role.OPERATOR)) as bob:
            listening = asyncio.create_task(first(1, bob, pattern, "forge.push", after=0))
            await world.platforms.notice("push", "a push")
            assert [event.title for event in await listening] == ["a push"]
        await world.platforms.say("slack:C1", "among ourselves")
        await world.hub.intake_is_empty()
        assert [row.topic for row in await world.rows(schema.event)] == ["forge.push"]
        assert [row.type for row in await world.rows(schema.message)] == ["notice"]
        assert world.hub.bus.may_take("run.done.look") is (pattern != "message.#")


async def test_too_much_data_is_refused_and_said(home: Path) -> None:
    async with world_in(home) as world, await client_of(world, await world.person("ann", Role.OWNER)) as ann:
        with pytest.raises(BadArguments, match="65,536"):
            await ann.publish("shop.late", {"all": "x" * 70_000})
        assert await world.rows(schema.event) == []


async def test_it_is_said_when_events_are_gone(home: Path) -> None:
    async with (
        world_in(home) as world,
        await client_of(world, await world.person("ann", Role.OPERATOR)) as ann,
    ):
        for n in range(3):
            await world.platforms.notice("push", str(n))
        await world.hub.intake_is_empty()
        gone = sa.delete(schema.event).where(schema.event.c.sequence <= 2)
        await world.hub.store.write(lambda conn: conn.execute(gone))
        with pytest.raises(EventsLost):
            await first(1, ann, "#", after=1)
        assert [event.title for event in await first(1, ann, "#", after=2)] == ["2"]


async def test_ends_of_runs_are_kept_only_when_somebody_asks(home: Path) -> None:
    async with world_in(home) as world:
        assert not world.hub.bus.may_take("run.done.look")
        await world.hub.events.asked_for(["run.#"])
        assert world.hub.bus.may_take("run.done.look")
        # Asked for again within the hour nothing is written: programs ask every few seconds.
        seen = await world.rows(schema.event_reader)
        await world.hub.events.asked_for(["run.#"])
        assert await world.rows(schema.event_reader) == seen
    async with world_in(home) as world:
        assert world.hub.bus.may_take("run.done.look")
