"""Somebody leaves: what they asked for is withdrawn, and they are neither counted nor told any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.errors import SealError
from parley.messages.model import now
from parley.messages.outbox import Outbox
from parley.messages.watch import Watch
from parley.people import approvals
from parley.people.approval_rules import Terms
from parley.people.approvals import Word
from parley.people.approvers import Approver, voices
from parley.people.audit import Audit, Phase
from parley.people.sealing import Keyring
from parley.runs.approval_cards import Cards
from parley.runs.approval_ends import ApprovalEnds, request_of
from parley.runs.approval_texts import say
from parley.runs.catalogue import Catalogue
from parley.runs.requests import open_values
from parley.settings import File
from parley.store import schema
from parley.store.engine import after_commit


class ApprovalLeaving(ApprovalEnds):
    """Takes who leaves out of what waits for an approval."""

    def __init__(
        self,
        keyring: Keyring,
        outbox: Outbox,
        watch: Watch,
        audit: Audit,
        cards: Cards,
        *,
        file: Callable[[], File],
        catalogue: Callable[[], Catalogue],
    ) -> None:
        super().__init__(keyring, outbox, watch, audit, cards, file=file)
        self._catalogue = catalogue

    async def leave(self, conn: AsyncConnection, principal_id: str, name: str) -> None:
        """Who has this id leaves, in the caller's transaction; to be called while their accounts are still known.

        What they asked for can no longer be approved, and its cards say so. What others asked for is no longer shown to
        them: their own cards offer nothing any more, and are not told how it ends.
        """
        places = await self._cards.places_of(conn, principal_id, name)
        for row in await _open_ones(conn):
            request = await request_of(conn, row.request_id)
            if request.actor_id == principal_id:
                await self._leave_behind(conn, row, request, name)
                continue
            closed = await self._cards.close(
                conn, row, places, lambda language, _zone: say("not-yours", language)
            )
            after_commit(lambda sent=closed: self._outbox.send(sent))  # type: ignore[misc]
            if await approvals.forget_word(conn, row.id, principal_id):
                await self._count_again(conn, row, request, name)

    async def _leave_behind(self, conn: AsyncConnection, row: Any, request: Any, name: str) -> None:
        if not await approvals.close(conn, self._keyring, row, "withdrawn", name):
            return
        await self._note(conn, row, request.automation, name, Phase.OUTCOME, state="withdrawn")
        await self._lock(conn, row, request, self._status("left", words=[Word(name)], at=now()))
        after_commit(lambda: self._watch.notify(request.message_id))

    async def _count_again(self, conn: AsyncConnection, row: Any, request: Any, name: str) -> None:
        able, needed = await self._able(conn, row, request)
        count = voices((await approvals.words(conn, row.id)).keys(), able)

        def status(language: str, _zone: str) -> str:
            return say("counts-no-more", language, count=count, needed=needed, names=name)

        fresh = await approvals.get(conn, row.id)
        deliveries = await self._cards.progress(conn, fresh, status)
        after_commit(lambda: self._outbox.send(deliveries))

    async def _able(
        self, conn: AsyncConnection, row: Any, request: Any
    ) -> tuple[Mapping[str, Approver], int]:
        spec = self._catalogue().find(request.automation)
        try:
            values = open_values(self._keyring, request) if spec else {}
        except SealError:
            spec = None
        if spec is None:
            return {}, int(row.needed)  # it can be approved by nobody any more, and ends by itself
        terms = self.terms(spec, values) or Terms()
        able = await self.approvers.of(conn, spec, terms, excluded=row.excluded)
        return able, max(int(row.needed), terms.needed)


async def _open_ones(conn: AsyncConnection) -> list[Any]:
    table = schema.approval
    query = sa.select(table).where(table.c.state == "open").order_by(table.c.id).with_for_update()
    return list((await conn.execute(query)).all())


__all__ = ["ApprovalLeaving"]
