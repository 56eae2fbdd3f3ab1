"""A worker gives a run back: it never began there."""

from __future__ import annotations

import pytest

from parley.messages.model import Reply
from parley.runs import dispatch
from tests.hub.house import House, text_of

pytestmark = pytest.mark.prefect


async def test_what_another_process_has_goes_on_there(house: House) -> None:
    """A second process was refused the start: what it says of the run changes nothing for the first."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    order = await house.worker.next_order()
    started = await house.worker.start(order)
    await house.worker.ended(order.flow_run_id, "refused", "another process has this run")
    view = await house.hub.front.message(await house.owner(), asked.id)
    assert view is not None
    assert view.state == "running"
    await house.worker.finish(order, started, outcome="done", reply=Reply(text="mine"))
    assert text_of(await house.outcome(asked.id)) == "mine"
    assert not house.hub.dispatcher.in_flight


async def test_what_nobody_can_begin_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ordered again, later each time; in the end the person is told why it cannot begin."""
    monkeypatch.setattr(dispatch, "MOST_GIVEN_BACK", 3)
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    for _ in range(3):
        order = await house.worker.next_order()
        await house.worker.ended(order.flow_run_id, "refused", "its module is gone")
    outcome = await house.outcome(asked.id)
    assert (outcome.state, outcome.reason) == ("failed", "its module is gone")
    assert "its module is gone" in text_of(outcome)
    assert house.worker.orders.empty()
