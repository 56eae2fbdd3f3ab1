"""How approvals end: all to whom they were shown are told, and the audit knows; in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.messages.model import now
from parley.messages.outbox import Outbox
from parley.messages.watch import Watch
from parley.people import approvals
from parley.people.approvals import Ending, Word
from parley.people.audit import Audit, Phase
from parley.people.principals import Principal
from parley.people.sealing import Keyring
from parley.runs.approval_cards import Cards, Status
from parley.runs.approval_start import StartChecks
from parley.runs.approval_texts import clock, names, say, spoken
from parley.runs.requests import update_request
from parley.settings import File
from parley.store import schema
from parley.store.engine import after_commit

WAITS: Final = ("awaiting-approval",)


class ApprovalEnds(StartChecks):
    """Ends approvals, and says so."""

    def __init__(
        self,
        keyring: Keyring,
        outbox: Outbox,
        watch: Watch,
        audit: Audit,
        cards: Cards,
        *,
        file: Callable[[], File],
    ) -> None:
        super().__init__(keyring, file)
        self._outbox = outbox
        self._watch = watch
        self._audit = audit
        self._cards = cards

    async def expire(self, conn: AsyncConnection, request: Any) -> None:
        """The time of this request's approval is over; who asked is told, and every card says so."""
        row, request = await approvals.of_request(conn, request.id), await request_of(conn, request.id)
        if row is not None and request.state in WAITS and row.expires_at <= now():
            await self._end(conn, row, request, "expired", None, told="not-in-time")

    async def withdraw(self, conn: AsyncConnection, request_id: str, by: str) -> None:
        """The request was withdrawn, and is closed already: nobody has to look at it any more."""
        row = await approvals.of_request(conn, request_id)
        if row is not None and await approvals.close(conn, self._keyring, row, "withdrawn", by):
            request = await request_of(conn, request_id)
            await self._note(conn, row, request.automation, by, Phase.OUTCOME, state="withdrawn")
            await self._lock(conn, row, request, self._status("withdrawn", words=[Word(by)], at=now()))

    async def _end(
        self,
        conn: AsyncConnection,
        row: Any,
        request: Any,
        ending: Ending,
        by: Word | None,
        *,
        reason: str = "",
        told: str = "over",
    ) -> None:
        whose = spoken(by, "en") if by else None
        if not await approvals.close(conn, self._keyring, row, ending, whose, reason=reason):
            return
        state = "expired" if ending == "expired" else "refused"
        # The words of a person are kept sealed; the request says whose they were.
        why = {"refused": f"refused by {whose}", "expired": "not approved in time"}.get(
            ending, "what it runs has changed since it was asked"
        )
        actor = by.name if by else "-"
        await self._note(conn, row, request.automation, actor, Phase.OUTCOME, state=ending)
        # A request that waits for a newer approval goes on waiting for it.
        if (await approvals.of_request(conn, request.id)).id == row.id:
            await update_request(conn, request.id, where=WAITS, state=state, reason=why, asking=None)
            await self._note_request(conn, request.id, request.automation, request.actor or "-", state)
        key = "refused-why" if ending == "refused" and reason else ending
        status = self._status(key, words=[by] if by else [], at=now(), reason=reason)
        await self._lock(conn, row, request, status, told=told)
        after_commit(lambda: self._watch.notify(request.message_id))

    async def _lock(
        self, conn: AsyncConnection, row: Any, request: Any, status: Status, *, told: str = ""
    ) -> None:
        # What shows it was written since the row was read.
        row = await approvals.get(conn, row.id)
        deliveries = await self._cards.lock(conn, row, request.automation, status, told=told)
        after_commit(lambda: self._outbox.send(deliveries))

    @staticmethod
    def _status(key: str, *, words: Collection[Word], at: datetime, reason: str = "") -> Status:
        return lambda language, zone: say(
            key,
            language,
            names=names((spoken(one, language) for one in words), language),
            at=clock(at, zone),
            reason=reason,
        )

    async def _over(
        self, conn: AsyncConnection, row: Any, request: Any, who: Principal, language: str
    ) -> str:
        state = "expired" if row.state == "open" else row.state
        key = "granted-alone" if state == "granted" and row.alone else state
        at = clock(row.decided_at or row.expires_at, self.time_zone(who.time_zone))
        said = await approvals.words(conn, row.id, granted=state == "granted")
        voted = state in ("granted", "refused") and said
        by = names((spoken(one, language) for one in said.values()), language) if voted else row.decided_by
        outcome = say(key, language, names=by or "-", at=at)
        return say("over", language, command=request.automation, code=row.code, outcome=outcome)

    # -- the audit

    async def _note(
        self, conn: AsyncConnection, row: Any, command: str, actor: str, phase: Phase, **details: Any
    ) -> None:
        await self._audit.append(
            conn,
            action=f"approval:{command}",
            phase=phase,
            actor=actor,
            subject=f"request:{row.request_id}",
            details={"approval": row.id, "code": row.code, "needed": row.needed, **details},
        )

    async def _note_request(
        self, conn: AsyncConnection, request_id: str, command: str, actor: str, state: str
    ) -> None:
        await self._audit.append(
            conn,
            action=f"run:{command}",
            phase=Phase.OUTCOME,
            actor=actor,
            subject=f"request:{request_id}",
            details={"state": state},
        )


async def request_of(conn: AsyncConnection, request_id: str) -> Any:
    """The row of a request, with the name of who asked as `actor`."""
    table, who = schema.request, schema.principal
    query = (
        sa.select(table, who.c.name.label("actor"))
        .outerjoin(who, who.c.id == table.c.actor_id)
        .where(table.c.id == request_id)
    )
    return (await conn.execute(query)).one()


__all__ = ["WAITS", "ApprovalEnds", "request_of"]
