"""How runs end that do not end by themselves: refused, expired, cancelled, out of time, lost with their process.

What was never started may be handed over again. What was started and whose process is gone is run again only where
that is declared safe; the people on duty are asked about any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.link.calls import RunEnded
from parley.messages.model import Button, Reply, now
from parley.people import approvals, principals
from parley.people.sealing import Keyring
from parley.runs import dead_letters, failures
from parley.runs.batches import alive_in
from parley.runs.catalogue import AutomationSpec, Catalogue, Effect, Lane
from parley.runs.closing import After, Closing, run_and_request, scalar, set_run
from parley.runs.dispatch import Dispatcher
from parley.runs.requests import QueuedRun, insert_run, open_values, short, update_request
from parley.runs.sentences import sentence
from parley.store import schema
from parley.store.engine import Store

MOST_VAIN = 5
"""Times that a process may die, or Prefect refuse, before the start of one run."""
MOST_RUNS = 3
"""Runs that one request gets at the most when processes die under it and it is declared idempotent."""
EXPIRED = "its time was over before it could start"
"""Why a request expired that waited for its run."""


class Ends:
    """Ends runs; each method may be called twice."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        dispatcher: Dispatcher,
        closing: Closing,
        *,
        catalogue: Callable[[], Catalogue],
        language: Callable[[], str],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._dispatcher = dispatcher
        self._closing = closing
        self._catalogue = catalogue
        self._default_language = language

    async def refuse(self, run_id: str, reason: str) -> None:
        """End a run that may not start; the person is told why."""

        async def close(conn: AsyncConnection, after: After) -> None:
            row = await run_and_request(conn, run_id)
            if row is not None and row.run_state in ("created", "suspended"):
                await self._closing.close(
                    conn, after, row, failed=reason, kind="arguments", state="refused", text=reason
                )

        await self._closing.apply(close)

    async def fail(self, run_id: str, reason: str) -> None:
        """End a run that could not be started at all."""

        async def close(conn: AsyncConnection, after: After) -> None:
            row = await run_and_request(conn, run_id)
            if row is not None and row.run_state == "created":
                await self._closing.close(conn, after, row, failed=reason)
                await self._record(conn, row, "run", reason)

        await self._closing.apply(close)

    async def expire(self, run_id: str) -> bool:
        """End a run whose time was over before it could start; the person is told. Whether it was so."""
        expired: list[str] = []

        async def close(conn: AsyncConnection, after: After) -> None:
            expired.clear()
            row = await run_and_request(conn, run_id)
            if row is None or row.run_state != "created" or row.expires_at >= now():
                return
            text = sentence(
                "run-expired", await self._closing.language(conn, row.actor_id), command=row.automation
            )
            await self._closing.close(
                conn, after, row, failed=EXPIRED, kind="arguments", state="expired", text=text
            )
            await self._record(conn, row, "expired", EXPIRED)
            expired.append(run_id)

        await self._closing.apply(close)
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

        async def close(conn: AsyncConnection, after: After) -> None:
            row = await run_and_request(conn, run_id)
            if row is None or row.run_state not in ("created", "started"):
                return
            await set_run(conn, run_id, flow_run_id=flow_run_id)
            reply = Reply(text=report) if report else None
            await self._closing.close(
                conn, after, row, failed=None if done else message or "failed", reply=reply
            )

        await self._closing.apply(close)

    async def cancelled(self, run_id: str) -> None:
        """End a run because a person asked for it."""

        async def close(conn: AsyncConnection, after: After) -> None:
            row = await run_and_request(conn, run_id)
            if row is not None and row.run_state in ("created", "started", "suspended"):
                await self._cancelled(conn, after, row)

        await self._closing.apply(close)

    async def _cancelled(self, conn: AsyncConnection, after: After, row: Any) -> None:
        text = sentence("cancelled", await self._closing.language(conn, row.actor_id), command=row.automation)
        await self._closing.close(
            conn, after, row, failed=text, kind="arguments", state="cancelled", text=text
        )

    async def suspended_ended(self, run_id: str, reason: str) -> None:
        """A suspended run was not resumed in time, or was given up in Prefect."""

        async def close(conn: AsyncConnection, after: After) -> None:
            row = await run_and_request(conn, run_id)
            if row is not None and row.run_state == "suspended":
                await self._closing.close(conn, after, row, failed=reason or "it was not resumed")

        await self._closing.apply(close)

    async def run_ended(self, call: RunEnded) -> None:
        """What a worker says of a flow run's end; of one that is not ours nothing becomes."""
        known = self._dispatcher.runs_of(call.flow_run_id)
        # By far the most were closed before: then nothing is alive in it.
        alive = await self._store.read(lambda conn: alive_in(conn, call.flow_run_id, known))
        for run_id in known:
            if run_id not in alive:
                self._dispatcher.ended(run_id)
        for run_id, carrier in alive.items():
            # Started in another flow run, or handed over with another one since: this one's end is not its own.
            flight = self._dispatcher.in_flight.get(run_id)
            if (carrier or (flight and flight.flow_run_id) or call.flow_run_id) == call.flow_run_id:
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
        async def close(conn: AsyncConnection, after: After) -> None:
            row = await run_and_request(conn, run_id)
            if row is not None and row.run_state in ("created", "started"):
                text = sentence(
                    "timed-out", await self._closing.language(conn, row.actor_id), command=row.automation
                )
                await self._closing.close(conn, after, row, failed=text, kind="timeout", text=text)

        await self._closing.apply(close)

    async def _begun_in_vain(self, run_id: str, reason: str) -> None:
        # Nothing was started, so it may be ordered again; but what always dies before its start is told at last.
        self._closing.vain[run_id] += 1
        if self._closing.vain[run_id] >= MOST_VAIN:
            await self.fail(run_id, reason)
        else:
            self._dispatcher.order_again(run_id)

    async def ordered_in_vain(self, run_id: str) -> None:
        """An order that went to a worker which is gone: again, unless its start was granted meanwhile."""
        row = await self._store.read(lambda conn: run_and_request(conn, run_id))
        if row is not None and row.run_state == "created":
            self._dispatcher.order_again(run_id)

    async def is_unstarted(self, run_id: str) -> bool:
        """Whether no start of this run was granted yet, and it has not ended."""
        row = await self._store.read(lambda conn: run_and_request(conn, run_id))
        return row is not None and row.run_state == "created"

    async def _given_back(self, run_id: str, reason: str) -> None:
        # It did not begin there. When it is started by now, then by another process, which tells its end itself.
        row = await self._store.read(lambda conn: run_and_request(conn, run_id))
        if row is not None and row.run_state == "created":
            await self._dispatcher.given_back(run_id, reason)
        elif row is None or row.run_state != "started":
            self._dispatcher.ended(run_id)

    async def process_ended(self, run_id: str, reason: str, *, crashed: bool) -> None:
        """The process that had this run is done with it. What was not started may be ordered again."""
        row = await self._store.read(lambda conn: run_and_request(conn, run_id))
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
            await self._closing.apply(lambda conn, after: self._engine_failed(conn, after, run_id, reason))

    async def _engine_failed(self, conn: AsyncConnection, after: After, run_id: str, reason: str) -> None:
        row = await run_and_request(conn, run_id)
        if row is not None and row.run_state == "started":
            await self._closing.close(conn, after, row, failed=reason)

    async def lost(self, run_id: str, reason: str) -> None:
        """The process is gone in the middle. A new run only where that is declared safe; else people are asked."""
        await self._closing.apply(lambda conn, after: self._lost(conn, after, run_id, reason))

    async def silent(self, run_id: str) -> bool:
        """The lease of this run is over: it is lost, unless it has spoken since. Returns whether it is."""
        ended = False
        table = schema.run
        over = sa.select(table.c.cancel_requested_at).where(
            table.c.id == run_id, table.c.state == "started", table.c.lease_until < now()
        )

        async def end(conn: AsyncConnection, after: After) -> None:
            nonlocal ended
            row = (await conn.execute(over)).first()
            ended = row is not None and row.cancel_requested_at is None
            if row is not None:
                await self._lost(conn, after, run_id, "")

        await self._closing.apply(end)
        return ended

    async def _lost(self, conn: AsyncConnection, after: After, run_id: str, reason: str) -> None:
        row = await run_and_request(conn, run_id)
        if row is None or row.run_state != "started":
            return
        if row.cancel_requested_at is not None:
            # Its end was asked for: how it came to it does not matter, and it is certainly not run again.
            await self._cancelled(conn, after, row)
            return
        spec = self._catalogue().find(row.automation)
        if spec and spec.idempotent and await self._may_run_again(conn, row.id):
            await self._closing.drop_questions(conn, after, run_id)
            await set_run(conn, run_id, state="lost", outcome="lost", ended_at=now(), lease_until=None)
            await update_request(conn, row.id, state="queued")
            after.ended.append(run_id)
            after.queued.append(await self._one_more(conn, row, spec))
            return
        text = sentence("lost", await self._closing.language(conn, row.actor_id), command=row.automation)
        doubtful = spec is None or spec.effect is not Effect.READ
        letter_id = await self._record(conn, row, "run", reason or text, doubtful=doubtful)
        asked = failures.Notice(
            source=f"lost:{run_id}",
            key="lost-duty" if doubtful else "lost-duty-look",
            values={"command": row.automation, "id": short(row.id)},
            buttons=_decisions(letter_id, self._default_language()),
        )
        await self._closing.close(
            conn, after, row, failed=reason or text, run_state="lost", text=text, duty=asked
        )

    async def _may_run_again(self, conn: AsyncConnection, request_id: str) -> bool:
        # An approval is for one run: of what was interrupted people decide.
        approved = await approvals.of_request(conn, request_id) is not None
        return not approved and await self._runs_of(conn, request_id) < MOST_RUNS

    async def _runs_of(self, conn: AsyncConnection, request_id: str) -> int:
        query = (
            sa.select(sa.func.count()).select_from(schema.run).where(schema.run.c.request_id == request_id)
        )
        return int(await scalar(conn, query))

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


def _decisions(letter_id: str, language: str) -> tuple[Button, ...]:
    """What the people on duty press: the question above them says what may have happened."""
    code = short(letter_id)
    return (
        Button(label=sentence("run-again", language), value=f"/dlq replay {code} confirm", style="primary"),
        Button(label=sentence("close", language), value=f"/dlq discard {code}"),
    )


__all__ = ["EXPIRED", "Ends"]
