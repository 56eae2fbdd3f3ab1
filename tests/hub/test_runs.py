"""What becomes of a run: one start, one end, whatever dies in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from parley.errors import StartRefused
from parley.link.calls import FinishCall, RunOrder, SayCall, Started
from parley.messages.model import Reply
from parley.people.principals import Role, set_role
from parley.runs.requests import run_token
from tests.hub.house import House, house_in, text_of
from tests.prefect_fixture import PrefectServer

pytestmark = pytest.mark.prefect


async def fails(order: RunOrder, started: Started) -> dict[str, Any]:
    return {"outcome": "failed", "reason": "it broke", "kind": "error"}


async def test_a_second_process_does_not_get_the_start(house: House) -> None:
    """The start is granted once; the same holder may ask again, another may not, nor after the end."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    order = await house.worker.next_order()
    started = await house.worker.start(order, holder="first")
    assert await house.worker.start(order, holder="first") == started
    with pytest.raises(StartRefused, match="another process"):
        await house.worker.start(order, holder="second")
    await house.worker.finish(order, started, outcome="done", reply=Reply(text="once"))
    with pytest.raises(StartRefused, match="ended"):
        await house.worker.start(order, holder="third")
    assert text_of(await house.outcome(asked.id)) == "once"


async def test_a_repeated_end_answers_once(house: House) -> None:
    """A `finish` or `say` that is sent again, because its answer was lost, changes nothing."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    order = await house.worker.next_order()
    started = await house.worker.start(order)
    said = SayCall(
        token=started.token,
        flow_run_id=order.flow_run_id,
        run_id=started.run_id,
        epoch=1,
        ordinal=1,
        reply=Reply(text="half"),
    )
    for _ in range(2):
        await house.worker.client.call("say", said)
        await house.worker.finish(order, started, outcome="done", reply=Reply(text="whole")) if _ else None
    await house.worker.finish(order, started, outcome="done", reply=Reply(text="again"))
    assert text_of(await house.outcome(asked.id)) == "half\nwhole"


async def test_another_runs_token_is_worth_nothing(house: House) -> None:
    """A run's token opens its own run only."""
    house.worker.manual = True
    await house.hub.front.say(await house.owner(), "/look 1")
    await house.hub.front.say(await house.owner(), "/look 2")
    first, second = await house.worker.next_order(), await house.worker.next_order()
    started = await house.worker.start(first)
    stolen = FinishCall(
        token=started.token,
        flow_run_id=second.flow_run_id,
        run_id=second.run_id,
        epoch=1,
        outcome="done",
        reply=Reply(text="forged"),
    )
    with pytest.raises(StartRefused, match="token"):
        await house.worker.client.call("finish", stolen)
    assert second.token != first.token == run_token(house.hub.keyring, first.run_id)


async def test_a_crash_before_the_start_is_ordered_again(house: House) -> None:
    """Nothing had begun, so the same run goes out once more."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    order = await house.worker.next_order()
    await house.worker.ended(order.flow_run_id, "crashed")
    again = await house.worker.next_order()
    assert (again.run_id, again.flow_run_id) == (order.run_id, order.flow_run_id)
    await house.worker.carry_out(again)
    assert text_of(await house.outcome(asked.id)) == "ok"


async def test_a_crash_in_the_middle_is_told_and_not_repeated(house: House) -> None:
    """It may have had effects: the person is told, and nothing runs again by itself."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    order = await house.worker.next_order()
    started = await house.worker.start(order)
    await house.worker.ended(order.flow_run_id, "crashed")
    view = await house.outcome(asked.id)
    assert view.state == "failed"
    assert "not run again" in text_of(view)
    with pytest.raises(StartRefused, match="too late"):
        await house.worker.finish(order, started, outcome="done", reply=Reply(text="late"))
    assert house.worker.orders.empty()


