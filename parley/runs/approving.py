"""Approving: a request waits for the people who may let it run, and each word of theirs is counted once.

Whatever a word leads to (the vote, the end of the approval, the run that it releases, the cards that are locked, the
rows of the audit) is in the caller's transaction. So a hub that dies leaves all of it or nothing, and of two votes that
come at once one is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from parley.language.characters import visible
from parley.messages.model import Assurance, now
from parley.messages.outbox import Outbox
from parley.messages.watch import Watch
from parley.people import approvals, principals
from parley.people.approval_rules import Terms
from parley.people.approvals import NewApproval, Word
from parley.people.approvers import Approver, voices
from parley.people.audit import Audit, Phase
from parley.people.principals import Principal, Role
from parley.people.rights import Rights
from parley.people.sealing import Keyring
from parley.runs.approval_cards import Asked, Cards
from parley.runs.approval_ends import WAITS, request_of
from parley.runs.approval_leaving import ApprovalLeaving
from parley.runs.approval_texts import names, say, spoken
from parley.runs.catalogue import AutomationSpec, Catalogue, Lane
from parley.runs.requests import QueuedRun, insert_run, open_values, short, update_request
from parley.settings import File
from parley.store.engine import after_commit

LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """Who says yes or no. `typed`: in words, not with a button; `acting`: somebody speaks for them.

    `lent_by`: names by ids of those whose right the word uses, where it is none of their own.
    """

    principal: Principal
    assurance: Assurance
    language: str
    place: str | None
    typed: bool
    acting: bool = False
    lent_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def word(self) -> Word:
        """As it is told."""
        return Word(self.principal.name, tuple(sorted(self.lent_by.values())))


@dataclass(slots=True)
class Said:
    """What whoever voted is told (nothing: the card shows it), and the run that is released."""

    text: str = ""
    queued: list[QueuedRun] = field(default_factory=list)


class ApprovalDesk(ApprovalLeaving):
    """Opens approvals and counts words."""

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
        super().__init__(keyring, outbox, watch, audit, cards, file=file, catalogue=catalogue)
        self._rights = rights

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
                needed=asked.terms.needed,
                excluded=excluded,
                alone=alone,
                expires_at=now() + asked.terms.within,
            ),
        )
        await update_request(conn, asked.request_id, where=WAITS, expires_at=row.expires_at)
        await self._note(conn, row, asked.spec.command, actor.name, Phase.INTENT, state="asked")
        deliveries = await self._cards.show(conn, row, asked, able)
        after_commit(lambda: self._outbox.send(deliveries))
        return None

    async def _is_alone(self, conn: AsyncConnection, asked: Asked, actor: Principal) -> bool:
        # Nobody is there to look at what the owner asks for; the owner is asked twice. Not when it was not the owner,
        # and not where several are wanted: if one who is there is too few, nobody there is not enough.
        if actor.role is not Role.OWNER or asked.acting or asked.terms.needed > 1:
            return False
        return actor.id in await self.approvers.of(conn, asked.spec, asked.terms)

    async def _refuse_at_once(self, conn: AsyncConnection, asked: Asked, there: int) -> str:
        reason = say(
            "nobody", asked.language, command=asked.spec.command, needed=asked.terms.needed, there=there
        )
        if await update_request(
            conn, asked.request_id, where=WAITS, state="refused", reason=reason, asking=None
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
        request = await request_of(conn, row.request_id)
        if row.state != "open" or row.expires_at <= now() or request.state not in WAITS:
            return Said(await self._over(conn, row, request, voter.principal, voter.language))
        if voter.acting or voter.assurance is not Assurance.VERIFIED:
            return Said(say("unproven", voter.language))
        if (await approvals.of_request(conn, request.id)).id != row.id:
            await self._end(conn, row, request, "void", None)
            ended = await approvals.get(conn, row.id)
            return Said(await self._over(conn, ended, request, voter.principal, voter.language))
        spec, values = self._catalogue().find(request.automation), open_values(self._keyring, request)
        if spec is None or not approvals.is_for(self._keyring, row, spec, values, request.actor_id):
            await self._end(conn, row, request, "void", None, told="changed")
            return Said(say("changed", voter.language, command=request.automation))
        terms = self.terms(spec, values) or Terms()
        able = await self.approvers.of(conn, spec, terms, excluded=row.excluded)
        used = await self._used(conn, spec, terms, voter, able.get(voter.principal.id))
        denied = await self._may_not(conn, row, request, spec, terms, voter, able, used, granted=granted)
        if denied:
            return Said(denied)
        if voter.principal.id in able and not able[voter.principal.id].own:
            voter = replace(voter, lent_by=used)
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
        used: Mapping[str, str],
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
        # Which of several that were lent a vote uses shows only when all are counted: then each has to hold.
        if not (used if _needed(row, terms) == 1 else used.keys() == set(able[who.id].voices)):
            return say("may-not-any", language)  # a role approves, and not from here, or not now
        return None

    async def _used(
        self,
        conn: AsyncConnection,
        spec: AutomationSpec,
        terms: Terms,
        voter: Voter,
        approver: Approver | None,
    ) -> Mapping[str, str]:
        """Whose right a word of this voter may use here and now, their own or what was lent to them: names by ids."""
        found: dict[str, str] = {}
        for voice in approver.voices if approver else ():
            whose = voter.principal if voice == voter.principal.id else await principals.get(conn, voice)
            if self._holds(whose, spec, terms, voter):
                found[voice] = whose.name
        return found

    def _holds(self, whose: Principal, spec: AutomationSpec, terms: Terms, voter: Voter) -> bool:
        if whose.name in terms.people:
            return True
        if terms.roles or terms.people:
            return self._rights.holds(whose, terms.roles, spec.command, place=voter.place)
        return self._rights.may_approve(whose, spec.command, place=voter.place)

    async def _no(self, conn: AsyncConnection, row: Any, request: Any, voter: Voter, reason: str) -> Said:
        await approvals.vote(conn, row.id, voter.principal.id, granted=False, lent_by=voter.lent_by)
        await self._note_vote(conn, row, request, voter, granted=False)
        await self._end(conn, row, request, "refused", voter.word, reason=reason)
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
        if not await approvals.vote(conn, row.id, voter.principal.id, granted=True, lent_by=voter.lent_by):
            return Said(say("counted-before", voter.language, code=row.code))
        await self._note_vote(conn, row, request, voter, granted=True)
        yeses = await approvals.words(conn, row.id)
        needed = _needed(row, terms)
        count = 1 if row.alone and not able else voices(yeses.keys(), able)
        if count >= needed:
            return await self._release(conn, row, request, spec, values, voter)
        said = [one for id_, one in yeses.items() if id_ in able]

        def status(language: str, _zone: str) -> str:
            shown = names((spoken(one, language) for one in said), language)
            return say("progress", language, count=count, needed=needed, names=shown)

        deliveries = await self._cards.progress(conn, row, status)
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
        yeses = (await approvals.words(conn, row.id)).values()
        at, by = now(), ", ".join(spoken(one, "en") for one in yeses)
        await approvals.close(conn, self._keyring, row, "granted", by, at=at)
        released = await update_request(
            conn,
            request.id,
            where=WAITS,
            state="queued",
            queued_at=at,
            asking=None,
            expires_at=at + timedelta(seconds=self._file().limits.message_age),
        )
        if not released:
            raise RuntimeError("a request that waits was not there any more.")  # within one transaction it is
        run_id = await insert_run(conn, request.id)
        more = {"run": run_id, "by": by} | ({"no_second_person": True} if row.alone else {})
        await self._note(
            conn, row, spec.command, voter.principal.name, Phase.OUTCOME, state="granted", **more
        )
        key = "granted-alone" if row.alone else "granted"
        await self._lock(conn, row, request, self._status(key, words=yeses, at=at))
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

    async def _note_vote(
        self, conn: AsyncConnection, row: Any, request: Any, voter: Voter, *, granted: bool
    ) -> None:
        lenders = ", ".join(voter.word.lent_by)
        await self._audit.record(
            conn,
            action="approve" if granted else "refuse",
            actor=voter.principal.name,
            subject=f"request:{request.id}",
            details={"approval": row.id, "automation": request.automation}
            | ({"for": lenders} if lenders else {}),
        )


def _needed(row: Any, terms: Terms) -> int:
    return max(int(row.needed), terms.needed)  # as the rule is now, if it wants more than when it was asked


__all__ = ["ApprovalDesk", "Asked", "Said", "Voter"]
