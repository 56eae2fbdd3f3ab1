"""What a directory says that may be a mistake, or a lie, removes nobody; the people on duty are told, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from parley.messages.model import now
from parley.people import directory_people, principals
from parley.people.directory_search import DirectoryError
from parley.people.directory_settings import Directory
from parley.people.principals import Role
from parley.store import schema
from tests.hub.directories import ask, doctor, known_as, named, refused, server, told_duty, world_of
from tests.hub.rooms import World
from tests.servers.slapd import GROUPS, Slapd, dn, group, person

__all__ = ["server"]

pytestmark = pytest.mark.servers


async def test_what_somebody_claims_to_be_here_already_is_not_taken(home: Path, server: Slapd) -> None:
    """Who writes the owner's id into their own entry is neither the owner nor takes them away."""
    async with world_of(home, server) as world:
        server.change(dn("cleo"), {"slackId": "boss"})
        said = await ask(world, "/people sync", "boss")
        assert "as somebody who is owner already" in said
        assert "owner" in await ask(world, "/whoami", "boss")
        server.change(dn("cleo"), {"slackId": "ubea"})
        await world.hub.directory.sync()
        assert "bea" in await ask(world, "/whoami", "ubea"), "it stays with whom it was linked to"


async def test_a_directory_that_is_gone_removes_nobody_and_duty_is_told_once(
    home: Path, server: Slapd
) -> None:
    async with world_of(home, server, directory={"stale_after": "1m"}) as world:
        await world.hub.directory.sync()
        server.stop()
        for _ in range(2):
            with pytest.raises(DirectoryError):
                await world.hub.directory.sync()
        assert await told_duty(world) == []
        assert "Nothing was changed" in await ask(world, "/people sync", "boss")
        ((_, ok, _),) = await doctor(world)
        assert not ok
        world.hub.directory.clock = lambda: now() + timedelta(minutes=2)
        for _ in range(3):
            with pytest.raises(DirectoryError):
                await world.hub.directory.sync()
        assert await told_duty(world) == ["directory-away:1"]
        server.start()
        for _ in range(2):
            await world.hub.directory.sync()
        assert await told_duty(world) == ["directory-away:1", "directory-back:1"]
        assert (await named(world, "bea")).enabled
        assert all(ok for _, ok, _ in await doctor(world))


async def test_many_who_are_missing_at_once_stay_until_an_owner_says_so(home: Path, server: Slapd) -> None:
    server.add("".join(person(f"p{number}") for number in range(8)))
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        server.delete(*(dn(f"p{number}") for number in range(6)))
        server.change(dn("cleo"), {"nsAccountLock": "TRUE"})
        for _ in range(2):
            said = await ask(world, "/people sync", "boss")
        assert "6 of 9 people are missing at once" in said
        assert await told_duty(world) == ["directory-held:1"]
        assert (await named(world, "p0")).enabled
        assert not (await named(world, "cleo")).enabled, "the directory says so expressly"
        assert "Only the owner" in await ask(world, "/people sync anyway", "ubea")
        assert "6 left" in await ask(world, "/people sync anyway", "boss")
        assert not (await named(world, "p0")).enabled
        assert await told_duty(world) == ["directory-held:1", "directory-resumed:1"]


async def test_a_part_of_an_answer_removes_nobody(home: Path, server: Slapd) -> None:
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        server.stop()
        server.limit_to("size.soft=1 size.hard=1 size.prtotal=1")
        server.start()
        assert "only a part" in await ask(world, "/people sync", "boss")
        assert [(await named(world, name)).enabled for name in ("bea", "cleo")] == [True, True]


async def test_the_last_owner_stays_whatever_the_directory_says(home: Path, server: Slapd) -> None:
    server.add(group("bosses", [dn("bea")]))
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        assert (await named(world, "bea")).role is Role.OWNER
        await world.hub.store.write(lambda conn: principals.set_role(conn, world.hub.owner_id, Role.USER))
        server.delete(dn("bea"))
        _, done = await world.hub.directory.sync()
        assert "the last owner" in done.problems[0]
        assert (await named(world, "bea")).enabled


