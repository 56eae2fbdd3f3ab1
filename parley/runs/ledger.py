"""The ledger: who may start a run, and what became of it. The hub's half of every run's life.

Each run is granted one start by compare-and-set on (run, epoch), whatever Prefect, a worker or the network does, and
its end is one transaction: the request is closed, its answer is in the outbox, failures are counted, the audit knows.
Every call may come twice.
"""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import AlreadyStarted, LinkError, StartRefused, StoreUnavailable
from parley.failpoints import failpoint
from parley.language.characters import language_of
from parley.link.calls import (
    AskCall,
    BeatCall,
    FinishCall,
    LogActionCall,
    OpenRunSecret,
    PublishCall,
    RunEnded,
    SayCall,
    StartCall,
    Started,
)
from parley.messages.bus import Bus, Outcome
from parley.messages.model import Assurance, Button, Event, Message, Reply, Route, now
from parley.messages.outbox import Delivery, Outbox
from parley.messages.watch import Watch
from parley.metrics import Metrics
from parley.metrics.way import received_at
from parley.people import principals, standing
from parley.people.audit import Audit
from parley.people.rights import Origin, allows
from parley.people.sealing import Keyring
from parley.runs import dead_letters, failures
from parley.runs.batches import runs_of
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane
from parley.runs.dispatch import Dispatcher
from parley.runs.pulse import Pulse
from parley.runs.requests import (
    QueuedRun,
    insert_run,
    open_route,
    open_values,
    run_token,
    short,
    update_request,
)
from parley.runs.run_events import check_topic, ended_topic, of_alert, of_call, of_end
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

LEASE = 30.0
"""Seconds that a run is taken to live on without a sign of life."""
MOST_VAIN = 5
"""Times that a process may die, or Prefect refuse, before the start of one run."""
MOST_RUNS = 3
"""Runs that one request gets at the most when processes die under it and it is declared idempotent."""


EXPIRED = "its time was over before it could start"
"""Why a request expired that waited for its run."""
_ALERTS = ("alert", "recovered")

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_WITHOUT_MESSAGE = frozenset({"schedule", "prefect"})


@dataclass(slots=True)
class _After:
    """What is done once the transaction is committed."""

    deliveries: list[Delivery] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    queued: list[QueuedRun] = field(default_factory=list)
    changed: list[str | None] = field(default_factory=list)
    measured: list[Callable[[], None]] = field(default_factory=list)


