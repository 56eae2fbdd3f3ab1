"""Approving: a request waits for the people who may let it run, and each word of theirs is counted once.

Whatever a word leads to (the vote, the end of the approval, the run that it releases, the cards that are locked, the
rows of the audit) is in the caller's transaction. So a hub that dies leaves all of it or nothing, and of two votes that
come at once one is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from parley.language.characters import visible
from parley.messages.model import Assurance, now
from parley.messages.outbox import Outbox
from parley.messages.watch import Watch
from parley.people import approvals, freezes
from parley.people.approval_rules import Terms, terms_for
from parley.people.approvals import Ending, NewApproval
from parley.people.approvers import Approver, Approvers, voices
from parley.people.audit import Audit, Phase
from parley.people.principals import Principal, Role
from parley.people.rights import Rights
from parley.people.sealing import Keyring
from parley.runs.approval_cards import Asked, Cards, Status
from parley.runs.approval_texts import clock, names, say
from parley.runs.catalogue import AutomationSpec, Catalogue, Lane
from parley.runs.requests import QueuedRun, insert_run, open_values, short, update_request
from parley.settings import File
from parley.store import schema
from parley.store.engine import after_commit

LONGEST_REASON: Final = 300

_WAITS: Final = ("awaiting-approval",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """Who says yes or no. `typed`: in words, not with a button; `acting`: somebody speaks for them."""

    principal: Principal
    assurance: Assurance
    language: str
    place: str | None
    typed: bool
    acting: bool = False


@dataclass(slots=True)
class Said:
    """What whoever voted is told (nothing: the card shows it), and the run that is released."""

    text: str = ""
    queued: list[QueuedRun] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    """Why something is not started: as it is kept, and as who asks is told, with the words of who locked it."""

    kept: str
    told: str = field(repr=False)


class ApprovalDesk:
    """Opens approvals, counts words, ends them."""

    def __init__(
        self,
        keyring: Keyring,
        outbox: Outbox,
        watch: Watch,
        audit: Audit,
        rights: Rights,
        cards: Cards,
        *,
        file: Callable[[], File],
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._keyring = keyring
        self._outbox = outbox
        self._watch = watch
        self._audit = audit
        self._rights = rights
        self._cards = cards
        self._file = file
        self._catalogue = catalogue
        self.approvers: Approvers = Approvers(file)

    def terms(self, spec: AutomationSpec, values: Mapping[str, Any]) -> Terms | None:
        """What has to be approved before this runs; None when nothing has to be."""
        return terms_for(self._file().approvals, spec, values)

    def time_zone(self, of: str | None) -> str:
        """Somebody's time zone, or the owner's."""
        return of or self._file().owner.time_zone

    # -- asking

    async def ask(self, conn: AsyncConnection, asked: Asked, actor: Principal) -> str | None:
        """Have a request that is `awaiting-approval` wait for it, and tell whom it concerns.

        None; or, when nobody could approve it, why it is refused, for the caller to tell.
        """
        excluded = {actor.id, *asked.acting}
        able = await self.approvers.of(conn, asked.spec, asked.terms, excluded=excluded)
        there = voices(able.keys(), able)
        alone = there == 0 and await self._is_alone(conn, asked, actor)
        if there < asked.terms.needed and not alone:
            return await self._refuse_at_once(conn, asked, there)
        row = await approvals.insert(
            conn,
            NewApproval(
                request_id=asked.request_id,
                digest=approvals.bound_to(self._keyring, asked.spec, asked.values, actor.id),
                needed=1 if alone else asked.terms.needed,
                excluded=excluded,
                alone=alone,
                expires_at=now() + asked.terms.within,
            ),
        )
        await update_request(conn, asked.request_id, where=_WAITS, expires_at=row.expires_at)
        await self._note(conn, row, asked.spec.command, actor.name, Phase.INTENT, state="asked")
        deliveries = await self._cards.show(conn, row, asked, able)
        after_commit(lambda: self._outbox.send(deliveries))
        return None

    async def _is_alone(self, conn: AsyncConnection, asked: Asked, actor: Principal) -> bool:
        # Nobody is there to look at what the owner asks for; the owner is asked twice. Not when it was not the owner.
        if actor.role is not Role.OWNER or asked.acting:
            return False
        return actor.id in await self.approvers.of(conn, asked.spec, asked.terms)

    async def _refuse_at_once(self, conn: AsyncConnection, asked: Asked, there: int) -> str:
        reason = say(
            "nobody", asked.language, command=asked.spec.command, needed=asked.terms.needed, there=there
        )
        if await update_request(
            conn, asked.request_id, where=_WAITS, state="refused", reason=reason, asking=None
        ):
            await self._note_request(conn, asked.request_id, asked.spec.command, asked.actor, "refused")
        return reason

    # -- voting

    async def vote(
        self, conn: AsyncConnection, code: str, voter: Voter, *, granted: bool, reason: str = ""
    ) -> Said:
        """Count a yes or a no to what has this code."""
        row = await approvals.by_code(conn, code)
        if row is None:
            return Said(say("unknown", voter.language, code=visible(code, 12)))
        request = await _request(conn, row.request_id)
        if row.state != "open" or row.expires_at <= now() or request.state not in _WAITS:
            return Said(self._over(row, request, voter))
        if voter.acting or voter.assurance is not Assurance.VERIFIED:
            return Said(say("unproven", voter.language))
        spec, values = self._catalogue().find(request.automation), open_values(self._keyring, request)
        if spec is None or not approvals.is_for(self._keyring, row, spec, values, request.actor_id):
            await self._end(conn, row, request, "void", None, told="changed")
            return Said(say("changed", voter.language, command=request.automation))
        terms = self.terms(spec, values) or Terms()
        able = await self.approvers.of(conn, spec, terms, excluded=row.excluded)
        denied = await self._may_not(conn, row, request, spec, terms, voter, able, granted=granted)
        if denied:
            return Said(denied)
        return await (
            self._yes(conn, row, request, spec, values, terms, voter, able)
            if granted
            else self._no(conn, row, request, voter, visible(reason.strip(), LONGEST_REASON))
        )

    async def _may_not(
        self,
        conn: AsyncConnection,
        row: Any,
        request: Any,
        spec: AutomationSpec,
        terms: Terms,
        voter: Voter,
        able: Mapping[str, Approver],
        *,
        granted: bool,
    ) -> str | None:
        """Why this person's word does not count here; None when it does."""
        who, language = voter.principal, voter.language
        if granted and (frozen := await self.frozen(conn, spec, language)):
            return frozen.told
        if row.alone and who.id == request.actor_id and not able:
            return None if voter.typed else say("alone-typed", language, code=row.code)
        if who.id in row.excluded:
            return say("own", language, request=short(request.id))
        if who.id not in able:
            others = names((one.name for one in able.values()), language)
            return say("may-not", language, who=others) if others else say("may-not-any", language)
        by_role = able[who.id].own and not (terms.roles or terms.people)
        if by_role and not self._rights.may_approve(who, spec.command, place=voter.place):
            return say("may-not-any", language)  # their role approves, and not from here, or not now
        return None

    async def _no(self, conn: AsyncConnection, row: Any, request: Any, voter: Voter, reason: str) -> Said:
        await approvals.vote(conn, row.id, voter.principal.id, granted=False)
        await self._note_vote(conn, row, request, voter, granted=False)
        await self._end(conn, row, request, "refused", voter.principal.name, reason=reason)
        text = say(
            "ended", voter.language, command=request.automation, name=request.actor or "-", code=row.code
        )
        return Said(text if voter.typed else "")

    async def _yes(
        self,
        conn: AsyncConnection,
        row: Any,
        request: Any,
        spec: AutomationSpec,
        values: Mapping[str, Any],
        terms: Terms,
        voter: Voter,
        able: Mapping[str, Approver],
    ) -> Said:
        if not await approvals.vote(conn, row.id, voter.principal.id, granted=True):
            return Said(say("counted-before", voter.language, code=row.code))
        await self._note_vote(conn, row, request, voter, granted=True)
        yeses = await approvals.yeses(conn, row.id)
        needed = max(row.needed, 1 if row.alone else terms.needed)
        count = 1 if row.alone and not able else voices(yeses.keys(), able)
        if count >= needed:
            return await self._release(conn, row, request, spec, values, voter)
        said = [name for id_, name in yeses.items() if id_ in able]

        def status(language: str, _zone: str) -> str:
            return say("progress", language, count=count, needed=needed, names=names(said, language))

        deliveries = await self._cards.progress(conn, row, count, status)
        after_commit(lambda: self._outbox.send(deliveries))
        text = say(
            "counted",
            voter.language,
            count=count,
            needed=needed,
            command=request.automation,
            code=row.code,
        )
        return Said(text if voter.typed else "")

    async def _release(
        self,
        conn: AsyncConnection,
        row: Any,
        request: Any,
        spec: AutomationSpec,
        values: Mapping[str, Any],
        voter: Voter,
    ) -> Said:
        yeses = list((await approvals.yeses(conn, row.id)).values())
        at = now()
        await approvals.close(conn, self._keyring, row, "granted", ", ".join(yeses), at=at)
        released = await update_request(
            conn,
            request.id,
            where=_WAITS,
            state="queued",
            queued_at=at,
            asking=None,
            expires_at=at + timedelta(seconds=self._file().limits.message_age),
        )
        if not released:
            raise RuntimeError("a request that waits was not there any more.")  # within one transaction it is
        run_id = await insert_run(conn, request.id)
        more = {"run": run_id} | ({"no_second_person": True} if row.alone else {})
        await self._note(
            conn, row, spec.command, voter.principal.name, Phase.OUTCOME, state="granted", **more
        )
        key = "granted-alone" if row.alone else "granted"
        await self._lock(conn, row, request, self._status(key, names=yeses, at=at))
        after_commit(lambda: self._watch.notify(request.message_id))
        queued = QueuedRun(
            run_id=run_id,
            request_id=request.id,
            message_id=request.message_id,
            automation=spec.command,
            values=values,
            actor=request.actor or "-",
            lane=Lane(request.lane),
        )
        key = "let-go-alone" if row.alone else "let-go"
        text = say(key, voter.language, command=spec.command, name=request.actor or "-", code=row.code)
        return Said(text if voter.typed and not row.alone else "", [queued])

    # -- ending without a run

    async def expire(self, conn: AsyncConnection, request: Any) -> None:
        """The time of this request's approval is over; who asked is told, and every card says so."""
        row, request = await approvals.of_request(conn, request.id), await _request(conn, request.id)
        if row is not None and request.state in _WAITS and row.expires_at <= now():
            await self._end(conn, row, request, "expired", None, told="not-in-time")

    async def withdraw(self, conn: AsyncConnection, request_id: str, by: str) -> None:
        """The request was withdrawn, and is closed already: nobody has to look at it any more."""
        row = await approvals.of_request(conn, request_id)
        if row is not None and await approvals.close(conn, self._keyring, row, "withdrawn", by):
            request = await _request(conn, request_id)
            await self._note(conn, row, request.automation, by, Phase.OUTCOME, state="withdrawn")
            await self._lock(conn, row, request, self._status("withdrawn", names=[by], at=now()))

    async def withdraw_all(self, conn: AsyncConnection, principal_id: str, by: str) -> None:
        """Close what this person asked for and still waits: they have left."""
        table = schema.request
        mine = sa.and_(
            table.c.actor_id == principal_id,
            table.c.state == "awaiting-approval",
            table.c.asking["kind"].as_string() == approvals.KIND,
        )
        for request_id in (await conn.execute(sa.select(table.c.id).where(mine))).scalars().all():
            request = await _request(conn, request_id)
            if await update_request(
                conn, request_id, where=_WAITS, state="cancelled", reason=f"withdrawn by {by}", asking=None
            ):
                await self._note_request(conn, request_id, request.automation, by, "cancelled")
            await self.withdraw(conn, request_id, by)

    async def _end(
        self,
        conn: AsyncConnection,
        row: Any,
        request: Any,
        ending: Ending,
        by: str | None,
        *,
        reason: str = "",
        told: str = "over",
    ) -> None:
        if not await approvals.close(conn, self._keyring, row, ending, by, reason=reason):
            return
        state = "expired" if ending == "expired" else "refused"
        # The words of a person are kept sealed; the request says whose they were.
        why = {"refused": f"refused by {by}", "expired": "not approved in time"}.get(
            ending, "what it runs has changed since it was asked"
        )
        await update_request(conn, request.id, where=_WAITS, state=state, reason=why, asking=None)
        await self._note(conn, row, request.automation, by or "-", Phase.OUTCOME, state=ending)
        await self._note_request(conn, request.id, request.automation, request.actor or "-", state)
        key = "refused-why" if ending == "refused" and reason else ending
        status = self._status(key, names=[by] if by else [], at=now(), reason=reason)
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
    def _status(key: str, *, names: list[str], at: datetime, reason: str = "") -> Status:
        return lambda language, zone: say(
            key, language, names=_joined(names, language), at=clock(at, zone), reason=reason
        )

    def _over(self, row: Any, request: Any, voter: Voter) -> str:
        state = "expired" if row.state == "open" else row.state
        key = "granted-alone" if state == "granted" and row.alone else state
        at = clock(row.decided_at or row.expires_at, self.time_zone(voter.principal.time_zone))
        outcome = say(key, voter.language, names=row.decided_by or "-", at=at)
        return say("over", voter.language, command=request.automation, code=row.code, outcome=outcome)

    # -- before a start

    async def frozen(self, conn: AsyncConnection, spec: AutomationSpec, language: str) -> Frozen | None:
        """Why this is not started while somebody has locked it; None when nobody has."""
        one = await freezes.stopping(conn, self._keyring, spec)
        if one is None:
            return None
        until = clock(one.expires_at, self.time_zone(None)) if one.expires_at else ""
        key = "frozen-until" if until else "frozen"
        kept = say(key, language, command=spec.command, by=one.by, until=until)
        return Frozen(kept=kept, told=f"{kept} {one.reason}")

    async def missing(
        self, conn: AsyncConnection, row: Any, spec: AutomationSpec, values: Mapping[str, Any], language: str
    ) -> str | None:
        """Why this request's row must not be started for want of an approval; None when it may be.

        What was approved has to be what is started, by those who may still approve it, and for the first time.
        """
        terms = self.terms(spec, values)
        if terms is None:
            return None
        given = await approvals.of_request(conn, row.id)
        if given is None or given.state != "granted":
            return say("missing", language, command=spec.command)
        if not approvals.is_for(self._keyring, given, spec, values, row.actor_id):
            return say("changed", language, command=spec.command)
        if row.queued_at is None or row.queued_at > given.decided_at:
            return say("used", language, command=spec.command)
        able = await self.approvers.of(conn, spec, terms, excluded=() if given.alone else given.excluded)
        needed = 1 if given.alone else max(given.needed, terms.needed)
        if voices((await approvals.yeses(conn, given.id)).keys(), able) < needed:
            return say("lost-right", language, command=spec.command)
        return None

    # -- the audit

    async def _note_vote(
        self, conn: AsyncConnection, row: Any, request: Any, voter: Voter, *, granted: bool
    ) -> None:
        await self._audit.record(
            conn,
            action="approve" if granted else "refuse",
            actor=voter.principal.name,
            subject=f"request:{request.id}",
            details={"approval": row.id, "automation": request.automation},
        )

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


async def _request(conn: AsyncConnection, request_id: str) -> Any:
    table, who = schema.request, schema.principal
    query = (
        sa.select(table, who.c.name.label("actor"))
        .outerjoin(who, who.c.id == table.c.actor_id)
        .where(table.c.id == request_id)
    )
    return (await conn.execute(query)).one()


def _joined(some: list[str], language: str) -> str:
    return names(some, language)


__all__ = ["ApprovalDesk", "Asked", "Frozen", "Said", "Voter"]
