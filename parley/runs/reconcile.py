"""The reconciler: every few seconds it compares what our store says with what is really there, and mends it.

It finds what killed processes left: runs without a sign of life, orders that nobody took, Prefect states that were
never closed, questions that waited too long, messages that could not be handled. It only calls what the ordinary way
calls too, so that everything it does may happen twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.failpoints import failpoint
from parley.messages.model import Reply, now
from parley.messages.outbox import Delivery, Outbox
from parley.people import approvals
from parley.people.audit import Audit, Phase
from parley.runs import offers
from parley.runs.approving import ApprovalDesk
from parley.runs.batches import Batches
from parley.runs.cancel import Canceller
from parley.runs.catalogue import Catalogue, Effect, Lane
from parley.runs.dispatch import Dispatcher
from parley.runs.ends import EXPIRED, Ends
from parley.runs.ledger import LEASE, Ledger
from parley.runs.prefect_api import PrefectApi, PrefectRefused, PrefectUnavailable
from parley.runs.requests import is_as_read, principal_name, update_request
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.ages import AHEAD, long_ago
from parley.store.engine import Store

logger = logging.getLogger(__name__)

EVERY = 3.0
GRACE = 2 * LEASE
"""Seconds after a start of the hub before a silent run counts as lost: its process needs time to find us again."""
QUIET = timedelta(seconds=LEASE / 2)
"""More than one missed beat: a run that Prefect holds for crashed is believed to be."""
SEEN_WITHIN = 5.0
"""Seconds that Prefect gets to say what it knows of a silent run; without a word it is given up all the same."""
UNSTARTED = timedelta(seconds=15)
"""After which an order that nobody started is looked into."""
FORGOTTEN = timedelta(seconds=60)
"""After which a run that Prefect handed to a worker by itself, and that nobody started, is offered again."""
ASKED = timedelta(seconds=5)
"""Time that a cancelled run's process gets before it is asked again."""
MOST_IDS = 200
"""Flow runs that Prefect is asked for at once."""
CLOSING = timedelta(minutes=30)
"""How far back ended runs are looked at whose Prefect state may still be open."""

SETTLED = timedelta(seconds=10)
"""Time that a process gets to tell Prefect of an end that we know of."""

TERMINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class Reconciler:
    """Looks, and mends; `run` until cancelled."""

    def __init__(
        self,
        store: Store,
        prefect: PrefectApi,
        dispatcher: Dispatcher,
        ledger: Ledger,
        ends: Ends,
        canceller: Canceller,
        outbox: Outbox,
        audit: Audit,
        *,
        catalogue: Callable[[], Catalogue],
        take_up_messages: Callable[[], Awaitable[None]],
        batches: Batches,
        desk: ApprovalDesk,
    ) -> None:
        self._desk = desk
        self._store = store
        self._prefect = prefect
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._ends = ends
        self._outbox = outbox
        self._catalogue = catalogue
        self._take_up_messages = take_up_messages
        self._canceller = canceller
        self._batches = batches
        self._audit = audit
        self._withdrawn: set[str] = set()
        self._began = now()
        self._closed_to = (self._began - CLOSING, "")

    async def run(self) -> None:
        """Mend until cancelled; one step that fails does not stop the others."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ledger.pulse.run())
            group.create_task(self._mend())

    async def _mend(self) -> None:
        await self._extend_leases()
        failpoint("reconcile.begun")
        # Side by side: a Prefect that does not answer holds up none of what is decided without it.
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._repeat(self._take_up_messages, self._expired_requests, self._expired_runs)
            )
            group.create_task(self._repeat(self._silent_runs))
            group.create_task(
                self._repeat(
                    self._runs_ended_in_prefect,
                    self._cancelled_runs,
                    self._unstarted_runs,
                    self._external_runs,
                    self._open_states,
                    self._open_batches,
                )
            )

    async def _repeat(self, *steps: Callable[[], Awaitable[None]]) -> None:
        while True:
            for step in steps:
                failpoint("reconcile.step")
                try:
                    await step()
                except ParleyError as error:
                    logger.info("%s: %s", _name(step), error)
                except Exception:
                    logger.exception("%s failed", _name(step))
            await asyncio.sleep(EVERY)

    async def _extend_leases(self) -> None:
        # While the hub was away nobody could beat: runs get the grace period to report.
        values = {"lease_until": now() + timedelta(seconds=GRACE)}

        async def extend(conn: AsyncConnection) -> None:
            await conn.execute(sa.update(schema.run).where(schema.run.c.state == "started").values(values))

        await self._store.write(extend)

    async def _runs_ended_in_prefect(self) -> None:
        # Our own worker tells us. Others end a cancelled run's process, or see it die, and tell Prefect alone.
        alive = sa.select(schema.run).where(schema.run.c.state.in_(("started", "suspended")))
        rows = {row.flow_run_id: row for row in await self._rows(alive) if row.flow_run_id}
        async for flow_run in self._in_prefect(rows):
            row, kind = rows[str(flow_run["id"])], _kind(flow_run)
            if kind == "CANCELLED":
                await self._ends.cancelled(row.id)
            elif row.state == "suspended":
                if kind in ("FAILED", "CRASHED"):
                    await self._ends.suspended_ended(row.id, _message(flow_run))
            elif kind == "CRASHED" and row.lease_until < now() + timedelta(seconds=LEASE) - QUIET:
                await self._ends.lost(row.id, "")

    async def _cancelled_runs(self) -> None:
        # What a hub that was killed, or a Prefect that was away, left undone of a person's word.
        table = schema.run
        asked = sa.and_(
            table.c.state.in_(("created", "started", "suspended")),
            long_ago(table.c.cancel_requested_at, ASKED),
        )
        rows = await self._rows(sa.select(table).where(asked))
        started = {row.flow_run_id: row for row in rows if row.state == "started" and row.flow_run_id}
        for row in rows:
            # What shares its flow run is closed without it.
            if row.state != "started" or not row.flow_run_id:
                await self._canceller.end(row, "cancelled on request")
        async for flow_run in self._in_prefect(started):
            if _kind(flow_run) not in TERMINAL | {"CANCELLING"}:
                await self._canceller.end(started[str(flow_run["id"])], "cancelled on request")

    async def _in_prefect(self, ids: Iterable[str]) -> AsyncIterator[dict[str, Any]]:
        wanted = list(ids)
        for start in range(0, len(wanted), MOST_IDS):
            for flow_run in await self._prefect.flow_runs(wanted[start : start + MOST_IDS]):
                yield flow_run

    async def _silent_runs(self) -> None:
        await self._shorten_leases()
        for row in await self._started(schema.run.c.lease_until < now()):
            seen = await self._seen_in_prefect(row.flow_run_id)
            if not self._ledger.pulse.well_for(LEASE / 2):
                return  # they may have spoken while nobody could listen: the next beat tells
            await self._silent(row, seen)

    async def _shorten_leases(self) -> None:
        # None is given for longer than the grace: what ends later was given before the clock was set back.
        at, table = now(), schema.run
        far = sa.and_(table.c.state == "started", table.c.lease_until > at + timedelta(seconds=GRACE) + AHEAD)
        if await self._rows(sa.select(table.c.id).where(far).limit(1)):
            values = {"lease_until": at + timedelta(seconds=LEASE)}
            await self._store.write(lambda conn: conn.execute(sa.update(table).where(far).values(values)))

    async def _silent(self, row: Any, flow_run: dict[str, Any] | None) -> None:
        kind = _kind(flow_run)
        if kind == "CANCELLED":
            await self._ends.cancelled(row.id)
        elif kind == "FAILED":
            # Its process came to an end by itself, with the hub too long away to be told.
            await self._ends.process_ended(row.id, _message(flow_run), crashed=False)
        elif await self._ends.silent(row.id):
            logger.warning("run %s shows no sign of life", row.id)
            failpoint("reconcile.lost")
            await self._crashed(row, flow_run)

    async def _crashed(self, row: Any, flow_run: dict[str, Any] | None) -> None:
        if flow_run and _kind(flow_run) not in TERMINAL:
            # What Prefect does not take now, `_open_states` tells it later.
            with suppress(PrefectUnavailable, TimeoutError):
                async with asyncio.timeout(SEEN_WITHIN):
                    await self._prefect.set_state(
                        row.flow_run_id, "CRASHED", "Crashed", "no sign of life from its process"
                    )

    async def _started(self, *conditions: Any) -> Sequence[Any]:
        return await self._rows(sa.select(schema.run).where(schema.run.c.state == "started", *conditions))

    async def _seen_in_prefect(self, flow_run_id: str | None) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(SEEN_WITHIN):
                return next(iter(await self._prefect.flow_runs([flow_run_id] if flow_run_id else [])), None)
        except (PrefectUnavailable, TimeoutError):
            return None

    async def _unstarted_runs(self) -> None:
        table = schema.run
        rows = await self._rows(
            sa.select(table).where(table.c.state == "created", long_ago(table.c.created_at, UNSTARTED))
        )
        # What runs in an existing deployment never tells us of its start: `_external_runs` looks after it.
        rows = [row for row in rows if not self._is_external_run(row.id)]
        waiting: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if flow_run_id := self._flow_run_of(row):
                waiting[flow_run_id].append(row.id)
        async for flow_run in self._in_prefect(waiting):
            for run_id in waiting[str(flow_run["id"])]:
                await self._unstarted(run_id, flow_run)

    def _flow_run_of(self, row: Any) -> str:
        flight = self._dispatcher.in_flight.get(row.id)
        return (flight.flow_run_id if flight else None) or row.flow_run_id or ""

    async def _unstarted(self, run_id: str, flow_run: dict[str, Any]) -> None:
        kind = _kind(flow_run)
        if kind == "CANCELLED":
            await self._ends.cancelled(run_id)
        elif self._dispatcher.is_batched(run_id):
            # By itself, whatever became of the others. One that waits at a living worker for its turn is left there.
            if kind in TERMINAL or self._dispatcher.has_no_worker(run_id):
                self._dispatcher.order_again(run_id)
        elif kind in TERMINAL:
            await self._ends.fail(run_id, _message(flow_run))
        elif (
            kind == "PENDING"
            and self._dispatcher.run_of(str(flow_run["id"]))
            and not self._dispatcher.is_polled(run_id)
        ):
            # The worker that was to run it forgot it, or died with it: the start guard makes a second order safe.
            self._dispatcher.order_again(run_id)
        elif kind == "PENDING" and _age(flow_run) > FORGOTTEN:
            # Prefect made this one, and whoever took it from Prefect is gone: only Prefect can offer it again.
            await self._prefect.set_state(
                str(flow_run["id"]), "SCHEDULED", "Scheduled", "its worker is gone; offered again"
            )

    async def _external_runs(self) -> None:
        flights = {
            flight.flow_run_id: flight
            for flight in self._dispatcher.in_flight.values()
            if flight.flow_run_id and self._is_external(flight.queued.automation)
        }
        async for flow_run in self._in_prefect(flights):
            run_id = flights[str(flow_run["id"])].queued.run_id
            if _kind(flow_run) in TERMINAL and run_id not in self._withdrawn:
                await self._external_ended(run_id, flow_run)

    def _is_external_run(self, run_id: str) -> bool:
        flight = self._dispatcher.in_flight.get(run_id)
        return flight is not None and self._is_external(flight.queued.automation)

    def _is_external(self, automation: str) -> bool:
        spec = self._catalogue().find(automation)
        return spec is not None and not spec.wrapped

    async def _external_ended(self, run_id: str, flow_run: dict[str, Any]) -> None:
        kind = flow_run["state"]["type"]
        if kind == "CANCELLED":
            await self._ends.cancelled(run_id)
            return
        artifacts = await self._prefect.artifacts(str(flow_run["id"])) if kind == "COMPLETED" else []
        await self._ends.external_ended(
            run_id, str(flow_run["id"]), kind == "COMPLETED", _message(flow_run), _reports(artifacts)
        )

    async def _open_states(self) -> None:
        # Each ended run is looked at once, in the order of their ends.
        if self._closed_to[0] > now():  # the clock was set back: what ends now would be passed over
            self._closed_to = (now() - CLOSING, "")
        while rows := await self._rows(_ended_after(*self._closed_to)):
            ended = {row.flow_run_id: row for row in rows if row.flow_run_id}
            async for flow_run in self._in_prefect(ended):
                if _kind(flow_run) not in TERMINAL:
                    await self._close_state(ended[str(flow_run["id"])])
            await self._close_left_alone(rows)
            self._closed_to = (rows[-1].ended_at, rows[-1].id)

    async def _close_left_alone(self, rows: Sequence[Any]) -> None:
        # Answered in a flow run that others share, after an earlier hub, or this one, had made one for it alone.
        shared = [row.id for row in rows if row.batch_id and row.created_at < self._began]
        for flow_run in await self._prefect.flow_runs_of(shared):
            if _kind(flow_run) not in TERMINAL:
                with suppress(PrefectRefused):
                    await self._prefect.set_state(
                        str(flow_run["id"]), "CANCELLED", "Cancelled", "it is answered in another flow run"
                    )

    async def _close_state(self, row: Any) -> None:
        kind, name = _closing_state(row)
        try:
            await self._prefect.set_state(row.flow_run_id, kind, name, "closed after its process had ended")
        except PrefectRefused as error:
            logger.warning("flow run %s stays open in Prefect: %s", row.flow_run_id, error)

    async def _open_batches(self) -> None:
        # Whatever is left open in Prefect of flow runs that several requests shared, once all of these have ended or
        # are in another flow run.
        over = await self._batches.over(SETTLED)
        if not over:
            return
        answered = {row.id for row in over if row.answered}
        closed = {row.id for row in over}
        for flow_run in await self._flow_runs_of_batches(over):
            kind, flow_run_id = _kind(flow_run), str(flow_run["id"])
            if kind == "RUNNING" and await self._dispatcher.end(flow_run_id):
                # Something in it does not come to an end though nobody waits for it: its worker says so to Prefect.
                closed.discard(str(flow_run["idempotency_key"]))
            elif kind not in TERMINAL:
                with suppress(PrefectRefused):
                    await self._prefect.set_state(flow_run_id, *_closing_batch(flow_run, answered))
        await self._batches.close(sorted(closed))

    async def _flow_runs_of_batches(self, batches: Sequence[Any]) -> list[dict[str, Any]]:
        # An answer of Prefect's may have been lost: then it is found by its key, for which Prefect reads all it has.
        known = [row.flow_run_id for row in batches if row.flow_run_id]
        unknown = [row.id for row in batches if not row.flow_run_id]
        return [*await self._prefect.flow_runs(known), *await self._prefect.flow_runs_of(unknown)]

    async def _expired_requests(self) -> None:
        table = schema.request
        waiting = table.c.state.in_(("needs-input", "awaiting-approval"))
        for row in await self._rows(sa.select(table).where(waiting, table.c.expires_at < now()).limit(100)):
            self._outbox.send(await self._store.write(partial(self._expire, row=row)))

    async def _expired_runs(self) -> None:
        # Requests that wait for their run: the oldest of each lane are the first whose time is over.
        table = schema.request
        for lane in Lane:
            queued = sa.and_(table.c.state == "queued", table.c.lane == lane.value)
            oldest = (
                sa.select(table.c.id).where(queued).order_by(table.c.created_at).limit(MOST_IDS).subquery()
            )
            over = (
                sa.select(schema.run.c.id, table.c.automation)
                .join(table, table.c.id == schema.run.c.request_id)
                .where(
                    table.c.id.in_(sa.select(oldest.c.id)),
                    table.c.expires_at < now(),
                    schema.run.c.state == "created",
                )
            )
            for row in await self._rows(over):
                try:
                    if not self._is_external(row.automation) or await self._is_withdrawn(row.id):
                        await self._ends.expire(row.id)
                except PrefectRefused as error:
                    logger.warning("run %s is not withdrawn: %s", row.id, error)
                finally:
                    self._withdrawn.discard(row.id)

    async def _is_withdrawn(self, run_id: str) -> bool:
        """Whether this run of an existing deployment will not start any more.

        It never tells us of its start. What Prefect still has scheduled is cancelled there; what got away meanwhile
        goes on, or is told as what it ended as.
        """
        flight = self._dispatcher.in_flight.get(run_id)
        known = flight.flow_run_id if flight else None
        found = await (self._prefect.flow_runs([known]) if known else self._prefect.flow_runs_of([run_id]))
        if not found:
            return True
        if _kind(found[0]) != "SCHEDULED":
            return False
        flow_run_id = str(found[0]["id"])
        self._withdrawn.add(run_id)  # from here on its being cancelled there is our own doing
        await self._prefect.set_state(flow_run_id, "CANCELLED", "Cancelled", EXPIRED, force=False)
        after = await self._prefect.flow_run(flow_run_id)
        # (Prefect notes a start time for what never ran, too.)
        return _kind(after) == "CANCELLED" and not after.get("run_count")

    async def _expire(self, conn: AsyncConnection, *, row: Any) -> list[Delivery]:
        if not await is_as_read(conn, row):
            return []  # answered since the row was read: what it waits for now has a time of its own
        if (row.asking or {}).get("kind") == approvals.KIND:
            await self._desk.expire(conn, row)
            return []
        reason = "not answered in time"
        await update_request(conn, row.id, where=(row.state,), state="expired", reason=reason, asking=None)
        await self._audit_expired(conn, row)
        if not row.route or (row.asking or {}).get("kind") == offers.KIND:
            return []  # an offer that nobody took was asked of nobody in particular
        text = sentence("asked-expired", command=row.automation)
        route = self._ledger.route_of(row)
        return await self._outbox.write(
            conn, f"request:{row.id}", [Reply(text=text)], route, message_id=row.message_id, first=99
        )

    async def _audit_expired(self, conn: AsyncConnection, row: Any) -> None:
        spec = self._catalogue().find(row.automation)
        if spec is None or spec.effect is not Effect.READ:
            offered = (row.asking or {}).get("kind") == offers.KIND
            await self._audit.append(
                conn,
                action=f"{'offer' if offered else 'run'}:{row.automation}",
                phase=Phase.OUTCOME,
                actor=await principal_name(conn, row.actor_id),
                subject=f"request:{row.id}",
                details={"state": "expired"},
            )

    async def _rows(self, query: Any) -> Sequence[Any]:
        async def fetch(conn: AsyncConnection) -> Sequence[Any]:
            return (await conn.execute(query)).all()

        return await self._store.read(fetch)


def _closing_state(row: Any) -> tuple[str, str]:
    return {
        "done": ("COMPLETED", "Completed"),
        "cancelled": ("CANCELLED", "Cancelled"),
        "lost": ("CRASHED", "Crashed"),
    }.get(row.outcome, ("CRASHED", "Crashed") if row.state == "lost" else ("FAILED", "Failed"))


def _closing_batch(flow_run: dict[str, Any], answered: AbstractSet[str]) -> tuple[str, str, str]:
    if flow_run.get("idempotency_key") in answered:
        return "COMPLETED", "Completed", "closed after its process had ended"
    if _kind(flow_run) == "RUNNING":
        return "CRASHED", "Crashed", "no sign of life from its process"
    return "CANCELLED", "Cancelled", "what it was asked is answered by other runs"


def _ended_after(when: datetime, run_id: str) -> sa.Select[Any]:
    table = schema.run
    later = sa.or_(table.c.ended_at > when, sa.and_(table.c.ended_at == when, table.c.id > run_id))
    settled = table.c.ended_at < now() - SETTLED
    ended = table.c.state.in_(("finished", "lost"))
    return (
        sa.select(table).where(later, settled, ended).order_by(table.c.ended_at, table.c.id).limit(MOST_IDS)
    )


def _age(flow_run: dict[str, Any]) -> timedelta:
    """How long it has been in its state."""
    try:
        return now() - datetime.fromisoformat(str(flow_run["state"]["timestamp"]))
    except (KeyError, TypeError, ValueError):
        return timedelta(0)


def _name(step: Callable[[], Awaitable[None]]) -> str:
    return str(getattr(step, "__name__", step))


def _kind(flow_run: dict[str, Any] | None) -> str:
    return str(((flow_run or {}).get("state") or {}).get("type", ""))


def _message(flow_run: dict[str, Any] | None) -> str:
    state = (flow_run or {}).get("state") or {}
    return str(state.get("message") or state.get("name") or "")[:500]


def _reports(artifacts: Sequence[dict[str, Any]]) -> str:
    return "\n\n".join(
        str(one["data"]) for one in artifacts if one.get("type") == "markdown" and one.get("data")
    )[:20_000]


__all__ = ["Reconciler"]
