"""What is stored from before the clock was set back seems to lie in the future: nothing waits until it has come.

A row that is moved an hour ahead is what a clock that is moved an hour back leaves.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

import pytest
import sqlalchemy as sa

from parley.link.calls import BeatCall, Started
from parley.messages.model import Reply, now
from parley.runs.ledger import LEASE
from parley.store import ids, schema
from parley.store.ids import new_id
from parley.store.newest import go_on_from
from tests.hub.house import House, text_of

pytestmark = pytest.mark.prefect

HOUR: Final = timedelta(hours=1)
WITHIN: Final = 20.0


@pytest.fixture(autouse=True)
def ids_stay_in_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has this process's ids go on from is forgotten with it: other tests read times from ids."""
    monkeypatch.setattr(ids, "_last", ids._last)


async def move(house: House, table: sa.Table, **values: Any) -> None:
    await house.hub.store.write(lambda conn: conn.execute(sa.update(table).values(values)))


async def lease_of(house: House, run_id: str) -> Any:
    query = sa.select(schema.run.c.lease_until).where(schema.run.c.id == run_id)

    async def fetch(conn: Any) -> Any:
        return (await conn.execute(query)).scalar_one()

    return await house.hub.store.read(fetch)


async def state_of(house: House, flow_run_id: str) -> str:
    return str((await house.hub.prefect.flow_run(flow_run_id))["state"]["type"])


async def started_run(house: House) -> tuple[str, Any, Started]:
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/change web1")
    order = await house.worker.next_order()
    return asked.id, order, await house.worker.start(order)


async def test_a_run_without_a_sign_of_life_keeps_no_lease_of_an_hour(house: House) -> None:
    asked, _, started = await started_run(house)
    await move(house, schema.run, lease_until=now() + HOUR + timedelta(seconds=LEASE))
    async with asyncio.timeout(WITHIN):
        while await lease_of(house, started.run_id) > now() + timedelta(seconds=LEASE):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await move(house, schema.run, lease_until=now())  # and nobody speaks for as long as it was
    outcome = await house.outcome(asked)
    assert outcome.state == "failed"
    assert "interrupted" in text_of(outcome)


async def test_a_run_that_goes_on_is_not_lost_by_it(house: House) -> None:
    asked, order, started = await started_run(house)
    await move(house, schema.run, lease_until=now() + HOUR)
    beat = BeatCall(
        flow_run_id=order.flow_run_id, run_id=started.run_id, epoch=started.epoch, token=started.token
    )
    assert await house.worker.client.call("beat", beat, timeout=WITHIN)
    assert await lease_of(house, started.run_id) <= now() + timedelta(seconds=LEASE)
    await house.worker.finish(order, started, outcome="done", reply=Reply(text="mine"))
    assert text_of(await house.outcome(asked)) == "mine"


async def test_an_order_that_was_lost_is_given_again_at_once(house: House) -> None:
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    lost = await house.worker.next_order()
    await move(house, schema.run, created_at=now() + HOUR)
    again = await asyncio.wait_for(house.worker.orders.get(), WITHIN)
    assert again.flow_run_id == lost.flow_run_id
    await house.worker.carry_out(again)
    assert (await house.outcome(asked.id)).state == "done"


async def test_what_ends_after_it_is_closed_in_prefect(house: House) -> None:
    """The reconciler goes on from the last end that it has seen, which is an hour ahead."""
    house.hub.reconciler._closed_to = (now() + HOUR, "")
    asked, order, started = await started_run(house)
    await house.worker.finish(order, started, outcome="done", reply=Reply(text="mine"))
    assert (await house.outcome(asked)).state == "done"
    async with asyncio.timeout(2 * WITHIN):
        while await state_of(house, order.flow_run_id) != "COMPLETED":  # noqa: ASYNC110 - it is Prefect's
            await asyncio.sleep(0.5)


async def test_ids_follow_those_that_are_stored(house: House) -> None:
    """As a hub finds it that starts after the clock was set back."""
    ahead = f"{int((now() + HOUR).timestamp() * 1000):012x}"
    newest = f"{ahead[:8]}-{ahead[8:]}{new_id()[13:]}"
    await house.say("/look 1")
    await move(house, schema.delivery, id=newest)
    await go_on_from(house.hub.store)
    assert new_id() > newest