class Ledger:
    """Starts, beats, progress, questions and ends of runs."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        outbox: Outbox,
        dispatcher: Dispatcher,
        watch: Watch,
        bus: Bus,
        *,
        catalogue: Callable[[], Catalogue],
        account_topics: Callable[[], frozenset[str]],
        duty: Callable[[AsyncConnection, str | None], Awaitable[Route | None]],
        default_threshold: int,
        unknown_run: Callable[[str], Awaitable[str]],
        assurance: Callable[[AsyncConnection, Any], Awaitable[Assurance]],
        metrics: Metrics,
        platform_of: Callable[[str], str],
        language: Callable[[], str],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._watch = watch
        self._bus = bus
        self._catalogue = catalogue
        self._account_topics = account_topics
        self._duty = duty
        self.default_threshold: int = default_threshold
        self._unknown_run = unknown_run
        self._assurance = assurance
        self._metrics = metrics
        self._platform_of = platform_of
        self._default_language = language
        self._audit = Audit(keyring)
        self._vain: Counter[str] = Counter()
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
                await self.expire(run_id)
            else:
                await self.refuse(run_id, row)
            raise StartRefused(row)
        self._watch.notify(row["message_id"])
        if row["first"]:
            self._measure_start(row, run_id)
        return self._started(row, run_id)

    def _measure_start(self, row: dict[str, Any], run_id: str) -> None:
        way, command, queued_at = self._metrics.way, row["command"], row["queued_at"] or row["created_at"]
        way.reached("allowed", (queued_at - row["created_at"]).total_seconds(), command)
        flight = self._dispatcher.in_flight.get(run_id)
        handed_at = flight.handed_at if flight else None
        way.reached("started", (now() - (handed_at or queued_at)).total_seconds(), command)

    async def _run_of(self, call: StartCall) -> str:
        known = self._dispatcher.run_of(call.flow_run_id)
        if known:
            return known
        query = sa.select(schema.run.c.id).where(schema.run.c.flow_run_id == call.flow_run_id)
        stored = await self._store.read(lambda conn: _scalar(conn, query))
        return str(stored) if stored else await self._unknown_run(call.flow_run_id)

    def _check_token(self, run_id: str, token: str) -> None:
        if not hmac.compare_digest(run_token(self._keyring, run_id), token):
            raise StartRefused("this token is not for this run.")

    async def _grant(self, conn: AsyncConnection, run_id: str, call: StartCall) -> dict[str, Any] | str:
        row = await _run_and_request(conn, run_id)
        if row is None:
            raise StartRefused("there is no such run.")
        if row.run_state == "started" and row.holder == call.holder:
            return await self._granted(conn, row, row.epoch)
        _refuse_if_taken(row)
        denied = await self._denied(conn, row)
        if denied:
            return denied
        epoch = row.epoch + 1
        table = schema.run
        done = await conn.execute(
            sa.update(table)
            .where(table.c.id == run_id, table.c.epoch == row.epoch, table.c.state == row.run_state)
            .values(
                state="started",
                epoch=epoch,
                holder=call.holder,
                # One that shares its flow run is found by its batch.
                flow_run_id=None if call.run_id else call.flow_run_id,
                lease_until=now() + timedelta(seconds=LEASE),
                started_at=now(),
            )
        )
        if not done.rowcount:
            raise AlreadyStarted("another process has started this run.")
        await update_request(conn, row.id, state="running", started_at=row.started_at or now())
        return await self._granted(conn, row, epoch)

    async def _denied(self, conn: AsyncConnection, row: Any) -> str | None:
        # Rights may have changed while the request waited, so they are looked at once more.
        spec = self._catalogue().find(row.automation)
        if spec is None:
            return sentence("not-in-catalogue", command=row.automation)
        if row.run_state == "created" and row.expires_at < now():
            return EXPIRED
        if row.origin in _WITHOUT_MESSAGE and await has_grant(conn, spec.command, row.actor_id):
            return None
        principal = await principals.get(conn, row.actor_id) if row.actor_id else None
        decision = allows(
            principal, spec.effect, spec.command, Origin(row.origin), await self._assurance(conn, row)
        )
        if decision.allowed:
            return None
        if row.standing_id and principal is not None and principal.enabled:
            values = open_values(self._keyring, row)
            cover = await standing.covering(conn, principal.id, spec, values, request_id=row.id)
            return None if cover.approval else sentence(cover.reason)
        return decision.reason

    async def _granted(self, conn: AsyncConnection, row: Any, epoch: int) -> dict[str, Any]:
        principal = await principals.get(conn, row.actor_id) if row.actor_id else None
        event = None
        if row.message_id:
            query = sa.select(schema.message.c.event_sealed).where(schema.message.c.id == row.message_id)
            event = await _scalar(conn, query)
        return {
            "epoch": epoch,
            "message_id": row.message_id,
            "command": row.automation,
            "origin": row.origin,
            "principal": principal.name if principal else "",
            "language": (principal.language if principal else None) or self._default_language(),
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
        """An audit row of the author's own."""
        self._check_token(call.run_id, call.token)

        async def write(conn: AsyncConnection) -> None:
            row = await self._fenced(conn, call.run_id, call.epoch)
            principal = await principals.get(conn, row.actor_id) if row.actor_id else None
            await self._audit.append(
                conn,
                action=f"author:{call.action}"[:200],
                phase="outcome",
                actor=principal.name if principal else "-",
                subject=f"run:{call.run_id}:{call.ordinal}",
                details=call.details,
            )

        await self._store.write(write)

    async def publish(self, call: PublishCall) -> None:
        """An event on the bus; a repeated ordinal publishes nothing. Raises `BadArguments` for topics of others."""
        self._check_token(call.run_id, call.token)
        check_topic(call.topic, self._account_topics())

        async def write(conn: AsyncConnection, after: _After) -> None:
            row = await self._fenced(conn, call.run_id, call.epoch)
            self._add(after, await self._bus.publish(conn, of_call(call, row)))

        await self._apply(write)

    @staticmethod
    def _add(after: _After, outcome: Outcome) -> None:
        after.deliveries += outcome.deliveries
        after.queued += outcome.queued

    def route_of(self, row: Any) -> Route:
        """Where a request's row says that it is answered. Raises `SealError`."""
        return open_route(self._keyring, row)

    async def ask_route(self, call: AskCall) -> Any:
        """The run's row, for a question; raises `StartRefused` when the epoch is over."""
        self._check_token(call.run_id, call.token)
        return await self._store.read(lambda conn: self._fenced(conn, call.run_id, call.epoch))

    async def _fenced(self, conn: AsyncConnection, run_id: str, epoch: int) -> Any:
        row = await _run_and_request(conn, run_id)
        if row is None or row.epoch != epoch or row.run_state != "started":
            raise StartRefused("this run was ended, or another process has it.")
        return row

    # -- the end

    async def finish(self, call: FinishCall) -> None:
        """Close the request and write its answer, once. Raises `StartRefused` when the epoch is over."""
        self._check_token(call.run_id, call.token)
        await self._apply(lambda conn, after: self._finish(conn, after, call))

    async def _finish(self, conn: AsyncConnection, after: _After, call: FinishCall) -> None:
        row = await _run_and_request(conn, call.run_id)
        if row is None or row.epoch != call.epoch:
            raise StartRefused("another process has this run.")
        if row.run_state in ("finished", "suspended"):
            return
        if row.run_state == "lost":
            raise StartRefused("this run was given up as lost; its answer comes too late.")
        if call.outcome == "suspended":
            await _set_run(conn, call.run_id, state="suspended", lease_until=None)
            return
        done = call.outcome == "done"
        reply = call.reply if done else None
        failure = (
            None
            if done
            else call.reason or sentence("failed", command=row.automation, reason=call.kind or "error")
        )
        await self._close(
            conn, after, row, failed=failure, kind=call.kind, reply=reply, fell_back=call.fell_back
        )

    async def _close(
        self,
        conn: AsyncConnection,
        after: _After,
        row: Any,
        *,
        failed: str | None,
        kind: str = "error",
        reply: Reply | None = None,
        fell_back: bool = False,
        state: str | None = None,
        run_state: str = "finished",
        text: str | None = None,
        duty: failures.Notice | None = None,
    ) -> None:
        """End run and request, answer, count, audit: what every end has in common.

        `duty`: what the people on duty are told of this end; they are told nothing else of it.
        """
        ending = state or ("failed" if failed else "done")
        if failed is not None:
            failed = failed.replace("\0", "\ufffd")  # PostgreSQL takes no NUL in text
        await _set_run(
            conn,
            row.run_id,
            state=run_state,
            outcome=ending,
            ended_at=now(),
            lease_until=None,
            flow_run_id=row.flow_run_id or self._ordered_as(row.run_id),
        )
        await update_request(conn, row.id, state=ending, reason=failed, fell_back=fell_back, asking=None)
        await self._drop_questions(conn, after, row.run_id)
        language = await self._language(conn, row.actor_id)
        answer = _answer(row.automation, language, failed, reply, text)
        if not (ending == "done" and fell_back):
            counted = await self._count(conn, after, row, ending, failed, kind)
            duty = duty or counted
        if duty is not None:
            answer = await self._tell_of_end(conn, after, row, duty, answer, language)
        await self._deliver(conn, after, row, answer)
        if self._bus.may_take(ended_topic(row.automation, ending)):
            event = of_end(row, ending, failed, fell_back=fell_back)
            self._add(after, await self._bus.publish(conn, event, keep=False))
        await self._audit_outcome(conn, row, ending)
        after.ended.append(row.run_id)
        after.changed.append(row.message_id)
        after.measured.append(lambda: self._measure(row, ending, kind if failed else ""))

    def _ordered_as(self, run_id: str) -> str | None:
        # One that ends before its start is closed in Prefect too, by the reconciler, which has to know where.
        flight = self._dispatcher.in_flight.get(run_id)
        return flight.flow_run_id if flight and flight.batch_id is None else None

    async def _drop_questions(self, conn: AsyncConnection, after: _After, run_id: str) -> None:
        # Nobody waits for these answers any more: what the person says next is something new.
        table = schema.question
        open_ones = sa.and_(table.c.run_id == run_id, table.c.state == "open")
        found = (await conn.execute(sa.select(table.c.id).where(open_ones))).scalars().all()
        if found:
            await conn.execute(sa.update(table).where(open_ones).values(state="expired"))
            after.changed += [f"question:{one}" for one in found]

    def _measure(self, row: Any, ending: str, kind: str) -> None:
        platform = self._platform_of(row.route["account"]) if row.route else "prefect"
        self._metrics.request_ended(row.automation, ending, platform)
        at, since = now(), received_at(row.message_id, row.created_at)
        self._metrics.answered(row.automation, (at - since).total_seconds())
        if row.started_at is not None:
            self._metrics.way.reached("done", (at - row.started_at).total_seconds(), row.automation)
        if row.route:
            self._metrics.way.written(f"request:{row.id}", row.automation, since)
        if ending == "failed":
            self._metrics.failure(row.automation, kind or "error")

    async def _deliver(self, conn: AsyncConnection, after: _After, row: Any, answer: Reply) -> None:
        route = open_route(self._keyring, row) if row.route else None
        if route is None:
            return
        if answer.private:
            sender = await self._sender_of(conn, row.message_id, route.account)
            route = route.model_copy(update={"private_to": sender})
        source = f"request:{row.id}"
        after.deliveries += await self._outbox.write(
            conn,
            source,
            [answer],
            route,
            message_id=row.message_id,
            first=row.epoch * 100,
            under_id=row.under_id,
        )

    async def _sender_of(self, conn: AsyncConnection, message_id: str | None, account: str) -> str | None:
        # A service is nobody who could be told something in private, and an id of another account is somebody else.
        table = schema.message
        asked = sa.and_(table.c.id == message_id, table.c.account == account, table.c.type != "notice")
        sender: str | None = await _scalar(conn, sa.select(table.c.sender_id).where(asked))
        return sender

    async def _language(self, conn: AsyncConnection, principal_id: str | None) -> str:
        principal = await principals.get(conn, principal_id) if principal_id else None
        return (principal.language if principal else None) or self._default_language()

    async def _count(
        self, conn: AsyncConnection, after: _After, row: Any, ending: str, failed: str | None, kind: str
    ) -> failures.Notice | None:
        """Count this end; what the people on duty are to be told of it."""
        if ending == "done":
            notice = await failures.count_success(conn, row.automation)
        elif ending == "failed" and kind != "arguments":
            spec = self._catalogue().find(row.automation)
            threshold = (spec.alert_after if spec else None) or self.default_threshold
            notice = await failures.count_failure(conn, row.automation, failed or "", threshold)
        else:
            return None
        if notice:
            if notice.key == "alert":
                after.measured.append(lambda: self._metrics.alert(row.automation))
            self._add(after, await self._bus.publish(conn, of_alert(row, notice)))
        return notice

    async def _tell_of_end(
        self,
        conn: AsyncConnection,
        after: _After,
        row: Any,
        notice: failures.Notice,
        answer: Reply,
        language: str,
    ) -> Reply:
        """Tell the people on duty; the answer that is left to give.

        Where they are the ones who are answered, the answer says it: nobody reads the same twice in one place.
        """
        troubled = row.route["account"] if row.route and notice.key in _ALERTS else None
        route = await self._duty(conn, troubled)
        if (
            route
            and row.route
            and notice.key != "recovered"
            and not answer.private
            and _is_at(row.route, route)
        ):
            return Reply(text=failures.told(notice, language), buttons=notice.buttons)
        after.deliveries += await self._tell_at(conn, notice, route)
        return answer

    async def tell_duty(
        self, conn: AsyncConnection, notice: failures.Notice, troubled: str | None = None
    ) -> list[Delivery]:
        """Tell the people on duty, on another platform than the troubled one where there is one."""
        return await self._tell_at(conn, notice, await self._duty(conn, troubled))

    async def _tell_at(
        self, conn: AsyncConnection, notice: failures.Notice, route: Route | None
    ) -> list[Delivery]:
        text = failures.told(notice, self._default_language())
        if route is None:
            logger.error("nobody is on duty to be told: %s", text)
            return []
        reply = Reply(text=text, buttons=notice.buttons)
        return await self._outbox.write(conn, notice.source, [reply], route)

    async def _audit_outcome(self, conn: AsyncConnection, row: Any, ending: str) -> None:
        spec = self._catalogue().find(row.automation)
        if spec is not None and spec.effect is Effect.READ:
            return
        principal = await principals.get(conn, row.actor_id) if row.actor_id else None
        await self._audit.append(
            conn,
            action=f"run:{row.automation}",
            phase="outcome",
            actor=principal.name if principal else "-",
            subject=f"request:{row.id}",
            details={"state": ending, "run": row.run_id, "flow_run": row.flow_run_id or ""},
        )

    async def refuse(self, run_id: str, reason: str) -> None:
        """End a run that may not start; the person is told why."""

        async def close(conn: AsyncConnection, after: _After) -> None:
            row = await _run_and_request(conn, run_id)
            if row is not None and row.run_state in ("created", "suspended"):
                await self._close(
                    conn, after, row, failed=reason, kind="arguments", state="refused", text=reason
                )

        await self._apply(close)

    async def fail(self, run_id: str, reason: str) -> None:
        """End a run that could not be started at all."""

        async def close(conn: AsyncConnection, after: _After) -> None:
            row = await _run_and_request(conn, run_id)
            if row is not None and row.run_state == "created":
                await self._close(conn, after, row, failed=reason)
                await self._record(conn, row, "run", reason)

        await self._apply(close)

    async def expire(self, run_id: str) -> bool:
        """End a run whose time was over before it could start; the person is told. Whether it was so."""
        expired: list[str] = []

        async def close(conn: AsyncConnection, after: _After) -> None:
            expired.clear()
            row = await _run_and_request(conn, run_id)
            if row is None or row.run_state != "created" or row.expires_at >= now():
                return
            text = sentence("run-expired", await self._language(conn, row.actor_id), command=row.automation)
            await self._close(conn, after, row, failed=EXPIRED, kind="arguments", state="expired", text=text)
            await self._record(conn, row, "expired", EXPIRED)
            expired.append(run_id)

        await self._apply(close)
        return bool(expired)

    async def _record(
        self, conn: AsyncConnection, row: Any, kind: dead_letters.Kind, reason: str, *, doubtful: bool = False
    ) -> str:
        return await dead_letters.record(
            conn,
            kind,
            f"run:{row.run_id}",
            reason,
            automation=row.automation,
            account=row.route["account"] if row.route else None,
            actor_id=row.actor_id,
            doubtful=doubtful,
        )

    async def external_ended(
        self, run_id: str, flow_run_id: str, done: bool, message: str, report: str
    ) -> None:
        """End a run of an existing deployment, whose outcome was read from Prefect."""

        async def close(conn: AsyncConnection, after: _After) -> None:
            row = await _run_and_request(conn, run_id)
            if row is None or row.run_state not in ("created", "started"):
                return
            await _set_run(conn, run_id, flow_run_id=flow_run_id)
            reply = Reply(text=report) if report else None
            await self._close(conn, after, row, failed=None if done else message or "failed", reply=reply)

        await self._apply(close)

    async def cancelled(self, run_id: str) -> None:
        """End a run because a person asked for it."""

        async def close(conn: AsyncConnection, after: _After) -> None:
            row = await _run_and_request(conn, run_id)
            if row is not None and row.run_state in ("created", "started", "suspended"):
                await self._cancelled(conn, after, row)

        await self._apply(close)

    async def _cancelled(self, conn: AsyncConnection, after: _After, row: Any) -> None:
        text = sentence("cancelled", await self._language(conn, row.actor_id), command=row.automation)
        await self._close(conn, after, row, failed=text, kind="arguments", state="cancelled", text=text)

    async def suspended_ended(self, run_id: str, reason: str) -> None:
        """A suspended run was not resumed in time, or was given up in Prefect."""

        async def close(conn: AsyncConnection, after: _After) -> None:
            row = await _run_and_request(conn, run_id)
            if row is not None and row.run_state == "suspended":
                await self._close(conn, after, row, failed=reason or "it was not resumed")

        await self._apply(close)

    async def run_ended(self, call: RunEnded) -> None:
        """What a worker says of a flow run's end; of one that is not ours nothing becomes."""
        run_ids = self._dispatcher.runs_of(call.flow_run_id)
        if not run_ids:
            run_ids = await self._store.read(lambda conn: runs_of(conn, call.flow_run_id))
        for run_id in run_ids:
            await self._run_ended(run_id, call)

    async def _run_ended(self, run_id: str, call: RunEnded) -> None:
        if call.how == "cancelled":
            await self.cancelled(run_id)
        elif call.how == "timed-out":
            await self._timed_out(run_id)
        elif call.how == "refused":
            await self._given_back(run_id, call.reason)
        else:
            await self.process_ended(
                run_id, call.reason or call.state or call.how, crashed=call.how == "crashed"
            )

    async def _timed_out(self, run_id: str) -> None:
        async def close(conn: AsyncConnection, after: _After) -> None:
            row = await _run_and_request(conn, run_id)
            if row is not None and row.run_state in ("created", "started"):
                text = sentence("timed-out", await self._language(conn, row.actor_id), command=row.automation)
                await self._close(conn, after, row, failed=text, kind="timeout", text=text)

        await self._apply(close)

    async def _begun_in_vain(self, run_id: str, reason: str) -> None:
        # Nothing was started, so it may be ordered again; but what always dies before its start is told at last.
        self._vain[run_id] += 1
        if self._vain[run_id] >= MOST_VAIN:
            await self.fail(run_id, reason)
        else:
            self._dispatcher.order_again(run_id)

    async def ordered_in_vain(self, run_id: str) -> None:
        """An order that went to a worker which is gone: again, unless its start was granted meanwhile."""
        row = await self._store.read(lambda conn: _run_and_request(conn, run_id))
        if row is not None and row.run_state == "created":
            self._dispatcher.order_again(run_id)

    async def is_unstarted(self, run_id: str) -> bool:
        """Whether no start of this run was granted yet, and it has not ended."""
        row = await self._store.read(lambda conn: _run_and_request(conn, run_id))
        return row is not None and row.run_state == "created"

    async def _given_back(self, run_id: str, reason: str) -> None:
        # It did not begin there. When it is started by now, then by another process, which tells its end itself.
        row = await self._store.read(lambda conn: _run_and_request(conn, run_id))
        if row is not None and row.run_state == "created":
            await self._dispatcher.given_back(run_id, reason)
        elif row is None or row.run_state != "started":
            self._dispatcher.ended(run_id)

    async def process_ended(self, run_id: str, reason: str, *, crashed: bool) -> None:
        """The process that had this run is done with it. What was not started may be ordered again."""
        row = await self._store.read(lambda conn: _run_and_request(conn, run_id))
        if row is None or row.run_state in ("finished", "lost", "suspended"):
            self._dispatcher.ended(run_id)
            return
        if row.run_state == "created" and row.cancel_requested_at is not None:
            await self.cancelled(run_id)
            return
        if row.run_state == "created":
            await self._begun_in_vain(run_id, reason)
            return
        if crashed:
            await self.lost(run_id, reason)
        else:
            await self._apply(lambda conn, after: self._engine_failed(conn, after, run_id, reason))

    async def _engine_failed(self, conn: AsyncConnection, after: _After, run_id: str, reason: str) -> None:
        row = await _run_and_request(conn, run_id)
        if row is not None and row.run_state == "started":
            await self._close(conn, after, row, failed=reason)

    async def lost(self, run_id: str, reason: str) -> None:
        """The process is gone in the middle. A new run only where that is declared safe; else people are asked."""
        await self._apply(lambda conn, after: self._lost(conn, after, run_id, reason))

    async def silent(self, run_id: str) -> bool:
        """The lease of this run is over: it is lost, unless it has spoken since. Returns whether it is."""
        ended = False
        table = schema.run
        over = sa.select(table.c.cancel_requested_at).where(
            table.c.id == run_id, table.c.state == "started", table.c.lease_until < now()
        )

        async def end(conn: AsyncConnection, after: _After) -> None:
            nonlocal ended
            row = (await conn.execute(over)).first()
            ended = row is not None and row.cancel_requested_at is None
            if row is not None:
                await self._lost(conn, after, run_id, "")

        await self._apply(end)
        return ended

    async def _lost(self, conn: AsyncConnection, after: _After, run_id: str, reason: str) -> None:
        row = await _run_and_request(conn, run_id)
        if row is None or row.run_state != "started":
            return
        if row.cancel_requested_at is not None:
            # Its end was asked for: how it came to it does not matter, and it is certainly not run again.
            await self._cancelled(conn, after, row)
            return
        spec = self._catalogue().find(row.automation)
        if spec and spec.idempotent and await self._runs_of(conn, row.id) < MOST_RUNS:
            await self._drop_questions(conn, after, run_id)
            await _set_run(conn, run_id, state="lost", outcome="lost", ended_at=now(), lease_until=None)
            await update_request(conn, row.id, state="queued")
            after.ended.append(run_id)
            after.queued.append(await self._one_more(conn, row, spec))
            return
        text = sentence("lost", await self._language(conn, row.actor_id), command=row.automation)
        doubtful = spec is None or spec.effect is not Effect.READ
        letter_id = await self._record(conn, row, "run", reason or text, doubtful=doubtful)
        asked = failures.Notice(
            source=f"lost:{run_id}",
            key="lost-duty" if doubtful else "lost-duty-look",
            values={"command": row.automation, "id": short(row.id)},
            buttons=_decisions(letter_id, self._default_language()),
        )
        await self._close(conn, after, row, failed=reason or text, run_state="lost", text=text, duty=asked)

    async def _runs_of(self, conn: AsyncConnection, request_id: str) -> int:
        query = (
            sa.select(sa.func.count()).select_from(schema.run).where(schema.run.c.request_id == request_id)
        )
        return int(await _scalar(conn, query))

    async def _one_more(self, conn: AsyncConnection, row: Any, spec: AutomationSpec) -> QueuedRun:
        principal = await principals.get(conn, row.actor_id) if row.actor_id else None
        return QueuedRun(
            run_id=await insert_run(conn, row.id, epoch=row.epoch + 1),
            request_id=row.id,
            message_id=row.message_id,
            automation=spec.command,
            values=open_values(self._keyring, row),
            actor=principal.name if principal else "-",
            lane=Lane(row.lane),
            again=True,
        )

    async def _apply(self, change: Callable[[AsyncConnection, _After], Awaitable[None]]) -> None:
        async def transaction(conn: AsyncConnection) -> _After:
            after = _After()
            await change(conn, after)
            return after

        failpoint("end.closing")
        after = await self._store.write(transaction)
        failpoint("end.closed")
        self._outbox.send(after.deliveries)
        for run_id in after.ended:
            self._vain.pop(run_id, None)
            self._dispatcher.ended(run_id)
        for queued in after.queued:
            self._dispatcher.add(queued)
        self._watch.notify(*after.changed)
        for measure in after.measured:
            measure()


