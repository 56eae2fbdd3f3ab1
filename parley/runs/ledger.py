"""The ledger: who may start a run, and what it does until its end. The hub's half of every run's life.

Each run is granted one start by compare-and-set on (run, epoch), whatever Prefect, a worker or the network does, and
its end is one transaction: the request is closed, its answer is in the outbox, failures are counted, the audit knows.
Every call may come twice.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AlreadyStarted, LinkError, StartedElsewhere, StartRefused, StoreUnavailable
from parley.failpoints import failpoint
from parley.language.characters import language_of
from parley.link.calls import (
    AskCall,
    BeatCall,
    FinishCall,
    LogActionCall,
    OpenRunSecret,
    ProveCall,
    PublishCall,
    SayCall,
    StartCall,
    Started,
)
from parley.messages.bus import Bus
from parley.messages.model import Assurance, Event, Message, Route, now
from parley.messages.outbox import Delivery, Outbox
from parley.metrics import Metrics
from parley.people import principals, standing
from parley.people.audit import Audit
from parley.people.principals import Principal
from parley.people.rights import Decision, Origin, Rights
from parley.people.roles import meant
from parley.people.sealing import Keyring
from parley.runs.approving import ApprovalDesk
from parley.runs.catalogue import AutomationSpec, Catalogue
from parley.runs.closing import After, Closing, run_and_request, scalar, set_run
from parley.runs.dispatch import Dispatcher
from parley.runs.ends import EXPIRED, Ends
from parley.runs.grants import has_grant
from parley.runs.pulse import Pulse
from parley.runs.requests import (
    is_run_token,
    open_route,
    open_values,
    run_token,
    update_request,
)
from parley.runs.run_events import check_topic, of_call
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

LEASE = 30.0
"""Seconds that a run is taken to live on without a sign of life."""

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_WITHOUT_MESSAGE = frozenset({"schedule", "prefect"})

# Made once: to make a statement takes several times as long as to execute it.
_EVENT_OF: Final = sa.select(schema.message.c.event_sealed).where(
    schema.message.c.id == sa.bindparam("message")
)
_START: Final = sa.update(schema.run).where(
    schema.run.c.id == sa.bindparam("the_run"),
    schema.run.c.epoch == sa.bindparam("the_epoch"),
    schema.run.c.state == sa.bindparam("the_state"),
)
_START_ALONE: Final = _START.values(batch_id=None)


class Ledger:
    """Starts, beats, progress, questions and proper ends of runs."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        outbox: Outbox,
        dispatcher: Dispatcher,
        bus: Bus,
        closing: Closing,
        ends: Ends,
        rights: Rights,
        desk: ApprovalDesk,
        *,
        catalogue: Callable[[], Catalogue],
        account_topics: Callable[[], frozenset[str]],
        unknown_run: Callable[[str], Awaitable[str]],
        assurance: Callable[[AsyncConnection, Any], Awaitable[Assurance]],
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._bus = bus
        self._closing = closing
        self._ends = ends
        self._rights = rights
        self._desk = desk
        self._catalogue = catalogue
        self._account_topics = account_topics
        self._unknown_run = unknown_run
        self._assurance = assurance
        self._metrics = metrics
        self._audit = Audit(keyring)
        self.pulse: Pulse = Pulse()

    # -- start

    async def start(self, call: StartCall, *, trusted: bool = False) -> Started:
        """Grant this start, or raise `StartRefused`. The same holder may ask again and gets the same answer.

        `trusted`: the caller proved the worker's role, so that a run which Prefect started by itself needs no token.
        """
        run_id = call.run_id or await self._run_of(call)
        if call.run_id or not trusted:
            self._check_token(run_id, call.token)
        failpoint("start.granting")
        row = await self._store.write(lambda conn: self._grant(conn, run_id, call))
        failpoint("start.granted")
        if isinstance(row, str):
            if row == EXPIRED:
                await self._ends.expire(run_id)
            else:
                await self._ends.refuse(run_id, row)
            raise StartRefused(row)
        if row["first"]:
            self._measure_start(row, run_id)
        return self._started(row, run_id)

    async def prove(self, call: ProveCall) -> None:
        """Nothing, when this is a run's own process. Raises `StartRefused`."""
        self._check_token(call.run_id or await self._run_of(call), call.token)

    def _measure_start(self, row: dict[str, Any], run_id: str) -> None:
        way, command, queued_at = self._metrics.way, row["command"], row["queued_at"] or row["created_at"]
        way.reached("allowed", (queued_at - row["created_at"]).total_seconds(), command)
        flight = self._dispatcher.in_flight.get(run_id)
        handed_at = flight.handed_at if flight else None
        way.reached("started", (now() - (handed_at or queued_at)).total_seconds(), command)

    async def _run_of(self, call: StartCall | ProveCall) -> str:
        known = self._dispatcher.run_of(call.flow_run_id)
        if known:
            return known
        query = sa.select(schema.run.c.id).where(schema.run.c.flow_run_id == call.flow_run_id)
        stored = await self._store.read(lambda conn: scalar(conn, query))
        return str(stored) if stored else await self._unknown_run(call.flow_run_id)

    def _check_token(self, run_id: str, token: str) -> None:
        if not is_run_token(self._keyring, run_id, token):
            raise StartRefused("this token is not for this run.")

    async def _grant(self, conn: AsyncConnection, run_id: str, call: StartCall) -> dict[str, Any] | str:
        row = await run_and_request(conn, run_id)
        if row is None:
            raise StartRefused("there is no such run.")
        actor = await principals.get(conn, row.actor_id) if row.actor_id else None
        if row.run_state == "started" and row.holder == call.holder:
            return await self._granted(conn, row, row.epoch, actor)
        _refuse_if_taken(row, call)
        denied = await self._denied(conn, row, actor)
        if denied:
            return denied
        epoch = row.epoch + 1
        done = await conn.execute(
            # One that shares its flow run is found by its batch.
            _START.values(batch_id=_batch_of(call.flow_run_id)) if call.run_id else _START_ALONE,
            {
                "the_run": run_id,
                "the_epoch": row.epoch,
                "the_state": row.run_state,
                "state": "started",
                "epoch": epoch,
                "holder": call.holder,
                "flow_run_id": None if call.run_id else call.flow_run_id,
                "lease_until": now() + timedelta(seconds=LEASE),
                "started_at": now(),
            },
        )
        if not done.rowcount:
            raise AlreadyStarted("another process has started this run.")
        await update_request(conn, row.id, state="running", started_at=row.started_at or now())
        return await self._granted(conn, row, epoch, actor)

    async def denied(self, run_id: str) -> str | None:
        """Why this run must not be started now; None when it may be. For what is started without asking for it."""

        async def look(conn: AsyncConnection) -> str | None:
            row = await run_and_request(conn, run_id)
            if row is None:
                return None
            actor = await principals.get(conn, row.actor_id) if row.actor_id else None
            return await self._denied(conn, row, actor)

        return await self._store.write(look)

    async def _denied(self, conn: AsyncConnection, row: Any, actor: Principal | None) -> str | None:
        # Rights may have changed while the request waited, so they are looked at once more.
        spec = self._catalogue().find(row.automation)
        if spec is None:
            return sentence("not-in-catalogue", command=row.automation)
        if row.run_state == "created" and row.expires_at < now():
            return EXPIRED
        language = self._closing.language_of(actor)
        if frozen := await self._desk.frozen(conn, spec, language):
            return frozen.kept
        values = open_values(self._keyring, row)
        if row.origin in _WITHOUT_MESSAGE and await has_grant(conn, self._rights, spec, row.actor_id, values):
            return None
        decision = await self._allowed(conn, row, spec, actor, values, language)
        denied: str | None = decision.reason
        if decision.allowed:
            denied = await self._desk.missing(conn, row, spec, values, language)
        if denied and not decision.barred and row.standing_id and actor is not None and actor.enabled:
            cover = await standing.covering(conn, actor.id, spec, values, request_id=row.id)
            return None if cover.approval else sentence(cover.reason)
        return denied

    async def _allowed(
        self,
        conn: AsyncConnection,
        row: Any,
        spec: AutomationSpec,
        principal: Principal | None,
        values: Mapping[str, Any],
        language: str,
    ) -> Decision:
        return self._rights.allows(
            principal,
            spec.effect,
            spec.command,
            Origin(row.origin),
            await self._assurance(conn, row),
            language,
            values=meant(spec, values, whole=True),
            place=_asked_at(row),
            approvals=True,
        )

    async def _granted(
        self, conn: AsyncConnection, row: Any, epoch: int, actor: Principal | None
    ) -> dict[str, Any]:
        event = None
        if row.message_id:
            event = (await conn.execute(_EVENT_OF, {"message": row.message_id})).scalar()
        return {
            "epoch": epoch,
            "message_id": row.message_id,
            "command": row.automation,
            "origin": row.origin,
            "principal": actor.name if actor else "",
            "language": self._closing.language_of(actor),
            "event": event,
            "values": open_values(self._keyring, row),
            "first": row.started_at is None,
            "created_at": row.created_at,
            "queued_at": row.queued_at,
        }

    def _started(self, row: dict[str, Any], run_id: str) -> Started:
        spec = self._catalogue().find(row["command"])
        hidden = spec.sealed_names if spec else frozenset()
        message = self._message(row["message_id"], row["event"])
        return Started(
            run_id=run_id,
            epoch=row["epoch"],
            token=run_token(self._keyring, run_id),
            command=row["command"],
            origin=row["origin"],
            principal=row["principal"],
            language="zh" if message and language_of(message.text) == "zh" else row["language"],
            message=message,
            sealed={name: value for name, value in row["values"].items() if name in hidden},
            lease=LEASE,
        )

    def _message(self, message_id: str | None, sealed: bytes | None) -> Message | None:
        if message_id is None or sealed is None:
            return None
        body = self._keyring.open("message", "event_sealed", message_id, sealed)
        if b'"type":"message"' not in body:
            return None
        event = _EVENT.validate_json(body)  # another event may quote these words
        return event if isinstance(event, Message) else None

    # -- while it runs

    async def beat(self, call: BeatCall) -> bool:
        """Keep the lease; false once cancellation was asked for. Raises `StartRefused` when the epoch is over."""
        self._check_token(call.run_id, call.token)

        async def extend(conn: AsyncConnection) -> bool:
            row = await self._fenced(conn, call.run_id, call.epoch)
            values = {"lease_until": now() + timedelta(seconds=LEASE)}
            await conn.execute(sa.update(schema.run).where(schema.run.c.id == call.run_id).values(values))
            return row.cancel_requested_at is None

        try:
            return await self._store.write(extend)
        except StoreUnavailable:
            self.pulse.missed()
            raise

    async def say(self, call: SayCall) -> None:
        """Progress in the thread; a repeated ordinal says nothing."""
        self._check_token(call.run_id, call.token)

        async def write(conn: AsyncConnection) -> list[Delivery]:
            row = await self._fenced(conn, call.run_id, call.epoch)
            if row.route is None:
                return []
            route, first = open_route(self._keyring, row), call.ordinal * 100
            return await self._outbox.write(
                conn,
                f"run:{call.run_id}",
                [call.reply],
                route,
                message_id=row.message_id,
                first=first,
                under_id=row.under_id,
            )

        self._outbox.send(await self._store.write(write))

    async def open_secret(self, call: OpenRunSecret) -> str:
        """A sealed field of a Block that the run's automation names. Raises `LinkError` for any other, `SealError`."""
        self._check_token(call.run_id, call.token)
        row = await self._store.read(lambda conn: self._fenced(conn, call.run_id, call.epoch))
        spec = self._catalogue().find(row.automation)
        if spec is None or f"{call.block_type}/{call.block_name}" not in spec.blocks:
            block = f"{call.block_type}/{call.block_name}"
            raise LinkError(
                f"/{row.automation} does not name {block}: add it to blocks=(...) of its @automation."
            )
        return self._keyring.open_text(call.block_type, call.block_name, call.field, call.sealed)

    async def log_action(self, call: LogActionCall) -> None:
        """An audit row of the author's own; a repeated ordinal adds none. Nothing that is sealed gets into it."""
        self._check_token(call.run_id, call.token)
        subject = f"run:{call.run_id}:{call.ordinal}"

        async def write(conn: AsyncConnection) -> None:
            row = await self._fenced(conn, call.run_id, call.epoch)
            there = sa.select(schema.audit.c.sequence).where(schema.audit.c.subject == subject)
            if await scalar(conn, there) is not None:
                return
            principal = await principals.get(conn, row.actor_id) if row.actor_id else None
            action, *details = self._without_sealed(row, [call.action, *call.details.values()])
            await self._audit.append(
                conn,
                action=f"author:{action}",
                phase="outcome",
                actor=principal.name if principal else "-",
                subject=subject,
                details=dict(zip(call.details, details, strict=True)),
            )

        await self._store.write(write)

    def _without_sealed(self, row: Any, texts: list[str]) -> list[str]:
        """These texts, with each value of a sealed parameter of this run replaced by its keyed hash."""
        spec = self._catalogue().find(row.automation)
        names = spec.sealed_names if spec else frozenset()
        values = open_values(self._keyring, row).items() if names else ()
        hidden = {str(value) for name, value in values if name in names and str(value)}
        for secret in sorted(hidden, key=len, reverse=True):
            proof = f"(sealed {self._keyring.keyed_hash(secret)})"
            texts = [_without(text, secret, proof) for text in texts]
        return texts

    async def publish(self, call: PublishCall) -> None:
        """An event on the bus; a repeated ordinal publishes nothing. Raises `BadArguments` for topics of others."""
        self._check_token(call.run_id, call.token)
        check_topic(call.topic, self._account_topics())

        async def write(conn: AsyncConnection, after: After) -> None:
            row = await self._fenced(conn, call.run_id, call.epoch)
            self._closing.add(after, await self._bus.publish(conn, of_call(call, row)))

        await self._closing.apply(write)

    def route_of(self, row: Any) -> Route:
        """Where a request's row says that it is answered. Raises `SealError`."""
        return open_route(self._keyring, row)

    async def ask_route(self, call: AskCall) -> Any:
        """The run's row, for a question; raises `StartRefused` when the epoch is over."""
        self._check_token(call.run_id, call.token)
        return await self._store.read(lambda conn: self._fenced(conn, call.run_id, call.epoch))

    async def _fenced(self, conn: AsyncConnection, run_id: str, epoch: int) -> Any:
        row = await run_and_request(conn, run_id)
        if row is None or row.epoch != epoch or row.run_state != "started":
            raise StartRefused("this run was ended, or another process has it.")
        return row

    # -- the end

    async def finish(self, call: FinishCall) -> None:
        """Close the request and write its answer, once. Raises `StartRefused` when the epoch is over."""
        self._check_token(call.run_id, call.token)
        await self._closing.apply(lambda conn, after: self._finish(conn, after, call))

    async def _finish(self, conn: AsyncConnection, after: After, call: FinishCall) -> None:
        row = await run_and_request(conn, call.run_id)
        if row is None or row.epoch != call.epoch:
            raise StartRefused("another process has this run.")
        if row.run_state in ("finished", "suspended"):
            return
        if row.run_state == "lost":
            raise StartRefused("this run was given up as lost; its answer comes too late.")
        if call.outcome == "suspended":
            await set_run(conn, call.run_id, state="suspended", lease_until=None)
            return
        done = call.outcome == "done"
        reply = call.reply if done else None
        failure = (
            None
            if done
            else call.reason or sentence("failed", command=row.automation, reason=call.kind or "error")
        )
        await self._closing.close(
            conn, after, row, failed=failure, kind=call.kind, reply=reply, fell_back=call.fell_back
        )


