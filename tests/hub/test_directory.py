"""A hub with a real directory: who joins is known, who leaves has nothing left, and what is doubtful removes nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import ConfigurationError, PolicyError
from parley.messages.model import ConversationKind, now
from parley.people import principals
from parley.people.directory_search import DirectoryError
from parley.people.principals import Principal, PrincipalKind, Role
from parley.people.standing import Terms, give
from parley.people.tokens import TokenKind, issue, resolve
from parley.processes import diagnosis
from parley.store import schema
from parley.store.ids import new_id
from tests.hub.rooms import World, world_in
from tests.servers.slapd import GROUPS, Slapd, dn, group, need_slapd, person

pytestmark = pytest.mark.servers

ROLES = {"night": {"may": ["read"], "approves": ["harm"]}}
LINES = [
    {"source": "directory", "group": f"cn=ops,{GROUPS}", "roles": ["operator"]},
    {"source": "directory", "group": f"cn=night,{GROUPS}", "roles": "night"},
    {"source": "directory", "group": f"cn=bosses,{GROUPS}", "roles": "owner", "allow_owner": True},
]


@pytest.fixture
def server() -> Iterator[Slapd]:
    """A directory of bea, who is an operator at night, and cleo."""
    need_slapd()
    one = Slapd().start()
    try:
        one.add(
            person("bea", slackId="ubea", mail="bea@example.org")
            + person("cleo", slackId="ucleo")
            + group("ops", [dn("bea")])
            + group("night", [dn("bea")])
        )
        yield one
    finally:
        one.close()


@asynccontextmanager
async def world_of(home: Path, server: Slapd, **more: Any) -> AsyncIterator[World]:
    """A hub whose own timer asks once at its start, and then not again for a day."""
    settings = server.settings(every="1d", **more.pop("directory", {}))
    async with world_in(home, roles=ROLES, groups=LINES, directory=settings, **more) as world:
        hub = world.hub
        await hub.store.write(
            lambda conn: principals.link_identity(conn, hub.owner_id, "slack", "boss", verified=True)
        )
        yield world


async def ask(world: World, text: str, who: str) -> str:
    before = len(world.platforms.calls)
    await world.platforms.say(
        f"slack:D-{who}", text, person=who, addressed=True, kind=ConversationKind.DIRECT
    )
    await world.settled()
    return "\n".join(call.reply.text for call in world.platforms.calls[before:])


async def named(world: World, name: str) -> Principal:
    return await world.hub.store.read(lambda conn: principals.get_by_name(conn, name))


async def told_duty(world: World) -> list[str]:
    rows = await world.rows(schema.delivery)
    return [row.source for row in rows if row.source.startswith("directory-")]


async def test_who_is_in_the_directory_is_known(home: Path, server: Slapd) -> None:
    async with world_of(home, server) as world:
        said = await ask(world, "/people sync", "boss")
        assert said == "The directory has 2 people: 2 joined, 0 left, 0 changed."
        bea = await named(world, "bea")
        assert (bea.role, bea.roles) == (Role.OPERATOR, ("night",))
        links = await world.hub.store.read(lambda conn: principals.identities(conn, bea.id))
        assert links == [("post", "bea@example.org", False), ("slack", "ubea", False)]
        assert "operator" in await ask(world, "/whoami", "ubea")
        assert (await named(world, "cleo")).role is Role.NONE
        actions = [
            (row.action, row.actor)
            for row in await world.rows(schema.audit)
            if row.subject == "person:bea" and row.phase == "outcome"
        ]
        assert sorted(actions) == [
            ("person-added", "directory"),
            ("person-linked", "directory"),
            ("person-linked", "directory"),
            ("role-given", "directory"),
            ("role-given", "directory"),
        ]
        assert "0 joined, 0 left, 0 changed" in await ask(world, "/people sync", "boss")
        assert await world.hub.admin.run("people_sync", {}) == {
            "people": 2,
            "joined": 0,
            "left": 0,
            "changed": 0,
            "held": None,
            "problems": [],
        }


async def test_what_changes_in_the_directory_changes_here(home: Path, server: Slapd) -> None:
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        bea = await named(world, "bea")
        await world.hub.store.write(lambda conn: principals.link_identity(conn, bea.id, "chat", "bea"))
        server.change(dn("bea"), {"slackId": "ubea2"})
        server.members("ops", add=[dn("cleo")], remove=[dn("bea")])
        assert "2 changed" in await ask(world, "/people sync", "boss")
        bea, cleo = await named(world, "bea"), await named(world, "cleo")
        assert (bea.role, bea.roles, cleo.role) == (Role.NONE, ("night",), Role.OPERATOR)
        links = await world.hub.store.read(lambda conn: principals.identities(conn, bea.id))
        assert {(account, native) for account, native, _ in links} == {
            ("chat", "bea"),
            ("post", "bea@example.org"),
            ("slack", "ubea2"),
        }
        assert "keeps the role" in str(await refused(world, "person_revoke", name="bea", role="night"))
        assert "stays operator" in str(await refused(world, "person_role", name="cleo", role="user"))
        said = await ask(world, "/role remove cleo operator", "boss")
        assert "a group that cleo is in says otherwise" in said


async def refused(world: World, verb: str, **arguments: Any) -> Exception:
    with pytest.raises((ConfigurationError, PolicyError)) as raised:
        await world.hub.admin.run(verb, arguments)
    return raised.value


@pytest.mark.parametrize("how", ["deleted", "disabled", "filtered"])
async def test_who_leaves_has_nothing_left_within_one_sync(home: Path, server: Slapd, how: str) -> None:
    async with world_of(
        home, server, directory={"filter": "(&(objectClass=ourPerson)(!(sn=gone)))"}
    ) as world:
        hub = world.hub
        await hub.directory.sync()
        bea = await named(world, "bea")
        service = await world.person("nightly", Role.USER)
        waits = await ask(world, "/harm", "ubea")
        assert waits

        async def more(conn: Any) -> list[str]:
            terms = Terms(
                automation="change",
                version="1",
                principal_id=service.id,
                patterns={"host": "*"},
                most=9,
                per=timedelta(hours=1),
                expires_at=now() + timedelta(days=1),
            )
            await give(conn, terms, bea.id, new_id())
            at = now()
            await conn.execute(
                sa.insert(schema.delegation).values(
                    id=new_id(),
                    from_id=bea.id,
                    to_id=hub.owner_id,
                    created_at=at,
                    expires_at=at + timedelta(days=1),
                )
            )
            await conn.execute(
                sa.insert(schema.grant).values(
                    id=new_id(),
                    automation="change",
                    principal_id=service.id,
                    granted_by_id=bea.id,
                    created_at=at,
                )
            )
            return [await issue(conn, bea.id, TokenKind.BEARER)]

        (secret,) = await hub.store.write(more)
        assert await hub.store.read(lambda conn: resolve(conn, secret, (TokenKind.BEARER,)))
        if how == "deleted":
            server.members("ops", add=[dn("cleo")])
            server.delete(dn("bea"))
        else:
            server.change(dn("bea"), {"nsAccountLock": "TRUE"} if how == "disabled" else {"sn": "gone"})
        assert "1 left" in await ask(world, "/people sync", "boss")

        bea = await named(world, "bea")
        assert (bea.enabled, bea.role, bea.roles) == (False, Role.NONE, ())
        assert await world.rows(schema.identity, principal_id=bea.id) == []
        assert await world.rows(schema.source_grant, principal_id=bea.id) == []
        assert await hub.store.read(lambda conn: resolve(conn, secret, (TokenKind.BEARER,))) is None
        for table in (schema.standing_approval, schema.delegation, schema.grant):
            assert all(row.revoked_at is not None for row in await world.rows(table)), table.name
        assert [row.state for row in await world.rows(schema.request)] == ["cancelled"]
        assert [row.state for row in await world.rows(schema.approval)] == ["withdrawn"]
        assert "do not know you" in await ask(world, "/whoami", "ubea")
        removed = [row for row in await world.rows(schema.audit) if row.action == "person-removed"]
        assert [(row.actor, row.subject) for row in removed] == [("directory", "person:bea")] * 2


async def test_who_comes_back_is_the_same_person_and_whom_people_removed_does_not(
    home: Path, server: Slapd
) -> None:
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        before = await named(world, "bea")
        server.change(dn("bea"), {"nsAccountLock": "TRUE"})
        await world.hub.directory.sync()
        server.change(dn("bea"), {"nsAccountLock": None})
        assert "1 joined" in await ask(world, "/people sync", "boss")
        after = await named(world, "bea")
        assert (after.id, after.enabled, after.role) == (before.id, True, Role.OPERATOR)
        await world.hub.people.remove("bea")
        await world.hub.directory.sync()
        assert not (await named(world, "bea")).enabled


async def test_a_name_that_is_taken_is_not_given_twice(home: Path, server: Slapd) -> None:
    async with world_of(home, server) as world:
        ann = await world.person("bea", Role.USER)
        said = await ask(world, "/people sync", "boss")
        assert "1 joined" in said
        assert "somebody called bea already" in said
        entry = next(word for word in said.split() if word.count("-") == 4)
        await world.hub.admin.run("person_in_directory", {"name": "bea", "entry": entry})
        await world.hub.directory.sync()
        bea = await named(world, "bea")
        assert (bea.id, bea.role, bea.roles) == (ann.id, Role.OPERATOR, ("night",))
        server.delete(dn("bea"))
        await world.hub.directory.sync()
        server.add(person("bea", slackId="ubea9"))
        await world.hub.directory.sync()
        assert (await named(world, "bea-2")).enabled, "another one of the same name"
        assert not (await named(world, "bea")).enabled


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
        (row,) = [one for one in await diagnosis.diagnosis(world.hub) if one["check"] == "directory"]
        assert not row["ok"]
        world.hub.directory._answered = now() - timedelta(minutes=2)
        for _ in range(3):
            with pytest.raises(DirectoryError):
                await world.hub.directory.sync()
        assert await told_duty(world) == ["directory-away:1"]
        server.start()
        for _ in range(2):
            await world.hub.directory.sync()
        assert await told_duty(world) == ["directory-away:1", "directory-back:1"]
        assert (await named(world, "bea")).enabled
        assert all(one["ok"] for one in await diagnosis.diagnosis(world.hub) if one["check"] == "directory")


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


async def test_a_service_is_nobody_of_the_directory(home: Path, server: Slapd) -> None:
    async with world_of(home, server) as world:
        await world.hub.store.write(
            lambda conn: principals.add_principal(conn, "alerts", kind=PrincipalKind.SERVICE)
        )
        assert "no person" in str(await refused(world, "person_in_directory", name="alerts", entry="1"))
        assert "called by" in str(await refused(world, "person_in_directory", name="owner", entry=""))


async def test_without_a_directory_there_is_nothing_to_ask(home: Path) -> None:
    async with world_in(home) as world:
        assert "no [directory]" in str(await refused(world, "people_sync"))
