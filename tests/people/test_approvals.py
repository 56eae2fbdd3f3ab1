"""Approvals, delegations and freezes in the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.people import approvals, delegations, freezes, principals
from parley.people.approval_rules import Terms
from parley.people.approvals import LETTERS, NewApproval, Word
from parley.people.approvers import Approvers
from parley.people.principals import PrincipalKind, Role
from parley.people.sealing import Keyring
from parley.runs.catalogue import AutomationSpec, Effect, Lane, Parameter
from parley.runs.requests import NewRequest, insert_request
from parley.settings import File
from parley.store.engine import Store

REPAIR = AutomationSpec(
    name="repair",
    command="repair",
    summary="Repair.",
    deployment="repair/parley",
    effect=Effect.DANGEROUS,
    version="1",
    parameters=(Parameter(name="host", json_schema={"type": "string"}),),
)
VALUES = {"host": "web1"}
DEFAULT = Terms()


@dataclass
class Office:
    """A store with people in it, and one who asks."""

    store: Store
    keyring: Keyring
    people: dict[str, str]

    async def person(self, name: str, role: Role = Role.USER, **more: Any) -> str:
        self.people[name] = await self.store.write(
            lambda conn: principals.add_principal(conn, name, role=role, **more)
        )
        return self.people[name]

    async def ask(self, expires_in: timedelta = timedelta(minutes=15)) -> Any:
        """A request that waits, and its approval."""
        actor = self.people["ann"]
        new = NewRequest(
            spec=REPAIR,
            values=VALUES,
            origin="command",
            actor_id=actor,
            state="awaiting-approval",
            lane=Lane.PEOPLE,
            asking={"kind": approvals.KIND},
            expires_at=now() + timedelta(hours=1),
        )

        async def put(conn: AsyncConnection) -> Any:
            request_id = await insert_request(conn, self.keyring, new)
            digest = approvals.bound_to(self.keyring, REPAIR, VALUES, actor)
            new_one = NewApproval(
                request_id=request_id,
                digest=digest,
                needed=1,
                excluded=[actor],
                alone=False,
                expires_at=now() + expires_in,
            )
            return await approvals.insert(conn, new_one)

        return await self.store.write(put)

    async def by_code(self, text: str) -> Any:
        """What a voter's words find."""
        return await self.store.write(lambda conn: approvals.by_code(conn, text))

    async def unfreeze(self, freeze_id: str) -> bool:
        """Whether it was in force."""
        return await self.store.write(lambda conn: freezes.end(conn, freeze_id, self.people["owner"]))

    async def give_role(self, principal_id: str, role: str) -> None:
        """One of parley.toml's."""
        await self.store.write(lambda conn: principals.give_role(conn, principal_id, role))

    async def able(self, terms: Terms = DEFAULT, excluded: tuple[str, ...] = (), **file: Any) -> set[str]:
        """Names of those who may approve."""
        approvers = Approvers(lambda: File.model_validate(file))
        found = await self.store.read(lambda conn: approvers.of(conn, REPAIR, terms, excluded=excluded))
        return {one.name for one in found.values()}


@pytest.fixture
async def office(store: Store) -> Office:
    made = Office(store, Keyring.generate(), {})
    await made.person("owner", Role.OWNER)
    await made.person("ann", Role.OPERATOR)
    return made


async def test_it_is_found_by_its_code_however_that_is_typed(office: Office) -> None:
    row = await office.ask()
    assert set(row.code) <= set(LETTERS)
    assert len(row.code) == 4
    for text in (row.code, row.code.lower(), f"`{row.code}`", f" {row.code}. "):
        assert (await office.by_code(text)).id == row.id, text
    for text in ("", "%", "____", "ZZZZ", "K7QX" * 5, "äöü", row.code[:3]):
        assert await office.by_code(text) is None, text


async def test_codes_are_given_once(office: Office) -> None:
    codes = [(await office.ask()).code for _ in range(50)]
    assert len(set(codes)) == 50


@pytest.mark.parametrize(
    ("spec", "values", "actor"),
    [
        (REPAIR.model_copy(update={"version": "2"}), VALUES, "ann"),
        (REPAIR.model_copy(update={"effect": Effect.WRITE}), VALUES, "ann"),
        (REPAIR.model_copy(update={"name": "other"}), VALUES, "ann"),
        (REPAIR, {"host": "web2"}, "ann"),
        (REPAIR, VALUES | {"more": None}, "ann"),
        (REPAIR, VALUES, "owner"),
        (REPAIR, VALUES, None),
    ],
)
async def test_it_is_for_exactly_this(
    office: Office, spec: AutomationSpec, values: dict[str, Any], actor: str | None
) -> None:
    row = await office.ask()
    assert approvals.is_for(office.keyring, row, REPAIR, dict(VALUES), office.people["ann"])
    actor_id = office.people[actor] if actor else None
    assert not approvals.is_for(office.keyring, row, spec, values, actor_id)
    assert "web1" not in row.digest


