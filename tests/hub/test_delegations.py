"""`/delegate`: somebody approves in another's place for a while, and never more than that."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from parley.messages.model import now
from parley.people.principals import Role
from parley.processes.audit_story import tell
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


async def test_everybody_sees_in_whose_place_it_was_said(home: Path) -> None:
    rule = {"automations": "harm", "needed": 2, "people": ["bob", "eve", "dan"]}
    async with people_in(home, approvals=[rule]) as world:
        for name in ("cleo", "dan", "eve"):
            await world.person(name, Role.USER)
        await told(world, "/delegate cleo 8h", "bob")
        await told(world, "/delegate cleo 8h", "eve")
        code = code_in(await told(world, "/harm", "ann"))
        said = await write(world, f"/approve {code}", person="cleo")
        edits = [call.reply.text for call in said if call.edits]
        assert edits
        assert all("**1 of 2: approved by cleo (for bob or eve)**" in text for text in edits)
        assert "cleo (for bob or eve) (1/2)" in await told(world, "/approvals", "dan")

        lenders = {row.id for row in await world.rows(schema.principal) if row.name in ("bob", "eve")}
        (vote,) = await world.rows(schema.vote)
        assert set(vote.lent_by) == lenders
        locks = await write(world, f"/approve {code}", person="dan")
        assert any("**approved by cleo (for bob or eve), dan " in call.reply.text for call in locks)
        own = (await world.rows(schema.vote))[-1]
        assert own.lent_by is None
        assert (await approval(world)).decided_by == "cleo (for bob or eve), dan"
        again = await told(world, f"/approve {code}", "eve")
        assert "approved by cleo (for bob or eve), dan" in again

        rows = [row for row in await world.rows(schema.audit) if row.action == "approve"]
        assert [(row.actor, row.details.get("for")) for row in rows] == [
            ("cleo", "bob, eve"),
            ("cleo", "bob, eve"),
            ("dan", None),
            ("dan", None),
        ]
        asked = (await request(world)).id
        story = await world.hub.store.read(lambda conn: tell(conn, asked))
        assert {line["details"].get("for") for line in story if line["who"] == "cleo"} == {"bob, eve"}
        granted = [line["details"] for line in story if line["what"] == "approval:harm outcome"]
        assert granted[0]["by"] == "cleo (for bob or eve), dan"


async def test_a_no_says_in_whose_place_it_was_said_too(home: Path) -> None:
    async with people_in(home) as world:
        cleo = await world.person("cleo", Role.USER)
        await told(world, "/delegate cleo 8h", "bob")
        code = code_in(await told(world, "/harm", "ann"))
        locks = await write(world, f"/refuse {code} not now", person="cleo")
        assert any("refused by cleo (for bob) " in call.reply.text for call in locks)
        assert (await request(world)).reason == "refused by cleo (for bob)"
        zh = sa.update(schema.principal).where(schema.principal.c.id == cleo.id).values(language="zh")
        await world.hub.store.write(lambda conn: conn.execute(zh))
        assert "cleo（代 bob） 于" in await told(world, f"/approve {code}", "cleo")


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
