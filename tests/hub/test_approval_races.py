"""Of two who take, confirm or drop the same request at once one does, and the other is told; nothing is lost by it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import Action, ConversationKind, Route, Sender, now
from parley.people import approvals
from parley.people.approvals import NewApproval
from parley.people.principals import Role
from parley.runs.requests import short
from parley.store import schema
from parley.store.ids import new_id
from tests.hub.approving import approval, people_in, request, start, who, write
from tests.hub.rooms import World

RULE = {"automations": "change"}
OFFER = {"from": "forge.alert.#", "to": "slack:C1", "run": "change", "with": {"host": "{labels.host}"}}


async def press(world: World, value: str, person: str, room: str) -> None:
    """Somebody presses a button in a room; what comes of it is not waited for."""
    route = Route(account="slack", conversation=room, kind=ConversationKind.CHANNEL)
    await world.platforms.hear(
        Action(
            account="slack", native_id=f"press-{new_id()}", sender=Sender(id=person), route=route, value=value
        )
    )


async def offered(world: World) -> str:
    """An alert offers `/change web1`; what its button says."""
    data = {"labels": {"host": "web1"}}
    await world.platforms.notice("alert.firing", "down", data=data, severity="critical", key="web1")
    await world.settled()
    return world.platforms.calls[0].reply.buttons[0].value


async def test_of_two_who_take_an_offer_at_once_one_has_it_and_the_other_is_told(home: Path) -> None:
    async with people_in(home, routes=[OFFER], approvals=[RULE]) as world:
        await world.person("pete", Role.OPERATOR)
        button = await offered(world)
        before = len(world.platforms.calls)
        await asyncio.gather(press(world, button, "ann", "C1"), press(world, button, "pete", "C2"))
        await world.settled()
        taken = await request(world)
        winner, loser_room = (
            ("ann", "C2") if taken.actor_id == (await who(world, "ann")).id else ("pete", "C1")
        )
        (open_one,) = await world.rows(schema.approval)
        assert (taken.state, open_one.state) == ("awaiting-approval", "open")
        told = [
            call.reply.text
            for call in world.platforms.calls[before:]
            if call.route.conversation == loser_room
        ]
        assert told == [f"{winner} has taken this already: `/change`."]
        await write(world, f"/approve {open_one.code}", person="bob")
        assert (await start(world)).command == "change"


async def test_an_offer_pressed_during_a_lock_stays_open_for_afterwards(home: Path) -> None:
    async with people_in(home, routes=[OFFER]) as world:
        button = await offered(world)
        await write(world, "/lock change moving", person="bob")
        await press(world, button, "ann", "C2")
        await world.settled()
        assert "moving" in world.platforms.texts("slack", "C2")[0]
        kept = await request(world)
        assert (kept.state, kept.origin) == ("awaiting-approval", "service")
        await write(world, "/unlock change", person="bob")
        await press(world, button, "ann", "C2")
        await world.settled()
        assert (await request(world)).state == "queued"
        assert (await start(world)).command == "change"


async def test_who_presses_later_is_told_who_has_it_while_it_waits_for_its_approval(home: Path) -> None:
    async with people_in(home, routes=[OFFER], approvals=[RULE]) as world:
        await world.person("pete", Role.OPERATOR)
        button = await offered(world)
        for person, room in (("ann", "C1"), ("pete", "C2")):
            await press(world, button, person, room)
            await world.settled()
        assert world.platforms.texts("slack", "C2") == ["ann has taken this already: `/change`."]


async def test_what_is_confirmed_in_two_places_at_once_waits_for_one_approval(home: Path) -> None:
    async with people_in(home, approvals=[RULE]) as world:
        await write(world, "please change web1", person="ann")
        value = f"/yes {short((await request(world)).id)}"
        await asyncio.gather(press(world, value, "ann", "C5"), press(world, value, "ann", "C6"))
        await world.settled()
        (open_one,) = await world.rows(schema.approval)
        told = [*world.platforms.texts("slack", "C5"), *world.platforms.texts("slack", "C6")]
        assert "There is nothing here that waits for an answer." in told
        await write(world, f"/approve {open_one.code}", person="bob")
        assert (await start(world)).command == "change"


async def test_what_is_confirmed_and_dropped_at_once_is_one_of_both(home: Path) -> None:
    async with people_in(home, approvals=[RULE]) as world:
        await write(world, "please change web1", person="ann")
        name = short((await request(world)).id)
        await asyncio.gather(
            press(world, f"/yes {name}", "ann", "C5"), press(world, f"/no {name}", "ann", "C6")
        )
        await world.settled()
        state, open_ones = (await request(world)).state, await world.rows(schema.approval)
        assert (state, len(open_ones)) in (("awaiting-approval", 1), ("cancelled", 0))


async def test_what_was_confirmed_in_the_last_moment_does_not_expire_under_its_approval(home: Path) -> None:
    async with people_in(home, approvals=[RULE]) as world:
        await write(world, "please change web1", person="ann")
        read_before = await request(world)
        await write(world, "yes", person="ann")
        written = await world.hub.store.write(partial(world.hub.reconciler._expire, row=read_before))
        assert written == []
        assert ((await request(world)).state, (await approval(world)).state) == ("awaiting-approval", "open")
        await write(world, f"/approve {(await approval(world)).code}", person="bob")
        assert (await start(world)).command == "change"


async def test_a_word_to_an_older_approval_leaves_the_request_to_its_newest_one(home: Path) -> None:
    async with people_in(home, approvals=[RULE]) as world:
        await write(world, "/change web1", person="ann")
        older = await approval(world)

        async def again(conn: AsyncConnection) -> str:
            newer = NewApproval(
                request_id=older.request_id,
                digest=older.digest,
                needed=1,
                excluded=older.excluded,
                alone=False,
                expires_at=now() + timedelta(minutes=5),
            )
            return str((await approvals.insert(conn, newer)).code)

        newest = await world.hub.store.write(again)
        for word in ("refuse", "approve"):
            said = await write(world, f"/{word} {older.code}", person="bob")
            assert any("void" in call.reply.text for call in said)
        assert (await request(world)).state == "awaiting-approval"
        assert [row.state for row in await world.rows(schema.approval)] == ["void", "open"]
        await write(world, f"/approve {newest}", person="bob")
        assert (await start(world)).command == "change"
