"""Privileged actions of which the audit has the intent and not the outcome: what a crash left is brought to its end.

An effect that is only in the store is committed with both rows, so nothing of it is ever open. What is outside of it
(a run, the end of a run, a change of keys) is open while it is under way. After a crash its outcome is what the store
knows of it; of what the store knows nothing it is `unknown`: then people have to look.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import ParleyError
from parley.messages.model import now
from parley.people.audit import Audit, Phase
from parley.runs.requests import OPEN
from parley.store import schema
from parley.store.engine import Store

logger = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two looks."""

OTHERS: Final = timedelta(hours=1)
"""After which an action is taken for given up that another hub of the same store may have begun."""

UNKNOWN: Final = "unknown"

_REQUEST: Final = "request:"
_MOST: Final = 500


class OpenActions:
    """Writes the outcomes that nobody is left to write; `run` until cancelled."""

    def __init__(self, store: Store, log: Audit) -> None:
        self._store = store
        self._log = log
        self._began = now()

    async def run(self) -> None:
        """Look at once, and then every minute."""
        while True:
            try:
                await self.settle()
            except ParleyError as error:
                logger.warning("open actions of the audit: %s", error)
            except Exception:
                logger.exception("open actions of the audit")
            await asyncio.sleep(EVERY)

    async def settle(self) -> int:
        """Write the outcome of each action that is over or was given up; how many. Raises `StoreUnavailable`."""
        settled = after = 0
        while rows := await self._store.read(partial(self._over, after=after)):
            for row in rows:
                settled += await self._store.write(partial(self._close, row=row))
            after = rows[-1].sequence
        return settled

    async def _over(self, conn: AsyncConnection, *, after: int) -> Any:
        given_up = (
            schema.audit_open.c.at < self._began
            if self._store.backend == "sqlite"
            else schema.audit_open.c.at < now() - OTHERS
        )
        return (await conn.execute(_query(given_up, after))).all()

    async def _close(self, conn: AsyncConnection, *, row: Any) -> int:
        table = schema.audit_open
        if (await conn.execute(sa.select(1).where(table.c.sequence == row.sequence))).first() is None:
            return 0
        await self._log.append(
            conn,
            action=row.action,
            phase=Phase.OUTCOME,
            actor=row.actor,
            subject=row.subject or None,
            details={"state": row.state or UNKNOWN, "settled": "by what the store knows"},
        )
        logger.warning(
            "audit row %s (%s): its outcome was not written; %s", row.sequence, row.action, row.state
        )
        return 1


def _query(given_up: sa.ColumnElement[bool], after: int) -> Any:
    opened, request = schema.audit_open, schema.request
    is_request = opened.c.subject.startswith(_REQUEST, autoescape=True)
    same = sa.and_(is_request, request.c.id == sa.func.substr(opened.c.subject, len(_REQUEST) + 1))
    # What is about a request is over with it. One that retention has forgotten had ended long before.
    ended = sa.and_(is_request, sa.or_(request.c.id.is_(None), request.c.state.not_in(OPEN)))
    return (
        sa.select(opened, request.c.state)
        .outerjoin(request, same)
        .where(opened.c.sequence > after, sa.or_(ended, sa.and_(~is_request, given_up)))
        .order_by(opened.c.sequence)
        .limit(_MOST)
    )


__all__ = ["UNKNOWN", "OpenActions"]
