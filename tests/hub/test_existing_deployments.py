"""What runs in an existing deployment, which never tells us of its start: when its time is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.language.reception import queue
from parley.messages.model import Accepted, now
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane
from parley.runs.requests import NewRequest, QueuedRun, insert_request
from parley.store import schema
from tests.fakes._driver import eventually
from tests.hub.house import CATALOGUE, House, text_of
from tests.prefect_fixture import PrefectServer

pytestmark = pytest.mark.prefect

REINDEX = AutomationSpec(
    name="reindex",
    command="reindex",
    summary="Index anew.",
    deployment="search/nightly",
    wrapped=False,
    version="1",
)


@dataclass
class Existing:
    """A house in which `/reindex` starts somebody's own deployment, whose worker is not there."""

    house: House
    server: PrefectServer

    async def asked(self) -> tuple[Accepted, str]:
        """The message, and the flow run that Prefect has for it."""
        accepted = await self.house.hub.front.say(await self.house.owner(), "/reindex")
        flights = self.house.hub.dispatcher.in_flight
        await eventually(lambda: any(one.flow_run_id for one in flights.values()), "it is handed over")
        return accepted, next(one.flow_run_id or "" for one in flights.values())

    async def time_is_over(self) -> None:
        over = sa.update(schema.request).values(expires_at=now() - timedelta(seconds=1))
        await self.house.hub.store.write(lambda conn: conn.execute(over))

    def state(self, flow_run_id: str) -> str:
        with self.server.client() as client:
            found: dict[str, Any] = client.get(f"/flow_runs/{flow_run_id}").raise_for_status().json()
        return str(found["state"]["type"])

    def set_state(self, flow_run_id: str, kind: str) -> None:
        with self.server.client() as client:
            body = {"state": {"type": kind}, "force": True}
            client.post(f"/flow_runs/{flow_run_id}/set_state", json=body).raise_for_status()


@pytest.fixture
def existing(house: House, deployed: PrefectServer) -> Existing:
    with deployed.client() as client:
        flow = client.post("/flows/", json={"name": "search"}).raise_for_status().json()
        body = {"name": "nightly", "flow_id": flow["id"], "enforce_parameter_schema": False}
        client.post("/deployments/", json=body).raise_for_status()
    house.hub.catalogue = Catalogue(automations=(*CATALOGUE.automations, REINDEX))
    return Existing(house, deployed)


async def test_what_prefect_never_began_is_told_and_withdrawn(existing: Existing) -> None:
    accepted, flow_run_id = await existing.asked()
    assert existing.state(flow_run_id) == "SCHEDULED"
    await existing.time_is_over()
    outcome = await existing.house.outcome(accepted.id)
    assert outcome.state == "expired"
    assert "its time was over before it could start" in text_of(outcome)
    assert existing.state(flow_run_id) == "CANCELLED"


async def test_what_has_begun_goes_on_and_is_answered(existing: Existing) -> None:
    accepted, flow_run_id = await existing.asked()
    existing.set_state(flow_run_id, "RUNNING")
    await existing.time_is_over()
    await existing.house.hub.reconciler._expired_runs()
    view = await existing.house.hub.front.message(await existing.house.owner(), accepted.id)
    assert view is not None
    assert not view.final
    assert existing.state(flow_run_id) == "RUNNING"
    existing.set_state(flow_run_id, "COMPLETED")
    assert (await existing.house.outcome(accepted.id)).state == "done"


async def test_what_an_earlier_hub_handed_over_is_found_by_its_key(existing: Existing) -> None:
    accepted, flow_run_id = await existing.asked()
    existing.set_state(flow_run_id, "RUNNING")
    for flight in existing.house.hub.dispatcher.in_flight.values():
        flight.flow_run_id = None
    await existing.time_is_over()
    await existing.house.hub.reconciler._expired_runs()
    view = await existing.house.hub.front.message(await existing.house.owner(), accepted.id)
    assert view is not None
    assert not view.final


async def test_what_was_queued_and_is_locked_meanwhile_is_not_handed_over(existing: Existing) -> None:
    """An existing deployment asks nobody for its start: rights, approvals and locks are looked at before it is made."""
    house = existing.house
    changes = REINDEX.model_copy(update={"effect": Effect.WRITE})
    house.hub.catalogue = Catalogue(automations=(*CATALOGUE.automations, changes))
    assert "Locked" in text_of(await house.say("/lock reindex the index is being moved"))
    new = NewRequest(
        spec=changes,
        values={},
        origin="command",
        actor_id=house.hub.owner_id,
        state="queued",
        lane=Lane.PEOPLE,
        expires_at=now() + timedelta(hours=1),
    )

    async def put(conn: AsyncConnection) -> QueuedRun:
        request_id = await insert_request(conn, house.hub.keyring, new)
        return await queue(conn, request_id, new, "owner")

    queued = await house.hub.store.write(put)
    house.hub.dispatcher.add(queued)

    async def row() -> Any:
        query = sa.select(schema.request).where(schema.request.c.id == queued.request_id)

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(query)).one()

        return await house.hub.store.read(fetch)

    await eventually(lambda: queued.run_id not in house.hub.dispatcher.in_flight, "it is looked at")
    for _ in range(100):
        if (await row()).state != "queued":
            break
        await asyncio.sleep(0.05)
    assert ((await row()).state, (await row()).reason) == ("refused", "`/reindex` is locked by owner.")
    with existing.server.client() as client:
        body = {"flow_runs": {"idempotency_key": {"any_": [queued.run_id]}}}
        assert client.post("/flow_runs/filter", json=body).raise_for_status().json() == []


@pytest.mark.parametrize("state", ["RUNNING", "SCHEDULED"])
async def test_what_an_earlier_hub_handed_over_is_refused_only_if_it_has_not_begun(
    existing: Existing, state: str
) -> None:
    hub = existing.house.hub
    changes = REINDEX.model_copy(update={"effect": Effect.WRITE})
    hub.catalogue = Catalogue(automations=(*CATALOGUE.automations, changes))
    accepted, flow_run_id = await existing.asked()
    (flight,) = hub.dispatcher.in_flight.values()
    if state == "RUNNING":
        existing.set_state(flow_run_id, state)
    await existing.house.say("/lock reindex maintenance")
    hub.dispatcher.ended(flight.queued.run_id)  # as after a restart, which takes up what waits
    hub.dispatcher.add(replace(flight.queued, again=True))
    if state == "SCHEDULED":
        assert (await existing.house.outcome(accepted.id)).state == "refused"
        await eventually(lambda: existing.state(flow_run_id) == "CANCELLED", "it is withdrawn there")
        return
    await eventually(lambda: any(one.flow_run_id for one in hub.dispatcher.in_flight.values()), "it is found")
    existing.set_state(flow_run_id, "COMPLETED")
    assert (await existing.house.outcome(accepted.id)).state == "done"
