"""Runs that share a flow run: what the store, the ledger and the reconciler make of them, without Prefect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from parley.errors import StartedElsewhere, StartRefused
from parley.link.calls import FinishCall, RunEnded, StartCall, Started
from parley.messages.model import Reply, now
from parley.people.principals import Principal
from parley.processes.hub import Hub
from parley.runs.batches import Batches, alive_in
from parley.runs.dispatch import InFlight
from parley.runs.reconcile import ASKED, SETTLED
from parley.runs.requests import run_token, waiting_runs
from parley.store import retention, schema
from tests.hub.test_ends import Quiet, quiet  # noqa: F401 - a fixture

FLOW_RUN = "shared-flow-run"
OWN = "own-flow-run"


@dataclass
class Prefect:
    """Knows one flow run, by its id and its key."""

    key: str = ""
    kind: str = "RUNNING"
    id: str = FLOW_RUN
    states: list[tuple[str, str]] = field(default_factory=list)

    async def flow_runs(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        return [self._known()] if self.id in list(ids) else []

    async def flow_runs_of(self, keys: list[str]) -> list[dict[str, Any]]:
        return [self._known()] if self.key in keys else []

    def _known(self) -> dict[str, Any]:
        return {"id": self.id, "idempotency_key": self.key, "state": {"type": self.kind}}

    async def set_state(self, flow_run_id: str, kind: str, name: str, message: str) -> str:
        self.states.append((flow_run_id, kind))
        return "ACCEPT"


@dataclass
class Shared:
    """A hub with two runs in one flow run, handed over."""

    quiet: Quiet
    ann: Principal
    batch_id: str
    run_ids: list[str]
    messages: list[str]

    async def start(self, at: int, token: str | None = None) -> Started:
        run_id = self.run_ids[at]
        return await self.quiet.hub.ledger.start(
            StartCall(
                token=token if token is not None else run_token(self.quiet.hub.keyring, run_id),
                run_id=run_id,
                flow_run_id=FLOW_RUN,
                holder=f"holder-{at}",
                automation="look",
            )
        )

    async def finish(self, started: Started, text: str) -> None:
        call = FinishCall(
            token=started.token,
            flow_run_id=FLOW_RUN,
            run_id=started.run_id,
            epoch=started.epoch,
            outcome="done",
            reply=Reply(text=text),
        )
        await self.quiet.hub.ledger.finish(call)

    async def states(self) -> list[str]:
        return [row.state for row in await self.quiet.rows(schema.request)]

    def forget_flights(self) -> None:
        """As after a restart of the hub."""
        self.quiet.hub.dispatcher.in_flight.clear()


@pytest.fixture
async def shared(quiet: Quiet) -> Shared:  # noqa: F811
    ann = await quiet.person("ann")
    messages = [await quiet.say(f"/look {number}", ann) for number in (1, 2)]
    batches = Batches(quiet.hub.store)
    waiting = await quiet.hub.store.read(lambda conn: waiting_runs(conn, quiet.hub.keyring))
    run_ids = [one.run_id for one in waiting]
    batch_id = await batches.form("look", run_ids)
    await batches.made(batch_id, FLOW_RUN)
    for one in waiting:
        quiet.hub.dispatcher.in_flight[one.run_id] = InFlight(
            one, flow_run_id=FLOW_RUN, place=run_ids[0], batch_id=batch_id
        )
    return Shared(quiet, ann, batch_id, run_ids, messages)


async def test_each_is_started_ended_and_answered_by_itself(shared: Shared) -> None:
    first = await shared.start(0)
    await shared.finish(first, "one")
    assert await shared.states() == ["done", "queued"]
    second = await shared.start(1)
    await shared.finish(second, "two")
    assert [await shared.quiet.told(message) for message in shared.messages] == ["one", "two"]


async def test_a_token_starts_its_own_run_only(shared: Shared) -> None:
    other = run_token(shared.quiet.hub.keyring, shared.run_ids[1])
    for wrong in (other, ""):
        with pytest.raises(StartRefused, match="not for this run"):
            await shared.start(0, token=wrong)


async def test_rights_are_looked_at_for_each(shared: Shared) -> None:
    bob = await shared.quiet.person("bob")
    request = (await shared.quiet.rows(schema.request))[1]
    table, person = schema.request, schema.principal

    async def give_away(conn: Any) -> None:
        await conn.execute(sa.update(table).where(table.c.id == request.id).values(actor_id=bob.id))
        await conn.execute(sa.update(person).where(person.c.id == bob.id).values(enabled=False))

    await shared.quiet.hub.store.write(give_away)
    await shared.finish(await shared.start(0), "one")
    with pytest.raises(StartRefused):
        await shared.start(1)
    assert await shared.states() == ["done", "refused"]


async def test_one_is_cancelled_and_the_flow_run_goes_on(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = noted_cancels(shared.quiet.hub, monkeypatch)
    await shared.start(0)
    second = await shared.start(1)
    requests = await shared.quiet.rows(schema.request)
    await shared.quiet.hub.cancel(requests[0].id, "ann")
    assert await shared.states() == ["cancelled", "running"]
    assert ended == []
    await shared.quiet.hub.cancel(requests[1].id, "ann")
    assert ended == [FLOW_RUN], "the last one takes its process along"
    await shared.finish(second, "too late")
    assert await shared.states() == ["cancelled", "cancelled"]


async def test_what_was_to_be_cancelled_when_the_hub_died_is_cancelled_by_the_next(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = noted_cancels(shared.quiet.hub, monkeypatch)
    await shared.start(0)
    await shared.start(1)
    hub, request = shared.quiet.hub, (await shared.quiet.rows(schema.request))[0]
    await hub.store.write(lambda conn: hub.canceller.ask(conn, request.id, "ann"))
    earlier = now() - 2 * ASKED
    await hub.store.write(
        lambda conn: conn.execute(
            sa.update(schema.run)
            .where(schema.run.c.cancel_requested_at.is_not(None))
            .values(cancel_requested_at=earlier)
        )
    )
    shared.forget_flights()
    await hub.reconciler._cancelled_runs()
    assert await shared.states() == ["cancelled", "running"]
    assert ended == []


def noted_cancels(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    ended: list[str] = []

    async def cancel(flow_run_id: str, reason: str) -> bool:
        ended.append(flow_run_id)
        return True

    monkeypatch.setattr(hub.dispatcher, "cancel", cancel)
    return ended


@pytest.mark.parametrize("restarted", [False, True], ids=["same-hub", "after-a-restart"])
async def test_when_their_process_dies_what_was_started_is_lost_and_the_rest_waits_again(
    shared: Shared, restarted: bool
) -> None:
    await shared.start(0)
    if restarted:
        shared.forget_flights()
    await shared.quiet.hub.ends.run_ended(RunEnded(flow_run_id=FLOW_RUN, how="crashed", reason="gone"))
    runs = await shared.quiet.rows(schema.run)
    assert [run.state for run in runs[:2]] == ["lost", "created"]
    waiting = await shared.quiet.hub.store.read(lambda conn: waiting_runs(conn, shared.quiet.hub.keyring))
    assert shared.run_ids[1] in [one.run_id for one in waiting]


async def test_after_a_restart_each_goes_on_by_itself(shared: Shared) -> None:
    hub = shared.quiet.hub
    waiting = await hub.store.read(lambda conn: waiting_runs(conn, hub.keyring))
    assert [one.alone for one in waiting] == [True, True], (
        "the flow run that they shared may be starting them"
    )


async def test_what_an_earlier_hub_may_have_handed_over_comes_into_no_other_flow_run(
    quiet: Quiet,  # noqa: F811
) -> None:
    hub, ann = quiet.hub, await quiet.person("ann")
    await quiet.say("/look 1", ann)
    began = now()
    await quiet.say("/look 2", ann)
    waiting = await hub.store.read(lambda conn: waiting_runs(conn, hub.keyring, since=began))
    assert [one.alone for one in waiting] == [True, False]


async def test_the_end_of_another_flow_run_is_not_its_own(shared: Shared) -> None:
    """The hub began anew while they were being started, and had put them into another flow run as well."""
    hub = shared.quiet.hub
    batches = Batches(hub.store)
    other = await batches.form("look", shared.run_ids)
    await batches.made(other, "other-flow-run")
    started = await shared.start(0)
    for flight in hub.dispatcher.in_flight.values():
        flight.flow_run_id, flight.batch_id = "other-flow-run", other
    await hub.ends.run_ended(
        RunEnded(flow_run_id="other-flow-run", how="finished", state="Completed", reason="Completed")
    )
    assert (await shared.states())[0] == "running"
    await shared.finish(started, "one")
    assert await shared.quiet.told(shared.messages[0]) == "one"


async def test_a_flow_run_of_its_own_that_comes_second_ends_with_nothing_done(shared: Shared) -> None:
    """The hub began anew and handed it over by itself; what shared its flow run was faster."""
    hub, run_id = shared.quiet.hub, shared.run_ids[0]
    started = await shared.start(0)
    flight = hub.dispatcher.in_flight[run_id]
    flight.flow_run_id, flight.batch_id = OWN, None
    hub.dispatcher._flow_runs[OWN] = run_id
    token = run_token(hub.keyring, run_id)
    with pytest.raises(StartedElsewhere):
        await hub.ledger.start(StartCall(token=token, flow_run_id=OWN, holder="other", automation="look"))
    await hub.ends.run_ended(RunEnded(flow_run_id=OWN, how="cancelled"))
    assert (await shared.states())[0] == "running"
    await shared.finish(started, "one")
    assert await shared.quiet.told(shared.messages[0]) == "one"
    assert run_id not in hub.dispatcher.in_flight


async def test_one_that_went_on_by_itself_and_began_in_the_shared_one_is_lost_with_that(
    shared: Shared,
) -> None:
    """One of them was handed over once more by itself; the other is still known to be in the shared one."""
    hub = shared.quiet.hub
    await shared.start(0)
    flight = hub.dispatcher.in_flight[shared.run_ids[0]]
    flight.flow_run_id, flight.batch_id = OWN, None
    hub.dispatcher._flow_runs[OWN] = shared.run_ids[0]
    await hub.ends.run_ended(RunEnded(flow_run_id=FLOW_RUN, how="crashed", reason="gone"))
    assert [run.state for run in (await shared.quiet.rows(schema.run))[:2]] == ["lost", "created"]


@pytest.mark.parametrize("kind", ["PENDING", "CANCELLED"], ids=["open", "ended"])
async def test_a_flow_run_of_its_own_that_an_earlier_hub_left_is_closed(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    hub, prefect = shared.quiet.hub, Prefect(shared.run_ids[0], kind, OWN)
    monkeypatch.setattr(hub.reconciler, "_prefect", prefect)
    monkeypatch.setattr(hub.reconciler, "_began", now())
    await shared.finish(await shared.start(0), "one")
    await ended_earlier(shared)
    await hub.reconciler._open_states()
    assert prefect.states == ([(OWN, "CANCELLED")] if kind == "PENDING" else [])


async def test_what_hangs_in_a_flow_run_that_nobody_waits_for_is_ended(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, prefect = shared.quiet.hub, Prefect(shared.batch_id, "RUNNING")
    monkeypatch.setattr(hub.reconciler, "_prefect", prefect)
    ended: list[str] = []

    async def end(flow_run_id: str) -> bool:
        ended.append(flow_run_id)
        return True

    monkeypatch.setattr(hub.dispatcher, "end", end)
    await shared.start(0)
    for run_id in shared.run_ids:
        await hub.ends.cancelled(run_id)
    await made_earlier(shared)
    await ended_earlier(shared)
    await hub.reconciler._open_batches()
    assert (ended, prefect.states) == ([FLOW_RUN], [])
    assert [row.state for row in await shared.quiet.rows(schema.batch)] == ["open"], (
        "until Prefect has its end"
    )


async def test_one_that_waits_at_a_living_worker_keeps_its_place_there(shared: Shared) -> None:
    hub = shared.quiet.hub
    for kind in ("PENDING", "RUNNING", "CANCELLING"):
        await hub.reconciler._unstarted(shared.run_ids[0], {"id": FLOW_RUN, "state": {"type": kind}})
        assert shared.run_ids[0] in hub.dispatcher.in_flight
    await hub.reconciler._unstarted(shared.run_ids[0], {"id": FLOW_RUN, "state": {"type": "CRASHED"}})
    assert shared.run_ids[0] not in hub.dispatcher.in_flight, "it is handed over once more"
    assert shared.run_ids[1] in hub.dispatcher.in_flight


async def test_a_flow_run_that_was_cancelled_in_prefect_ends_all(shared: Shared) -> None:
    await shared.start(0)
    await shared.quiet.hub.ends.run_ended(RunEnded(flow_run_id=FLOW_RUN, how="cancelled"))
    assert await shared.states() == ["cancelled", "cancelled"]


async def test_what_is_alive_in_a_flow_run_is_found(shared: Shared) -> None:
    async def alive(flow_run_id: str, known: tuple[str, ...] = ()) -> dict[str, str | None]:
        return await shared.quiet.hub.store.read(lambda conn: alive_in(conn, flow_run_id, known))

    started = await shared.start(0)
    assert await alive(FLOW_RUN) == {shared.run_ids[0]: FLOW_RUN, shared.run_ids[1]: None}
    assert await alive("another") == {}
    assert await alive("another", (shared.run_ids[0],)) == {shared.run_ids[0]: FLOW_RUN}
    await shared.finish(started, "one")
    assert await alive(FLOW_RUN) == {shared.run_ids[1]: None}


@pytest.mark.parametrize(
    ("kind", "answered", "closed"),
    [
        ("RUNNING", True, [(FLOW_RUN, "COMPLETED")]),
        ("RUNNING", False, [(FLOW_RUN, "CRASHED")]),
        ("PENDING", False, [(FLOW_RUN, "CANCELLED")]),
        ("COMPLETED", True, []),
    ],
    ids=["answered", "running", "never-begun", "closed-already"],
)
async def test_what_stays_open_in_prefect_is_closed_once_nothing_lives_in_it(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, kind: str, answered: bool, closed: list[tuple[str, str]]
) -> None:
    hub, prefect = shared.quiet.hub, Prefect(shared.batch_id, kind)
    monkeypatch.setattr(hub.reconciler, "_prefect", prefect)
    await made_earlier(shared)
    await hub.reconciler._open_batches()
    assert prefect.states == [], "both are alive"
    for at in (0, 1):
        if answered:
            await shared.finish(await shared.start(at), "done")
        else:
            await hub.ends.cancelled(shared.run_ids[at])
    await hub.reconciler._open_batches()
    assert prefect.states == [], "its process gets time to tell Prefect itself"
    await ended_earlier(shared)
    await hub.reconciler._open_batches()
    assert prefect.states == closed
    assert [row.state for row in await shared.quiet.rows(schema.batch)] == ["closed"]


async def made_earlier(shared: Shared) -> None:
    earlier = now() - 2 * SETTLED
    await shared.quiet.hub.store.write(
        lambda conn: conn.execute(sa.update(schema.batch).values(created_at=earlier))
    )


async def ended_earlier(shared: Shared) -> None:
    earlier = now() - 2 * SETTLED
    await shared.quiet.hub.store.write(
        lambda conn: conn.execute(sa.update(schema.run).values(ended_at=earlier))
    )


async def test_batches_are_forgotten_with_their_runs(shared: Shared) -> None:
    for at in (0, 1):
        await shared.finish(await shared.start(at), "done")
    await Batches(shared.quiet.hub.store).close([shared.batch_id])
    rows = [len(await shared.quiet.rows(table)) for table in (schema.run, schema.batch)]
    later = now() + timedelta(days=1000)
    # Deliveries that nobody took hold their messages, and so their runs.
    await shared.quiet.hub.store.write(
        lambda conn: conn.execute(sa.update(schema.delivery).values(state="sent"))
    )
    for _ in range(2):
        await retention.sweep(shared.quiet.hub.store, later)
    assert rows == [2, 1]
    assert [len(await shared.quiet.rows(table)) for table in (schema.run, schema.batch)] == [0, 0]