async def test_what_is_declared_idempotent_runs_again(house: House) -> None:
    """A new run of the same request, with an id of its own."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/again")
    order = await house.worker.next_order()
    await house.worker.start(order)
    await house.worker.ended(order.flow_run_id, "crashed")
    again = await house.worker.next_order()
    assert again.run_id != order.run_id
    await house.worker.carry_out(again)
    assert text_of(await house.outcome(asked.id)) == "ok"


async def test_a_restarted_hub_goes_on(
    home: Path, deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that outlives the hub reports to the next one; one that was only ordered is ordered again."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])
    async with house_in(home, deployed) as house:
        house.worker.manual = True
        running = await house.hub.front.say(await house.owner(), "/look 1")
        order = await house.worker.next_order()
        started = await house.worker.start(order)
        ordered = await house.hub.front.say(await house.owner(), "/look 2")
        lost = await house.worker.next_order()
    async with house_in(home, deployed) as house:
        assert (await house.worker.next_order()).flow_run_id == lost.flow_run_id
        await house.worker.finish(order, started, outcome="done", reply=Reply(text="survived"))
        assert text_of(await house.outcome(running.id)) == "survived"
        assert text_of(await house.outcome(ordered.id)) == "ok"


async def test_cancel_from_the_chat(house: House) -> None:
    """A running one is ended by its worker, and the person is told when it has ended."""
    house.worker.manual = True
    asked = await house.hub.front.say(await house.owner(), "/look 1")
    order = await house.worker.next_order()
    await house.worker.start(order)
    assert "requested" in text_of(await house.say("/cancel"))
    view = await house.outcome(asked.id)
    assert (view.state, house.worker.cancelled) == ("cancelled", [order.flow_run_id])
    assert "cancelled" in text_of(view)


async def test_a_right_that_is_gone_stops_the_start(house: House) -> None:
    """Rights are looked at again when it starts."""
    house.worker.manual = True
    ann = await house.person("ann", "operator")
    asked = await house.hub.front.say(ann, "/change web1")
    order = await house.worker.next_order()
    await house.hub.store.write(lambda conn: set_role(conn, ann.id, Role.USER))
    with pytest.raises(StartRefused, match="look things up"):
        await house.worker.start(order)
    view = await house.outcome(asked.id, ann)
    assert view.state == "refused"


async def test_roles(house: House) -> None:
    """A user reads, an operator changes, what does harm is approved first; help shows each their own."""
    user, operator = await house.person("uma", "user"), await house.person("otto", "operator")
    assert (await house.say("/look 1", user)).state == "done"
    assert (await house.say("/harm", user)).state == "refused"
    assert (await house.say("/change web1", user)).state == "refused"
    assert (await house.say("/change web1", operator)).state == "done"
    asked = await house.say("/harm", operator)
    assert asked.state == "awaiting-approval"
    await house.approve(asked)
    assert (await house.outcome(asked.id, operator)).state == "done"
    helped = text_of(await house.say("/help", user))
    assert "/look" in helped
    assert "/change" not in helped
    assert "only look things up" in text_of(await house.say("/why", user))


async def test_speaking_for_somebody(house: House) -> None:
    """The owner may speak for a person, with that person's rights, and it is in the audit; others may not."""
    user = await house.person("uma", "user")
    spoken = await house.hub.front.say(await house.owner(), "/change web1", acting_as="uma")
    await house.hub.intake_is_empty()
    view = await house.hub.front.message(user, spoken.id)
    assert view is not None
    assert view.state == "refused"
    rows = await house.hub.admin.run("audit_show", {})
    assert any(row["action"] == "speak-for" and row["subject"] == "person:uma" for row in rows)
    assert (await house.hub.admin.run("audit_verify", {}))["problems"] == []


async def test_privileged_runs_leave_an_intent_and_an_outcome(house: House) -> None:
    """One row before the effect and one after it; reads leave none."""
    await house.say("/change web1")
    await house.say("/look 1")
    rows = await house.hub.admin.run("audit_show", {})
    assert [(row["action"], row["phase"]) for row in rows if row["action"].startswith("run:")] == [
        ("run:change", "intent"),
        ("run:change", "outcome"),
    ]


