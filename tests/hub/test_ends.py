"""How requests, runs and questions end, in a hub whose Prefect is away: what the store and the rights say alone."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AlreadyStarted, StartRefused, StoreUnavailable
from parley.language.understanding import Understander
from parley.link.calls import AskCall, BeatCall, FinishCall, ProveCall, RunEnded, StartCall, Started
from parley.messages.inbox import Received
from parley.messages.model import Assurance, ConversationKind, Message, Reply, Route, Sender, now
from parley.messages.outbox import Delivery
from parley.people import principals
from parley.people.principals import Principal, Role
from parley.processes.hub import Hub, open_hub
from parley.runs import pulse
from parley.runs.catalogue import Lane
from parley.runs.ledger import LEASE
from parley.runs.requests import NewRequest, insert_request, insert_run, run_token, waiting_runs
from parley.settings import Account, File, Settings
from parley.store import schema
from tests.hub.house import CATALOGUE


@dataclass
class Quiet:
    """A hub that is put together but does not live: it handles what it is given, and nothing by itself."""

    hub: Hub

    async def person(self, name: str, role: Role = Role.OPERATOR) -> Principal:
        async def add(conn: AsyncConnection) -> Principal:
            return await principals.get(conn, await principals.add_principal(conn, name, role=role))

        return await self.hub.store.write(add)

    async def link(self, who: Principal, sender: str) -> None:
        await self.hub.store.write(
            lambda conn: principals.link_identity(conn, who.id, "post", sender, verified=False)
        )

    async def say(self, text: str, who: Principal, acting: Principal | None = None) -> str:
        message = Message(
            account="console",
            native_id=uuid.uuid4().hex,
            text=text,
            sender=Sender(id=who.id),
            route=Route(account="console", conversation=who.name),
        )
        accepted = await self.hub.inbox.accept(
            message, principal_id=who.id, acting_for_id=acting.id if acting else None
        )
        await self.hub.intake_is_empty()
        return accepted.id

    async def mail(self, text: str, sender: str, thread: str = "t") -> str:
        route = Route(account="post", conversation=sender, thread=thread, kind=ConversationKind.MAIL)
        message = Message(
            account="post",
            native_id=uuid.uuid4().hex,
            text=text,
            sender=Sender(id=sender, assurance=Assurance.CLAIMED),
            route=route,
        )
        accepted = await self.hub.inbox.accept(message)
        await self.hub.intake_is_empty()
        return accepted.id

    async def rows(self, table: sa.Table, **equal: Any) -> list[Any]:
        query = sa.select(table).where(*(table.c[name] == value for name, value in equal.items()))

        async def fetch(conn: AsyncConnection) -> list[Any]:
            return list((await conn.execute(query.order_by(*table.primary_key))).all())

        return await self.hub.store.read(fetch)

    async def request(self) -> Any:
        """The newest request."""
        return (await self.rows(schema.request))[-1]

    async def run(self) -> Any:
        """The newest run."""
        return (await self.rows(schema.run))[-1]

    async def told(self, message_id: str) -> str:
        rows = await self.rows(schema.delivery, message_id=message_id)
        return "\n".join(self.hub.outbox.opened(row).reply.text for row in rows)

    async def trail(self) -> list[tuple[str, str, str | None]]:
        rows = await self.rows(schema.audit)
        return [(row.action, row.phase, row.details.get("state")) for row in rows]

    async def start(self, run: Any, holder: str = "h") -> Started:
        flow_run_id = run.flow_run_id or f"flow-of-{run.id}"
        self.hub.dispatcher._flow_runs[flow_run_id] = run.id
        token = run_token(self.hub.keyring, run.id)
        return await self.hub.ledger.start(
            StartCall(token=token, flow_run_id=flow_run_id, holder=holder, automation="x")
        )

    def of(self, started: Started) -> dict[str, Any]:
        return {
            "token": started.token,
            "flow_run_id": f"flow-of-{started.run_id}",
            "run_id": started.run_id,
            "epoch": started.epoch,
        }


@pytest.fixture
async def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Quiet]:
    home = tmp_path / "h"
    settings = Settings(
        home=home,
        config=home / "parley.toml",
        key_file=tmp_path / "key" / "key",
        prefect_api_url="http://127.0.0.1:9/api",
        file=File(accounts={"post": Account(platform="mail", block="parley-mail-account/post")}),
    )
    hub = await open_hub(settings)
    hub.catalogue, hub.understander = CATALOGUE, Understander(CATALOGUE)

    def keep(_deliveries: list[Delivery]) -> None:
        """They stay in the store."""

    monkeypatch.setattr(hub.outbox, "send", keep)
    yield Quiet(hub)
    await hub.intake.aclose()
    await hub.prefect.aclose()
    await hub.store.aclose()


# -- questions


async def test_after_a_run_has_ended_nobody_answers_its_question(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    schema_ = {"properties": {"why": {"type": "string"}}}
    call = AskCall(**quiet.of(started), ordinal=1, text="Why?", json_schema=schema_)
    row = await quiet.hub.ledger.ask_route(call)
    await quiet.hub.store.write(lambda conn: quiet.hub.questions._insert(conn, call, row))
    await quiet.hub.cancel((await quiet.request()).id, "ann")
    await quiet.hub.ends.run_ended(RunEnded(flow_run_id=call.flow_run_id, how="cancelled"))
    assert [one.state for one in await quiet.rows(schema.question)] == ["expired"]
    await quiet.say("look up 2", ann)
    assert [one.automation for one in await quiet.rows(schema.request)] == ["look", "look"]


# -- ends


async def test_what_was_cancelled_is_not_run_again_when_its_process_dies(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    message = await quiet.say("/again", ann)
    started = await quiet.start(await quiet.run())
    await quiet.hub.cancel((await quiet.request()).id, "ann")
    await quiet.hub.ends.lost(started.run_id, "gone")
    assert (await quiet.request()).state == "cancelled"
    assert len(await quiet.rows(schema.run)) == 1
    assert "cancelled" in await quiet.told(message)


async def test_a_cancel_outlives_the_hub(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)

    async def killed(_request_id: str, _by: str) -> None:
        """The hub was killed between the commit and this."""

    monkeypatch.setattr(quiet.hub.canceller, "carry_out", killed)
    quiet.hub.reception._builtins._bring_to_end = killed
    await quiet.say("/cancel", ann)
    run = await quiet.run()
    assert run.cancel_requested_at is not None
    assert await quiet.hub.store.read(lambda conn: waiting_runs(conn, quiet.hub.keyring)) == []
    with pytest.raises(StartRefused):
        await quiet.start(run)
    later = now() + timedelta(seconds=10)
    monkeypatch.setattr("parley.store.ages.now", lambda: later)
    await quiet.hub.reconciler._cancelled_runs()
    assert (await quiet.request()).state == "cancelled"


async def test_a_message_handled_twice_cancels_once(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    await quiet.say("/look 2", ann)
    handled: list[Received] = []
    first = quiet.hub.inbox.arrived

    def arrived(received: Received) -> None:
        handled.append(received)
        first(received)

    quiet.hub.inbox.arrived = arrived
    await quiet.say("/cancel", ann)
    await quiet.hub.reception.handle(handled[0])
    assert sorted(one.state for one in await quiet.rows(schema.request)) == ["cancelled", "queued"]


async def test_a_suspended_run_can_be_cancelled_and_is_resumed_however_late(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    await quiet.hub.ledger.finish(FinishCall(**quiet.of(started), outcome="suspended"))
    tomorrow = now() + timedelta(days=2)
    monkeypatch.setattr("parley.runs.ledger.now", lambda: tomorrow)
    again = await quiet.start(await quiet.run(), holder="other")
    assert again.epoch == 2
    await quiet.hub.ledger.finish(FinishCall(**quiet.of(again), outcome="suspended"))
    await quiet.hub.cancel((await quiet.request()).id, "ann")
    assert (await quiet.request()).state == "cancelled"


async def test_a_suspended_run_that_is_never_resumed_fails(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    await quiet.hub.ledger.finish(FinishCall(**quiet.of(started), outcome="suspended"))
    await quiet.hub.ends.suspended_ended(started.run_id, "paused too long")
    assert (await quiet.request()).state == "failed"


async def test_a_nul_in_a_reason_can_be_stored_everywhere(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    await quiet.hub.ledger.finish(FinishCall(**quiet.of(started), outcome="failed", reason="a\0b"))
    assert "\0" not in (await quiet.request()).reason


async def test_an_alternative_that_worked_is_no_recovery(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    for outcome, fell_back in (("failed", False), ("done", True), ("done", False)):
        await quiet.say("/again", ann)
        started = await quiet.start(await quiet.run())
        call = FinishCall(
            **quiet.of(started), outcome=outcome, reason="broken", fell_back=fell_back, reply=Reply(text="x")
        )
        await quiet.hub.ledger.finish(call)
        streak = (await quiet.rows(schema.alert_state))[0].streak
        assert streak == (0 if (outcome, fell_back) == ("done", False) else 1)


# -- what Prefect made by itself


async def adopted(quiet: Quiet, flow_run_id: str, actor_id: str) -> str:
    async def insert(conn: AsyncConnection) -> str:
        new = NewRequest(
            spec=CATALOGUE.automations[1],
            values={},
            origin="schedule",
            actor_id=actor_id,
            state="queued",
            lane=Lane.SCHEDULES,
            expires_at=now() + timedelta(days=1),
        )
        run_id = await insert_run(conn, await insert_request(conn, quiet.hub.keyring, new))
        change = sa.update(schema.run).where(schema.run.c.id == run_id).values(flow_run_id=flow_run_id)
        await conn.execute(change)
        return run_id

    return await quiet.hub.store.write(insert)


async def test_a_restarted_hub_makes_no_second_flow_run_of_what_prefect_made(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await adopted(quiet, "flow-1", ann.id)
    assert await quiet.hub.store.read(lambda conn: waiting_runs(conn, quiet.hub.keyring)) == []


async def test_a_service_that_was_disabled_has_no_grant(quiet: Quiet) -> None:
    robot = await quiet.person("robot", Role.USER)
    await quiet.hub.admin.run("grant", {"automation": "change", "as_name": "robot"})
    await quiet.hub.admin.run("person_disable", {"name": "robot"})
    run_id = await adopted(quiet, "flow-1", robot.id)
    table = schema.request
    await quiet.hub.store.write(
        lambda conn: conn.execute(sa.update(table).values(automation="change", origin="schedule"))
    )
    with pytest.raises(StartRefused):
        await quiet.start((await quiet.rows(schema.run, id=run_id))[0])


async def test_a_process_proves_whose_run_it_executes(quiet: Quiet) -> None:
    """With the run's id, or with the flow run that it was started in."""
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    known = {"token": started.token, "flow_run_id": quiet.of(started)["flow_run_id"]}
    await quiet.hub.ledger.prove(ProveCall(**known, run_id=started.run_id))
    await quiet.hub.ledger.prove(ProveCall(**known))
    await quiet.say("/look 2", ann)
    (other,) = [row for row in await quiet.rows(schema.run) if row.id != started.run_id]
    for wrong in ({"run_id": other.id}, {"token": ""}, {"token": started.token[:-1]}):
        with pytest.raises(StartRefused):
            await quiet.hub.ledger.prove(ProveCall(**(known | {"run_id": started.run_id} | wrong)))


