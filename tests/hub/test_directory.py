"""A hub with a real directory: who joins is known, who leaves has nothing left, and who comes back is the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from parley.messages.model import now
from parley.people import linking, principals
from parley.people.passkeys import Place
from parley.people.principals import PrincipalKind, Role
from parley.people.sessions import Kind, Origin
from parley.people.standing import Terms, give
from parley.people.tokens import TokenKind, issue, resolve
from parley.store import schema
from parley.store.ids import new_id
from parley.web.wire import API
from tests.hub import directories
from tests.hub.directories import ask, known_as, named, refused, server
from tests.hub.rooms import World, world_in
from tests.people.authenticator import Authenticator
from tests.postgres_fixture import postgres_server, postgres_store_url, prepared_database
from tests.servers.slapd import Slapd, dn, person

__all__ = ["postgres_server", "postgres_store_url", "prepared_database", "server"]

pytestmark = pytest.mark.servers

PASSWORD = "seven quiet otters"
PLACE = Place("console.example.org", "https://console.example.org")
Open = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture(params=["sqlite", "postgresql"])
def world_of(request: pytest.FixtureRequest) -> Open:
    """As `directories.world_of`, with the hub's store in each of the databases in turn."""
    url = request.getfixturevalue("postgres_store_url") if request.param == "postgresql" else None
    return partial(directories.world_of, database_url=url)


async def test_who_is_in_the_directory_is_known(home: Path, server: Slapd, world_of: Open) -> None:
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


async def test_what_changes_in_the_directory_changes_here(home: Path, server: Slapd, world_of: Open) -> None:
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        bea = await named(world, "bea")
        await world.hub.store.write(lambda conn: principals.link_identity(conn, bea.id, "chat", "bea"))
        server.change(dn("bea"), {"slackId": "ubea2"})
        server.members("ops", add=[dn("cleo")], remove=[dn("bea")])
        assert "2 changed" in await ask(world, "/people sync", "boss")
        bea, cleo = await named(world, "bea"), await named(world, "cleo")
        assert (bea.role, bea.roles, cleo.role) == (Role.NONE, ("night",), Role.OPERATOR)
        assert await known_as(world, bea) == {
            ("chat", "bea"),
            ("post", "bea@example.org"),
            ("slack", "ubea2"),
        }
        assert "keeps the role" in str(await refused(world, "person_revoke", name="bea", role="night"))
        assert "stays operator" in str(await refused(world, "person_role", name="cleo", role="user"))
        said = await ask(world, "/role remove cleo operator", "boss")
        assert "a group that cleo is in says otherwise" in said


@pytest.mark.parametrize("how", ["deleted", "disabled", "filtered"])
async def test_who_leaves_has_nothing_left_within_one_sync(
    home: Path, server: Slapd, world_of: Open, how: str
) -> None:
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
        assert await known_as(world, bea) == set()
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
    home: Path, server: Slapd, world_of: Open
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


async def test_whom_people_removed_after_the_directory_had_does_not_come_back_either(
    home: Path, server: Slapd, world_of: Open
) -> None:
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        server.change(dn("bea"), {"nsAccountLock": "TRUE"})
        await world.hub.directory.sync()
        await world.hub.admin.run("person_remove", {"name": "bea"})
        server.change(dn("bea"), {"nsAccountLock": None})
        assert "0 joined" in await ask(world, "/people sync", "boss")
        assert not (await named(world, "bea")).enabled
        assert "do not know you" in await ask(world, "/whoami", "ubea")


async def test_by_what_they_signed_in_who_left_gets_in_no_more(
    home: Path, server: Slapd, world_of: Open
) -> None:
    """A session, a password, a passkey, a token, a code for another account: all worked before, and none does after."""
    async with world_of(home, server) as world:
        hub = world.hub
        await hub.directory.sync()
        bea = await named(world, "bea")
        doors = hub.sign_in
        await doors.passwords.set_at_the_machine("bea", PASSWORD, actor="command line")

        async def begin(conn: Any) -> tuple[str, str, str]:
            return (
                await doors.sessions.begin(conn, bea, Origin(kind=Kind.CODE)),
                await issue(conn, bea.id, TokenKind.LOGIN),
                await linking.issue(conn, hub.keyring, bea.id, linking.CodeKind.LINK),
            )

        secret, login, code = await hub.store.write(begin)
        found = await doors.sessions.resolve(secret, touches=False)
        assert found is not None
        phone = Authenticator(PLACE.rp_id, PLACE.origin)
        options, cookie = await doors.passkeys.ask_for_new(bea, found[1], PLACE)
        await doors.passkeys.add(bea, found[1], phone.make(options), cookie, PLACE, "phone")

        async def enters() -> list[bool]:
            options, cookie = doors.passkeys.ask(PLACE)
            ways = (
                await doors.sessions.resolve(secret, touches=False),
                await doors.passwords.sign_in("bea", PASSWORD, address="192.0.2.7", agent="", mark=""),
                await doors.passkeys.sign_in(
                    phone.sign(options), cookie, PLACE, agent="", address="192.0.2.7"
                ),
                await hub.store.read(lambda conn: linking.is_good(conn, hub.keyring, code)) or None,
            )
            return [way is not None for way in ways]

        assert await enters() == [True] * 4
        assert (await me(world, secret)).json()["name"] == "bea"
        server.delete(dn("bea"))
        assert "1 left" in await ask(world, "/people sync", "boss")
        assert await enters() == [False] * 4
        assert (await me(world, secret)).status_code == 401
        assert await doors.with_secret(login, address="192.0.2.7") is None
        for table in (schema.session, schema.password, schema.passkey):
            assert await world.rows(table) == [], table.name


async def me(world: World, session: str) -> httpx.Response:
    """Who the console says that somebody with this session's cookie is."""
    base = f"http://127.0.0.1:{world.hub.settings.port}"
    cookies = {f"parley_session_{world.hub.settings.port}": session}
    async with httpx.AsyncClient(
        base_url=base, headers={"origin": base}, cookies=cookies, trust_env=False
    ) as browser:
        return await browser.get(f"{API}/me")


async def test_a_name_that_is_taken_is_not_given_twice(home: Path, server: Slapd, world_of: Open) -> None:
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


async def test_a_service_is_nobody_of_the_directory(home: Path, server: Slapd, world_of: Open) -> None:
    async with world_of(home, server) as world:
        await world.hub.store.write(
            lambda conn: principals.add_principal(conn, "alerts", kind=PrincipalKind.SERVICE)
        )
        assert "no person" in str(await refused(world, "person_in_directory", name="alerts", entry="1"))
        assert "called by" in str(await refused(world, "person_in_directory", name="owner", entry=""))


async def test_without_a_directory_there_is_nothing_to_ask(home: Path) -> None:
    async with world_in(home) as world:
        assert "no [directory]" in str(await refused(world, "people_sync"))