async def test_one_alert_at_the_threshold_and_one_recovery(
    home: Path, deployed: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count of failures in a row outlives the hub; the people on duty hear of it once, and of the recovery."""
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", deployed.environment["PREFECT_API_AUTH_STRING"])
    async with house_in(home, deployed) as house:
        house.worker.answer = fails
        assert text_of(await house.say("/change web1")) == "`/change` failed: it broke"
        assert await _duty(house) == []
    async with house_in(home, deployed) as house:
        house.worker.answer = fails
        await house.say("/change web1")
        await house.say("/change web1")
        alerts = await _duty(house)
        assert len(alerts) == 1
        assert "failed 2 times in a row" in alerts[0]
        assert "is yours" in text_of(await house.say("/ack change"))
        house.worker.answer = None
        await house.say("/change web1")
        assert "works again" in (await _duty(house))[-1]
        assert len(await _duty(house)) == 2


async def test_a_typing_error_is_no_incident(house: House) -> None:
    """Wrong arguments that only the automation could find do not count as failures."""

    async def refuses(order: RunOrder, started: Started) -> dict[str, Any]:
        return {"outcome": "failed", "reason": "no such host", "kind": "arguments"}

    house.worker.answer = refuses
    for _ in range(3):
        await house.say("/change web1")
    assert await _duty(house) == []


async def test_prefects_own_runs(house: House, deployed: PrefectServer) -> None:
    """A read starts as the service `prefect`; harm needs the owner's grant, and its answer goes where that says."""
    with deployed.client() as client:
        look, harm = _started_in_the_ui(client, "look", {"n": 3}), _started_in_the_ui(client, "harm", {})
    register = house.worker.client.call
    assert (await register("register", {"flow_run_id": look}))["automation"] == "look"
    with pytest.raises(StartRefused, match="grant"):
        await register("register", {"flow_run_id": harm})
    await house.hub.admin.run("grant", {"automation": "harm", "to": "console:owner"})
    order = await register("register", {"flow_run_id": harm})
    house.worker.manual = True
    await house.worker.carry_out(RunOrder.model_validate(order))
    said = await house.hub.front.history(await house.owner())
    assert [one["reply"].text for one in said if one["who"] == "parley"] == ["ok"]


async def test_a_retry_in_prefect_is_refused_with_the_reason(house: House) -> None:
    """A run that has ended and was answered does not begin once more; the worker is told, and ends it so."""
    view = await house.say("/look 1")
    with pytest.raises(StartRefused, match="ended already"):
        await house.worker.client.call("register", {"flow_run_id": view.flow_run_id})


async def test_prefect_away_means_waiting(home: Path, deployed: PrefectServer) -> None:
    """Without its password the hub cannot reach Prefect: the message waits, nothing is lost or refused."""
    async with house_in(home, deployed) as house:
        accepted = await house.hub.front.say(await house.owner(), "/look 1")
        await house.hub.intake_is_empty()
        view = await house.hub.front.message(await house.owner(), accepted.id)
        assert view is not None
        assert view.state in ("queued", "failed")


def _started_in_the_ui(client: httpx.Client, name: str, parameters: dict[str, Any]) -> str:
    deployment = client.get(f"/deployments/name/{name}/parley").raise_for_status().json()
    body = {"parameters": parameters}
    created = (
        client.post(f"/deployments/{deployment['id']}/create_flow_run", json=body).raise_for_status().json()
    )
    return str(created["id"])


async def _duty(house: House) -> list[str]:
    """What the people on duty were told, oldest first."""
    from parley.processes import views

    rows = await house.hub.store.read(
        lambda conn: views.history(conn, house.hub.keyring, "console", "duty", 50)
    )
    return [row["reply"].text for row in rows if row["who"] == "parley"]