async def test_a_word_counts_once_and_an_end_is_one(office: Office) -> None:
    row, owner = await office.ask(), office.people["owner"]
    firsts = await asyncio.gather(
        *(
            office.store.write(lambda conn: approvals.vote(conn, row.id, owner, granted=True))
            for _ in range(5)
        )
    )
    assert sorted(firsts) == [False, False, False, False, True]
    assert await office.store.read(lambda conn: approvals.words(conn, row.id)) == {owner: Word("owner")}
    ends = await asyncio.gather(
        *(
            office.store.write(lambda conn: approvals.close(conn, office.keyring, row, "granted", "owner"))
            for _ in range(5)
        )
    )
    assert sorted(ends) == [False, False, False, False, True]


async def test_a_no_is_no_yes_and_its_words_are_sealed(office: Office) -> None:
    row, owner = await office.ask(), office.people["owner"]
    await office.store.write(lambda conn: approvals.vote(conn, row.id, owner, granted=False))
    assert await office.store.read(lambda conn: approvals.words(conn, row.id)) == {}
    await office.store.write(
        lambda conn: approvals.close(conn, office.keyring, row, "refused", "owner", reason="xyzzy")
    )
    closed = await office.store.read(lambda conn: approvals.get(conn, row.id))
    assert b"xyzzy" not in closed.reason_sealed
    opened = office.keyring.open("approval", "reason_sealed", row.id, closed.reason_sealed)
    assert opened == b"xyzzy"


async def test_what_waits_ends_in_its_order(office: Office) -> None:
    later = await office.ask(timedelta(minutes=9))
    first = await office.ask(timedelta(minutes=5))
    await office.ask(timedelta(seconds=-1))
    found = await office.store.read(approvals.open_ones)
    assert [one.code for one in found] == [first.code, later.code]
    assert [one.actor for one in found] == ["ann", "ann"]


async def test_who_may_approve(office: Office) -> None:
    dan = await office.person("dan")
    await office.person("bot", Role.OWNER, kind=PrincipalKind.SERVICE)
    gone = await office.person("gone", Role.OWNER)
    await office.store.write(lambda conn: principals.disable(conn, gone))
    assert await office.able() == {"owner"}
    assert await office.able(excluded=(office.people["owner"],)) == set()
    assert await office.able(Terms(roles=("operator",), people=("dan", "gone"))) == {"ann", "dan"}
    roles = {"shift": {"approves": ["rep*"]}, "other": {"approves": ["order"]}}
    for role in roles:
        await office.give_role(dan, role)
    assert await office.able(roles=roles) == {"owner", "dan"}
    assert await office.able(roles={"other": roles["other"]}) == {"owner"}
    assert await office.able(Terms(roles=("shift",)), roles=roles) == {"dan"}


async def test_who_was_lent_the_right(office: Office) -> None:
    dan, owner = await office.person("dan"), office.people["owner"]
    until = now() + timedelta(hours=1)
    first = await office.store.write(lambda conn: delegations.give(conn, owner, dan, until))
    second = await office.store.write(lambda conn: delegations.give(conn, owner, dan, until))
    (one,) = await office.store.read(delegations.in_force)
    assert (one.id, one.giver, one.taker) == (second, "owner", "dan")
    assert first != second
    assert await office.able() == {"owner", "dan"}
    assert await office.able(excluded=(owner,)) == set(), "who asks lends nobody the right to approve it"
    assert await office.able(excluded=(dan,)) == {"owner"}
    assert await office.store.write(lambda conn: delegations.end(conn, owner, dan))
    assert not await office.store.write(lambda conn: delegations.end(conn, owner, dan))
    assert await office.able() == {"owner"}


async def test_what_is_frozen(office: Office) -> None:
    owner = office.people["owner"]
    look = REPAIR.model_copy(update={"effect": Effect.READ})
    other = REPAIR.model_copy(update={"name": "order", "command": "order"})

    async def begin(glob: str, expires_at: Any = None) -> str:
        return await office.store.write(
            lambda conn: freezes.begin(conn, office.keyring, glob, "why", owner, expires_at)
        )

    async def stopping(spec: AutomationSpec) -> freezes.Freeze | None:
        return await office.store.read(lambda conn: freezes.stopping(conn, office.keyring, spec))

    assert await stopping(REPAIR) is None
    await begin("rep*", now() - timedelta(seconds=1))
    assert await stopping(REPAIR) is None
    made = await begin("rep*")
    found = await stopping(REPAIR)
    assert found is not None
    assert (found.id, found.by, found.reason) == (made, "owner", "why")
    assert (await stopping(look), await stopping(other)) == (None, None)
    everything = await begin(freezes.ALL)
    assert await stopping(other) is not None
    assert await stopping(look) is None
    for identity in (made, everything):
        assert [await office.unfreeze(identity) for _ in range(2)] == [True, False]
    assert await stopping(REPAIR) is None
