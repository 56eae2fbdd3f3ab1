"""Cancelling: asked for in the transaction that answers the person, carried out after it, again until it is done."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.messages.model import now
from parley.people.audit import Audit, Phase
from parley.runs.approving import ApprovalDesk
from parley.runs.batches import Batches
from parley.runs.dispatch import Dispatcher
from parley.runs.ends import Ends
from parley.runs.requests import update_request
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)


class Canceller:
    """Ends requests that people no longer want."""

    def __init__(
        self,
        store: Store,
        audit: Audit,
        ends: Ends,
        dispatcher: Dispatcher,
        batches: Batches,
        desk: ApprovalDesk,
    ) -> None:
        self._desk = desk
        self._store = store
        self._audit = audit
        self._ends = ends
        self._dispatcher = dispatcher
        self._batches = batches

    async def ask(self, conn: AsyncConnection, request_id: str, by: str) -> None:
        """Note within a write that this request is to end: from now on no start of it is granted."""
        await self._note(conn, request_id, by, Phase.INTENT)
        row = (await conn.execute(_latest(request_id))).first()
        if row is None:
            reason = "cancelled by the person who asked"
            await update_request(conn, request_id, state="cancelled", reason=reason, asking=None)
            await self._note(conn, request_id, by, Phase.OUTCOME)
            await self._desk.withdraw(conn, request_id, by)
        elif row.cancel_requested_at is None:
            table = schema.run
            asked = sa.update(table).where(table.c.id == row.id).values(cancel_requested_at=now())
            await conn.execute(asked)

    async def carry_out(self, request_id: str, by: str) -> None:
        """After `ask` is committed: close it at once where nothing runs, else have its process ended.

        What fails here is tried again by the reconciler.
        """

        async def fetch(conn: AsyncConnection) -> Any:
            return (await conn.execute(_latest(request_id))).first()

        try:
            row = await self._store.read(fetch)
            if row is not None and row.state not in ("finished", "lost"):
                await self.end(row, f"cancelled by {by}")
        except ParleyError as error:
            logger.warning("request %s is not cancelled yet: %s", request_id, error)

    async def end(self, row: Any, reason: str) -> None:
        """End the run of this row. Raises what Prefect or the store does."""
        flight = self._dispatcher.in_flight.get(row.id)
        flow_run_id = row.flow_run_id or (flight.flow_run_id if flight else None)
        batch_id = row.batch_id if not row.flow_run_id else None
        if flight and row.state == "created":
            batch_id = flight.batch_id
        if batch_id:
            # The others go on. This one is closed, and whatever its code still does is heard no more; it only reads.
            flow_run_id = await self._batches.alone_in(row.id, batch_id)
        if batch_id or row.state in ("created", "suspended"):
            await self._ends.cancelled(row.id)
        if flow_run_id:
            await self._dispatcher.cancel(flow_run_id, reason)

    async def _note(self, conn: AsyncConnection, request_id: str, by: str, phase: Phase) -> None:
        await self._audit.append(
            conn, action="cancel", phase=phase, actor=by, subject=f"request:{request_id}"
        )


def _latest(request_id: str) -> sa.Select[Any]:
    table = schema.run
    return (
        sa.select(table).where(table.c.request_id == request_id).order_by(table.c.created_at.desc()).limit(1)
    )


__all__ = ["Canceller"]
