"""Several hubs on one store, and one directory: one of them asks it, and another does when that one stops or dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from parley.messages.model import now
from parley.people.directory_lease import LASTS
from parley.people.directory_settings import Directory
from parley.people.principals import Role
from parley.processes.directory_keeper import DirectoryKeeper
from parley.store import schema
from tests.fakes._driver import eventually
from tests.hub.directories import LINES, ROLES, server, told_duty, world_of
from tests.hub.rooms import ACCOUNTS, World, world_in
from tests.postgres_fixture import postgres_server, postgres_store_url, prepared_database
from tests.servers.slapd import BASE, GROUPS, PEOPLE, Slapd, dn

__all__ = ["postgres_server", "postgres_store_url", "prepared_database", "server"]

pytestmark = pytest.mark.servers

PROGRAM = """
import asyncio
from parley.processes.hub import open_hub
from parley.settings import load

async def main():
    hub = await open_hub(load())
    asking = asyncio.ensure_future(hub.directory.run(first=0))
    while hub.directory.answered is None and not asking.done():
        await asyncio.sleep(0.01)
    print("answered", flush=True)
    await asking

asyncio.run(main())
"""


def keeper(world: World, server: Slapd, **more: object) -> DirectoryKeeper:
    """Another hub's, on the same store."""
    hub = world.hub
    directory = Directory.model_validate(server.settings(**{"every": "1d", **more}))
    return DirectoryKeeper(
        hub.store,
        hub.audit,
        hub.outbox,
        file=lambda: hub.file.model_copy(update={"directory": directory}),
        leave=hub.people.leave,
        tell_duty=hub.closing.tell_duty,
    )


@asynccontextmanager
async def running(one: DirectoryKeeper) -> AsyncIterator[None]:
    """It asks now and then, until the hub stops."""
    task = asyncio.ensure_future(one.run(first=0))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_one_asks_and_when_it_stops_the_other_does(home: Path, server: Slapd) -> None:
    async with world_in(home, roles=ROLES, groups=LINES) as world:
        first, second = keeper(world, server), keeper(world, server)
        async with running(first):
            await _enabled(world, "cleo", True)
            async with running(second):
                await eventually(lambda: second.is_asked_elsewhere, "the second looks")
                second.file_changed()
                server.delete(dn("cleo"))
                first.file_changed()
                await _enabled(world, "cleo", False)
                assert second.answered is None
        assert second.answered is None
        async with running(second):
            await eventually(lambda: second.answered is not None, "the second asks at once")
            assert not second.is_asked_elsewhere


async def test_when_it_is_killed_the_other_asks_once_the_lease_is_over(
    home: Path, server: Slapd, postgres_store_url: str
) -> None:
    """The one that asks is a process of its own, and is killed."""
    async with world_in(home, roles=ROLES, groups=LINES, database_url=postgres_store_url) as world:
        other = keeper(world, server)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM),
            env=environment(home, server, world),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                assert await process.stdout.readline() == b"answered\n"
            await _enabled(world, "cleo", True)
            server.delete(dn("cleo"))
            async with running(other):
                await eventually(lambda: other.is_asked_elsewhere, "the other looks")
                process.send_signal(signal.SIGKILL)
                await process.wait()
                assert other.answered is None
                other.clock = lambda: now() + LASTS
                other.file_changed()
                await _enabled(world, "cleo", False)
                assert not other.is_asked_elsewhere
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_hub_that_never_asked_before_does_not_say_that_the_directory_is_long_away(
    home: Path, server: Slapd
) -> None:
    """It may have waited for days while another one asked."""
    async with world_in(home, roles=ROLES, groups=LINES) as world:
        first, second = keeper(world, server), keeper(world, server, stale_after="10m", every="10s")
        await first.sync()
        server.stop()
        ahead = timedelta(days=3)

        def clock() -> datetime:
            return now() + ahead

        second.clock = clock
        async with running(second):
            await eventually(lambda: second.trouble != "", "it takes over, and is not answered")
            assert await told_duty(world) == []
            ahead += timedelta(minutes=9)
            await _asked_again(second)
            assert await told_duty(world) == []
            ahead += timedelta(minutes=2)
            await _asked_again(second)
        assert await told_duty(world) == ["directory-away:1"]


async def test_whoever_asks_by_hand_beside_another_hub_tells_nobody_else(home: Path, server: Slapd) -> None:
    async with world_in(home, roles=ROLES, groups=LINES) as world:
        first, second = keeper(world, server), keeper(world, server, stale_after="1m")
        await second.sync_by_hand()
        later = now() + timedelta(days=1)
        first.clock = second.clock = lambda: later
        await first.sync()
        server.stop()
        with suppress(Exception):
            await second.sync_by_hand()
        assert second.trouble
        assert await told_duty(world) == []


async def test_a_change_of_the_file_asks_at_once(home: Path, server: Slapd) -> None:
    """Of `[[groups]]` and `[directory]`; the next round would be tomorrow."""
    async with world_of(home, server) as world:
        keeper = world.hub.directory
        await _enabled(world, "cleo", True)
        await _has_role(world, "bea", Role.OPERATOR)
        file = home / "parley.toml"
        file.write_text(written(server, role="auditor"))
        await _has_role(world, "bea", Role.AUDITOR)
        file.write_text(written(server, role="auditor", name="cn"))
        asked = keeper.answered
        await eventually(lambda: keeper.answered != asked, "it asks for another change")


def written(server: Slapd, *, role: str, name: str = "uid") -> str:
    """parley.toml: who is in the group ops has this role."""
    accounts = "".join(
        f'[accounts.{account}]\nplatform = "{platform}"\nblock = "parley-{platform}/{account}"\n'
        for account, platform in ACCOUNTS.items()
    )
    return f"""
{accounts}
[duty]
conversations = ["console:duty"]

[directory]
url = "{server.url}"
authority = "{server.authority}"
bind = "cn=parley,{BASE}"
password_file = "{server.password}"
base = "{PEOPLE}"
name = "{name}"
identities = {{ slack = "slackId", post = "mail" }}
every = "1d"

[[groups]]
source = "directory"
group = "cn=ops,{GROUPS}"
roles = "{role}"
"""


def environment(home: Path, server: Slapd, world: World) -> dict[str, str]:
    """For another hub on the store of this one: of the same keys, and with a home of its own."""
    other = home / "other"
    other.mkdir()
    config = other / "parley.toml"
    config.write_text(written(server, role="operator"))
    assert world.hub.settings.database_url is not None
    return {
        **os.environ,
        "PARLEY_HOME": str(other),
        "PARLEY_CONFIG": str(config),
        "PARLEY_KEY_FILE": str(world.hub.settings.key_file),
        "PARLEY_AUDIT_ANCHORS": str(home.parent / f"{home.name}-other.anchors"),
        "PARLEY_DATABASE_URL": world.hub.settings.database_url,
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }


async def _asked_again(one: DirectoryKeeper) -> None:
    one.trouble = ""
    one.file_changed()
    await eventually(lambda: one.trouble != "", "it asks again")


async def _enabled(world: World, name: str, enabled: bool) -> None:
    async with asyncio.timeout(20):
        while [one.enabled for one in await world.rows(schema.principal, name=name)] != [enabled]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _has_role(world: World, name: str, role: Role) -> None:
    async with asyncio.timeout(20):
        while [one.role for one in await world.rows(schema.principal, name=name)] != [role]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
