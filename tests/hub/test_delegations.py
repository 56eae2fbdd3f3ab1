"""`/delegate`: somebody approves in another's place for a while, and never more than that."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from parley.messages.model import now
from parley.people.principals import Role
from parley.store import schema
from tests.hub.approving import approval, code_in, people_in, request, trail, write
from tests.hub.rooms import World


async def told(world: World, text: str, person: str, **more: str) -> str:
    """The first thing that was said because of it."""
    return (await write(world, text, person=person, **more))[0].reply.text


async def test_it_is_lent_listed_used_and_taken_back(home: Path) -> None:
    async with people_in(home) as world:
        await world.person("cleo", Role.USER)
        await world.person("dan", Role.OPERATOR)
        assert "cleo may approve in your place until" in await told(world, "/delegate cleo 8h", "bob")
        for person in ("bob", "cleo"):
            assert "cleo" in await told(world, "/delegate", person)
        assert "Nobody approves in another's place" in await told(world, "/delegate", "dan")

        code = code_in(await told(world, "/harm", "ann"))
        assert "Approved: `/harm` of ann runs now" in "\n".join(
            call.reply.text for call in await write(world, f"/approve {code}", person="cleo")
        )
        assert (await request(world)).state == "queued"

        assert "no longer approves" in await told(world, "/delegate revoke cleo", "bob")
        assert "does not approve" in await told(world, "/delegate revoke cleo", "bob")
        code = code_in(await told(world, "/harm", "ann"))
        assert "You may not approve this" in await told(world, f"/approve {code}", "cleo")
        assert await trail(world, "delegat") == [
            ("delegate", "intent", "bob", None),
            ("delegate", "outcome", "bob", None),
            ("delegation-revoked", "intent", "bob", None),
            ("delegation-revoked", "outcome", "bob", None),
        ]


async def test_nobody_gets_a_second_voice_or_their_own_request_through(home: Path) -> None:
    rule = {"automations": "harm", "needed": 2, "roles": "owner"}
    async with people_in(home, approvals=[rule]) as world:
        await world.person("cleo", Role.OPERATOR)
        await world.person("dan", Role.OPERATOR)
        assert "may approve without you" in await told(world, "/delegate owner 8h", "bob")
        assert "may approve without you" in await told(world, "/delegate bob 8h", "bob")
        assert "You may not approve anything" in await told(world, "/delegate dan 8h", "cleo")
        await told(world, "/delegate cleo 8h", "bob")
        await told(world, "/delegate dan 8h", "bob")

        # Her own request: cleo has nothing but what bob lent her.
        code = code_in(await told(world, "/harm", "cleo"))
        assert "your own request" in await told(world, f"/approve {code}", "cleo")

        # Bob's voice counts once, whoever uses it.
        code = code_in(await told(world, "/harm", "ann"))
        for person in ("cleo", "dan", "bob"):
            await told(world, f"/approve {code}", person)
        assert (await approval(world)).state == "open"


async def test_who_asks_lends_nobody_the_right_to_approve_it(home: Path) -> None:
    async with people_in(home) as world:
        await world.person("cleo", Role.USER)
        await told(world, "/delegate cleo 8h", "bob")
        code = code_in(await told(world, "/harm", "bob"))
        assert "You may not approve this. owner may." in await told(world, f"/approve {code}", "cleo")


async def test_it_ends_by_itself_and_with_the_right_of_who_lent_it(home: Path) -> None:
    async with people_in(home) as world:
        await world.person("cleo", Role.USER)
        await told(world, "/delegate cleo 30m", "bob")
        code = code_in(await told(world, "/harm", "ann"))
        await world.give_role("bob", Role.OPERATOR)
        assert "You may not approve this" in await told(world, f"/approve {code}", "cleo")
        await world.give_role("bob", Role.OWNER)
        over = sa.update(schema.delegation).values(expires_at=now() - timedelta(seconds=1))
        await world.hub.store.write(lambda conn: conn.execute(over))
        assert "You may not approve this" in await told(world, f"/approve {code}", "cleo")


async def test_what_cannot_be_lent(home: Path) -> None:
    async with people_in(home) as world:
        await world.person("cleo", Role.USER)
        for text in ("/delegate cleo", "/delegate cleo 31d", "/delegate cleo 0h", "/delegate cleo soon"):
            assert "at most 30d" in await told(world, text, "bob")
        assert "There is no person nobody here" in await told(world, "/delegate nobody 8h", "bob")
        (row,) = await world.rows(schema.principal, name="bob")
        await world.link_claimed(await world.principal(row.id), "post", "bob@example.org")
        said = await write(world, "/delegate cleo 8h", person="bob@example.org", account="post", claimed=True)
        assert "vouches for who is writing" in said[0].reply.text
        assert await world.rows(schema.delegation) == []
