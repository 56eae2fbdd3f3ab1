"""`/lock`: what is locked is refused when it is asked for, when it is approved and when it would start."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import StartRefused
from parley.messages.model import now
from parley.people import principals
from parley.people.principals import Role
from parley.store import schema
from tests.hub.approving import code_in, people_in, request, start, trail, write
from tests.hub.rooms import World


async def told(world: World, text: str, person: str, **more: Any) -> str:
    """The first thing that was said because of it."""
    return (await write(world, text, person=person, **more))[0].reply.text


async def test_it_is_refused_with_the_reason_until_it_is_unlocked(home: Path) -> None:
    async with people_in(home) as world:
        assert "Locked: `/change`" in await told(world, "/lock change the storage moves", "bob")
        refused = await told(world, "/change web1", "ann")
        assert "`/change` is locked by bob. the storage moves" in refused
        row = await request(world)
        assert (row.state, row.reason) == ("refused", "`/change` is locked by bob.")
        assert "Nothing is locked" not in await told(world, "/lock", "ann")
        assert "change" in await told(world, "/status", "ann")
        assert "`/change` is locked" in await told(world, "change web1", "ann")
        await write(world, "/look 1", person="ann")
        assert (await request(world)).state == "queued", "what only looks is never locked"
        assert "Unlocked: `change`" in await told(world, "/unlock change", "bob")
        await write(world, "/change web1", person="ann")
        assert (await request(world)).state == "queued"
        assert await trail(world, "lock", "unlock") == [
            ("lock", "intent", "bob", None),
            ("lock", "outcome", "bob", None),
            ("unlock", "intent", "bob", None),
            ("unlock", "outcome", "bob", None),
        ]
        assert not any("storage" in str(row.details) for row in await world.rows(schema.audit))


async def test_what_was_queued_before_is_refused_at_its_start(home: Path) -> None:
    async with people_in(home) as world:
        await write(world, "/change web1", person="ann")
        await write(world, "/lock all release day for 2h", person="bob")
        with pytest.raises(StartRefused, match="locked by bob until"):
            await start(world)
        await world.settled()
        assert "locked by bob until" in world.platforms.texts("slack", "D-ann")[-1]
        assert (await request(world)).state == "refused"


async def test_nothing_that_is_locked_is_approved(home: Path) -> None:
    async with people_in(home) as world:
        code = code_in(await told(world, "/harm", "ann"))
        await write(world, "/lock harm* not now", person="bob")
        assert "`/harm` is locked by bob" in await told(world, f"/approve {code}", "bob")
        assert await world.rows(schema.vote) == []
        await write(world, "/unlock harm*", person="bob")
        await write(world, f"/approve {code}", person="bob")
        assert (await request(world)).state == "queued"


async def test_what_is_locked_is_listed_for_those_whom_it_concerns(home: Path) -> None:
    nothing = "Nothing is locked that you may run or approve."
    async with people_in(home, roles={"web": {"may": ["write"], "automations": ["change"]}}) as world:
        await world.person("nil", Role.NONE)
        await world.person("vera", Role.USER)
        wanda = await world.person("wanda", Role.NONE)
        await world.hub.store.write(lambda conn: principals.give_role(conn, wanda.id, "web"))
        assert await told(world, "/lock", "nil") == "Nothing is locked."
        await write(world, "/lock change the storage moves", person="bob")
        await write(world, "/lock harm release day", person="bob")
        for words in ("/lock", "/unlock"):
            assert await told(world, words, "nil") == nothing
            assert await told(world, words, "vera") == nothing
            to_wanda = await told(world, words, "wanda")
            assert [word in to_wanda for word in ("storage", "release")] == [True, False]
            for all_of_it in ("ann", "bob"):
                listed = await told(world, words, all_of_it)
                assert [word in listed for word in ("storage", "release")] == [True, True]
        (row,) = await world.rows(schema.principal, name="bob")
        await world.link_claimed(await world.principal(row.id), "post", "bob@example.org")
        said = await told(world, "/lock", "bob@example.org", account="post", claimed=True)
        assert "vouches for who is writing" in said


async def test_a_lock_ends_at_its_time(home: Path) -> None:
    async with people_in(home) as world:
        assert "Locked until" in await told(world, "/lock change maintenance for 30m", "bob")
        over = sa.update(schema.freeze).values(expires_at=now() - timedelta(seconds=1))
        await world.hub.store.write(lambda conn: conn.execute(over))
        await write(world, "/change web1", person="ann")
        assert (await request(world)).state == "queued"
        assert "Nothing is locked" in await told(world, "/lock", "bob")


async def test_who_may_lock_and_unlock_what(home: Path) -> None:
    async with people_in(home) as world:
        await world.person("vera", Role.USER)
        assert "You may lock what you may run or approve" in await told(world, "/lock change why", "vera")
        assert "You may lock what you may run or approve" in await told(world, "/lock all why", "vera")
        assert "Locked" in await told(world, "/lock change on call", "ann")
        assert "Locked" in await told(world, "/lock harm on call", "bob")
        assert "was locked by bob" in await told(world, "/unlock harm", "ann")
        assert "Unlocked" in await told(world, "/unlock change", "bob")
        assert "Unlocked" in await told(world, "/unlock harm", "bob")
        assert "is not locked" in await told(world, "/unlock harm", "bob")


async def test_a_lock_that_locks_nothing_is_refused(home: Path) -> None:
    async with people_in(home) as world:
        assert "nothing would be locked" in await told(world, "/lock look why", "bob")
        assert "nothing would be locked" in await told(world, "/lock chnage why", "bob")
        for text in (
            "/lock change",
            "/lock change for 2h",
            "/lock change why for=31d",
            "/lock /etc/passwd why",
        ):
            assert "/unlock NAME" in await told(world, text, "bob")
        assert await world.rows(schema.freeze) == []


async def test_only_who_is_surely_themselves_locks(home: Path) -> None:
    async with people_in(home) as world:
        (row,) = await world.rows(schema.principal, name="bob")
        bob = await world.principal(row.id)
        await world.link_claimed(bob, "post", "bob@example.org")
        said = await write(world, "/lock all why", person="bob@example.org", account="post", claimed=True)
        assert "vouches for who is writing" in said[0].reply.text
        assert await world.rows(schema.freeze) == []


@pytest.mark.parametrize(
    "spoil",
    [lambda own: own[:-1] + bytes([own[-1] ^ 1]), lambda own: own[:1] + bytes(4) + own[5:], lambda _: b""],
    ids=["one bit", "a key that is not there", "empty"],
)
async def test_a_lock_whose_reason_cannot_be_read_locks_and_is_ended_as_any_other(
    home: Path, spoil: Callable[[bytes], bytes]
) -> None:
    async with people_in(home) as world:
        await write(world, "/change web1", person="ann")
        await write(world, "/lock harm the storage moves", person="bob")
        (row,) = await world.rows(schema.freeze)
        spoilt = sa.update(schema.freeze).values(reason_sealed=spoil(row.reason_sealed))
        await world.hub.store.write(lambda conn: conn.execute(spoilt))
        assert await told(world, "/harm", "ann") == "`/harm` is locked by bob."
        await start(world)  # what is not locked
        listed = await told(world, "/lock", "bob")
        assert [word in listed for word in ("harm", "bob", "storage")] == [True, True, False]
        assert "harm" in await told(world, "/status", "ann")
        assert "Locked" in await told(world, "/lock change as well", "bob")
        assert "Unlocked: `harm`" in await told(world, "/unlock harm", "bob")
        await write(world, "/harm", person="ann")
        assert (await request(world)).state == "awaiting-approval"
        assert {message.state for message in await world.rows(schema.message)} == {"handled"}


async def test_it_holds_over_a_restart_and_is_stored_sealed(home: Path) -> None:
    async with people_in(home) as world:
        await write(world, "/lock change xyzzy-the-reason", person="bob")
        (row,) = await world.rows(schema.freeze)
        assert b"xyzzy" not in row.reason_sealed
    async with people_in(home) as world:
        assert "xyzzy-the-reason" in await told(world, "/change web1", "ann")