def _decisions(letter_id: str, language: str) -> tuple[Button, ...]:
    """What the people on duty press: the question above them says what may have happened."""
    code = short(letter_id)
    return (
        Button(label=sentence("run-again", language), value=f"/dlq replay {code} confirm", style="primary"),
        Button(label=sentence("close", language), value=f"/dlq discard {code}"),
    )


def _is_at(kept: Mapping[str, Any], route: Route) -> bool:
    return (kept["account"], kept["conversation"]) == (route.account, route.conversation)


def _answer(command: str, language: str, failed: str | None, reply: Reply | None, text: str | None) -> Reply:
    if text:
        return Reply(text=text)
    if failed is not None:
        return Reply(text=sentence("failed", language, command=command, reason=failed))
    if reply is None or reply.is_empty():
        return Reply(text=sentence("done", language, command=command))
    return reply


def _refuse_if_taken(row: Any) -> None:
    if row.run_state == "started":
        raise AlreadyStarted("another process has started this run.")
    if row.run_state in ("finished", "lost"):
        raise AlreadyStarted(f"this run has ended already ({row.outcome}).")
    if row.cancel_requested_at is not None:
        raise StartRefused("this run was cancelled.")
    if row.state not in ("queued", "running"):
        raise StartRefused(f"the request is {row.state}.")


