"""Batches: one flow run that answers several requests of one automation.

Each request keeps a run of its own, with its start, lease, end and answer; a batch only says that they share a flow
run. Nothing is decided by it: where a batch comes to nothing, its runs are handed over again, one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.runs.requests import HAS_NO_FLOW_RUN
from parley.store import schema
from parley.store.ages import long_ago
from parley.store.engine import Store
from parley.store.ids import new_id

ALIVE: Final = ("created", "started", "suspended")
"""States of a run that has not ended."""

MOST_AT_ONCE: Final = 200
"""Batches that are looked at together."""


class Batches:
    """What the store knows of batches. Each method raises `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def form(self, automation: str, run_ids: Sequence[str]) -> str:
        """Put these runs into a new batch, out of any that they were in; its id, Prefect's idempotency key."""
        batch_id = new_id()
        batch, run = schema.batch, schema.run

        async def write(conn: AsyncConnection) -> None:
            values = {"id": batch_id, "automation": automation, "state": "open", "created_at": now()}
            await conn.execute(sa.insert(batch).values(values))
            theirs = sa.update(run).where(run.c.id.in_(run_ids), run.c.state == "created")
            await conn.execute(theirs.values(batch_id=batch_id))

        await self._store.write(write)
        return batch_id

    async def made(self, batch_id: str, flow_run_id: str) -> None:
        """Prefect made the flow run of this batch."""
        table = schema.batch
        change = sa.update(table).where(table.c.id == batch_id).values(flow_run_id=flow_run_id)

        async def write(conn: AsyncConnection) -> None:
            await conn.execute(change)

        await self._store.write(write)

    async def alone_in(self, run_id: str, batch_id: str) -> str | None:
        """The batch's flow run when no run but this one is alive in it, so that it may be ended with it."""
        run, batch = schema.run, schema.batch
        others = sa.exists().where(
            run.c.batch_id == batch_id,
            run.c.id != run_id,
            run.c.state.in_(ALIVE),
            HAS_NO_FLOW_RUN,
        )
        query = sa.select(batch.c.flow_run_id).where(batch.c.id == batch_id, ~others)

        async def fetch(conn: AsyncConnection) -> str | None:
            found: str | None = (await conn.execute(query)).scalar()
            return found

        return await self._store.read(fetch)

    async def over(self, since: timedelta) -> Sequence[Any]:
        """Open batches in which nothing is alive for that long, the oldest first. `answered`: one was, at least."""
        run, batch = schema.run, schema.batch
        theirs = sa.and_(run.c.batch_id == batch.c.id, HAS_NO_FLOW_RUN)
        alive = sa.exists().where(theirs, sa.or_(run.c.state.in_(ALIVE), ~long_ago(run.c.ended_at, since)))
        answered = sa.exists().where(theirs, run.c.outcome == "done")
        query = (
            sa.select(batch, answered.label("answered"))
            .where(batch.c.state == "open", long_ago(batch.c.created_at, since), ~alive)
            .order_by(batch.c.created_at)
            .limit(MOST_AT_ONCE)
        )

        async def fetch(conn: AsyncConnection) -> Sequence[Any]:
            return (await conn.execute(query)).all()

        return await self._store.read(fetch)

    async def close(self, batch_ids: Sequence[str]) -> None:
        """Nothing is left to do about these."""
        table = schema.batch
        change = sa.update(table).where(table.c.id.in_(batch_ids)).values(state="closed")

        async def write(conn: AsyncConnection) -> None:
            await conn.execute(change)

        await self._store.write(write)


async def alive_in(
    conn: AsyncConnection, flow_run_id: str, known: Collection[str] = ()
) -> dict[str, str | None]:
    """Our runs of this flow run that have not ended, those of its batch among them, and of the `known` ones.

    Each with the flow run in which it was started, None where it was not.
    """
    asked = {"flow_run": flow_run_id, "known": list(known)}
    return {row.id: row.carrier for row in await conn.execute(_alive(), asked)}


@cache
def _alive() -> sa.Select[Any]:
    run, batch = schema.run, schema.batch
    here: sa.BindParameter[str] = sa.bindparam("flow_run")
    shared = sa.select(batch.c.id).where(batch.c.flow_run_id == here).scalar_subquery()
    together = sa.and_(run.c.batch_id == shared, HAS_NO_FLOW_RUN)
    known = run.c.id.in_(sa.bindparam("known", expanding=True))
    carrier = sa.case(
        (run.c.state == "created", None), else_=sa.func.coalesce(run.c.flow_run_id, batch.c.flow_run_id)
    )
    return (
        sa.select(run.c.id, carrier.label("carrier"))
        .outerjoin(batch, batch.c.id == run.c.batch_id)
        .where(sa.or_(run.c.flow_run_id == here, together, known))
        .where(run.c.state.in_(ALIVE))
    )


__all__ = ["Batches", "alive_in"]