# -- beats


async def test_a_run_is_not_lost_while_its_beats_could_not_be_taken(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    write = quiet.hub.store.write

    async def full(_work: Any) -> Any:
        raise StoreUnavailable("full")

    monkeypatch.setattr(quiet.hub.store, "write", full)
    with pytest.raises(StoreUnavailable):
        await quiet.hub.ledger.beat(BeatCall(**quiet.of(started)))
    monkeypatch.setattr(quiet.hub.store, "write", write)
    run_over = sa.update(schema.run).values(lease_until=now() - timedelta(seconds=1))
    await write(lambda conn: conn.execute(run_over))
    await quiet.hub.reconciler._silent_runs()
    assert (await quiet.request()).state == "running"
    assert await quiet.hub.ledger.beat(BeatCall(**quiet.of(started)))
    assert (await quiet.run()).lease_until > now()


async def test_a_run_that_has_spoken_since_it_was_looked_for_is_not_lost(quiet: Quiet) -> None:
    """Others that were found silent with it may each have taken seconds of a Prefect that does not answer."""
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    started = await quiet.start(await quiet.run())
    run_over = sa.update(schema.run).values(lease_until=now() - timedelta(seconds=1))
    await quiet.hub.store.write(lambda conn: conn.execute(run_over))
    assert await quiet.hub.ledger.beat(BeatCall(**quiet.of(started)))

    assert not await quiet.hub.ends.silent(started.run_id)
    assert (await quiet.request()).state == "running"

    await quiet.hub.store.write(lambda conn: conn.execute(run_over))
    assert await quiet.hub.ends.silent(started.run_id)
    assert (await quiet.run()).state == "lost"


def test_a_clock_that_jumped_was_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    at = now()
    monkeypatch.setattr(pulse, "now", lambda: at)
    watched = pulse.Pulse()
    assert watched.well_for(LEASE)
    at += timedelta(minutes=5)
    assert not watched.well_for(LEASE)
    for _ in range(8):
        at += timedelta(seconds=5)
        watched.well_for(LEASE)
    assert watched.well_for(LEASE)


# -- who decides


async def test_who_speaks_for_somebody_confirms_nothing(quiet: Quiet) -> None:
    ann, boss = await quiet.person("ann"), await quiet.person("boss", Role.OWNER)
    await quiet.say("change web1", ann, acting=boss)
    waiting = await quiet.request()
    for word in ("yes", "no", f"/yes {waiting.id}", "/yes"):
        message = await quiet.say(word, ann, acting=boss)
        assert "somebody else" in await quiet.told(message)
    assert (await quiet.request()).state == "awaiting-approval"
    await quiet.say("yes", ann)
    assert (await quiet.request()).state == "queued"


async def test_a_claimed_sender_decides_nothing_of_what_is_open_elsewhere(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.link(ann, "ann@example.com")
    await quiet.say("change web1", ann)
    waiting = await quiet.request()
    for text in (f"/yes {waiting.id}", f"/no {waiting.id}", f"/cancel {waiting.id}", "/cancel"):
        await quiet.mail(text, "ann@example.com")
        assert (await quiet.request()).state == "awaiting-approval"
    await quiet.mail("/look 7", "ann@example.com")
    await quiet.mail("/cancel", "ann@example.com")
    assert (await quiet.request()).state == "cancelled"


async def test_decisions_leave_their_rows(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("change web1", ann)
    await quiet.say("no", ann)
    await quiet.say("change web1", ann)
    await quiet.say("change web2", ann)
    await quiet.say("yes", ann)
    await quiet.say("/change web1", await quiet.person("vera", Role.USER))
    assert [row for row in await quiet.trail() if row[0].startswith(("run:", "confirm:"))] == [
        ("run:change", "intent", "awaiting-approval"),
        ("run:change", "outcome", "cancelled"),
        ("run:change", "intent", "awaiting-approval"),
        ("run:change", "outcome", "cancelled"),
        ("run:change", "intent", "awaiting-approval"),
        ("confirm:change", "outcome", "queued"),
        ("run:change", "outcome", "refused"),
    ]


async def test_what_was_not_answered_in_time_leaves_its_row(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("change web1", ann)
    over = sa.update(schema.request).values(expires_at=now() - timedelta(seconds=1))
    await quiet.hub.store.write(lambda conn: conn.execute(over))
    await quiet.hub.reconciler._expired_requests()
    assert (await quiet.request()).state == "expired"
    assert (await quiet.trail())[-1] == ("run:change", "outcome", "expired")


async def test_handling_alerts_is_for_operators_and_audited(quiet: Quiet) -> None:
    ann, bob = await quiet.person("ann"), await quiet.person("bob", Role.USER)
    refused = await quiet.say("/silence change 2h", bob)
    assert "operators" in await quiet.told(refused)
    unknown = await quiet.say("/silence chang 2h", ann)
    assert "/change" in await quiet.told(unknown)
    await quiet.say("/silence change 2h", ann)
    assert ("alert-silenced", "outcome", None) in await quiet.trail()
    for _ in range(2):
        await quiet.say("/change web1", ann)
        started = await quiet.start(await quiet.run())
        await quiet.hub.ledger.finish(FinishCall(**quiet.of(started), outcome="failed", reason="broken"))
    await quiet.hub.store.write(
        lambda conn: conn.execute(sa.update(schema.alert_state).values(alerting=True))
    )
    await quiet.say("/ack change", ann)
    assert ("alert-acknowledged", "outcome", None) in await quiet.trail()


# -- a store that is out of order


async def test_what_could_not_be_decided_for_now_is_handled_again(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await quiet.person("ann")
    read = quiet.hub.store.read

    async def busy(_work: Any) -> Any:
        raise StoreUnavailable("every reading connection is taken")

    monkeypatch.setattr(quiet.hub.store, "read", busy)
    message = await quiet.say("/look 1", ann)
    monkeypatch.setattr(quiet.hub.store, "read", read)
    assert [one.state for one in await quiet.rows(schema.message, id=message)] == ["received"]
    await quiet.hub._take_up_messages()
    await quiet.hub.intake_is_empty()
    assert (await quiet.request()).automation == "look"


async def test_what_has_started_is_not_started_again(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    await quiet.say("/look 1", ann)
    run = await quiet.run()
    await quiet.start(run)
    with pytest.raises(AlreadyStarted):
        await quiet.start(run, holder="another")


async def test_the_people_on_duty_are_told_of_what_did_not_arrive(quiet: Quiet) -> None:
    ann = await quiet.person("ann")
    message = await quiet.say("/help", ann)
    (row,) = await quiet.rows(schema.delivery, message_id=message)
    for _ in range(2):
        await quiet.hub.outbox._settle(quiet.hub.outbox.opened(row), "ambiguous", reason="no answer came")
    told = [one for one in await quiet.rows(schema.delivery) if one.source.startswith("undelivered:")]
    assert [one.route["conversation"] for one in told] == ["owner"]
    assert "no answer came" in quiet.hub.outbox.opened(told[0]).reply.text
    (asker,) = [one for one in await quiet.rows(schema.delivery) if one.source.startswith("unanswered:")]
    assert asker.route["conversation"] == "ann"
    assert "may not have arrived" in quiet.hub.outbox.opened(asker).reply.text
    for one in (told[0], asker):
        await quiet.hub.outbox._settle(quiet.hub.outbox.opened(one), "dead", reason="neither")
    assert len(await quiet.rows(schema.delivery)) == 3  # of a word about it nothing is told


async def test_who_cannot_be_reached_where_they_asked_is_told_in_their_console(quiet: Quiet) -> None:
    bob = await quiet.person("bob")
    await quiet.link(bob, "bob@example.com")
    message = await quiet.mail("/help", "bob@example.com")
    (row,) = await quiet.rows(schema.delivery, message_id=message)
    await quiet.hub.outbox._settle(quiet.hub.outbox.opened(row), "dead", reason="nobody has held the account")
    (asker,) = [one for one in await quiet.rows(schema.delivery) if one.source.startswith("unanswered:")]
    assert (asker.route["account"], asker.route["conversation"]) == ("console", "bob")
    (letter,) = await quiet.rows(schema.dead_letter)
    assert (letter.kind, letter.account, letter.actor_id) == ("delivery", "post", bob.id)
