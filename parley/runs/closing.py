"""What every end of a run has in common: request and run are closed, the answer is in the outbox, it is counted.

All of an end is one transaction; what follows from it is done once that is committed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.failpoints import failpoint
from parley.messages.bus import Bus, Outcome
from parley.messages.model import Reply, Route, now
from parley.messages.outbox import Delivery, Outbox
from parley.messages.watch import Watch
from parley.metrics import Metrics
from parley.metrics.way import received_at
from parley.people import principals
from parley.people.audit import Audit
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.runs import failures
from parley.runs.catalogue import Catalogue, Effect
from parley.runs.dispatch import Dispatcher
from parley.runs.requests import QueuedRun, open_route, update_request
from parley.runs.run_events import ended_topic, of_alert, of_end
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

_ALERTS = ("alert", "recovered")

_RUN, _REQUEST = schema.run, schema.request

# Made once: to make a statement takes several times as long as to execute it.
_RUN_AND_REQUEST: Final = (
    sa.select(
        _REQUEST,
        _RUN.c.id.label("run_id"),
        _RUN.c.state.label("run_state"),
        _RUN.c.epoch,
        _RUN.c.holder,
        _RUN.c.flow_run_id,
        _RUN.c.outcome,
        _RUN.c.cancel_requested_at,
    )
    .join(_REQUEST, _REQUEST.c.id == _RUN.c.request_id)
    .where(_RUN.c.id == sa.bindparam("run"))
)
_SET_RUN: Final = sa.update(_RUN).where(_RUN.c.id == sa.bindparam("the_run"))
_OPEN_QUESTIONS: Final = sa.select(schema.question.c.id).where(
    schema.question.c.run_id == sa.bindparam("run"), schema.question.c.state == "open"
)


@dataclass(slots=True)
class After:
    """What is done once the transaction is committed."""

    deliveries: list[Delivery] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    queued: list[QueuedRun] = field(default_factory=list)
    changed: list[str | None] = field(default_factory=list)
    measured: list[Callable[[], None]] = field(default_factory=list)


class Closing:
    """Closes runs within a transaction of its callers, and carries out what follows from it."""

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
        duty: Callable[[AsyncConnection, str | None], Awaitable[Route | None]],
        default_threshold: int,
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
        self._duty = duty
        self.default_threshold: int = default_threshold
        self._metrics = metrics
        self._platform_of = platform_of
        self._default_language = language
        self._audit = Audit(keyring)
        self.vain: Counter[str] = Counter()
        """Orders of runs whose process died before their start, by run; forgotten with its end."""

    async def close(
        self,
        conn: AsyncConnection,
        after: After,
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
        await set_run(
            conn,
            row.run_id,
            state=run_state,
            outcome=ending,
            ended_at=now(),
            lease_until=None,
            flow_run_id=row.flow_run_id or self._ordered_as(row.run_id),
        )
        await update_request(conn, row.id, state=ending, reason=failed, fell_back=fell_back, asking=None)
        await self.drop_questions(conn, after, row.run_id)
        actor = await principals.get(conn, row.actor_id) if row.actor_id else None
        language = self.language_of(actor)
        answer = _answer(row.automation, language, failed, reply, text)
        if not (ending == "done" and fell_back):
            counted = await self._count(conn, after, row, ending, failed, kind)
            duty = duty or counted
        if duty is not None:
            answer = await self._tell_of_end(conn, after, row, duty, answer, language)
        await self._deliver(conn, after, row, answer)
        if self._bus.may_take(ended_topic(row.automation, ending)):
            event = of_end(row, ending, failed, fell_back=fell_back)
            self.add(after, await self._bus.publish(conn, event, keep=False))
        await self._audit_outcome(conn, row, ending, actor)
        if row.cancel_requested_at is not None:
            await self._audit_cancelled(conn, row, ending)
        after.ended.append(row.run_id)
        after.changed.append(row.message_id)
        after.measured.append(lambda: self._measure(row, ending, kind if failed else ""))

    def _ordered_as(self, run_id: str) -> str | None:
        # One that ends before its start is closed in Prefect too, by the reconciler, which has to know where.
        flight = self._dispatcher.in_flight.get(run_id)
        return flight.flow_run_id if flight and flight.batch_id is None else None

    async def drop_questions(self, conn: AsyncConnection, after: After, run_id: str) -> None:
        """Expire what this run still asks."""
        # Nobody waits for these answers any more: what the person says next is something new.
        found = (await conn.execute(_OPEN_QUESTIONS, {"run": run_id})).scalars().all()
        if found:
            table = schema.question
            await conn.execute(sa.update(table).where(table.c.id.in_(found)).values(state="expired"))
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

    async def _deliver(self, conn: AsyncConnection, after: After, row: Any, answer: Reply) -> None:
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
        sender: str | None = await scalar(conn, sa.select(table.c.sender_id).where(asked))
        return sender

    async def language(self, conn: AsyncConnection, principal_id: str | None) -> str:
        """The language of this person, or of the installation."""
        return self.language_of(await principals.get(conn, principal_id) if principal_id else None)

    def language_of(self, principal: Principal | None) -> str:
        """The same, of somebody who was read already."""
        return (principal.language if principal else None) or self._default_language()

    async def _count(
        self, conn: AsyncConnection, after: After, row: Any, ending: str, failed: str | None, kind: str
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
            self.add(after, await self._bus.publish(conn, of_alert(row, notice)))
        return notice

    async def _tell_of_end(
        self,
        conn: AsyncConnection,
        after: After,
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

    async def _audit_outcome(
        self, conn: AsyncConnection, row: Any, ending: str, actor: Principal | None
    ) -> None:
        spec = self._catalogue().find(row.automation)
        if spec is not None and spec.effect is Effect.READ:
            return
        await self._audit.append(
            conn,
            action=f"run:{row.automation}",
            phase="outcome",
            actor=actor.name if actor else "-",
            subject=f"request:{row.id}",
            details={"state": ending, "run": row.run_id, "flow_run": row.flow_run_id or ""},
        )

    async def _audit_cancelled(self, conn: AsyncConnection, row: Any, ending: str) -> None:
        # Whoever asked for this end is in the row of the intent.
        opened, subject = schema.audit_open, f"request:{row.id}"
        query = sa.select(opened.c.actor).where(opened.c.subject == subject, opened.c.action == "cancel")
        for actor in (await conn.execute(query.order_by(opened.c.sequence))).scalars().all():
            await self._audit.append(
                conn,
                action="cancel",
                phase="outcome",
                actor=actor,
                subject=subject,
                details={"state": ending},
            )

    @staticmethod
    def add(after: After, outcome: Outcome) -> None:
        """What an event led to is carried out with the rest."""
        after.deliveries += outcome.deliveries
        after.queued += outcome.queued

    async def apply(self, change: Callable[[AsyncConnection, After], Awaitable[None]]) -> None:
        """Commit a change, then carry out what it left to do. Raises `StoreUnavailable`."""

        async def transaction(conn: AsyncConnection) -> After:
            after = After()
            await change(conn, after)
            return after

        failpoint("end.closing")
        after = await self._store.write(transaction)
        failpoint("end.closed")
        self._outbox.send(after.deliveries)
        for run_id in after.ended:
            self.vain.pop(run_id, None)
            self._dispatcher.ended(run_id)
        for queued in after.queued:
            self._dispatcher.add(queued)
        self._watch.notify(*after.changed)
        for measure in after.measured:
            measure()


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


async def run_and_request(conn: AsyncConnection, run_id: str) -> Any:
    """The request of this run, with columns of the run (`run_id`, `run_state`, `epoch` and others); None for none."""
    return (await conn.execute(_RUN_AND_REQUEST, {"run": run_id})).first()


async def set_run(conn: AsyncConnection, run_id: str, **values: Any) -> None:
    """Change columns of a run."""
    await conn.execute(_SET_RUN, values | {"the_run": run_id})


async def scalar(conn: AsyncConnection, query: Any) -> Any:
    """The first value of the first row."""
    return (await conn.execute(query)).scalar()


__all__ = ["After", "Closing", "run_and_request", "scalar", "set_run"]
