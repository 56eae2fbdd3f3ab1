"""A role approves where and when it counts, whether a rule names it and whoever uses it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import StartRefused
from parley.people import principals
from parley.people.principals import Principal, Role
from parley.settings import ApprovalRule
from parley.store import schema
from tests.hub.approving import approval, people_in, request, start, write
from tests.hub.rooms import World

ONLY_CHAT = {"approves": ["harm"], "accounts": ["chat"]}
MAY_NOT = "You may not approve this"


def not_now() -> dict[str, Any]:
    """A role that approves only in an hour that is long over, or far off."""
    begin = datetime.now(UTC) + timedelta(hours=11)
    return {
        "approves": ["harm"],
        "hours": f"{begin:%H:%M}-{begin + timedelta(hours=1):%H:%M}",
        "time_zone": "UTC",
    }


async def holder(world: World, name: str, *roles: str) -> Principal:
    """Somebody with roles of the file, and none else that approves."""
    made = await world.person(name, Role.USER)

    async def give(conn: AsyncConnection) -> None:
        for role in roles:
            await principals.give_role(conn, made.id, role)
        await principals.link_identity(conn, made.id, "chat", f"{name}-chat", verified=True)

    await world.hub.store.write(give)
    return made


async def narrowed(world: World, somebody: Principal, globs: list[str]) -> None:
    """Their built-in role is for these automations only."""
    table = schema.principal
    change = sa.update(table).where(table.c.id == somebody.id).values(automations=globs)
    await world.hub.store.write(lambda conn: conn.execute(change))


async def leaves(world: World) -> None:
    """The first owner is there no more, so that bob is the only one."""
    (first,) = await world.rows(schema.principal, name="owner")
    await world.hub.store.write(lambda conn: principals.disable(conn, first.id))


async def asked(world: World) -> str:
    """Ann asks; the code."""
    await write(world, "/harm", person="ann")
    return str((await approval(world)).code)


async def says(world: World, code: str, person: str, account: str = "slack") -> str:
    """They approve; all that they and others are told."""
    said = await write(world, f"/approve {code}", person=person, account=account)
    return "\n".join(call.reply.text for call in said)


@pytest.mark.parametrize("rule", [[], [{"automations": ["harm"], "roles": ["oncall"]}]], ids=["none", "rule"])
async def test_it_approves_only_from_the_accounts_that_it_names(home: Path, rule: list[Any]) -> None:
    async with people_in(home, roles={"oncall": ONLY_CHAT}, approvals=rule) as world:
        await holder(world, "zed", "oncall")
        code = await asked(world)
        assert MAY_NOT in await says(world, code, "zed")
        assert (await request(world)).state == "awaiting-approval"
        await says(world, code, "zed-chat", "chat")
        assert (await start(world)).command == "harm"


@pytest.mark.parametrize("rule", [[], [{"automations": ["harm"], "roles": ["oncall"]}]], ids=["none", "rule"])
async def test_it_approves_only_in_its_hours(home: Path, rule: list[Any]) -> None:
    async with people_in(home, roles={"oncall": not_now()}, approvals=rule) as world:
        await holder(world, "zed", "oncall")
        code = await asked(world)
        assert MAY_NOT in await says(world, code, "zed")
        assert (await approval(world)).state == "open"


async def test_whoever_a_rule_names_needs_no_role_for_it(home: Path) -> None:
    rule = {"automations": ["harm"], "roles": ["oncall"], "people": ["zed"]}
    async with people_in(home, roles={"oncall": not_now()}, approvals=[rule]) as world:
        await holder(world, "zed", "oncall")
        await says(world, await asked(world), "zed")
        assert (await start(world)).command == "harm"


@pytest.mark.parametrize("rule", [[], [{"automations": ["harm"], "roles": ["oncall"]}]], ids=["none", "rule"])
async def test_what_was_lent_counts_where_the_lenders_role_does(home: Path, rule: list[Any]) -> None:
    async with people_in(home, roles={"oncall": ONLY_CHAT}, approvals=rule) as world:
        await holder(world, "zed", "oncall")
        await holder(world, "yan")
        await write(world, "/delegate yan 8h", person="zed")
        code = await asked(world)
        assert MAY_NOT in await says(world, code, "yan")
        assert await world.rows(schema.vote) == []
        await says(world, code, "yan-chat", "chat")
        assert (await start(world)).command == "harm"


async def test_of_two_lenders_one_is_enough_for_one_approval_and_not_for_several(home: Path) -> None:
    roles = {"oncall": ONLY_CHAT, "day": {"approves": ["harm"]}}
    for needed in (1, 2):
        rule = {"automations": ["harm"], "roles": ["oncall", "day"], "needed": needed}
        async with people_in(home.with_name(f"home{needed}"), roles=roles, approvals=[rule]) as world:
            await holder(world, "zed", "oncall")
            await holder(world, "dora", "day")
            await holder(world, "yan")
            for lender in ("zed", "dora"):
                await write(world, "/delegate yan 8h", person=lender)
            code = await asked(world)
            told = await says(world, code, "yan")
            assert (MAY_NOT in told) is (needed == 2)
            assert len(await world.rows(schema.vote)) == 2 - needed


async def test_a_role_that_is_narrowed_to_something_else_approves_nothing_of_this(home: Path) -> None:
    async with people_in(home, approvals=[{"automations": ["harm"], "roles": ["operator"]}]) as world:
        for name, globs in (("otto", ["look*"]), ("olga", ["ha*"])):
            await narrowed(world, await world.person(name, Role.OPERATOR), globs)
        code = await asked(world)
        assert "You may not approve this. olga may." in await says(world, code, "otto")
        await says(world, code, "olga")
        assert (await start(world)).command == "harm"


async def test_who_is_away_makes_no_less_of_two_that_are_wanted(home: Path) -> None:
    """With the other owner there it is refused, because one is not enough; without them it must not run either."""
    rule = {"automations": "harm", "needed": 2, "roles": "owner"}
    async with people_in(home, approvals=[rule]) as world:
        for there in (1, 0):
            told, *cards = await write(world, "/harm", person="bob")
            assert f"nobody could give it: 2 wanted, {there} there" in told.reply.text
            assert cards == []
            assert (await request(world)).state == "refused"
            await leaves(world)
        assert await world.rows(schema.approval) == []


async def test_what_the_only_owner_confirmed_does_not_start_where_two_are_wanted_now(home: Path) -> None:
    async with people_in(home) as world:
        await leaves(world)
        await write(world, "/harm", person="bob")
        code = str((await approval(world)).code)
        await says(world, code, "bob")
        assert (await request(world)).state == "queued"
        two = (ApprovalRule.model_validate({"automations": "harm", "needed": 2}),)
        world.hub.configuration.file = world.hub.file.model_copy(update={"approvals": two})
        with pytest.raises(StartRefused, match="may no longer do so"):
            await start(world)
