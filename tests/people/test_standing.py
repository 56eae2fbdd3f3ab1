"""Standing approvals: exactly what was given, no more and no longer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people import principals, standing
from parley.people.principals import PrincipalKind
from parley.people.sealing import Keyring
from parley.people.standing import Cover, Terms
from parley.runs.catalogue import AutomationSpec, Effect, Lane, Parameter
from parley.runs.requests import NewRequest, insert_request
from parley.store import schema
from parley.store.engine import Store
from parley.store.ids import new_id

REPAIR = AutomationSpec(
    name="repair",
    command="repair",
    summary="",
    deployment="repair/parley",
    effect=Effect.DANGEROUS,
    version="whole",
    core="core",
    revisions={"script": {"restart": "r1", "reboot": "b1"}},
    parameters=(
        Parameter(name="script", json_schema={"enum": ["restart", "reboot"]}),
        Parameter(name="host", json_schema={"type": "string"}, required=False),
    ),
)
VALUES = {"script": "restart", "host": "web1"}


class Office:
    """A store with an owner and a source of alerts."""

    def __init__(self, store: Store, keyring: Keyring, owner: str, source: str) -> None:
        self.store, self.keyring, self.owner, self.source = store, keyring, owner, source

    def terms(self, **changed: Any) -> Terms:
        patterns = {"script": "restart", "host": "web*"}
        terms = Terms(
            automation="repair",
            version=REPAIR.version_for(patterns),
            principal_id=self.source,
            patterns=patterns,
            most=2,
            per=timedelta(hours=1),
            expires_at=now() + timedelta(days=1),
        )
        return replace(terms, **changed)

    async def give(self, **changed: Any) -> str:
        approval_id, terms = new_id(), self.terms(**changed)
        await self.store.write(lambda conn: standing.give(conn, terms, self.owner, approval_id))
        return approval_id

    async def ask(
        self,
        values: Mapping[str, Any] = VALUES,
        spec: AutomationSpec = REPAIR,
        who: str = "",
        request_id: str = "",
    ) -> Cover:
        return await self.store.write(
            lambda conn: standing.covering(conn, who or self.source, spec, values, request_id=request_id)
        )

    async def use(self, approval_id: str) -> str:
        new = NewRequest(
            spec=REPAIR,
            values=VALUES,
            origin="service",
            actor_id=self.source,
            state="queued",
            lane=Lane.ALERTS,
            standing_id=approval_id,
            expires_at=now() + timedelta(hours=1),
        )
        return await self.store.write(lambda conn: insert_request(conn, self.keyring, new))


@pytest.fixture
async def office(store: Store) -> Office:
    keyring = Keyring.generate()

    async def people(conn: AsyncConnection) -> tuple[str, str]:
        owner = await principals.ensure_owner(conn, "owner")
        return owner, await principals.add_principal(conn, "alertmanager", kind=PrincipalKind.SERVICE)

    return Office(store, keyring, *await store.write(people))


async def test_what_fits_is_covered(office: Office) -> None:
    approval_id = await office.give()
    cover = await office.ask()
    assert cover.approval is not None
    assert cover.approval.id == approval_id
    assert (cover.approval.principal, cover.approval.given_by) == ("alertmanager", "owner")


@pytest.mark.parametrize(
    "values",
    [
        {"script": "restart", "host": "db1"},
        {"script": "restart", "host": "WEB1"},
        {"script": "reboot", "host": "web1"},
        {"script": "restart", "host": "web1", "force": True},
        {"script": "restart", "host": "eviL\nweb1"},
        {"script": "restart", "host": "web1\n-o x"},
        {"script": "restart"},
        {"script": "restart", "host": None},
    ],
)
async def test_other_values_are_not_covered(office: Office, values: dict[str, Any]) -> None:
    await office.give()
    assert await office.ask(values) == Cover(reason="standing-parameters")


async def test_nobody_else_and_nothing_else_is_covered(office: Office) -> None:
    await office.give()
    assert (await office.ask(who=office.owner)).reason == "standing-none"
    other = REPAIR.model_copy(update={"command": "other"})
    assert (await office.ask(spec=other)).reason == "standing-none"


async def test_a_change_of_the_script_ends_it_and_a_change_of_its_neighbour_does_not(office: Office) -> None:
    await office.give()
    neighbour = REPAIR.model_copy(
        update={"revisions": {"script": {"restart": "r1", "reboot": "b2"}}, "version": "2"}
    )
    assert (await office.ask(spec=neighbour)).approval
    changed = REPAIR.model_copy(update={"revisions": {"script": {"restart": "r2", "reboot": "b1"}}})
    assert (await office.ask(spec=changed)).reason == "standing-version"
    recoded = REPAIR.model_copy(update={"core": "another"})
    assert (await office.ask(spec=recoded)).reason == "standing-version"


async def test_an_expired_or_revoked_one_covers_nothing(office: Office) -> None:
    await office.give(expires_at=now() - timedelta(seconds=1))
    assert (await office.ask()).reason == "standing-none"
    approval_id = await office.give()
    assert await office.store.write(lambda conn: standing.revoke(conn, approval_id, office.owner))
    assert not await office.store.write(lambda conn: standing.revoke(conn, approval_id, office.owner))
    assert (await office.ask()).reason == "standing-none"


async def test_the_rate_is_kept_and_a_request_does_not_count_against_itself(office: Office) -> None:
    approval_id = await office.give()
    first, second = await office.use(approval_id), await office.use(approval_id)
    assert await office.ask() == Cover(reason="standing-rate")
    assert (await office.ask(request_id=second)).approval
    long_ago = now() - timedelta(hours=1, seconds=1)
    table = schema.request
    await office.store.write(
        lambda conn: conn.execute(sa.update(table).where(table.c.id == first).values(created_at=long_ago))
    )
    assert (await office.ask()).approval


async def test_of_several_any_may_cover_it(office: Office) -> None:
    await office.give(patterns={"script": "restart", "host": "db*"})
    wanted = await office.give()
    cover = await office.ask()
    assert cover.approval
    assert cover.approval.id == wanted


@pytest.mark.parametrize(
    ("declared", "covered"),
    [
        ({"default": "web9"}, True),
        ({"default": "all"}, False),
        ({"json_schema": {"type": "string", "default": "web9"}}, True),
        ({"json_schema": {"type": "string", "default": "all"}}, False),
    ],
)
async def test_of_a_parameter_that_is_not_given_the_default_must_fit(
    office: Office, declared: dict[str, Any], covered: bool
) -> None:
    host = REPAIR.parameters[1].model_copy(update=declared)
    spec = REPAIR.model_copy(update={"parameters": (REPAIR.parameters[0], host)})
    await office.give(version=spec.version_for(VALUES))
    assert bool((await office.ask({"script": "restart"}, spec)).approval) is covered


async def test_another_default_is_another_version(office: Office) -> None:
    port = Parameter(name="port", json_schema={"type": "integer"}, required=False, default=80)
    spec = REPAIR.model_copy(update={"parameters": (*REPAIR.parameters, port)})
    await office.give(version=spec.version_for(VALUES))
    assert (await office.ask(spec=spec)).approval
    moved = port.model_copy(update={"default": 443})
    changed = spec.model_copy(update={"parameters": (*REPAIR.parameters, moved)})
    assert (await office.ask(spec=changed)).reason == "standing-version"


async def test_what_was_asked_later_leaves_room_for_what_was_asked_before(office: Office) -> None:
    approval_id = await office.give(most=1)
    first, second = await office.use(approval_id), await office.use(approval_id)
    assert (await office.ask(request_id=first)).approval
    assert (await office.ask(request_id=second)).reason == "standing-rate"


@pytest.mark.parametrize(
    ("pattern", "value", "fitting"),
    [
        ("true", True, True),
        ("5", 5, True),
        ("web?", "web1", True),
        ("web?", "web12", False),
        ("*", "a\nb", True),
        ("*", None, True),
        ("?*", None, False),
    ],
)
def test_values_are_compared_as_people_write_them(pattern: str, value: Any, fitting: bool) -> None:
    assert standing.fits({"a": pattern}, {"a": value}) is fitting


@given(
    st.dictionaries(st.sampled_from("abc"), st.text(max_size=5)),
    st.dictionaries(st.sampled_from("abc"), st.just("*")),
)
def test_only_named_parameters_fit(values: dict[str, str], patterns: dict[str, str]) -> None:
    assert standing.fits(patterns, values) == (set(values) <= set(patterns))
