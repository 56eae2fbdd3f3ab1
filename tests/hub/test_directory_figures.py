"""A directory of many, and a hub that is killed while it carries out what the directory says."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.people.audit import AuditRow
from parley.processes.hub import open_hub
from parley.settings import load
from parley.store import schema
from tests.servers.slapd import BASE, GROUPS, PEOPLE, Slapd, dn, group, need_slapd, person

pytestmark = pytest.mark.servers

MANY = int(os.environ.get("PARLEY_TEST_DIRECTORY", "1000"))
"""People of the directory that is timed; docs/directory.md tells of 10,000."""

PROGRAM = """
import asyncio, time
from parley.processes.hub import open_hub
from parley.settings import load

async def main():
    hub = await open_hub(load())
    try:
        for _ in range(2):
            began = time.monotonic()
            plan, done = await hub.directory.sync()
            print(f"{plan.people} people, {done.joined} joined: {time.monotonic() - began:.1f} s", flush=True)
    finally:
        await hub.store.aclose()

asyncio.run(main())
"""


@pytest.fixture
def server() -> Iterator[Slapd]:
    need_slapd()
    one = Slapd()
    yield one
    one.close()


def many(server: Slapd, count: int) -> None:
    """So many people, each tenth of them in a group."""
    server.fill(
        "".join(
            person(f"p{number}", slackId=f"U{number}", mail=f"p{number}@example.org")
            for number in range(count)
        )
        + group("ops", [dn(f"p{number}") for number in range(0, count, 10)])
    )
    server.start()


def environment(home: Path, server: Slapd) -> dict[str, str]:
    """For a hub of this home."""
    home.mkdir()
    config = home / "parley.toml"
    config.write_text(
        f"""
[directory]
url = "{server.url}"
authority = "{server.authority}"
bind = "cn=parley,{BASE}"
password_file = "{server.password}"
base = "{PEOPLE}"
group_base = "{GROUPS}"
identities = {{ slack = "slackId", post = "mail" }}

[[groups]]
source = "directory"
group = "cn=ops,{GROUPS}"
roles = "operator"
"""
    )
    return {
        **os.environ,
        "PARLEY_HOME": str(home),
        "PARLEY_CONFIG": str(config),
        "PARLEY_KEY_FILE": str(home.parent / "key" / "key"),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }


def people_in(home: Path) -> int:
    """How many of the directory are in the store by now."""
    try:
        with sqlite3.connect(f"file:{home / 'parley.db'}?mode=ro", uri=True) as store:
            return int(store.execute("SELECT count(*) FROM directory_person").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def killed(environment: dict[str, str], home: Path, least: int) -> None:
    """A hub that syncs, and is killed once so many people are there."""
    running = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while people_in(home) < least:
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()


def finished(environment: dict[str, str]) -> list[str]:
    """What a hub says that syncs twice, and is let."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def _all(conn: AsyncConnection, table: sa.Table) -> list[Any]:
    return list((await conn.execute(sa.select(table))).all())


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_hub_that_is_killed_has_done_a_part_and_the_next_does_the_rest(
    tmp_path: Path, server: Slapd
) -> None:
    many(server, 600)
    home = tmp_path / "home"
    env = environment(home, server)
    for least in (60, 250):
        killed(env, home, least)
    assert people_in(home) < 600
    assert finished(env)[1].startswith("600 people, 0 joined")

    hub = await open_hub(load(env))
    try:
        people = await hub.store.read(lambda conn: _all(conn, schema.directory_person))
        links = await hub.store.read(lambda conn: _all(conn, schema.identity))
        given = await hub.store.read(lambda conn: _all(conn, schema.source_grant))
        principals = await hub.store.read(lambda conn: _all(conn, schema.principal))
        audit = await hub.store.read(lambda conn: _all(conn, schema.audit))
        rows = sorted((AuditRow.of(row) for row in audit), key=lambda row: row.sequence)
        assert (len(people), len(links), len(given), len(principals)) == (600, 1200, 60, 601)
        assert hub.audit.verify(rows) == []
        added = [row.subject for row in rows if (row.action, row.phase) == ("person-added", "outcome")]
        assert len(added) == len(set(added)) == 600
    finally:
        await hub.store.aclose()


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(900)
def test_many_people(tmp_path: Path, server: Slapd) -> None:
    """Everybody is let in at once, and asked again: the figures are printed (`-s`)."""
    many(server, MANY)
    env = environment(tmp_path / "home", server)
    first, again = finished(env)
    print(f"\n{first}\n{again}")
    assert first.startswith(f"{MANY} people, {MANY} joined")
    assert again.startswith(f"{MANY} people, 0 joined")
    assert float(again.split()[-2]) < 30, "every five minutes: it has to be little"