async def _run_and_request(conn: AsyncConnection, run_id: str) -> Any:
    run, request = schema.run, schema.request
    query = (
        sa.select(
            request,
            run.c.id.label("run_id"),
            run.c.state.label("run_state"),
            run.c.epoch,
            run.c.holder,
            run.c.flow_run_id,
            run.c.outcome,
            run.c.cancel_requested_at,
        )
        .join(request, request.c.id == run.c.request_id)
        .where(run.c.id == run_id)
    )
    return (await conn.execute(query)).first()


async def _set_run(conn: AsyncConnection, run_id: str, **values: Any) -> None:
    await conn.execute(sa.update(schema.run).where(schema.run.c.id == run_id).values(values))


async def has_grant(conn: AsyncConnection, automation: str, principal_id: str) -> bool:
    """Whether the owner lets this service start this automation outside of a chat, now."""
    table, person = schema.grant, schema.principal
    live = sa.and_(
        table.c.revoked_at.is_(None), sa.or_(table.c.expires_at.is_(None), table.c.expires_at > now())
    )
    same = sa.and_(table.c.automation == automation, table.c.principal_id == principal_id)
    granted = sa.select(sa.func.count()).select_from(table).join(person, person.c.id == table.c.principal_id)
    return bool(await _scalar(conn, granted.where(same, live, person.c.enabled)))


async def _scalar(conn: AsyncConnection, query: Any) -> Any:
    return (await conn.execute(query)).scalar()


__all__ = ["LEASE", "Ledger"]
