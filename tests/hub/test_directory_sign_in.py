"""People of a directory who sign in by an OpenID provider leave with the directory, and come back with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from parley.people import principals, sessions
from parley.people.lifetime import Lifetime
from parley.people.oidc import ACCOUNT
from parley.people.principals import Principal, Role
from parley.people.sessions import Kind, Origin, Session
from parley.store import schema
from tests.hub.directories import known_as, named, server, world_of
from tests.hub.rooms import World
from tests.people.provider import ISSUER
from tests.people.test_oidc import Bench
from tests.servers.slapd import Slapd, dn

__all__ = ["server"]

pytestmark = pytest.mark.servers


@asynccontextmanager
async def signed_in(home: Path, server: Slapd) -> AsyncIterator[tuple[World, Bench, Principal]]:
    """bea, who is known by the directory's address, and has come by the provider; strangers may join by it."""
    async with world_of(home, server) as world:
        await world.hub.directory.sync()
        bea = await named(world, "bea")
        bench = Bench(world.hub.store, world.hub.keyring)
        bench.configure(mail_account="post", join=True)
        bench.provider.lies |= {"email": "bea@example.org", "email_verified": True}
        who = await bench.enter()
        assert who is not None
        assert who.id == bea.id
        bench.configure(join=True)
        yield world, bench, bea


async def leave(world: World, server: Slapd) -> None:
    server.change(dn("bea"), {"nsAccountLock": "TRUE"})
    await world.hub.directory.sync()
    assert not (await named(world, "bea")).enabled


async def come_back(world: World, server: Slapd) -> None:
    server.change(dn("bea"), {"nsAccountLock": None})
    await world.hub.directory.sync()
    assert (await named(world, "bea")).enabled


async def test_who_is_taken_in_again_signs_in_by_the_provider_again(home: Path, server: Slapd) -> None:
    async with signed_in(home, server) as (world, bench, bea):
        for _ in range(2):
            await leave(world, server)
            assert await world.rows(schema.session) == []
            assert await bench.enter() is None, "and does not join as somebody else"
            await come_back(world, server)
            who = await bench.enter()
            assert who is not None
            assert (who.id, who.role) == (bea.id, Role.OPERATOR)
        assert sorted(row.name for row in await world.rows(schema.principal)) == ["bea", "cleo", "owner"]
        linked = await world.rows(schema.audit, action="person-linked", actor="directory", phase="outcome")
        assert sum(ACCOUNT + ISSUER in str(row.details) for row in linked) == 2


async def test_whom_people_removed_stays_outside_though_the_directory_has_them(
    home: Path, server: Slapd
) -> None:
    async with signed_in(home, server) as (world, bench, _):
        await world.hub.admin.run("person_remove", {"name": "bea"})
        await world.hub.directory.sync()
        assert not (await named(world, "bea")).enabled
        assert await bench.enter() is None


async def test_what_they_had_disconnected_stays_so(home: Path, server: Slapd) -> None:
    async with signed_in(home, server) as (world, bench, bea):
        session = await recent_session(world, bea)
        assert await bench.desk.disconnect(bea, session, "corp")
        await leave(world, server)
        await come_back(world, server)
        assert await bench.enter() is None
        assert await known_as(world, bea) == {("slack", "ubea"), ("post", "bea@example.org")}


async def test_what_is_somebody_elses_by_now_stays_theirs(home: Path, server: Slapd) -> None:
    async with signed_in(home, server) as (world, bench, _):
        await leave(world, server)
        cleo = await named(world, "cleo")
        await world.hub.store.write(
            lambda conn: principals.link_identity(conn, cleo.id, ACCOUNT + ISSUER, "subject-1", verified=True)
        )
        await come_back(world, server)
        who = await bench.enter()
        assert who is not None
        assert who.id == cleo.id


async def recent_session(world: World, who: Principal) -> Session:
    keyring = world.hub.keyring
    origin = Origin(kind=Kind.CODE)
    secret = await world.hub.store.write(
        lambda conn: sessions.begin(conn, keyring, who.id, origin, Lifetime())
    )
    found = await world.hub.store.read(lambda conn: sessions.find(conn, keyring, secret, Lifetime()))
    assert found is not None
    return found
