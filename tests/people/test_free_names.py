"""Names of who joins by themselves: nobody's, in whatever letters, and none that means something."""

from __future__ import annotations

from pathlib import Path

import pytest

from parley.errors import Denied
from parley.people import principals
from parley.people.free_names import MOST_ALIKE, free_name, names_in
from parley.people.principals import PrincipalKind
from parley.settings import load
from parley.store.engine import Store

RESERVED = ("carol", "Forge")


async def named(store: Store, said: str) -> str:
    return await store.write(lambda conn: free_name(conn, said, RESERVED))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Zoe", "Zoe"),
        # Somebody's, as people type and read it.
        ("ada", "ada-2"),
        ("ADA", "ADA-2"),
        ("Ａｄａ", "Ada-2"),
        ("  ada ", "ada-2"),
        ("robot", "robot-2"),
        ("Left", "Left-2"),
        # Of parley.toml.
        ("Carol", "Carol-2"),
        ("forge", "forge-2"),
        # Those that the audit uses.
        ("command line", "command line-2"),
        ("Command   Line", "Command Line-2"),
        ("stranger", "stranger-2"),
        ("directory", "directory-2"),
        ("prefect", "prefect-2"),
        ("owner", "owner-2"),
        ("-", "--2"),
        ("oidc:corp", "oidc-corp"),
        # What can be no name.
        ("", "newcomer"),
        ("\x07", "newcomer"),
        ("a" * 500, "a" * 56),
        ("ﷺ" * 56, "newcomer"),
    ],
)
async def test_a_name_that_means_something_gets_a_number(store: Store, said: str, name: str) -> None:
    await store.write(lambda conn: principals.add_principal(conn, "ada"))
    await store.write(lambda conn: principals.add_principal(conn, "robot", kind=PrincipalKind.SERVICE))
    left = await store.write(lambda conn: principals.add_principal(conn, "left"))
    await store.write(lambda conn: principals.disable(conn, left))
    assert await named(store, said) == name
    await store.write(lambda conn: principals.add_principal(conn, name))


async def test_numbers_count_on_and_end(store: Store) -> None:
    for number in range(2, MOST_ALIKE):
        name = await named(store, "carol")
        assert name == f"carol-{number}"
        await store.write(lambda conn, name=name: principals.add_principal(conn, name))  # type: ignore[misc]
    with pytest.raises(Denied):
        await named(store, "Carol")


def test_parley_toml_gives_these_names_a_meaning(tmp_path: Path) -> None:
    config = tmp_path / "parley.toml"
    config.write_text("""
        [owner]
        name = "Olga"

        [accounts.forge]
        platform = "gitea"
        block = "gitea/forge"

        [duty]
        conversations = ["console:dora", "slack:C1"]

        [[approvals]]
        people = ["carol", "dan"]
        to = "console:ed"

        [[routes]]
        from = "forge.push"
        to = "console:fay"
    """)
    file = load({"PARLEY_HOME": str(tmp_path), "PARLEY_CONFIG": str(config)}).file
    assert names_in(file) == {"Olga", "carol", "dan", "dora", "ed", "fay", "forge"}
