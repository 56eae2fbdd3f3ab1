"""What `parley doctor` says of the directory, and what is said where the program that asks it is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parley.people.directory_search import installed
from parley.processes import diagnosis
from parley.processes.hub import open_hub
from parley.settings import load
from tests.fakes._driver import eventually
from tests.hub.directories import ask, doctor, server, world_of
from tests.hub.test_directory_figures import environment
from tests.hub.test_directory_hubs import keeper
from tests.servers.slapd import Slapd, dn, person

__all__ = ["server"]

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]

LACKING = """
import asyncio, json, sys
from pathlib import Path
from parley.people.directory_search import installed
from tests.fakes._driver import eventually
from tests.hub.directories import ask, doctor, world_of
from tests.servers.slapd import BASE, PEOPLE

class Server:
    def settings(self, **more):
        return {"url": "ldaps://127.0.0.1:9", "base": PEOPLE, **more}

async def main():
    async with world_of(Path(sys.argv[1]), Server()) as world:
        try:
            await world.hub.admin.run("people_sync", {})
        except Exception as error:
            verb = type(error).__name__, str(error)
        said = {"installed": installed(), "verb": verb, "chat": await ask(world, "/people sync", "boss")}
        print(json.dumps({**said, "doctor": await doctor(world)}))

asyncio.run(main())
"""


async def test_before_and_after_it_was_asked(tmp_path: Path, server: Slapd) -> None:
    settings = load(environment(tmp_path / "home", server))
    one = await open_hub(settings)
    try:
        said = [row for row in await diagnosis.diagnosis(one) if row["check"] == "directory"]
        assert [(row["ok"], row["says"]) for row in said] == [(True, "was not asked yet")]
        await one.directory.sync()
        at = one.directory.answered
        assert at is not None
        (row,) = [row for row in await diagnosis.diagnosis(one) if row["check"] == "directory"]
        assert (row["ok"], row["says"]) == (True, f"answered at {at:%Y-%m-%d %H:%M} UTC")
    finally:
        await one.store.aclose()


async def test_of_several_hubs_each_says_who_asks(home: Path, server: Slapd) -> None:
    async with world_of(home, server) as world:
        other = keeper(world, server)
        await other.sync()
        world.hub.directory.file_changed()
        await eventually(lambda: world.hub.directory.is_asked_elsewhere, "it looks")
        assert await doctor(world) == [("directory", True, "another hub asks it")]


async def test_what_is_wrong_is_told_with_what_to_do(home: Path, server: Slapd) -> None:
    server.add("".join(person(f"p{number}") for number in range(6)))
    known = {"identities": {"slack": "slackId", "gone": "mail"}}
    async with world_of(home, server, directory=known) as world:
        assert ("parley.toml, [directory]", False, "there is no account gone") in await doctor(world)
        server.change(dn("cleo"), {"slackId": "boss"})
        await ask(world, "/people sync", "boss")
        (problem,) = [one for one in await doctor(world) if one[0] == "people of the directory"]
        assert not problem[1]
        assert "1 of its people are not as it says, such as: cleo would be known on slack as" in problem[2]
        server.delete(*(dn(f"p{number}") for number in range(6)))
        await ask(world, "/people sync", "boss")
        (held,) = [one for one in await doctor(world) if one[0] == "directory"]
        assert held[1:] == (
            False,
            "6 of 8 people are missing, or lose roles or accounts, at once: nobody was removed",
        )
        await ask(world, "/people sync anyway", "boss")
        (well,) = [one for one in await doctor(world) if one[0] == "directory"]
        assert well[1]
        server.stop()
        await ask(world, "/people sync", "boss")
        (away,) = [one for one in await doctor(world) if one[0] == "directory"]
        assert not away[1]
        assert "did not answer" in away[2]
        rows = await diagnosis.diagnosis(world.hub)
        assert all(row["mend"] != "-" for row in rows if "directory" in row["check"])


def test_where_ldapsearch_is_not_installed_it_is_told(tmp_path: Path) -> None:
    """In a name space of its own, in which there is none."""
    found = installed()
    hides = f'mount --bind /dev/null "$0" && exec "{sys.executable}" -c "$1" "$2"'
    hidden = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if found is None:
        pytest.skip("it is not installed at all: need_slapd tells the same")
    if subprocess.run(
        [*hidden, 'mount --bind /dev/null "$0"', found], capture_output=True, check=False
    ).returncode:
        pytest.skip("a mount name space has to be made, which this user may not do")
    home = tmp_path / "h"
    home.mkdir()
    done = subprocess.run(
        [*hidden, hides, found, LACKING, str(home)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    lacks = "ldapsearch is not installed: on Debian it is in the package ldap-utils."
    assert said["installed"] is None
    assert said["verb"] == ["ConfigurationError", lacks]
    assert said["chat"] == f"Nothing was changed. {lacks}"
    assert said["doctor"][0] == ["directory", False, lacks]
