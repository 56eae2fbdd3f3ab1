"""Roles by groups: what a source gives and takes back, what people gave by hand, and what stays whatever it says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from parley.errors import PolicyError
from parley.people import groups, leaving, principals
from parley.people.audit import Audit
from parley.people.distinguished_names import canonical
from parley.people.group_lines import MOST_GROUPS, GroupLine, Source, check_roles, roles_by
from parley.people.groups import Changes
from parley.people.principals import Principal, PrincipalKind, Role
from parley.people.sealing import Keyring
from parley.settings import File
from parley.store import schema
from parley.store.engine import Store

AUDIT = Audit(Keyring.generate())
OPS = "cn=ops,ou=groups,dc=example,dc=org"
LINES = (
    GroupLine(source="directory", group=OPS, roles="operator"),
    GroupLine(source="directory", group="cn=night,ou=groups,dc=example,dc=org", roles=["night", "user"]),
    GroupLine(source="oidc", group="ops", roles=["operator", "night"]),
    GroupLine(source="oidc", group="readers", roles=["user", "auditor"]),
    GroupLine(source="oidc", group="bosses", roles="owner", allow_owner=True),
)
NIGHT = "CN=Night, OU=groups,DC=example,DC=org"


async def add(store: Store, name: str = "bea", role: Role = Role.NONE, **more: Any) -> str:
    return await store.write(lambda conn: principals.add_principal(conn, name, role=role, **more))


async def apply(
    store: Store, who: str, source: Source, said: Collection[str], lines: tuple[GroupLine, ...] = LINES
) -> Changes:
    return await store.write(lambda conn: groups.apply(conn, AUDIT, lines, who, source, said))


async def get(store: Store, who: str) -> Principal:
    return await store.read(lambda conn: principals.get(conn, who))


async def audited(store: Store) -> list[tuple[str, str, str, str]]:
    rows = await store.read(
        lambda conn: conn.execute(sa.select(schema.audit).order_by(schema.audit.c.sequence))
    )
    return [
        (row.action, row.actor, row.subject, row.details["role"]) for row in rows if row.phase == "outcome"
    ]


async def test_a_group_gives_roles_and_takes_them_back(store: Store) -> None:
    bea = await add(store)
    assert await apply(store, bea, "directory", [OPS, NIGHT]) == Changes(given=("night", "operator", "user"))
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.OPERATOR, ("night",))
    assert not await apply(store, bea, "directory", [NIGHT, OPS])
    assert await apply(store, bea, "directory", [NIGHT]) == Changes(taken=("operator",))
    assert (await get(store, bea)).role is Role.USER
    assert await apply(store, bea, "directory", []) == Changes(taken=("night", "user"))
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.NONE, ())
    assert await audited(store) == [
        ("role-given", "directory", "person:bea", "night"),
        ("role-given", "directory", "person:bea", "operator"),
        ("role-given", "directory", "person:bea", "user"),
        ("role-taken", "directory", "person:bea", "operator"),
        ("role-taken", "directory", "person:bea", "night"),
        ("role-taken", "directory", "person:bea", "user"),
    ]


async def test_what_people_gave_stays(store: Store) -> None:
    bea = await add(store, role=Role.USER)
    await store.write(lambda conn: principals.give_role(conn, bea, "night"))
    await apply(store, bea, "directory", [OPS, NIGHT])
    assert (await get(store, bea)).role is Role.OPERATOR
    await apply(store, bea, "directory", [])
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.USER, ("night",))


async def test_what_people_take_is_what_people_gave(store: Store) -> None:
    bea = await add(store, role=Role.OPERATOR)
    await apply(store, bea, "directory", [OPS, NIGHT])
    assert await store.write(lambda conn: principals.give_role(conn, bea, "night"))
    assert not await store.write(lambda conn: principals.give_role(conn, bea, "night"))
    await store.write(lambda conn: principals.set_role(conn, bea, Role.NONE))
    assert await store.write(lambda conn: principals.take_role(conn, bea, "night"))
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.OPERATOR, ("night",)), "groups still give both"
    assert await store.read(lambda conn: principals.source_of(conn, bea, "night")) == "directory"
    assert not await store.write(lambda conn: principals.take_role(conn, bea, "night"))
    await apply(store, bea, "directory", [])
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.NONE, ()), "nobody gives anything any more"


async def test_a_source_takes_nothing_that_another_gives(store: Store) -> None:
    bea = await add(store)
    await apply(store, bea, "directory", [OPS, NIGHT])
    await apply(store, bea, "oidc", ["ops"])
    assert await apply(store, bea, "directory", []) == Changes(taken=("night", "operator", "user"))
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.OPERATOR, ("night",))
    await apply(store, bea, "oidc", [])
    found = await get(store, bea)
    assert (found.role, found.roles) == (Role.NONE, ())


async def test_a_line_that_the_file_has_no_more_gives_nothing(store: Store) -> None:
    bea = await add(store)
    await apply(store, bea, "oidc", ["ops"])
    assert await apply(store, bea, "oidc", ["ops"], LINES[:2]) == Changes(taken=("night", "operator"))
    assert (await get(store, bea)).role is Role.NONE


async def test_the_first_of_our_own_roles_counts(store: Store) -> None:
    bea = await add(store, role=Role.USER)
    await apply(store, bea, "oidc", ["readers"])
    assert (await get(store, bea)).role is Role.AUDITOR
    await store.write(lambda conn: principals.set_role(conn, bea, Role.OPERATOR))
    assert (await get(store, bea)).role is Role.OPERATOR
    await store.write(lambda conn: principals.set_role(conn, bea, Role.USER))
    assert (await get(store, bea)).role is Role.AUDITOR


async def test_the_last_owner_stays_one_whatever_a_source_says(store: Store) -> None:
    bea = await add(store)
    assert await apply(store, bea, "oidc", ["bosses", "ops"]) == Changes(given=("night", "operator", "owner"))
    assert (await get(store, bea)).role is Role.OWNER
    said = await apply(store, bea, "oidc", [])
    assert said == Changes(taken=("night", "operator"), kept=("owner",))
    assert (await get(store, bea)).role is Role.OWNER
    assert not await apply(store, bea, "oidc", [])
    with pytest.raises(PolicyError, match="last owner"):
        await store.write(lambda conn: leaving.remove(conn, AUDIT, bea))
    with pytest.raises(PolicyError, match="last owner"):
        await store.write(lambda conn: principals.disable(conn, bea))
    boss = await add(store, "boss", Role.OWNER)
    assert await apply(store, bea, "oidc", []) == Changes(taken=("owner",))
    with pytest.raises(PolicyError, match="last owner"):
        await store.write(lambda conn: principals.set_role(conn, boss, Role.USER))


async def test_an_owner_by_a_group_may_be_one_by_hand_besides(store: Store) -> None:
    bea = await add(store, role=Role.OWNER)
    await apply(store, bea, "oidc", ["bosses"])
    assert await apply(store, bea, "oidc", []) == Changes(taken=("owner",))
    assert (await get(store, bea)).role is Role.OWNER
    await apply(store, bea, "oidc", ["bosses"])
    await store.write(lambda conn: principals.set_role(conn, bea, Role.USER))
    assert (await get(store, bea)).role is Role.OWNER, "the group makes them one"
    assert await apply(store, bea, "oidc", []) == Changes(kept=("owner",))


async def test_who_leaves_has_nothing_that_a_group_gave(store: Store) -> None:
    bea = await add(store)
    await apply(store, bea, "directory", [OPS, NIGHT])
    await store.write(lambda conn: leaving.remove(conn, AUDIT, bea))
    found = await get(store, bea)
    assert (found.role, found.roles, found.enabled) == (Role.NONE, (), False)
    with pytest.raises(PolicyError, match="disabled"):
        await apply(store, bea, "directory", [OPS])
    await store.write(lambda conn: principals.enable(conn, bea))
    assert (await get(store, bea)).role is Role.NONE


async def test_a_service_is_in_no_group(store: Store) -> None:
    alerts = await add(store, "alerts", kind=PrincipalKind.SERVICE)
    with pytest.raises(PolicyError, match="no person"):
        await apply(store, alerts, "oidc", ["ops"])


@pytest.mark.parametrize(
    "said",
    [
        ["OPS", "ops ", "оps", "ops\x00", "ops,readers", ""],
        [None, 7, {"ops": 1}, ["ops"]],
        [OPS],
    ],
)
async def test_what_looks_like_a_group_gives_nothing(store: Store, said: list[Any]) -> None:
    bea = await add(store)
    assert not await apply(store, bea, "oidc", said)


async def test_more_groups_than_anybody_is_in_are_refused(store: Store) -> None:
    bea = await add(store)
    await apply(store, bea, "oidc", ["ops"])
    with pytest.raises(PolicyError, match="more than"):
        await apply(store, bea, "oidc", [str(n) for n in range(MOST_GROUPS + 1)])
    assert (await get(store, bea)).role is Role.OPERATOR


# -- the table


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"roles": "owner"}, "allow_owner"),
        ({"roles": ["none"]}, "cannot give"),
        ({"roles": []}, "at least 1"),
        ({"group": ""}, "at least 1"),
        ({"source": "slack"}, "directory"),
        ({"source": "directory", "group": "ops"}, "distinguished name"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused(line: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        GroupLine.model_validate({"source": "oidc", "group": "ops", "roles": "user", **line})


def test_a_role_that_there_is_not_is_refused() -> None:
    check_roles(LINES, {"night"})
    with pytest.raises(ValidationError, match="'night', which there is not"):
        File.model_validate({"groups": [{"source": "oidc", "group": "ops", "roles": "night"}]})
    file = {"roles": {"night": {"may": ["read"]}}, "groups": [LINES[1].model_dump()]}
    assert File.model_validate(file).groups == (LINES[1],)


@pytest.mark.parametrize(
    "spelled",
    [
        "CN=ops,OU=Groups,DC=example,DC=org",
        "cn = ops , ou=groups, dc=example,dc=org ",
        r"cn=\6f\70s,ou=groups,dc=example,dc=org",
    ],
)
def test_a_name_is_the_same_however_it_is_spelled(spelled: str) -> None:
    assert roles_by(LINES, "directory", [spelled]) == {"operator"}


@pytest.mark.parametrize(
    "other",
    [
        "cn=ops,ou=groups,dc=example",
        "cn=ops,ou=groups,dc=example,dc=org,dc=evil",
        "cn=ops,cn=x,ou=groups,dc=example,dc=org",
        r"cn=ops\,ou\=groups,dc=example,dc=org",
        r"cn=ops\2cou\3dgroups\2cdc\3dexample\2cdc\3dorg",
        r"cn=ops\20,ou=groups,dc=example,dc=org",
        "cn=\u043eps,ou=groups,dc=example,dc=org",
        "cn=op\u017f,ou=groups,dc=example,dc=org",
        "cn=ops\n,ou=groups,dc=example,dc=org",
        "cn=ops+uid=1,ou=groups,dc=example,dc=org",
        "ou=ops,ou=groups,dc=example,dc=org",
        "ops",
        "",
        "=",
        "cn=ops\\",
        r"cn=\ff,ou=groups",
        "cn=ops," * 2000,
    ],
)
def test_another_name_is_another_group(other: str) -> None:
    assert roles_by(LINES, "directory", [other]) == frozenset()


def test_parts_of_one_name_have_no_order() -> None:
    assert canonical("uid=1+cn=ops,dc=org") == canonical("CN=Ops + UID=1,dc=org")
    assert canonical(r"cn=a\+b,dc=org") != canonical("cn=a+b=,dc=org")