def _without(text: str, secret: str, proof: str) -> str:
    text = text.replace(secret, proof)
    if text.endswith("…"):  # it was cut, in the middle of the secret perhaps
        length = next((n for n in range(len(secret), 3, -1) if text[:-1].endswith(secret[:n])), 0)
        text = f"{text[: -1 - length]}{proof}" if length else text
    return text


def _batch_of(flow_run_id: str) -> sa.ScalarSelect[str]:
    table = schema.batch
    return sa.select(table.c.id).where(table.c.flow_run_id == flow_run_id).scalar_subquery()


def _refuse_if_taken(row: Any, call: StartCall) -> None:
    if row.run_state in ("started", "finished", "lost") and _is_elsewhere(row, call):
        raise StartedElsewhere("this request is answered in another flow run, or needs no answer any more.")
    if row.run_state == "started":
        raise AlreadyStarted("another process has started this run.")
    if row.run_state in ("finished", "lost"):
        raise AlreadyStarted(f"this run has ended already ({row.outcome}).")
    if row.cancel_requested_at is not None:
        raise StartRefused("this run was cancelled.")
    if row.state not in ("queued", "running"):
        raise StartRefused(f"the request is {row.state}.")


def _is_elsewhere(row: Any, call: StartCall) -> bool:
    # A task of a flow run that several share ends by itself whatever it is refused with.
    return not call.run_id and row.flow_run_id != call.flow_run_id


def _asked_at(row: Any) -> str | None:
    # What an event or a schedule started was asked nowhere: its route says only where it is told.
    if row.message_id is None or row.origin == Origin.SERVICE or not row.route:
        return None
    return f"{row.route['account']}:{row.route['conversation']}"


__all__ = ["LEASE", "Ledger"]
