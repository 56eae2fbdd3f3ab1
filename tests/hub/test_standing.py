"""`/standing` in the chat: given by the owner, listed, revoked, audited."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from parley.people import standing
from parley.people.principals import PrincipalKind
from parley.runs.catalogue import AutomationSpec, Effect, Parameter
from parley.store import schema
from tests.hub.house import CATALOGUE, House, text_of

pytestmark = pytest.mark.prefect

REPAIR = AutomationSpec(
    name="repair",
    command="repair",
    summary="Repair.",
    deployment="repair/parley",
    effect=Effect.DANGEROUS,
    version="1",
    core="1",
    revisions={"script": {"restart": "r1"}},
    parameters=(
        Parameter(name="script", json_schema={"enum": ["restart"]}),
        Parameter(name="host", json_schema={"enum": ["web1", "web2"]}),
    ),
)
ALLOW = "/standing allow repair script=restart host=web* for=alerts rate=5/2h until=7d"


@pytest.fixture
async def shop(house: House) -> House:
    """A house with an automation to repair things, and a service."""
    house.hub.publish(CATALOGUE.model_copy(update={"automations": (*CATALOGUE.automations, REPAIR)}))
    await house.person("alerts", "none", kind=PrincipalKind.SERVICE)
    return house


async def in_force(house: House) -> list[Any]:
    return list(await house.hub.store.read(standing.in_force))


async def audited(house: House) -> list[str]:
    table = schema.audit
    outcomes = sa.and_(table.c.action.like("standing-%"), table.c.phase == "outcome")
    query = sa.select(table.c.action).where(outcomes).order_by(table.c.sequence)

    async def fetch(conn: Any) -> list[str]:
        return list((await conn.execute(query)).scalars())

    return await house.hub.store.read(fetch)


async def test_the_owner_gives_lists_and_revokes_one(shop: House) -> None:
    told = text_of(await shop.say(ALLOW))
    (one,) = await in_force(shop)
    assert (one.principal, one.terms.patterns) == ("alerts", {"script": "restart", "host": "web*"})
    assert (one.terms.most, one.terms.per.total_seconds()) == (5, 7200)
    assert one.terms.version == REPAIR.version_for({"script": "restart"})
    assert "alerts may run `/repair script=restart host=web*` by itself, at most 5 times in 2 h" in told
    identifier = one.id.replace("-", "")[-8:]
    listed = (await shop.say("/standing")).replies[0]
    assert identifier in str(listed)
    assert identifier in text_of(await shop.say(f"/standing revoke {identifier}"))
    assert await in_force(shop) == []
    assert "no standing approval" in text_of(await shop.say("/standing"))
    assert await audited(shop) == ["standing-approval-given", "standing-approval-revoked"]


async def test_nobody_but_the_owner_gives_one(shop: House) -> None:
    operator = await shop.person("olga", "operator")
    assert "Only the owner" in text_of(await shop.say(ALLOW, operator))
    await shop.say(ALLOW)
    (one,) = await in_force(shop)
    assert "Only the owner" in text_of(await shop.say(f"/standing revoke {one.id}", operator))
    assert one.id.replace("-", "")[-8:] in str((await shop.say("/standing", operator)).replies)
    visitor = await shop.person("vera", "user")
    assert "Only the owner" in text_of(await shop.say("/standing", visitor))
    assert [one.id for one in await in_force(shop)] == [one.id]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("/standing allow nothing for=alerts", "nothing"),
        ("/standing allow repair script=restart for=alerts", "host: give it a pattern"),
        ("/standing allow repair script=re* host=web1 for=alerts", "name one of restart"),
        ("/standing allow repair host=web1 for=alerts", "name one of restart"),
        ("/standing allow repair script=restart host=db* for=alerts", "nothing that it may be fits"),
        ("/standing allow repair script=restart host=web1 port=1 for=alerts", "no parameter port"),
        ("/standing allow repair script=restart host=web1", "for=NAME"),
        ("/standing allow repair script=restart host=web1 for=nobody", "no service nobody"),
        ("/standing allow repair script=restart host=web1 for=alerts rate=often", "no rate"),
        ("/standing allow repair script=restart host=web1 for=alerts rate=0/h", "no rate"),
        ("/standing allow repair script=restart host=web1 for=alerts rate=3/91d", "at most 90 days"),
        (f"/standing allow repair script=restart host=web1 for=alerts rate={'9' * 5000}/h", "no rate"),
        ("/standing allow secret word=hunter* for=alerts", "word is a secret"),
        ("/standing allow repair script=restart host=web1 for=alerts until=9999d", "at most a year"),
        ("/standing allow repair script=restart host=web1 for=alerts until=0d", "no time"),
        ("/standing revoke 00000000", "no standing approval"),
        ("/standing allow repair script=restart host=web1 for=owner", "no service owner"),
        ("/standing please", "/standing allow COMMAND"),
    ],
)
async def test_what_cannot_be_given_says_how_to_write_it(shop: House, said: str, answer: str) -> None:
    assert answer in text_of(await shop.say(said))
    assert await in_force(shop) == []


@pytest.mark.parametrize("gone", ["disabled", "no-owner"])
async def test_one_counts_while_whoever_gave_it_may_give_it(shop: House, gone: str) -> None:
    giver = await shop.person("greta", "owner")
    await shop.say(ALLOW, giver)
    assert len(await in_force(shop)) == 1
    verb, more = ("person_disable", {}) if gone == "disabled" else ("person_role", {"role": "operator"})
    await shop.hub.admin.run(verb, {"name": "greta", **more})
    assert await in_force(shop) == []