@pytest.mark.parametrize(
    "how", ["an attribute that nobody has", "another account", "hidden by the directory"]
)
async def test_many_who_lose_their_accounts_at_once_keep_them_until_an_owner_says_so(
    home: Path, server: Slapd, how: str
) -> None:
    """A slip in `identities`, or a right that the reader lost: where to reach people is still known afterwards."""
    server.add("".join(person(f"p{number}", slackId=f"u{number}") for number in range(4)))
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        await ask(world, "/whoami", "ubea")

        async def reached() -> set[tuple[str, str | None]]:
            rows = await world.rows(schema.identity, source="directory")
            return {(row.native_user_id, row.direct) for row in rows}

        before = await reached()
        assert ("ubea", "D-ubea") in before
        if how == "hidden by the directory":
            server.hide("slackId")
        else:
            slip = {"slack": "slackid2"} if how == "an attribute that nobody has" else {"chat": "slackId"}
            set_directory(world, server, identities={**slip, "post": "mail"})
        for _ in range(2):
            assert "6 of 6 people" in await ask(world, "/people sync", "boss")
        assert await told_duty(world) == ["directory-held:1"]
        assert await reached() == before
        assert "6 changed" in await ask(world, "/people sync anyway", "boss")
        assert ("slack", "ubea") not in await known_as(world, await named(world, "bea"))
        assert await told_duty(world) == ["directory-held:1", "directory-resumed:1"]


async def test_a_few_whose_accounts_change_are_no_mistake(home: Path, server: Slapd) -> None:
    server.add("".join(person(f"p{number}", slackId=f"u{number}") for number in range(4)))
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        for number in range(4):
            server.change(dn(f"p{number}"), {"slackId": f"w{number}"})
        assert "4 changed" in await ask(world, "/people sync", "boss")
        assert await known_as(world, await named(world, "p0")) == {("slack", "w0")}


@pytest.mark.parametrize("how", ["memberOf", "member", "no group is found"])
async def test_where_nobody_is_in_a_group_any_more_the_one_who_was_stays(
    home: Path, server: Slapd, how: str
) -> None:
    searched = {} if how == "memberOf" else {"group_base": GROUPS}
    async with world_of(home, server, directory=searched) as world:
        await world.hub.directory.sync()
        assert (await named(world, "bea")).role is Role.OPERATOR
        if how == "no group is found":
            set_directory(world, server, **searched, group_filter="(objectClass=posixGroup)")
        else:
            server.hide(how)
        assert "1 of 1 people" in await ask(world, "/people sync", "boss")
        assert (await named(world, "bea")).role is Role.OPERATOR
        assert await told_duty(world) == ["directory-held:1"]
        assert "1 changed" in await ask(world, "/people sync anyway", "boss")
        assert (await named(world, "bea")).role is Role.NONE
        assert "0 changed" in await ask(world, "/people sync", "boss"), "once is enough"


async def test_whoever_is_said_to_be_in_the_directory_has_to_be(home: Path, server: Slapd) -> None:
    """By a slip in the id somebody would be missing at the next sync, and lose everything."""
    async with world_of(home, server, directory={"filter": "(slackId=*)"}) as world:
        ann = await world.person("ann", Role.OPERATOR)
        server.add(person("ann", slackId="uann") + person("old", slackId="uold", nsAccountLock="TRUE"))
        _, done = await world.hub.directory.sync()
        assert world.hub.file.directory is not None
        answer = await directory_people.ask(world.hub.file.directory)
        entries = {one.name: one.entry for one in answer.people.values()}
        (problem,) = done.problems
        assert entries["ann"] in problem
        for wrong in (entries["ann"].upper(), entries["ann"][:-1], f"{entries['ann']} ", "uid=ann"):
            said = await refused(world, "person_in_directory", name="ann", entry=wrong)
            assert "nobody with this id" in str(said), wrong
        said = await refused(world, "person_in_directory", name="ann", entry=entries["old"])
        assert "has disabled" in str(said)
        server.stop()
        with pytest.raises(DirectoryError):
            await world.hub.admin.run("person_in_directory", {"name": "ann", "entry": entries["ann"]})
        server.start()
        assert await world.rows(schema.directory_person, principal_id=ann.id) == []
        await world.hub.admin.run("person_in_directory", {"name": "ann", "entry": entries["ann"]})
        await world.hub.directory.sync()
        assert await known_as(world, ann) == {("slack", "ann"), ("slack", "uann")}
        assert (await named(world, "ann")).role is Role.OPERATOR
        said = await refused(world, "person_in_directory", name="cleo", entry=entries["ann"])
        assert "is known as somebody" in str(said)


def set_directory(world: World, server: Slapd, **more: object) -> None:
    """Somebody writes another `[directory]`."""
    directory = Directory.model_validate(server.settings(every="1d", **more))
    configuration = world.hub.configuration
    configuration.file = configuration.file.model_copy(update={"directory": directory})
