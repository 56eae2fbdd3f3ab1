"""Somebody is removed while something waits: every card says so at once, and they hear no more of it."""

from __future__ import annotations

from pathlib import Path

from parley.link.calls import DeliverCall
from parley.people.principals import Role
from parley.store import schema
from tests.hub.approving import approval, audit_is_whole, code_in, people_in, request, trail, write
from tests.hub.rooms import World

TWO = {"automations": "harm", "needed": 2, "people": ["bob", "cleo", "dan"]}


async def removed(world: World, name: str) -> list[DeliverCall]:
    """What is said because somebody was removed."""
    before = len(world.platforms.calls)
    await world.hub.people.remove(name)
    await world.settled()
    return world.platforms.calls[before:]


async def test_what_they_asked_for_is_locked_where_it_was_shown(home: Path) -> None:
    async with people_in(home, approvals=[{"automations": "harm", "to": "slack:OPS"}]) as world:
        await write(world, "/help", person="bob")
        code = code_in((await write(world, "/harm", person="ann"))[0].reply.text)
        locks = await removed(world, "ann")
        assert {call.route.conversation for call in locks} == {"D-ann", "D-bob", "OPS"}
        for call in locks:
            assert call.edits
            assert call.reply.text.startswith("**not run: ann, who asked for it, is no longer here**")
            assert call.reply.buttons == ()
        assert ((await request(world)).state, (await approval(world)).state) == ("cancelled", "withdrawn")
        said = await write(world, f"/approve {code}", person="bob")
        assert "withdrawn by ann" in said[0].reply.text
        assert await world.rows(schema.run) == []
        assert (await trail(world, "approval:"))[-1] == ("approval:harm", "outcome", "ann", "withdrawn")
        assert await world.rows(schema.audit_open) == []
        assert await audit_is_whole(world)


async def test_who_approves_no_more_is_not_counted_and_not_told(home: Path) -> None:
    async with people_in(home, approvals=[TWO]) as world:
        for name in ("cleo", "dan"):
            await world.person(name, Role.USER)
        for name in ("bob", "cleo", "dan"):
            await write(world, "/help", person=name)
        code = code_in((await write(world, "/harm", person="ann"))[0].reply.text)
        await write(world, f"/approve {code}", person="cleo")

        said = {call.route.conversation: call.reply for call in await removed(world, "cleo")}
        assert said.keys() == {"D-ann", "D-bob", "D-cleo", "D-dan"}
        assert said["D-cleo"].text.startswith("**this no longer waits for you**")
        assert said["D-cleo"].buttons == ()
        for place in ("D-ann", "D-bob", "D-dan"):
            counted = "**0 of 2: cleo is no longer here, and no longer counts**"
            assert said[place].text.startswith(counted)
        assert said["D-bob"].buttons

        first = await write(world, f"/approve {code}", person="bob")
        edited = {call.route.conversation: call.reply.text for call in first if call.edits}
        assert edited.keys() == {"D-ann", "D-bob", "D-dan"}
        assert all(text.startswith("**1 of 2: approved by bob**") for text in edited.values())
        last = await write(world, f"/approve {code}", person="dan")
        assert (await request(world)).state == "queued"
        assert (await approval(world)).decided_by == "bob, dan"
        assert "D-cleo" not in {call.route.conversation for call in (*first, *last)}
        assert await audit_is_whole(world)


async def test_where_nothing_can_be_edited_nothing_is_said_to_who_left(home: Path) -> None:
    async with people_in(home) as world:
        await world.link_claimed(await world.person("cleo", Role.OWNER, "post"), "chat", "cleo")
        await write(world, "/help", person="cleo", account="chat")
        code = code_in((await write(world, "/harm", person="ann"))[0].reply.text)
        shown = len((await approval(world)).cards)
        assert all(call.route.conversation != "post" for call in await removed(world, "cleo"))
        assert len((await approval(world)).cards) < shown
        await write(world, f"/approve {code}", person="bob")
        assert (await request(world)).state == "queued"
