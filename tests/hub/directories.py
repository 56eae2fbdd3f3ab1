"""What tests of a hub with a directory do: it has people, the hub asks it, and somebody asks the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from parley.errors import ConfigurationError, PolicyError
from parley.messages.model import ConversationKind
from parley.people import principals
from parley.people.principals import Principal
from parley.processes import diagnosis
from parley.store import schema
from tests.hub.rooms import World, world_in
from tests.servers.slapd import GROUPS, Slapd, dn, group, need_slapd, person

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
    settings = server.settings(**{"every": "1d", **more.pop("directory", {})})
    given = {"roles": ROLES, "groups": LINES, "directory": settings, **more}
    async with world_in(home, **given) as world:
        hub = world.hub
        await hub.store.write(
            lambda conn: principals.link_identity(conn, hub.owner_id, "slack", "boss", verified=True)
        )
        yield world


async def ask(world: World, text: str, who: str) -> str:
    """What is answered to somebody who writes to us alone."""
    before = len(world.platforms.calls)
    await world.platforms.say(
        f"slack:D-{who}", text, person=who, addressed=True, kind=ConversationKind.DIRECT
    )
    await world.settled()
    return "\n".join(call.reply.text for call in world.platforms.calls[before:])


async def named(world: World, name: str) -> Principal:
    return await world.hub.store.read(lambda conn: principals.get_by_name(conn, name))


async def known_as(world: World, who: Principal) -> set[tuple[str, str]]:
    """Accounts and user ids."""
    links = await world.hub.store.read(lambda conn: principals.identities(conn, who.id))
    return {(account, native) for account, native, _ in links}


async def told_duty(world: World) -> list[str]:
    rows = await world.rows(schema.delivery)
    return [row.source for row in rows if row.source.startswith("directory-")]


async def refused(world: World, verb: str, **arguments: Any) -> Exception:
    """What an administrative verb says that refuses."""
    with pytest.raises((ConfigurationError, PolicyError)) as raised:
        await world.hub.admin.run(verb, arguments)
    return raised.value


async def doctor(world: World) -> list[tuple[str, bool, str]]:
    """What `parley doctor` says of the directory: what is looked at, whether it is well, and what is said."""
    rows = await diagnosis.diagnosis(world.hub)
    return [(one["check"], one["ok"], one["says"]) for one in rows if "directory" in one["check"]]
